/* pgconn.c: the life of one connection: away, connecting, set up, ready, closed; see
 * pgconn.h. What goes over a ready connection is pgqueue's, where to connect is
 * pgroute's, the socket is pgwatch's.
 *
 * Callbacks to the owner are made from the loop alone. So functions that the owner calls
 * only write down what is wanted (and a batch to libpq's buffer), and step() compares
 * what is wanted with what is, after every event. The owner may therefore call anything
 * from inside a callback; and the memory outlives the callbacks, because it goes in the
 * handles' close callbacks.
 */
#include "jobqd/db/pgconn_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/duration.h"

extern const char sql_session_setup[], sql_transaction_setup[];

enum { FLUSH_MS = 10000 };

static void on_timer(uv_timer_t *timer);
static void on_soon(uv_idle_t *soon);

static void step(struct pgconn *conn);

static void
on_found(void *owner)
{
    struct pgconn *conn = owner;
    pgconn_connect_now(conn);
    step(conn);
}

static void
free_conn(struct pgconn *conn)
{
    union { /* strdup'ed by us, const for those who read them */
        const char *lent;
        char *ours;
    } text;
    text.lent = conn->options.setup;
    free(text.ours);
    text.lent = conn->options.batch_setup;
    free(text.ours);
    pgqueue_clear(&conn->queue);
    pgroute_free(conn->route);
    free(conn);
}

static void
on_handle_closed(uv_handle_t *handle)
{
    struct pgconn *conn = handle->data;
    if (--conn->open_handles > 0)
        return;
    pgconn_set_state(conn, PGCONN_CLOSED);
    void (*on_closed)(void *) = conn->on_closed;
    void *owner = conn->options.owner;
    free_conn(conn);
    if (on_closed)
        on_closed(owner);
}

static void
shut(struct pgconn *conn)
{
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "the connection was closed");
    pgconn_drop(conn);
    pgconn_set_state(conn, PGCONN_CLOSING);
    pgconn_complete_all_lost(conn, &why);
    pgconn_complete_refused(conn);
    uv_close((uv_handle_t *)&conn->timer, on_handle_closed);
    uv_close((uv_handle_t *)&conn->soon, on_handle_closed);
}

/* Moves what is towards what is wanted; at the end of every event. */
static void
step(struct pgconn *conn)
{
    for (;;) {
        if (conn->state >= PGCONN_CLOSING)
            return;
        if (conn->wanted == WANT_CLOSED ||
            (conn->wanted == WANT_FLUSHED &&
             (conn->state != PGCONN_READY || pgqueue_empty(&conn->queue)))) {
            shut(conn);
        } else if (conn->send_failed) {
            pgconn_lose_pg(conn);
        } else if (conn->reset_wanted) {
            conn->reset_wanted = false;
            if (conn->state == PGCONN_READY) {
                pgconn_lose_because(conn, "the connection was reset");
            } else if (conn->state != PGCONN_AWAY) {
                pgconn_drop(conn);
                pgconn_set_state(conn, PGCONN_AWAY);
            }
            pgconn_start_timer(conn, 0);
        } else {
            return;
        }
    }
}

static void
on_socket(void *owner, int events)
{
    struct pgconn *conn = owner;
    if (conn->state == PGCONN_CONNECTING)
        pgconn_advance_connecting(conn);
    else if (conn->state == PGCONN_SETTING_UP)
        pgconn_advance_setup(conn, events & UV_READABLE);
    else if (conn->state == PGCONN_READY)
        pgconn_pump(conn, events & UV_READABLE);
    step(conn);
}

static void
on_timer(uv_timer_t *timer)
{
    struct pgconn *conn = timer->data;
    switch (conn->state) {
    case PGCONN_AWAY:
        pgconn_begin(conn);
        break;
    case PGCONN_RESOLVING:
    case PGCONN_CONNECTING:
        pgconn_time_out_try(conn);
        break;
    case PGCONN_SETTING_UP:
        pgconn_lose_because(conn,
                            "the database did not finish setting up the session in time");
        break;
    case PGCONN_READY:
        pgconn_check_alive(conn);
        break;
    case PGCONN_CLOSING:
    case PGCONN_CLOSED:
        break;
    }
    step(conn);
}

static void
on_soon(uv_idle_t *soon)
{
    struct pgconn *conn = soon->data;
    uv_idle_stop(soon);
    if (!pgconn_interrupted(conn))
        pgconn_pump(conn, false);
    step(conn); /* completes what was under way, which was queued before */
    if (conn->state < PGCONN_CLOSING) {
        pgconn_complete_refused(conn);
        step(conn);
    }
}

/* ---- what the owner calls ---- */

/* Both texts, the second one (NULL: none) behind the separator; NULL: no memory. */
static char *
join(const char *first, const char *separator, const char *second)
{
    struct jobq__buf out = {0};
    jobq__buf_adds(&out, first);
    if (second) {
        jobq__buf_adds(&out, separator);
        jobq__buf_adds(&out, second);
    }
    if (jobq__buf_cstr(&out))
        return out.data;
    jobq__buf_clear(&out);
    return NULL;
}

