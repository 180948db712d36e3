/* client.c: the client that owns its connection. All that it adds to job.h: a connection
 * that was lost is made anew before a call, and what the database asks to be tried again
 * is tried again. */
#include <jobq/client.h>

#include <libpq-fe.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/job.h"
#include "libjobq/sql.h"
#include "libjobq/poll_deadline.h"
#include "libjobq/wait.h"

enum { TRIES = 5 }; /* after a serialization failure or a deadlock */

struct jobq_client {
    PGconn *conn;
    char *schema; /* NULL: "jobq" */
};

static int
no_client(jobq_error *err)
{
    return jobq__error(err, JOBQ_EINVAL, "client must be an open client, got NULL");
}

static int
check_options(const jobq_client_options *options, jobq_client **out, jobq_error *err)
{
    if (!options || !out)
        return jobq__error(err, JOBQ_EINVAL, "%s must not be NULL",
                           options ? "out" : "options");
    if (options->size != sizeof *options)
        return jobq__error(
            err, JOBQ_EINVAL,
            "size must be sizeof(jobq_client_options), %zu, got %zu: start from "
            "JOBQ_CLIENT_OPTIONS_INIT",
            sizeof *options, options->size);
    struct jobq__buf quoted = {0};
    int rc = jobq__sql_put_schema(&quoted, options->schema, err);
    jobq__buf_clear(&quoted);
    return rc;
}

int
jobq_client_open(const jobq_client_options *options, jobq_client **out, jobq_error *err)
{
    int rc = check_options(options, out, err);
    if (rc < 0)
        return rc;
    jobq_client *client = calloc(1, sizeof *client);
    if (!client)
        return jobq__error(err, JOBQ_ENOMEM, "no memory");
    if (options->schema && !(client->schema = strdup(options->schema)))
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory");
    /* As psql does: a bare name is a database's, anything with '=' or "://" a connection
     * string. */
    const char *const keywords[] = {"dbname", "client_encoding",
                                    "fallback_application_name", NULL};
    const char *const values[] = {options->database, "UTF8", "jobq", NULL};
    if (rc == 0 && !(client->conn = PQconnectdbParams(keywords, values, 1)))
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory");
    if (rc == 0 && PQstatus(client->conn) != CONNECTION_OK)
        rc = jobq__error(err, JOBQ_ECONN, "%s", PQerrorMessage(client->conn));
    if (rc < 0) {
        jobq_client_close(client);
        return rc;
    }
    *out = client;
    return 0;
}

void
jobq_client_close(jobq_client *client)
{
    if (!client)
        return;
    PQfinish(client->conn);
    free(client->schema);
    free(client);
}

PGconn *
jobq_client_conn(jobq_client *client)
{
    return client->conn;
}

/* A call, as a value, so that it can be made again. */
struct call {
    enum {
        CALL_ENQUEUE,
        CALL_MANY,
        CALL_TRY,
        CALL_TRY_MANY,
        CALL_GET,
        CALL_CANCEL,
        CALL_RETRY
    } kind;
    const jobq_job *jobs;
    size_t n;
    int64_t id;
    int64_t *ids;
    jobq_enqueued *made;
    jobq_job_info **info;
    int *done;
};

static int
make_call(jobq_client *client, const struct call *call, jobq_error *err)
{
    switch (call->kind) {
    case CALL_ENQUEUE:
        return jobq_enqueue(client->conn, call->jobs, call->ids, err);
    case CALL_MANY:
        return jobq_enqueue_many(client->conn, call->jobs, call->n, call->ids, err);
    case CALL_TRY:
        return jobq_job_try_enqueue(client->conn, call->jobs, call->made, err);
    case CALL_TRY_MANY:
        return jobq_job_try_enqueue_many(client->conn, call->jobs, call->n, call->made,
                                         err);
    case CALL_GET:
        return jobq_job_get(client->conn, client->schema, call->id, call->info, err);
    case CALL_CANCEL:
        return jobq_job_cancel(client->conn, client->schema, call->id, call->done, err);
    case CALL_RETRY:
        return jobq_job_retry(client->conn, client->schema, call->id, call->done, err);
    }
    return JOBQ_EINVAL;
}

static bool
is_worth_a_try(const jobq_error *err)
{
    return strcmp(err->sqlstate, "40001") == 0 || strcmp(err->sqlstate, "40P01") == 0;
}

/* As PQreset, but with an end. What it leaves behind then is not CONNECTION_OK. */
static int
reset_until(PGconn *conn, int64_t until_us, jobq_error *err)
{
    PostgresPollingStatusType next = PGRES_POLLING_WRITING; /* where one begins */
    if (!PQresetStart(conn))
        return 0; /* the call finds why */
    while (next == PGRES_POLLING_READING || next == PGRES_POLLING_WRITING) {
        short events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        enum jobq__poll polled = jobq__poll_until(PQsocket(conn), events, until_us);
        if (polled == JOBQ__POLL_LATE)
            return jobq__error(
                err, JOBQ_ECONN,
                "the connection was lost and could not be re-established in time");
        if (polled == JOBQ__POLL_READY)
            next = PQresetPoll(conn);
    }
    return 0;
}

/* Makes a lost connection anew. until_us: as in params.h. libpq learns of a loss only
 * where it reads: a first look finds the server's last words, if it had any, and the next
 * one the end. Within a transaction that was begun on the lent connection nothing is made
 * anew: the rest of it would commit by itself. */
