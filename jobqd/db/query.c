/* query.c: see query.h. */
#include "jobqd/db/query.h"

#include <libpq-events.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/config/conninfo.h"
#include "jobqd/base/log.h"
#include "jobqd/base/refusal.h"
#include "jobqd/base/sqltext.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/poll_deadline.h"

extern const char sql_session_setup[], sql_transaction_setup[];

/* What the server says beside its answers: warnings, and what our migrations say. The
 * rest ("does not exist, skipping") is no news. */
static void
on_notice(void *data, const PGresult *notice)
{
    (void)data;
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *message = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
    if (!severity || !message)
        return;
    if (strcmp(severity, "WARNING") == 0)
        log_warning("database", "%s", message);
    else if (strncmp(message, "jobq: ", 6) == 0)
        log_info("database", "%s", message + 6);
}

/* Nearly a URI: libpq would look for a database of that name, on this host. */
static int
refuse_name(const char *label, const char *conninfo, jobq_error *err)
{
    /* What stands before an @ may be a password. */
    const char *at = strrchr(conninfo, '@');
    return jobq__error(err, JOBQ_EINVAL,
                       "%s: \"%s%.100s\" is neither a URI such as "
                       "postgresql://USER@HOST/NAME nor a keyword string such as "
                       "host=HOST dbname=NAME",
                       label, at != NULL ? CONNINFO_HIDDEN : "",
                       at != NULL ? at : conninfo);
}

/* libpq quotes what it cannot read, and that may be a piece of a password: then its words
 * are not shown. */
int
query_check_conninfo(const char *label, const char *conninfo, jobq_error *err)
{
    struct jobq__buf hidden = {0};
    char *why = NULL;
    int rc = 0;
    /* libpq reads a string that holds no = and no :// as the name of a database. */
    bool is_name = strchr(conninfo, '=') == NULL && strstr(conninfo, "://") == NULL;
    if (is_name && strpbrk(conninfo, "/:@") == NULL)
        return 0;
    if (is_name)
        return refuse_name(label, conninfo, err);
    PQconninfoOption *options = PQconninfoParse(conninfo, &why);
    conninfo_redact(&hidden, conninfo);
    const char *shown = jobq__buf_cstr(&hidden);
    if (!shown || (!options && why == NULL))
        rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
    else if (!options && strcmp(shown, conninfo) == 0)
        rc = jobq__error(err, JOBQ_EINVAL, "%s: %s", label, why);
    else if (!options)
        rc = jobq__error(
            err, JOBQ_EINVAL,
            "%s: \"%s\" is neither a URI nor a keyword string that libpq can read", label,
            shown);
    jobq__buf_clear(&hidden);
    PQconninfoFree(options);
    PQfreemem(why);
    return rc;
}

/* libpq's message, without the line end that it closes with. */
static int
fail_lost(PGconn *conn, jobq_error *err)
{
    const char *message = PQerrorMessage(conn);
    size_t len = strlen(message);
    while (len > 0 && message[len - 1] == '\n')
        len--;
    return jobq__error(err, JOBQ_ECONN, "%.*s", len > 0 ? (int)len : 100,
                       len > 0 ? message : "the connection was lost");
}

enum { ASK_AGAIN_US = 1000000 };

/* The connection has failed, which took so long. Only verbose messages say why a server
 * refuses, and only from the next try on: that is made unless the first one waited for a
 * host. Returns 0 if it succeeds. */
static int
connect_again(PGconn *conn, int64_t took_us, jobq_error *err)
{
    if (took_us > ASK_AGAIN_US)
        return fail_lost(conn, err);
    PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
    PQreset(conn);
    PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
    if (PQstatus(conn) == CONNECTION_OK)
        return 0;
    jobq_error why = {0};
    refusal_read(PQerrorMessage(conn), &why);
    if (err != NULL)
        *err = why;
    return why.code;
}

/* The server's code in our words: the SQL functions raise these three on purpose
 * (migrations/schema/enqueue.sql). */
static int
code_of(const char *sqlstate)
{
    if (strcmp(sqlstate, "22023") == 0)
        return JOBQ_EINVAL;
    if (strcmp(sqlstate, "P0002") == 0)
        return JOBQ_ENOTFOUND;
    if (strcmp(sqlstate, "55000") == 0)
        return JOBQ_ESTATE;
    return JOBQ_EDB;
}

static int
fail(PGconn *conn, const PGresult *result, jobq_error *err)
{
    const char *sqlstate =
        result != NULL ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    if (!sqlstate || PQstatus(conn) == CONNECTION_BAD)
        return fail_lost(conn, err);
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    if (!primary)
        primary = "";
    /* Our functions begin with their own name ("jobq.cancel: "); the user called a
     * command. */
    const char *colon = strncmp(primary, "jobq.", 5) == 0 ? strstr(primary, ": ") : NULL;
    if (colon != NULL)
        primary = colon + 2;
    const char *hint =
        strcmp(sqlstate, "25006") == 0
            ? ": it is a replica, or default_transaction_read_only is on for the "
              "database or the role"
            : "";
    int rc = jobq__error(err, code_of(sqlstate), "%s%s%s%s", primary,
                         detail != NULL ? ": " : "", detail != NULL ? detail : "", hint);
    if (err != NULL) {
        strncpy(err->sqlstate, sqlstate, sizeof err->sqlstate - 1);
        err->sqlstate[sizeof err->sqlstate - 1] = '\0';
    }
    return rc;
}

