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
#include "jobqd/db/pgconn.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/base/refusal.h"
#include "jobqd/db/pgqueue.h"
#include "jobqd/db/pgroute.h"
#include "jobqd/db/pgwatch.h"
#include "jobqd/pure/list.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/duration.h"

extern const char sql_session_setup[], sql_transaction_setup[];

enum { FIRST_DELAY_MS = 100, MOST_DELAY_MS = 5000, QUICK_DELAY_MS = 20 };
enum { STABLE_MS = 5000 }; /* up for so long: the next loss is a first one */
enum { FLUSH_MS = 10000, N_STATES = PGCONN_CLOSED + 1 };

/* A warning that was logged, by its text. */
struct warning {
    uint64_t hash;
    uint64_t at_ms;
};

enum { WARNINGS = 16, WARN_AGAIN_MS = 60 * 1000 };

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
    struct pgconn_options
        options; /* its strings are copies; conninfo and name are NULL; setup and
                    batch_setup are whole, with what every session has */
    char subject[64];
    enum pgconn_state state;
    enum wanted wanted;
    bool reset_wanted;
    bool
        send_failed; /* libpq refused a batch half-way: the connection is to be dropped */
    PGconn *pg;      /* NULL while away */
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

static void lose(struct pgconn *conn, const jobq_error *why);
static void on_timer(uv_timer_t *timer);
static void on_soon(uv_idle_t *soon);

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

/* --- small helpers --- */

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

static void
set_state(struct pgconn *conn, enum pgconn_state state)
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

static void
start_timer(struct pgconn *conn, uint64_t after_ms)
{
    uv_timer_start(&conn->timer, on_timer, after_ms, 0);
}

/* An idle handle, for a timer of 0 ms that is started again and again from its own
 * callback never lets the loop come to its sockets. */
static void
wake(struct pgconn *conn)
{
    uv_idle_start(&conn->soon, on_soon);
}

/* Whether the owner has said something in a callback that comes before all else. */
static bool
interrupted(const struct pgconn *conn)
{
    return conn->state != PGCONN_READY || conn->reset_wanted || conn->send_failed ||
           conn->wanted == WANT_CLOSED;
}

/* The server's goodbye tells more than libpq's "closed unexpectedly". */
static void
lose_pg(struct pgconn *conn)
{
    jobq_error why = conn->last_words;
    if (why.code == 0)
        refusal_read(PQerrorMessage(conn->pg), &why);
    lose(conn, &why);
}

static void
lose_because(struct pgconn *conn, const char *text)
{
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "%s", text);
    lose(conn, &why);
}

static bool
arm(struct pgconn *conn, int events)
{
    int fd = PQsocket(conn->pg);
    int rc = fd < 0 ? UV_EBADF : pgwatch_arm(&conn->watch, fd, events);
    if (rc == 0)
        return true;
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "cannot watch the connection's socket: %s",
                uv_strerror(rc));
    lose(conn, &why);
    return false;
}

/* Reports of the server that belong to no statement. The last one before it closes a
 * connection says why; libpq would print it on stderr. */
/* What a statement that is made again and again warns of is said once a minute. */
static bool
is_news(struct pgconn *conn, const char *text)
{
    uint64_t now_ms = uv_now(conn->loop);
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    struct warning *oldest = &conn->warnings[0];
    for (const char *c = text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    for (size_t i = 0; i < WARNINGS; i++) {
        struct warning *w = &conn->warnings[i];
        if (w->hash == hash && now_ms - w->at_ms < WARN_AGAIN_MS)
            return false;
        if (w->at_ms < oldest->at_ms)
            oldest = w;
    }
    *oldest = (struct warning){.hash = hash, .at_ms = now_ms};
    return true;
}

static void
on_notice(void *arg, const PGresult *notice)
{
    struct pgconn *conn = arg;
    const char *text = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *sqlstate = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
    if (!text)
        text = PQresultErrorMessage(notice);
    if (sqlstate && strcmp(sqlstate, PGCONN_WARNING) == 0) {
        if (is_news(conn, text))
            log_warning("database", "%s", text);
    } else {
        log_debug(conn->subject, "%s: %s", severity ? severity : "NOTICE", text);
    }
    if (severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0)) {
        jobq__error(&conn->last_words, JOBQ_ECONN, "%s", text);
        if (sqlstate && strlen(sqlstate) < sizeof conn->last_words.sqlstate)
            strcpy(conn->last_words.sqlstate, sqlstate);
    }
}

