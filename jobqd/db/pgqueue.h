/* pgqueue.h: the batches that are under way on one pipelined connection: writes them to
 * libpq, and tells from the stream of results what became of each, in order.
 *
 * It makes no callbacks, waits for nothing and does not reconnect: that is pgconn's. A
 * batch is written to libpq's own buffer when it is sent, so nothing is copied twice.
 *
 * On the wire a batch is its statements and a sync, which makes them one transaction.
 * Statements whose names are new on this connection are prepared just ahead of it, behind
 * a sync of their own: so a batch that fails takes no prepared statement with it.
 */
#ifndef JOBQD_PGQUEUE_H
#define JOBQD_PGQUEUE_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/db/pgconn.h"
#include "jobqd/pure/list.h"

struct pgname; /* a statement's name, and whether this connection knows it */

struct pgbatch {
    struct list link;
    pgconn_done done;
    void *data;
    uint64_t sent_at_ms; /* the sender's clock */
    bool sent;           /* its sync was given to libpq: it may have been done */
    bool preparing;      /* the results of its prepares are still to come */
    bool doubtful;       /* sent before a prepare that it may rely on was seen to fail */
    size_t n_prepares;
    size_t n_statements;   /* with the batch set-up */
    size_t n_extra;        /* 1 when the first one is the batch set-up */
    size_t got;            /* results so far, of the prepares or of the statements */
    PGresult *failure;     /* the first error, NULL: none */
    size_t failed_at;      /* which result it was; n_statements: the commit's */
    PGresult **results;    /* n_statements */
    struct pgname **names; /* n_prepares */
};

struct pgqueue {
    PGconn *pg;              /* NULL while away; lent */
    bool pooled;             /* no prepared statements; set-up goes with each batch */
    const char *batch_setup; /* NULL: none; lent */
    struct list awaiting;    /* sent, in order */
    struct pgname *names;
    uint64_t taken; /* results so far: the connection lives as long as this grows */
};

void pgqueue_init(struct pgqueue *queue);
void pgqueue_clear(struct pgqueue *queue); /* it must be empty and detached */

/* A new connection, in pipeline mode and nonblocking. */
void pgqueue_attach(struct pgqueue *queue, PGconn *pg, bool pooled,
                    const char *batch_setup);
/* The connection is no more. What was under way stays in the queue: pgqueue_pop. */
void pgqueue_detach(struct pgqueue *queue);

bool pgqueue_empty(const struct pgqueue *queue);
struct pgbatch *pgqueue_head(const struct pgqueue *queue);

/* Returns NULL if memory ran out. Not in any queue. */
struct pgbatch *pgbatch_new(size_t n_statements, pgconn_done done, void *data);
void pgbatch_free(struct pgbatch *batch);

/* Writes the batch, which is the queue's from then on. False: libpq refused it; the batch
 * is in the queue all the same, with `sent` as it is, and the connection is to be
 * dropped. */
bool pgqueue_send(struct pgqueue *queue, struct pgbatch *batch,
                  const struct pgconn_statement *statements);

/* Takes off the oldest batch as it is, for a connection that was lost. */
struct pgbatch *pgqueue_pop(struct pgqueue *queue);

enum pgqueue_found {
    PGQUEUE_NOTHING, /* the rest is still on its way */
    PGQUEUE_BATCH,   /* *out is complete and the caller's; outcome is what became of it */
    PGQUEUE_LOST     /* the connection is of no use any more; why says why */
};

/* Takes results, without blocking, until a batch is complete. */
enum pgqueue_found pgqueue_take(struct pgqueue *queue, struct pgbatch **out,
                                struct pgconn_outcome *outcome, jobq_error *why);

#endif