/* A text that is ready to be sent; 0, or the error. */
static int
run(PGconn *conn, const char *text, int n, const char *const *params, PGresult **out,
    jobq_error *err)
{
    PGresult *result = n == 0 ? PQexec(conn, text)
                              : PQexecParams(conn, text, n, NULL, params, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);
    int rc = 0;
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        rc = fail(conn, result, err);
    if (rc != 0 || !out)
        PQclear(result);
    else
        *out = result; /* the caller's */
    return rc;
}

/* ---- sessions ---- */

/* The event procedure of connections through a pooler, and of no others: that is how they
 * are told apart later. */
static int
on_event(PGEventId id, void *info, void *data)
{
    (void)id;
    (void)info;
    (void)data;
    return 1;
}

static bool
is_pooled(const PGconn *conn)
{
    return PQinstanceData(conn, on_event) != NULL;
}

/* A pooler makes up the pid that a client is told at the start. What is set for a session
 * there would be another client's next. */
static int
set_up(PGconn *conn, jobq_error *err)
{
    static char mark;
    PGresult *result = NULL;
    int rc = run(conn, "SELECT pg_catalog.pg_backend_pid()", 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    bool pooled = strtol(PQgetvalue(result, 0, 0), NULL, 10) != (long)PQbackendPID(conn);
    PQclear(result);
    if (!pooled)
        return run(conn, sql_session_setup, 0, NULL, NULL, err);
    if (PQregisterEventProc(conn, on_event, "jobqd", NULL) == 0 ||
        PQsetInstanceData(conn, on_event, &mark) == 0)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    return 0;
}

int
query_connect(const char *conninfo, PGconn **out, jobq_error *err)
{
    int bad = conninfo != NULL ? query_check_conninfo("database", conninfo, err) : 0;
    if (bad != 0)
        return bad;
    const char *timeout = getenv("PGCONNECT_TIMEOUT");
    /* What the string says comes after the timeout, and so wins. */
    const char *const keywords[] = {"connect_timeout", "dbname",
                                    "fallback_application_name", "client_encoding", NULL};
    const char *const values[] = {timeout != NULL && *timeout != '\0' ? timeout : "10",
                                  conninfo != NULL && *conninfo != '\0' ? conninfo : NULL,
                                  "jobqd", "UTF8", NULL};
    int64_t began_us = jobq__now_us();
    PGconn *conn = PQconnectdbParams(keywords, values, 1);
    if (!conn)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    int rc = PQstatus(conn) == CONNECTION_OK
                 ? 0
                 : connect_again(conn, jobq__now_us() - began_us, err);
    if (rc == 0) {
        PQsetNoticeReceiver(conn, on_notice, NULL);
        rc = set_up(conn, err);
    }
    if (rc == 0)
        *out = conn; /* the caller's */
    else
        PQfinish(conn);
    return rc;
}

/* ---- statements ---- */

int
query_begin(PGconn *conn, const char *modes, jobq_error *err)
{
    struct jobq__buf text = {0};
    jobq__buf_adds(&text, "BEGIN ");
    jobq__buf_adds(&text, modes);
    jobq__buf_adds(&text, "; ");
    jobq__buf_adds(&text, sql_transaction_setup);
    const char *both = jobq__buf_cstr(&text);
    int rc = both != NULL ? run(conn, both, 0, NULL, NULL, err)
                          : jobq__error(err, JOBQ_ENOMEM, "out of memory");
    jobq__buf_clear(&text);
    return rc;
}

/* A transaction for one statement. On failure it is as if there had been none. */
static int
run_alone(PGconn *conn, const char *text, int n, const char *const *params,
          PGresult **out, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query_begin(conn, "ISOLATION LEVEL READ COMMITTED", err);
    if (rc == 0)
        rc = run(conn, text, n, params, &result, err);
    if (rc == 0)
        rc = run(conn, "COMMIT", 0, NULL, NULL, err);
    else if (PQtransactionStatus(conn) != PQTRANS_IDLE)
        run(conn, "ROLLBACK", 0, NULL, NULL, NULL);
    if (rc != 0 || !out)
        PQclear(result);
    else
        *out = result; /* the caller's */
    return rc;
}

int
query(PGconn *conn, const char *schema, const char *sql, int n, const char *const *params,
      PGresult **out, jobq_error *err)
{
    char *text = NULL;
    int rc = sqltext_expand(sql, schema, &text, err);
    if (rc != 0)
        return rc;
    bool alone = is_pooled(conn) && PQtransactionStatus(conn) == PQTRANS_IDLE;
    rc = alone ? run_alone(conn, text, n, params, out, err)
               : run(conn, text, n, params, out, err);
    free(text);
    return rc;
}