static int
copy_options(struct pgconn *conn, const struct pgconn_options *options)
{
    conn->options = *options;
    conn->options.conninfo = NULL;
    conn->options.name = NULL;
    conn->options.setup = join(sql_session_setup, "; ", options->setup);
    conn->options.batch_setup = join(sql_transaction_setup, ", ", options->batch_setup);
    return conn->options.setup && conn->options.batch_setup ? 0 : JOBQ_ENOMEM;
}

int
pgconn_new(struct pgconn **out, uv_loop_t *loop, const struct pgconn_options *options)
{
    char application[64]; /* Postgres takes 63 bytes */
    jobq_error err;
    struct pgconn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return JOBQ_ENOMEM;
    conn->loop = loop;
    conn->on_timer = on_timer;
    conn->on_soon = on_soon;
    conn->on_found = on_found;
    conn->state = PGCONN_AWAY;
    snprintf(conn->subject, sizeof conn->subject, "database %s", options->name);
    snprintf(application, sizeof application, "jobqd %s", options->name);
    pgqueue_init(&conn->queue);
    list_init(&conn->refused);
    pgwatch_init(&conn->watch, loop, on_socket, conn);
    conn->random = (uint32_t)(clock_ns() ^ (uint64_t)uv_os_getpid() << 12) | 1;
    int rc = copy_options(conn, options);
    if (rc == 0)
        rc = pgroute_new(&conn->route, loop, options->conninfo, application, &err);
    if (rc < 0) {
        if (rc == JOBQ_EINVAL)
            log_error(conn->subject, "%s", err.message);
        free_conn(conn);
        return rc;
    }
    uv_timer_init(loop, &conn->timer); /* neither can fail */
    uv_idle_init(loop, &conn->soon);
    conn->timer.data = conn;
    conn->soon.data = conn;
    conn->open_handles = 2;
    pgconn_start_timer(conn, 0);
    *out = conn;
    return 0;
}

int
pgconn_batch(struct pgconn *conn, const struct pgconn_statement *statements, size_t n,
             pgconn_done done, void *data)
{
    for (size_t i = 0; i < n; i++)
        assert(statements[i].n_params >= 0 &&
               statements[i].n_params <= PGCONN_MAX_PARAMS);
    if (conn->wanted != WANT_OPEN)
        return JOBQ_ECONN;
    struct pgbatch *batch = pgbatch_new(n, done, data);
    if (!batch)
        return JOBQ_ENOMEM;
    if (pgconn_interrupted(conn)) {
        list_push(&conn->refused, &batch->link);
        pgconn_wake(conn);
        return 0;
    }
    uv_update_time(conn->loop); /* a long turn of the loop is not the server's silence */
    batch->sent_at_ms = uv_now(conn->loop);
    if (!pgqueue_send(&conn->queue, batch, statements)) {
        conn->send_failed = true;
        pgconn_wake(conn);
    } else if (PQflush(conn->pg) != 0) {
        pgconn_wake(conn);
    }
    if (!uv_is_active((uv_handle_t *)&conn->timer))
        pgconn_set_watchdog(conn);
    return 0;
}

enum pgconn_state
pgconn_state(const struct pgconn *conn)
{
    return conn->state;
}

bool
pgconn_pooled(const struct pgconn *conn)
{
    return conn->pooled;
}

int
pgconn_server_version(const struct pgconn *conn)
{
    return conn->state == PGCONN_READY ? PQserverVersion(conn->pg) : 0;
}

bool
pgconn_works(const struct pgconn *conn)
{
    return !pgqueue_empty(&conn->queue) || !list_empty(&conn->refused);
}

int64_t
pgconn_overdue_ms(const struct pgconn *conn)
{
    uint64_t now = uv_now(conn->loop);
    uint64_t dead_at = conn->state == PGCONN_READY ? pgconn_dead_at_ms(conn) : UINT64_MAX;
    return dead_at < now ? (int64_t)(now - dead_at) : 0;
}

void
pgconn_doubt(struct pgconn *conn, int64_t patience_ms)
{
    if (conn->state != PGCONN_READY || patience_ms <= 0)
        return;
    conn->patience_ms = (uint64_t)patience_ms;
    pgconn_set_watchdog(conn);
}

void
pgconn_reset(struct pgconn *conn)
{
    if (conn->wanted != WANT_OPEN)
        return;
    conn->reset_wanted = true;
    pgconn_wake(conn);
}

void
pgconn_close(struct pgconn *conn, bool flush, void (*on_closed)(void *owner))
{
    assert(conn->wanted == WANT_OPEN || !flush);
    if (conn->wanted == WANT_CLOSED || conn->state >= PGCONN_CLOSING)
        return; /* it closes already */
    conn->on_closed = on_closed;
    conn->wanted = flush ? WANT_FLUSHED : WANT_CLOSED;
    if (flush && conn->state == PGCONN_READY) {
        int64_t limit = conn->options.dead_after_ms > 0 ? conn->options.dead_after_ms
                                                        : (int64_t)FLUSH_MS;
        conn->flush_until_ms = uv_now(conn->loop) + (uint64_t)limit;
        pgconn_set_watchdog(conn);
    }
    pgconn_wake(conn);
}