static int
reconnect_if_lost(PGconn *conn, int64_t until_us, jobq_error *err)
{
    if (PQtransactionStatus(conn) == PQTRANS_IDLE && PQconsumeInput(conn))
        PQconsumeInput(conn);
    if (PQstatus(conn) == CONNECTION_OK)
        return 0;
    if (until_us > 0)
        return reset_until(conn, until_us, err);
    PQreset(conn); /* the call finds what came of it */
    return 0;
}

int
jobq_client_reconnect(jobq_client *client, jobq_error *err)
{
    if (!client)
        return no_client(err);
    reconnect_if_lost(client->conn, 0, NULL);
    if (PQstatus(client->conn) != CONNECTION_OK)
        return jobq__error(err, JOBQ_ECONN, "%s", PQerrorMessage(client->conn));
    return JOBQ_OK;
}

/* A moment that doubles with each try, and as much again by chance, for which the clock's
 * last digits will do: two that were in each other's way should not meet again. */
static void
wait_before_try(int try)
{
    struct timespec now;
    long moment_ns = 1000000L << try;
    clock_gettime(CLOCK_MONOTONIC, &now);
    nanosleep(&(struct timespec){.tv_nsec = moment_ns + now.tv_nsec % moment_ns}, NULL);
}

static int
run(jobq_client *client, const struct call *call, jobq_error *err)
{
    jobq_error own = {0};
    if (!client)
        return no_client(err);
    reconnect_if_lost(client->conn, 0, NULL);
    int rc = 0;
    for (int try = 0; try < TRIES; try++) {
        if (try > 0)
            wait_before_try(try);
        rc = make_call(client, call, &own);
        bool own_transaction = PQtransactionStatus(client->conn) == PQTRANS_IDLE;
        if (rc == 0 || !own_transaction || !is_worth_a_try(&own))
            break;
    }
    if (rc < 0 && err)
        *err = own;
    return rc;
}

/* The jobs with the client's schema where they name none; NULL when there is no memory.
 */
static jobq_job *
with_schema(const jobq_client *client, const jobq_job *jobs, size_t n)
{
    jobq_job *copy = malloc((n + 1) * sizeof *copy);
    for (size_t i = 0; copy && i < n; i++) {
        copy[i] = jobs[i];
        if (copy[i].size == sizeof *copy && !copy[i].schema)
            copy[i].schema = client->schema;
    }
    return copy;
}

static int
enqueue(jobq_client *client, struct call call, jobq_error *err)
{
    if (!client || !client->schema || !call.jobs)
        return run(client, &call, err);
    jobq_job *taken, *copy;
    int rc = jobq__jobs_take(&call.jobs, call.n, &taken, err);
    if (rc < 0)
        return rc;
    copy = with_schema(client, call.jobs, call.n);
    free(taken);
    if (!copy)
        return jobq__error(err, JOBQ_ENOMEM, "no memory");
    call.jobs = copy;
    rc = run(client, &call, err);
    free(copy);
    return rc;
}

int
jobq_client_enqueue(jobq_client *client, const jobq_job *job, int64_t *id,
                    jobq_error *err)
{
    return enqueue(
        client, (struct call){.kind = CALL_ENQUEUE, .jobs = job, .n = 1, .ids = id}, err);
}

int
jobq_client_enqueue_many(jobq_client *client, const jobq_job *jobs, size_t n,
                         int64_t *ids, jobq_error *err)
{
    return enqueue(
        client, (struct call){.kind = CALL_MANY, .jobs = jobs, .n = n, .ids = ids}, err);
}

int
jobq_client_try_enqueue(jobq_client *client, const jobq_job *job, jobq_enqueued *out,
                        jobq_error *err)
{
    return enqueue(
        client, (struct call){.kind = CALL_TRY, .jobs = job, .n = 1, .made = out}, err);
}

int
jobq_client_try_enqueue_many(jobq_client *client, const jobq_job *jobs, size_t n,
                             jobq_enqueued *out, jobq_error *err)
{
    return enqueue(
        client, (struct call){.kind = CALL_TRY_MANY, .jobs = jobs, .n = n, .made = out},
        err);
}

int
jobq_client_job_get(jobq_client *client, int64_t id, jobq_job_info **out, jobq_error *err)
{
    return run(client, &(struct call){.kind = CALL_GET, .id = id, .info = out}, err);
}

int
jobq_client_cancel(jobq_client *client, int64_t id, int *done, jobq_error *err)
{
    return run(client, &(struct call){.kind = CALL_CANCEL, .id = id, .done = done}, err);
}

int
jobq_client_retry(jobq_client *client, int64_t id, int *done, jobq_error *err)
{
    return run(client, &(struct call){.kind = CALL_RETRY, .id = id, .done = done}, err);
}

int
jobq_client_wait(jobq_client *client, int64_t id, int64_t timeout_ms, jobq_job_info **out,
                 jobq_error *err)
{
    struct jobq__wait wait;
    jobq_error own = {0};
    int rc = jobq__wait_check(timeout_ms, out, err);
    if (rc == 0 && !client)
        rc = no_client(err);
    if (rc < 0)
        return rc;
    jobq__wait_begin(&wait, timeout_ms);
    do {
        rc = reconnect_if_lost(client->conn, jobq__wait_until(&wait), &own);
        if (rc == 0)
            rc = jobq__wait_look(&wait, client->conn, client->schema, id, out, &own);
    } while ((rc == 0 || rc == JOBQ_ECONN) && jobq__wait_pause(&wait));
    if (rc < 0 && err)
        *err = own;
    if (rc != 0)
        return rc < 0 ? rc : 0;
    return jobq__wait_timed_out(&wait, id, timeout_ms, err);
}