/* --- batches --- */

static void
complete(struct pgbatch *batch, const struct pgconn_outcome *outcome)
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
    complete(batch, &outcome);
}

static void
complete_all_lost(struct pgconn *conn, const jobq_error *why)
{
    struct pgbatch *batch;
    while ((batch = pgqueue_pop(&conn->queue)))
        complete_lost(batch, why);
}

/* Only those that are there now: the owner may queue the next one from inside. */
static void
complete_refused(struct pgconn *conn)
{
    struct list refused;
    struct list *link;
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "the database is away");
    list_init(&refused);
    while ((link = list_pop(&conn->refused)))
        list_push(&refused, link);
    while ((link = list_pop(&refused)))
        complete_lost(list_entry(link, struct pgbatch, link), &why);
}

/* --- a ready connection --- */

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
static uint64_t
dead_at_ms(const struct pgconn *conn)
{
    uint64_t most_ms = patience(conn);
    const struct pgbatch *head = pgqueue_head(&conn->queue);
    if (!head || most_ms == 0)
        return UINT64_MAX;
    uint64_t since =
        head->sent_at_ms > conn->answered_at_ms ? head->sent_at_ms : conn->answered_at_ms;
    return since + most_ms;
}

static void
set_watchdog(struct pgconn *conn)
{
    uint64_t now = uv_now(conn->loop);
    uint64_t deadline = dead_at_ms(conn);
    if (conn->wanted == WANT_FLUSHED && conn->flush_until_ms < deadline)
        deadline = conn->flush_until_ms;
    if (deadline == UINT64_MAX)
        uv_timer_stop(&conn->timer);
    else
        start_timer(conn, deadline > now ? deadline - now : 0);
}

/* Completes every batch whose results are here. False: the connection is of no use any
 * more. */
static bool
drain(struct pgconn *conn, jobq_error *why)
{
    uint64_t taken = conn->queue.taken;
    while (!interrupted(conn)) {
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
        complete(batch, &outcome);
    }
    return true;
}

static void
deliver_notifies(struct pgconn *conn)
{
    PGnotify *notify;
    while (!interrupted(conn) && (notify = PQnotifies(conn->pg))) {
        if (conn->options.on_notify)
            conn->options.on_notify(conn->options.owner, notify->relname, notify->extra);
        PQfreemem(notify);
    }
}

/* Reads what has come. With TLS one call may leave the rest of a record (16 KB) behind in
 * the TLS library, where the socket does not turn readable for it: libpq makes room for 8
 * KB at a time, and cannot be asked whether there is more. */
static bool
consume(struct pgconn *conn)
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

/* The one event function of a ready connection: consume, drain, notifies, flush, arm. A
 * flush that finds the socket full reads from it (so that two full pipes do not wait for
 * each other): what it read must be drained before arming, for nothing would wake us. The
 * same goes for the results that libpq makes up behind an error. */
