/* pgconn_private.h: what the files of a connection share. Not for anybody else.
 *
 * From the bottom: pgconn_link.c: its states, the loss of it; pgconn_traffic.c: a ready
 * connection; pgconn_setup.c: how it comes up; pgconn.c: events, and its public face.
 */
#ifndef JOBQD_PGCONN_PRIVATE_H
#define JOBQD_PGCONN_PRIVATE_H

#include "jobqd/db/pgconn.h"
#include "jobqd/db/pgqueue.h"
#include "jobqd/db/pgroute.h"
#include "jobqd/db/pgwatch.h"
#include "jobqd/pure/list.h"

/* A warning that was logged, by its text. */
struct warning {
    uint64_t hash;
    uint64_t at_ms;
};

enum { WARNINGS = 16 };

enum wanted {
    WANT_OPEN,
    WANT_FLUSHED, /* closed, once everything under way has been answered */
    WANT_CLOSED
};

enum setup_stage {
    SETUP_PID, /* the pid of the server process, to tell a pooler */
    SETUP_SQL  /* what every session has, and the owner's statements */
};

struct pgconn {
    uv_loop_t *loop;
    /* pgconn.c's, for the files below it. */
    uv_timer_cb on_timer;
    uv_idle_cb on_soon;
    void (*on_found)(void *owner);
    struct pgconn_options
        options; /* its strings are copies; conninfo and name are NULL; setup and
                    batch_setup are whole, with what every session has */
    char subject[64];
    enum pgconn_state state;
    enum wanted wanted;
    bool reset_wanted;
    /* libpq refused a batch half-way: the connection is to be dropped */
    bool send_failed;
    PGconn *pg; /* NULL while away */
    struct pgroute *route;
    struct pgwatch watch;
    char trying[320]; /* the host that libpq is at */
    enum setup_stage setup_stage;
    bool pooled;
    struct pgqueue queue;
    struct list refused; /* queued while away: to be completed from the loop */
    jobq_error
        last_words; /* the server's, before it closed the connection; code 0: none */
    struct warning warnings[WARNINGS];
    uint64_t ready_at_ms;
    uint64_t answered_at_ms; /* the last result */
    uint64_t patience_ms;    /* until the next result: for so long we wait for it, at
                                most; 0: no doubt, dead_after_ms counts */
    uint64_t flush_until_ms;
    unsigned failures; /* since the connection last proved good */
    uint32_t random;
    uv_timer_t timer; /* the one thing that the state waits for besides the socket */
    uv_idle_t soon;   /* runs step from the loop, without starving the socket */
    int open_handles;
    void (*on_closed)(void *owner);
};

/* ---- pgconn_link.c ---- */

void pgconn_set_state(struct pgconn *conn, enum pgconn_state state);
void pgconn_start_timer(struct pgconn *conn, uint64_t after_ms);
/* An idle handle, for a timer of 0 ms that is started again and again from its own
 * callback never lets the loop come to its sockets. */
void pgconn_wake(struct pgconn *conn);
/* Whether the owner has said something in a callback that comes before all else. */
bool pgconn_interrupted(const struct pgconn *conn);
/* The server's goodbye tells more than libpq's "closed unexpectedly". */
void pgconn_lose_pg(struct pgconn *conn);
void pgconn_lose_because(struct pgconn *conn, const char *text);
bool pgconn_arm(struct pgconn *conn, int events);
void pgconn_complete(struct pgbatch *batch, const struct pgconn_outcome *outcome);
void pgconn_complete_all_lost(struct pgconn *conn, const jobq_error *why);
/* Only those that are there now: the owner may queue the next one from inside. */
void pgconn_complete_refused(struct pgconn *conn);
/* Lets go of the socket first: libpq closes it, and its number may be another's next. */
void pgconn_drop(struct pgconn *conn);
void pgconn_lose(struct pgconn *conn, const jobq_error *why);

/* ---- pgconn_traffic.c ---- */

/* When a batch under way, unanswered, means that the connection is dead; UINT64_MAX:
 * there is none, or never. */
uint64_t pgconn_dead_at_ms(const struct pgconn *conn);
void pgconn_set_watchdog(struct pgconn *conn);
/* Reads what has come. With TLS one call may leave the rest of a record (16 KB) behind in
 * the TLS library, where the socket does not turn readable for it: libpq makes room for 8
 * KB at a time, and cannot be asked whether there is more. */
bool pgconn_consume(struct pgconn *conn);
/* The one event function of a ready connection: pgconn_consume, drain, notifies, flush, arm. A
 * flush that finds the socket full reads from it (so that two full pipes do not wait for
 * each other): what it read must be drained before arming, for nothing would wake us. The
 * same goes for the results that libpq makes up behind an error. */
void pgconn_pump(struct pgconn *conn, bool readable);
/* The timer of a ready connection. We may have been stopped ourselves, so that the
 * answers wait in the socket: look before judging. */
void pgconn_check_alive(struct pgconn *conn);

/* ---- pgconn_setup.c ---- */

void pgconn_advance_setup(struct pgconn *conn, bool readable);
/* libpq may close its socket and open another one inside: nothing may watch it then. And
 * it must not be called before the socket is ready, for it would take that for success.
 */
void pgconn_advance_connecting(struct pgconn *conn);
void pgconn_connect_now(struct pgconn *conn);
void pgconn_begin(struct pgconn *conn);
void pgconn_time_out_try(struct pgconn *conn);

#endif
