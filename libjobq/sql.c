/* sql.c: see sql.h. */
#include "libjobq/sql.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "libjobq/error.h"
#include "libjobq/poll_deadline.h"

/* Our texts are UTF-8, whatever the server keeps them in. SQL_ASCII says that nobody
 * converts anything. */
static int
check_encoding(const PGconn *conn, jobq_error *err)
{
    const char *name = pg_encoding_to_char(PQclientEncoding(conn));
    if (strcmp(name, "UTF8") == 0 || strcmp(name, "SQL_ASCII") == 0)
        return 0;
    return jobq__error(err, JOBQ_ESTATE,
                       "the connection's client_encoding must be UTF8, got %s: set it "
                       "with PQsetClientEncoding",
                       name);
}

int
jobq__sql_check_conn(PGconn *conn, jobq_error *err)
{
    if (!conn)
        return jobq__error(err, JOBQ_EINVAL, "conn must be an open connection, got NULL");
    if (PQstatus(conn) != CONNECTION_OK)
        return jobq__error(err, JOBQ_ECONN, "the connection is not open: %s",
                           PQerrorMessage(conn));
    if (PQpipelineStatus(conn) != PQ_PIPELINE_OFF)
        return jobq__error(
            err, JOBQ_ESTATE,
            "the connection is in pipeline mode: leave it with PQexitPipelineMode");
    switch (PQtransactionStatus(conn)) {
    case PQTRANS_IDLE:
    case PQTRANS_INTRANS:
        return check_encoding(conn, err);
    case PQTRANS_ACTIVE:
        return jobq__error(
            err, JOBQ_ESTATE,
            "the connection is busy: read the results of its last query first");
    case PQTRANS_INERROR:
        return jobq__error(err, JOBQ_ESTATE,
                           "the transaction has failed: roll it back first");
    case PQTRANS_UNKNOWN:
        break;
    }
    return jobq__error(err, JOBQ_ECONN, "the connection is broken");
}

int
jobq__sql_put_schema(struct jobq__buf *out, const char *schema, jobq_error *err)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz_";
    static const char legal[] = "abcdefghijklmnopqrstuvwxyz_0123456789";
    const char *name = schema ? schema : "jobq";
    size_t len = strlen(name);
    if (len < 1 || len > 63 || !strchr(first, name[0]) || strspn(name, legal) != len)
        return jobq__error(
            err, JOBQ_EINVAL,
            "schema must be [a-z_][a-z0-9_]* of at most 63 bytes, got \"%.80s\"", name);
    jobq__buf_addc(out, '"');
    jobq__buf_adds(out, name);
    jobq__buf_addc(out, '"');
    return 0;
}

int
jobq__sql_put(struct jobq__buf *out, const char *text, const char *schema,
              jobq_error *err)
{
    int rc = 0;
    while (rc == 0 && *text) {
        size_t plain = strcspn(text, "@{}");
        jobq__buf_add(out, text, plain);
        text += plain;
        if (*text == '@')
            rc = jobq__sql_put_schema(out, schema, err);
        else if (*text)
            jobq__buf_adds(out, *text == '{' ? "OPERATOR(pg_catalog." : ")");
        text += *text != '\0';
    }
    return rc;
}

/* Which of our codes a SQLSTATE is, as far as a caller would act differently. */
static int
code_of(const char *state)
{
    static const struct {
        const char *prefix;
        int code;
    } codes[] = {
        {"08", JOBQ_ECONN},      {"57P0", JOBQ_ECONN},      {"22", JOBQ_EINVAL},
        {"23514", JOBQ_EINVAL},  {"P0002", JOBQ_ENOTFOUND}, {"55000", JOBQ_ESTATE},
        {"25", JOBQ_ESTATE},     {"3F000", JOBQ_ESCHEMA},   {"42P01", JOBQ_ESCHEMA},
        {"42883", JOBQ_ESCHEMA}, {"42703", JOBQ_ESCHEMA},   {"23505", JOBQ_ECONFLICT},
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strncmp(state, codes[i].prefix, strlen(codes[i].prefix)) == 0)
            return codes[i].code;
    return JOBQ_EDB;
}