static void
pump(struct pgconn *conn, bool readable)
{
    jobq_error end = {0}; /* libpq's word on it, code 0: none */
    jobq_error why;
    int flushed = 1;
    if (readable && !consume(conn))
        jobq__error(&end, JOBQ_ECONN, "%s", PQerrorMessage(conn->pg));
    for (int pass = 0; pass < 2 && flushed == 1; pass++) {
        if (!drain(conn, &why)) {
            lose(conn, best_reason(conn, &why, &end));
            return;
        }
        deliver_notifies(conn);
        if (interrupted(conn))
            return; /* step() goes on from here */
        flushed = end.code == 0 ? PQflush(conn->pg) : -1;
    }
    if (end.code != 0)
        lose(conn, best_reason(conn, &end, &end));
    else if (flushed < 0)
        lose_pg(conn);
    else
        arm(conn, flushed > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

/* The timer of a ready connection. We may have been stopped ourselves, so that the
 * answers wait in the socket: look before judging. */
static void
check_alive(struct pgconn *conn)
{
    if (conn->options.keeps_dead)
        return;
    pump(conn, true);
    if (interrupted(conn))
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
        lose(conn, &why);
    } else {
        set_watchdog(conn);
    }
}

/* --- connecting --- */

static void
restart_timeout(struct pgconn *conn)
{
    int64_t timeout_ms = pgroute_timeout_ms(conn->route);
    if (timeout_ms > 0)
        start_timer(conn, (uint64_t)timeout_ms);
    else
        uv_timer_stop(&conn->timer);
}

static void
become_ready(struct pgconn *conn)
{
    if (!PQenterPipelineMode(conn->pg)) {
        lose_pg(conn);
        return;
    }
    uv_timer_stop(&conn->timer);
    pgqueue_attach(&conn->queue, conn->pg, conn->pooled, conn->options.batch_setup);
    conn->ready_at_ms = uv_now(conn->loop);
    conn->answered_at_ms = conn->ready_at_ms;
    conn->patience_ms = 0;
    log_debug(conn->subject, "connected to %s, server process %d%s", conn->trying,
              PQbackendPID(conn->pg), conn->pooled ? ", through a pooler" : "");
    set_state(conn, PGCONN_READY);
    if (conn->options.on_ready)
        conn->options.on_ready(conn->options.owner);
    if (!interrupted(conn))
        pump(conn, false);
}

/* One result of the set-up. A pooler makes up the pid that a client is told at start. */
static bool
take_setup_result(struct pgconn *conn, const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (conn->setup_stage == SETUP_SQL)
        return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ||
               status == PGRES_EMPTY_QUERY;
    if (status != PGRES_TUPLES_OK || PQntuples(result) != 1 || PQnfields(result) != 1)
        return false;
    conn->pooled =
        strtol(PQgetvalue(result, 0, 0), NULL, 10) != (long)PQbackendPID(conn->pg);
    return true;
}

/* The current query is through: on to the next. False: there is none, or it was lost. */
static bool
next_setup(struct pgconn *conn)
{
    if (conn->setup_stage == SETUP_PID && !conn->pooled) {
        conn->setup_stage = SETUP_SQL;
        if (PQsendQuery(conn->pg, conn->options.setup))
            return true;
        lose_pg(conn);
    } else {
        become_ready(conn);
    }
    return false;
}

static void
lose_in_setup(struct pgconn *conn, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    jobq_error why;
    jobq__error(&why, JOBQ_ECONN, "set-up of the connection failed: %s",
                PQresultErrorMessage(result));
    if (sqlstate && strlen(sqlstate) < sizeof why.sqlstate)
        strcpy(why.sqlstate, sqlstate);
    lose(conn, &why);
}

static void
advance_setup(struct pgconn *conn, bool readable)
{
    bool alive = !readable || consume(conn);
    while (!PQisBusy(conn->pg)) { /* what came before the end may say why it came */
        PGresult *result = PQgetResult(conn->pg);
        if (!result) {
            if (!next_setup(conn))
                return;
            continue;
        }
        bool good = take_setup_result(conn, result);
        if (!good)
            lose_in_setup(conn, result);
        PQclear(result);
        if (!good)
            return;
    }
    int flushed = alive ? PQflush(conn->pg) : -1;
    if (flushed < 0)
        lose_pg(conn);
    else
        arm(conn, flushed > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void
start_setup(struct pgconn *conn)
{
    set_state(conn, PGCONN_SETTING_UP);
    restart_timeout(conn);
    conn->setup_stage = SETUP_PID;
    if (PQsetnonblocking(conn->pg, 1) != 0 ||
        !PQsendQuery(conn->pg, "SELECT pg_catalog.pg_backend_pid()"))
        lose_pg(conn);
    else
        advance_setup(conn, false);
}

/* libpq goes from host to host by itself; each has the whole timeout. */
static void
note_host(struct pgconn *conn)
{
    char trying[sizeof conn->trying];
    const char *host = PQhost(conn->pg);
    const char *addr = PQhostaddr(conn->pg);
    const char *port = PQport(conn->pg);
    snprintf(trying, sizeof trying, "%s (%s) port %s", host ? host : "?",
             addr && *addr ? addr : "socket", port ? port : "?");
    if (strcmp(trying, conn->trying) == 0)
        return;
    memcpy(conn->trying, trying, sizeof trying);
    restart_timeout(conn);
}

/* libpq may close its socket and open another one inside: nothing may watch it then. And
 * it must not be called before the socket is ready, for it would take that for success.
 */
static void
advance_connecting(struct pgconn *conn)
{
    pgwatch_stop(&conn->watch);
    PostgresPollingStatusType status = PQconnectPoll(conn->pg);
    note_host(conn);
    switch (status) {
    case PGRES_POLLING_READING:
        arm(conn, UV_READABLE);
        break;
    case PGRES_POLLING_WRITING:
    case PGRES_POLLING_ACTIVE: /* not returned by any libpq of today */
        arm(conn, UV_WRITABLE);
        break;
    case PGRES_POLLING_OK:
        PQsetErrorVerbosity(conn->pg, PQERRORS_DEFAULT);
        start_setup(conn);
        break;
    case PGRES_POLLING_FAILED:
        lose_pg(conn);
        break;
    }
}

static void
connect_now(struct pgconn *conn)
{
    jobq_error why;
    set_state(conn, PGCONN_CONNECTING);
    conn->trying[0] = '\0';
    conn->last_words.code = 0;
    if (pgroute_connect(conn->route, &conn->pg, &why) < 0) {
        lose(conn, &why);
        return;
    }
    PQsetNoticeReceiver(conn->pg, on_notice, conn);
    PQsetErrorVerbosity(conn->pg, PQERRORS_VERBOSE); /* see refusal.h */
    if (PQstatus(conn->pg) == CONNECTION_BAD) {
        lose_pg(conn);
        return;
    }
    note_host(conn);
    arm(conn, UV_WRITABLE); /* as if PQconnectPoll had said PGRES_POLLING_WRITING */
}

static void step(struct pgconn *conn);

static void
on_found(void *owner)
{
    struct pgconn *conn = owner;
    connect_now(conn);
    step(conn);
}

static void
begin(struct pgconn *conn)
{
    bool waiting;
    jobq_error why;
    set_state(conn, PGCONN_RESOLVING);
    int rc = pgroute_look_up(conn->route, on_found, conn, &waiting, &why);
    if (rc < 0) {
        lose(conn, &why);
        return;
    }
    restart_timeout(conn);
    if (!waiting)
        connect_now(conn);
}

static void
time_out_try(struct pgconn *conn)
{
    jobq_error why;
    bool others = false;
    if (conn->state == PGCONN_RESOLVING) {
        jobq__error(&why, JOBQ_ECONN, "the hosts' addresses were not found in %s",
                    jobq__duration_show((int64_t)pgroute_timeout_ms(conn->route)).text);
    } else {
        others = pgroute_pass_by(conn->route, conn->pg);
        jobq__error(&why, JOBQ_ECONN, "%s did not answer in %s", conn->trying,
                    jobq__duration_show((int64_t)pgroute_timeout_ms(conn->route)).text);
    }
    if (others)
        conn->failures = 0; /* the next host is tried at once */
    lose(conn, &why);
}

/* --- losing and closing --- */

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
    uint32_t most = MOST_DELAY_MS;
    if (conn->options.most_delay_ms > 0 && conn->options.most_delay_ms < MOST_DELAY_MS)
        most = (uint32_t)conn->options.most_delay_ms;
    uint32_t delay = nth < 8 ? (uint32_t)FIRST_DELAY_MS << (nth - 1) : most;
    if (delay > most)
        delay = most;
    return delay / 2 + next_random(conn) % (delay / 2 + 1);
}

/* Lets go of the socket first: libpq closes it, and its number may be another's next. */
static void
drop(struct pgconn *conn)
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

static void
lose(struct pgconn *conn, const jobq_error *why)
{
    jobq_error reason = *why; /* it may lie in what is dropped */
    uint64_t delay = next_delay(conn);
    drop(conn);
    set_state(conn, PGCONN_AWAY);
    start_timer(conn, delay);
    complete_all_lost(conn, &reason);
    if (conn->wanted == WANT_OPEN && conn->options.on_lost)
        conn->options.on_lost(conn->options.owner, &reason);
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
    set_state(conn, PGCONN_CLOSED);
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
    drop(conn);
    set_state(conn, PGCONN_CLOSING);
    complete_all_lost(conn, &why);
    complete_refused(conn);
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
            lose_pg(conn);
        } else if (conn->reset_wanted) {
            conn->reset_wanted = false;
            if (conn->state == PGCONN_READY) {
                lose_because(conn, "the connection was reset");
            } else if (conn->state != PGCONN_AWAY) {
                drop(conn);
                set_state(conn, PGCONN_AWAY);
            }
            start_timer(conn, 0);
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
        advance_connecting(conn);
    else if (conn->state == PGCONN_SETTING_UP)
        advance_setup(conn, events & UV_READABLE);
    else if (conn->state == PGCONN_READY)
        pump(conn, events & UV_READABLE);
    step(conn);
}

static void
on_timer(uv_timer_t *timer)
{
    struct pgconn *conn = timer->data;
    switch (conn->state) {
    case PGCONN_AWAY:
        begin(conn);
        break;
    case PGCONN_RESOLVING:
    case PGCONN_CONNECTING:
        time_out_try(conn);
        break;
    case PGCONN_SETTING_UP:
        lose_because(conn, "the database did not finish the connection's set-up in time");
        break;
    case PGCONN_READY:
        check_alive(conn);
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
    if (!interrupted(conn))
        pump(conn, false);
    step(conn); /* completes what was under way, which was queued before */
    if (conn->state < PGCONN_CLOSING) {
        complete_refused(conn);
        step(conn);
    }
}

/* --- what the owner calls --- */

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
    conn->state = PGCONN_AWAY;
    snprintf(conn->subject, sizeof conn->subject, "database %s", options->name);
    snprintf(application, sizeof application, "jobqd %s", options->name);
    pgqueue_init(&conn->queue);
    list_init(&conn->refused);
    pgwatch_init(&conn->watch, loop, on_socket, conn);
    conn->random = (uint32_t)(uv_hrtime() ^ (uint64_t)uv_os_getpid() << 12) | 1;
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
    start_timer(conn, 0);
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
    if (interrupted(conn)) {
        list_push(&conn->refused, &batch->link);
        wake(conn);
        return 0;
    }
    uv_update_time(conn->loop); /* a long turn of the loop is not the server's silence */
    batch->sent_at_ms = uv_now(conn->loop);
    if (!pgqueue_send(&conn->queue, batch, statements)) {
        conn->send_failed = true;
        wake(conn);
    } else if (PQflush(conn->pg) != 0) {
        wake(conn);
    }
    if (!uv_is_active((uv_handle_t *)&conn->timer))
        set_watchdog(conn);
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
    uint64_t dead_at = conn->state == PGCONN_READY ? dead_at_ms(conn) : UINT64_MAX;
    return dead_at < now ? (int64_t)(now - dead_at) : 0;
}

void
pgconn_doubt(struct pgconn *conn, int64_t patience_ms)
{
    if (conn->state != PGCONN_READY || patience_ms <= 0)
        return;
    conn->patience_ms = (uint64_t)patience_ms;
    set_watchdog(conn);
}

void
pgconn_reset(struct pgconn *conn)
{
    if (conn->wanted != WANT_OPEN)
        return;
    conn->reset_wanted = true;
    wake(conn);
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
        set_watchdog(conn);
    }
    wake(conn);
}
