/* pgconn_traffic.c: what goes over a ready connection, and when it is held for dead. */
#include "jobqd/db/pgconn_private.h"

#include <string.h>

#include "jobqd/base/log.h"
#include "libjobq/duration.h"
#include "libjobq/error.h"

/* How long a batch may wait for an answer; 0: for ever. */
static uint64_t
patience(const struct pgconn *conn)
{
    uint64_t dead_after = (uint64_t)conn->options.dead_after_ms;
    if (conn->patience_ms > 0 && (dead_after == 0 || conn->patience_ms < dead_after))
        return conn->patience_ms;
    return dead_after;
}

/* When a batch under way, unanswered, means that the connection is dead; UINT64_MAX:
 * there is none, or never. */
uint64_t
pgconn_dead_at_ms(const struct pgconn *conn)
{
    uint64_t most_ms = patience(conn);
    const struct pgbatch *head = pgqueue_head(&conn->queue);
    if (!head || most_ms == 0)
        return UINT64_MAX;
    uint64_t since =
        head->sent_at_ms > conn->answered_at_ms ? head->sent_at_ms : conn->answered_at_ms;
    return since + most_ms;
}

void
pgconn_set_watchdog(struct pgconn *conn)
{
    uint64_t now = uv_now(conn->loop);
    uint64_t deadline = pgconn_dead_at_ms(conn);
    if (conn->wanted == WANT_FLUSHED && conn->flush_until_ms < deadline)
        deadline = conn->flush_until_ms;
    if (deadline == UINT64_MAX)
        uv_timer_stop(&conn->timer);
    else
        pgconn_start_timer(conn, deadline > now ? deadline - now : 0);
}

/* Completes every batch whose results are here. False: the connection is of no use any
 * more. */
static bool
drain(struct pgconn *conn, jobq_error *why)
{
    uint64_t taken = conn->queue.taken;
    while (!pgconn_interrupted(conn)) {
        struct pgbatch *batch;
        struct pgconn_outcome outcome;
        enum pgqueue_found found = pgqueue_take(&conn->queue, &batch, &outcome, why);
        if (conn->queue.taken != taken) {
            conn->answered_at_ms = uv_now(conn->loop);
            conn->patience_ms = 0;
        }
        if (found == PGQUEUE_NOTHING)
            return true;
        if (found == PGQUEUE_LOST)
            return false;
        if (outcome.code == 0)
            conn->failures = 0; /* the connection has proved good */
        pgconn_complete(batch, &outcome);
    }
    return true;
}

static void
deliver_notifies(struct pgconn *conn)
{
    PGnotify *notify;
    while (!pgconn_interrupted(conn) && (notify = PQnotifies(conn->pg))) {
        if (conn->options.on_notify)
            conn->options.on_notify(conn->options.owner, notify->relname, notify->extra);
        PQfreemem(notify);
    }
}

/* Reads what has come. With TLS one call may leave the rest of a record (16 KB) behind in
 * the TLS library, where the socket does not turn readable for it: libpq makes room for 8
 * KB at a time, and cannot be asked whether there is more. */
bool
pgconn_consume(struct pgconn *conn)
{
    int calls = PQsslInUse(conn->pg) ? 4 : 1;
    bool alive = true;
    for (int i = 0; i < calls && alive; i++)
        alive = PQconsumeInput(conn->pg);
    return alive;
}

/* Of several accounts of a loss the server's own; then what libpq said first, because the
 * calls behind that one only find the socket closed. */
static const jobq_error *
best_reason(const struct pgconn *conn, const jobq_error *why, const jobq_error *end)
{
    if (why->sqlstate[0] != '\0')
        return why;
    if (conn->last_words.code != 0)
        return &conn->last_words;
    return end->code != 0 ? end : why;
}

/* The one event function of a ready connection: pgconn_consume, drain, notifies, flush, arm. A
 * flush that finds the socket full reads from it (so that two full pipes do not wait for
 * each other): what it read must be drained before arming, for nothing would wake us. The
 * same goes for the results that libpq makes up behind an error. */
void
pgconn_pump(struct pgconn *conn, bool readable)
{
    jobq_error end = {0}; /* libpq's word on it, code 0: none */
    jobq_error why;
    int flushed = 1;
    if (readable && !pgconn_consume(conn))
        jobq__error(&end, JOBQ_ECONN, "%s", PQerrorMessage(conn->pg));
    for (int pass = 0; pass < 2 && flushed == 1; pass++) {
        if (!drain(conn, &why)) {
            pgconn_lose(conn, best_reason(conn, &why, &end));
            return;
        }
        deliver_notifies(conn);
        if (pgconn_interrupted(conn))
            return; /* step() goes on from here */
        flushed = end.code == 0 ? PQflush(conn->pg) : -1;
    }
    if (end.code != 0)
        pgconn_lose(conn, best_reason(conn, &end, &end));
    else if (flushed < 0)
        pgconn_lose_pg(conn);
    else
        pgconn_arm(conn, flushed > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

/* The timer of a ready connection. We may have been stopped ourselves, so that the
 * answers wait in the socket: look before judging. */
void
pgconn_check_alive(struct pgconn *conn)
{
    if (conn->options.keeps_dead)
        return;
    pgconn_pump(conn, true);
    if (pgconn_interrupted(conn))
        return;
    uint64_t now = uv_now(conn->loop);
    const struct pgbatch *head = pgqueue_head(&conn->queue);
    uint64_t dead_after = patience(conn);
    if (conn->wanted == WANT_FLUSHED && now >= conn->flush_until_ms) {
        conn->wanted = WANT_CLOSED;
    } else if (head && dead_after > 0 && now >= head->sent_at_ms + dead_after &&
               now >= conn->answered_at_ms + dead_after) {
        jobq_error why;
        jobq__error(&why, JOBQ_ECONN, "no answer from the database for %s",
                    jobq__duration_show((int64_t)dead_after).text);
        pgconn_lose(conn, &why);
    } else {
        pgconn_set_watchdog(conn);
    }
}
