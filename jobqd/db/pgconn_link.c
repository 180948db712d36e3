/* pgconn_link.c: a connection's states, its timer, the loss of it, and what becomes of the
 * batches then. */
#include "jobqd/db/pgconn_private.h"

#include <assert.h>

#include "jobqd/base/log.h"
#include "jobqd/base/refusal.h"
#include "libjobq/error.h"

enum { FIRST_DELAY_MS = 100, MAX_DELAY_MS = 5000, QUICK_DELAY_MS = 20 };
enum { STABLE_MS = 5000 }; /* up for so long: the next loss is a first one */
enum { N_STATES = PGCONN_CLOSED + 1 };

static const char *const state_names[N_STATES] = {
#define X(name, meaning) [name] = #name,
    PGCONN_STATES(X)
#undef X
};

static const char *const state_meanings[N_STATES] = {
#define X(name, meaning) [name] = meaning,
    PGCONN_STATES(X)
#undef X
};

static bool
is_legal(enum pgconn_state from, enum pgconn_state to)
{
    switch (to) {
    case PGCONN_AWAY: /* also from itself: a try that failed at once */
        return from < PGCONN_CLOSING;
    case PGCONN_RESOLVING:
        return from == PGCONN_AWAY;
    case PGCONN_CONNECTING:
        return from == PGCONN_RESOLVING;
    case PGCONN_SETTING_UP:
        return from == PGCONN_CONNECTING;
    case PGCONN_READY:
        return from == PGCONN_SETTING_UP;
    case PGCONN_CLOSING:
        return from < PGCONN_CLOSING;
    case PGCONN_CLOSED:
        return from == PGCONN_CLOSING;
    }
    return false;
}

void
pgconn_set_state(struct pgconn *conn, enum pgconn_state state)
{
    bool legal = is_legal(conn->state, state);
    assert(legal);
    (void)legal;
    conn->state = state;
    log_debug(conn->subject, "%s: waits for %s", state_names[state],
              state_meanings[state]);
}

/* xorshift: jitter needs no better. */
static uint32_t
next_random(struct pgconn *conn)
{
    conn->random ^= conn->random << 13;
    conn->random ^= conn->random >> 17;
    conn->random ^= conn->random << 5;
    return conn->random;
}

void
pgconn_start_timer(struct pgconn *conn, uint64_t after_ms)
{
    uv_timer_start(&conn->timer, conn->on_timer, after_ms, 0);
}

/* An idle handle, for a timer of 0 ms that is started again and again from its own
 * callback never lets the loop come to its sockets. */
void
pgconn_wake(struct pgconn *conn)
{
    uv_idle_start(&conn->soon, conn->on_soon);
}

/* Whether the owner has said something in a callback that comes before all else. */
bool
pgconn_interrupted(const struct pgconn *conn)
{
    return conn->state != PGCONN_READY || conn->reset_wanted || conn->send_failed ||
           conn->wanted == WANT_CLOSED;
}

/* The server's goodbye tells more than libpq's "closed unexpectedly". */
void
pgconn_lose_pg(struct pgconn *conn)
{
    jobq_error why = conn->last_words;
    if (why.code == 0)
        refusal_read(PQerrorMessage(conn->pg), &why);
    pgconn_lose(conn, &why);
}

void
pgconn_lose_because(struct pgconn *conn, const char *text)
{
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "%s", text);
    pgconn_lose(conn, &why);
}

bool
pgconn_arm(struct pgconn *conn, int events)
{
    int fd = PQsocket(conn->pg);
    int rc = fd < 0 ? UV_EBADF : pgwatch_arm(&conn->watch, fd, events);
    if (rc == 0)
        return true;
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "cannot watch the connection's socket: %s",
                uv_strerror(rc));
    pgconn_lose(conn, &why);
    return false;
}

void
pgconn_complete(struct pgbatch *batch, const struct pgconn_outcome *outcome)
{
    batch->done(batch->data, outcome);
    pgbatch_free(batch);
}

static void
complete_lost(struct pgbatch *batch, const jobq_error *why)
{
    struct pgconn_outcome outcome = {
        .code = JOBQ_ECONN, .sent = batch->sent, .error = *why};
    outcome.error.code = JOBQ_ECONN;
    pgconn_complete(batch, &outcome);
}

void
pgconn_complete_all_lost(struct pgconn *conn, const jobq_error *why)
{
    struct pgbatch *batch;
    while ((batch = pgqueue_pop(&conn->queue)))
        complete_lost(batch, why);
}

/* Only those that are there now: the owner may queue the next one from inside. */
void
pgconn_complete_refused(struct pgconn *conn)
{
    struct list refused;
    struct list *link;
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "not connected to the database");
    list_init(&refused);
    while ((link = list_pop(&conn->refused)))
        list_push(&refused, link);
    while ((link = list_pop(&refused)))
        complete_lost(list_entry(link, struct pgbatch, link), &why);
}

static uint64_t
next_delay(struct pgconn *conn)
{
    if (conn->state == PGCONN_READY &&
        uv_now(conn->loop) - conn->ready_at_ms >= STABLE_MS)
        conn->failures = 0;
    unsigned nth = conn->failures;
    if (conn->failures < 16)
        conn->failures++;
    if (nth == 0)
        return next_random(conn) % QUICK_DELAY_MS;
    uint32_t most = MAX_DELAY_MS;
    if (conn->options.most_delay_ms > 0 && conn->options.most_delay_ms < MAX_DELAY_MS)
        most = (uint32_t)conn->options.most_delay_ms;
    uint32_t delay = nth < 8 ? (uint32_t)FIRST_DELAY_MS << (nth - 1) : most;
    if (delay > most)
        delay = most;
    return delay / 2 + next_random(conn) % (delay / 2 + 1);
}

/* Lets go of the socket first: libpq closes it, and its number may be another's next. */
void
pgconn_drop(struct pgconn *conn)
{
    uv_timer_stop(&conn->timer);
    pgroute_abandon(conn->route);
    pgwatch_stop(&conn->watch);
    pgqueue_detach(&conn->queue);
    PQfinish(conn->pg);
    conn->pg = NULL;
    conn->pooled = false;
    conn->send_failed = false;
}

void
pgconn_lose(struct pgconn *conn, const jobq_error *why)
{
    jobq_error reason = *why; /* it may lie in what is dropped */
    uint64_t delay = next_delay(conn);
    pgconn_drop(conn);
    pgconn_set_state(conn, PGCONN_AWAY);
    pgconn_start_timer(conn, delay);
    pgconn_complete_all_lost(conn, &reason);
    if (conn->wanted == WANT_OPEN && conn->options.on_lost)
        conn->options.on_lost(conn->options.owner, &reason);
}