static int
failure(PGconn *conn, const PGresult *result, jobq_error *err)
{
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    if (!state) /* nothing from the server: libpq lost it, or had no memory to ask */
        return jobq__error(err, PQstatus(conn) == CONNECTION_OK ? JOBQ_EDB : JOBQ_ECONN,
                           "%s", PQerrorMessage(conn));
    int code = code_of(state);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (code == JOBQ_ESCHEMA)
        jobq__error(err, code,
                    "%s: is the jobq schema installed, and as new as this library? Run "
                    "`jobqd migrate status`",
                    text);
    else
        jobq__error(err, code, "%s", text);
    if (err)
        memcpy(err->sqlstate, state, 6);
    return code;
}

/* Nobody will read the answer, and libpq would wait for it before anything else on this
 * connection, also where its user thinks that it is idle. So it ends here, in libpq's
 * eyes too, as if the network had cut it. */
static void
break_off(PGconn *conn)
{
    enum { READS = 1000 }; /* what had come before the end */
    shutdown(PQsocket(conn), SHUT_RDWR);
    for (int i = 0; i < READS && PQstatus(conn) == CONNECTION_OK; i++)
        if (!PQconsumeInput(conn))
            break;
}

/* As PQexecParams, but NULL, with *late, when the time is over before the answer is
 * there. To send cannot block: the connection was idle, and the statement is small. */
static PGresult *
exec_until(PGconn *conn, const char *text, const struct jobq__params *params, bool *late)
{
    PGresult *last = NULL, *result;
    if (!PQsendQueryParams(conn, text, params->n, params->types, params->values,
                           params->lengths, params->formats, 1))
        return NULL;
    do {
        while (PQisBusy(conn)) {
            if (jobq__poll_until(PQsocket(conn), POLLIN, params->until_us) ==
                JOBQ__POLL_LATE) {
                break_off(conn);
                PQclear(last);
                *late = true;
                return NULL;
            }
            /* Also where the socket is quiet: TLS may hold bytes back. */
            if (!PQconsumeInput(conn))
                break; /* lost: PQgetResult tells */
        }
        result = PQgetResult(conn);
        if (result) {
            PQclear(last);
            last = result;
        }
    } while (result);
    return last;
}

int
jobq__sql_run_text(PGconn *conn, const char *text, const struct jobq__params *params,
                   PGresult **out, jobq_error *err)
{
    if (params->failed)
        return jobq__error(err, JOBQ_ENOMEM, "no memory");
    bool late = false;
    PGresult *result =
        params->until_us > 0
            ? exec_until(conn, text, params, &late)
            : PQexecParams(conn, text, params->n, params->types, params->values,
                           params->lengths, params->formats, 1);
    if (late)
        return jobq__error(
            err, JOBQ_ECONN,
            "the database did not answer in time: the connection was closed");
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        int rc = failure(conn, result, err);
        PQclear(result);
        return rc;
    }
    *out = result;
    return 0;
}

int
jobq__sql_run(PGconn *conn, const char *schema, enum jobq__statement statement,
              const struct jobq__params *params, PGresult **out, jobq_error *err)
{
    static const char *const texts[] = {
#define X(name, text) [name] = text,
        JOBQ__STATEMENTS(X)
#undef X
    };
    struct jobq__buf sql = {0};
    int rc = jobq__sql_put(&sql, texts[statement], schema, err);
    const char *text = jobq__buf_cstr(&sql);
    if (rc == 0 && !text)
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory");
    if (rc == 0)
        rc = jobq__sql_run_text(conn, text, params, out, err);
    jobq__buf_clear(&sql);
    return rc;
}
