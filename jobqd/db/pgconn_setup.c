/* pgconn_setup.c: how a connection comes up: the hosts' addresses, libpq's steps, and what
 * every session begins with. */
#include "jobqd/db/pgconn_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "libjobq/duration.h"
#include "libjobq/error.h"

enum { WARN_AGAIN_MS = 60 * 1000 };

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

/* Reports of the server that belong to no statement. The last one before it closes a
 * connection says why; libpq would print it on stderr. */
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

static void
restart_timeout(struct pgconn *conn)
{
    int64_t timeout_ms = pgroute_timeout_ms(conn->route);
    if (timeout_ms > 0)
        pgconn_start_timer(conn, (uint64_t)timeout_ms);
    else
        uv_timer_stop(&conn->timer);
}

static void
become_ready(struct pgconn *conn)
{
    if (!PQenterPipelineMode(conn->pg)) {
        pgconn_lose_pg(conn);
        return;
    }
    uv_timer_stop(&conn->timer);
    pgqueue_attach(&conn->queue, conn->pg, conn->pooled, conn->options.batch_setup);
    conn->ready_at_ms = uv_now(conn->loop);
    conn->answered_at_ms = conn->ready_at_ms;
    conn->patience_ms = 0;
    log_debug(conn->subject, "connected to %s, server process %d%s", conn->trying,
              PQbackendPID(conn->pg), conn->pooled ? ", through a pooler" : "");
    pgconn_set_state(conn, PGCONN_READY);
    if (conn->options.on_ready)
        conn->options.on_ready(conn->options.owner);
    if (!pgconn_interrupted(conn))
        pgconn_pump(conn, false);
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
        pgconn_lose_pg(conn);
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
    jobq__error(&why, JOBQ_ECONN, "could not set up the session: %s",
                PQresultErrorMessage(result));
    if (sqlstate && strlen(sqlstate) < sizeof why.sqlstate)
        strcpy(why.sqlstate, sqlstate);
    pgconn_lose(conn, &why);
}

void
pgconn_advance_setup(struct pgconn *conn, bool readable)
{
    bool alive = !readable || pgconn_consume(conn);
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
        pgconn_lose_pg(conn);
    else
        pgconn_arm(conn, flushed > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void
start_setup(struct pgconn *conn)
{
    pgconn_set_state(conn, PGCONN_SETTING_UP);
    restart_timeout(conn);
    conn->setup_stage = SETUP_PID;
    if (PQsetnonblocking(conn->pg, 1) != 0 ||
        !PQsendQuery(conn->pg, "SELECT pg_catalog.pg_backend_pid()"))
        pgconn_lose_pg(conn);
    else
        pgconn_advance_setup(conn, false);
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
void
pgconn_advance_connecting(struct pgconn *conn)
{
    pgwatch_stop(&conn->watch);
    PostgresPollingStatusType status = PQconnectPoll(conn->pg);
    note_host(conn);
    switch (status) {
    case PGRES_POLLING_READING:
        pgconn_arm(conn, UV_READABLE);
        break;
    case PGRES_POLLING_WRITING:
    case PGRES_POLLING_ACTIVE: /* not returned by any libpq of today */
        pgconn_arm(conn, UV_WRITABLE);
        break;
    case PGRES_POLLING_OK:
        PQsetErrorVerbosity(conn->pg, PQERRORS_DEFAULT);
        start_setup(conn);
        break;
    case PGRES_POLLING_FAILED:
        pgconn_lose_pg(conn);
        break;
    }
}

void
pgconn_connect_now(struct pgconn *conn)
{
    jobq_error why;
    pgconn_set_state(conn, PGCONN_CONNECTING);
    conn->trying[0] = '\0';
    conn->last_words.code = 0;
    if (pgroute_connect(conn->route, &conn->pg, &why) < 0) {
        pgconn_lose(conn, &why);
        return;
    }
    PQsetNoticeReceiver(conn->pg, on_notice, conn);
    PQsetErrorVerbosity(conn->pg, PQERRORS_VERBOSE); /* see refusal.h */
    if (PQstatus(conn->pg) == CONNECTION_BAD) {
        pgconn_lose_pg(conn);
        return;
    }
    note_host(conn);
    pgconn_arm(conn,
               UV_WRITABLE); /* as if PQconnectPoll had said PGRES_POLLING_WRITING */
}

void
pgconn_begin(struct pgconn *conn)
{
    bool waiting;
    jobq_error why;
    pgconn_set_state(conn, PGCONN_RESOLVING);
    int rc = pgroute_look_up(conn->route, conn->on_found, conn, &waiting, &why);
    if (rc < 0) {
        pgconn_lose(conn, &why);
        return;
    }
    restart_timeout(conn);
    if (!waiting)
        pgconn_connect_now(conn);
}

void
pgconn_time_out_try(struct pgconn *conn)
{
    jobq_error why;
    bool others = false;
    if (conn->state == PGCONN_RESOLVING) {
        jobq__error(&why, JOBQ_ECONN,
                    "looking up the hosts' addresses took longer than %s",
                    jobq__duration_show((int64_t)pgroute_timeout_ms(conn->route)).text);
    } else {
        others = pgroute_pass_by(conn->route, conn->pg);
        jobq__error(&why, JOBQ_ECONN, "%s did not answer within %s", conn->trying,
                    jobq__duration_show((int64_t)pgroute_timeout_ms(conn->route)).text);
    }
    if (others)
        conn->failures = 0; /* the next host is tried at once */
    pgconn_lose(conn, &why);
}
