/* pgconn.h: one asynchronous, pipelined connection to Postgres. A state machine with two
 * FIFOs; knows no jobs.
 *
 * A batch is a list of statements that run in one implicit transaction (ended by one
 * pipeline sync). Batches are sent in the order in which they were queued, without
 * waiting for each other's results. Each batch completes exactly once: with its results,
 * with the database's error, or with JOBQ_ECONN when the connection was lost (then it is
 * unknown whether it was committed, unless it was never sent: see `sent`).
 *
 * The connection reconnects by itself, with capped and jittered exponential back-off,
 * until it is closed. A batch queued while it is away fails at once with JOBQ_ECONN.
 */
#ifndef JOBQD_PGCONN_H
#define JOBQD_PGCONN_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* X(enumerator, what we are waiting for) */
#define PGCONN_STATES(X)                                                                 \
    X(PGCONN_AWAY, "the pause before the next try to end")                               \
    X(PGCONN_RESOLVING, "the addresses of the hosts")                                    \
    X(PGCONN_CONNECTING, "the server to accept the connection")                          \
    X(PGCONN_SETTING_UP, "the session's set-up statements")                              \
    X(PGCONN_READY, "something to send or to receive")                                   \
    X(PGCONN_CLOSING, "the handles to close")                                            \
    X(PGCONN_CLOSED, "nothing")

enum pgconn_state {
#define X(name, meaning) name,
    PGCONN_STATES(X)
#undef X
};

struct pgconn;

/* A statement with its parameters, as PQexecParams takes them. */
struct pgconn_statement {
    const char *name; /* unique to this text on this connection; prepared on first use.
                         Ignored (the text is sent each time, unnamed) when a pooler
                         stands between: pgconn_pooled */
    const char *sql;
    int n_params;     /* at most PGCONN_MAX_PARAMS */
    const Oid *types; /* n_params of them */
    const char *const *values;
    const int *lengths;
    const int *formats;
    bool binary_result;
};

#define PGCONN_MAX_PARAMS 16

/* A warning of our own SQL functions that an operator should read: it is logged. */
#define PGCONN_WARNING "01JQ1"

/* The outcome of a batch, lent for the call. On success code is 0 and results[i] is
 * statement i's PGresult (PGRES_TUPLES_OK or PGRES_COMMAND_OK). Otherwise results is NULL
 * and error says why. */
struct pgconn_outcome {
    int code;  /* 0, JOBQ_ECONN, JOBQ_EDB (error.sqlstate is set), JOBQ_ENOMEM */
    bool sent; /* with JOBQ_ECONN: false when it is certain that nothing was done */
    PGresult *const *results;
    size_t n_results;
    size_t failed_at; /* with JOBQ_EDB: which statement it was; behind the last one: the
                         commit */
    jobq_error error;
};

typedef void (*pgconn_done)(void *data, const struct pgconn_outcome *outcome);

struct pgconn_options {
    const char *conninfo;    /* libpq's; NULL: the environment alone. Lent for pgconn_new
                                alone, as all strings here. connect_timeout counts here too,
                                for each host, default 10 s. target_session_attrs is
                                read-write, not any, unless it names a sort of server */
    const char *name;        /* for log lines and application_name: "work", "listen",
                                "control" */
    const char *setup;       /* SQL run once a connection, behind session_setup.sql and
                                before anything else (simple protocol, may hold several
                                statements); NULL: none. Skipped behind a pooler */
    const char *batch_setup; /* behind a pooler instead: more columns of the SELECT that
                                is each batch's first statement, transaction_setup,
                                "pg_catalog.set_config('jit', 'off', true)". They are
                                looked up on a search_path that is not ours; NULL: none */
    int64_t dead_after_ms;   /* a batch under way and no answer for so long means that the
                                connection is dead (the database or the network hangs): it
                                is dropped and rebuilt; 0: never */
    bool keeps_dead;         /* test seam: it is not dropped, as by a fault of ours */
    int64_t most_delay_ms;   /* the longest pause between two tries to connect; 0: 5 s */
    void (*on_ready)(
        void *owner); /* connected and set up; called again after each reconnect */
    void (*on_lost)(void *owner, const jobq_error *why); /* after every queued batch was
                                completed; also once for each failed try to connect */
    void (*on_notify)(void *owner, const char *channel, const char *payload);
    void *owner;
};

/* Starts to connect. Returns 0 or a negative JOBQ_E…; a database that is away is not an
 * error. JOBQ_EINVAL: libpq cannot read the connection string; the log says why. */
int pgconn_new(struct pgconn **out, uv_loop_t *loop,
               const struct pgconn_options *options);

/* Queues a batch. Everything that statements point to is copied before it returns. done
 * is never called from inside pgconn_batch itself. Returns 0, or JOBQ_ENOMEM, or
 * JOBQ_ECONN after pgconn_close (then done is not called). */
int pgconn_batch(struct pgconn *conn, const struct pgconn_statement *statements, size_t n,
                 pgconn_done done, void *data);

enum pgconn_state pgconn_state(const struct pgconn *conn);
bool pgconn_pooled(const struct pgconn *conn); /* the server's pid is not the one that the
                                                  connection was told */
int pgconn_server_version(const struct pgconn *conn); /* 150020; 0 while away */

/* Something says that the road to the server may be dead. Until the next answer a ready
 * connection is believed for patience_ms alone, if that is less than dead_after_ms. */
void pgconn_doubt(struct pgconn *conn, int64_t patience_ms);

/* Something is under way on it, or waits for its outcome. */
bool pgconn_works(const struct pgconn *conn);
/* For how long a ready connection should have been dropped already, since nothing under
 * way was answered in time; 0: it should not. More than a moment is a fault of ours. */
int64_t pgconn_overdue_ms(const struct pgconn *conn);

/* Drops the connection and connects anew, at once. For tests and for a conninfo that has
 * changed. */
void pgconn_reset(struct pgconn *conn);

/* Completes what is queued with JOBQ_ECONN, closes, frees itself; on_closed (may be NULL)
 * is the last thing heard of it, and only what completes batches comes before. flush:
 * first wait until what is queued has completed (up to dead_after_ms; 10 s if that is 0).
 * May be called again without flush, to stop waiting. */
void pgconn_close(struct pgconn *conn, bool flush, void (*on_closed)(void *owner));

#endif
