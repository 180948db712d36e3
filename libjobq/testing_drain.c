/* testing_drain.c: runs the jobs of a queue in the caller's process, on the caller's
 * connection, and settles them. The two statements (sql.h) are those of jobqd for one job
 * and without a node: its rules are those of jobqd/sql/hot/claim.sql and settle.sql. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "libjobq/array.h"
#include "libjobq/backoff.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/params.h"
#include "libjobq/sql.h"
#include "libjobq/testing.h"
#include "libjobq/text.h"
#include "libjobq/poll_deadline.h"
#include "libjobq/worker.h"

enum { DEFAULT_LIMIT = 1000 };

struct drain {
    PGconn *conn;
    const jobq_testing_drain_options *options;
    bool in_transaction; /* of the caller's */
    int64_t horizon;     /* no job with a larger id; 0: any */
    int64_t *done;       /* ids that were tried: not again */
    size_t n_done;
    size_t cap_done;
    jobq_testing_drained count;
};

/* A claimed job: the texts are lent by the claim's result. */
struct claimed {
    PGresult *result;
    struct jobq__frame frame;
};

/* What its attempt came to, in settle.sql's words. */
struct settlement {
    const char *outcome;
    int64_t delay_ms;
    struct jobq__buf entry; /* the error entry; empty: none */
    const char *result;
};

/* ---- Claim ---- */

static int
run_plain(struct drain *drain, const char *text, jobq_error *err)
{
    PGresult *result;
    int rc =
        jobq__sql_run_text(drain->conn, text, &(struct jobq__params){0}, &result, err);
    if (rc == 0)
        PQclear(result);
    return rc;
}

static int
note_done(struct drain *drain, int64_t id, jobq_error *err)
{
    if (drain->n_done == drain->cap_done) {
        size_t cap = drain->cap_done ? drain->cap_done * 2 : 64;
        int64_t *more = realloc(drain->done, cap * sizeof *more);
        if (!more)
            return jobq__error(err, JOBQ_ENOMEM, "drain: out of memory");
        drain->done = more;
        drain->cap_done = cap;
    }
    drain->done[drain->n_done++] = id;
    return 0;
}

static int
find_horizon(struct drain *drain, jobq_error *err)
{
    PGresult *result;
    int rc = jobq__sql_run(drain->conn, drain->options->schema, JOBQ__SQL_DRAIN_HORIZON,
                           &(struct jobq__params){0}, &result, err);
    if (rc != 0)
        return rc;
    jobq__field_int(result, 0, 0, &drain->horizon);
    PQclear(result);
    return 0;
}

static struct jobq__span
text_field(const PGresult *result, int column)
{
    struct jobq__span span = {NULL, 0};
    jobq__field_text(result, 0, column, &span.at, &span.len);
    return span;
}

static struct jobq__span
json_field(const PGresult *result, int column)
{
    struct jobq__span span = {NULL, 0};
    jobq__field_jsonb(result, 0, column, &span.at, &span.len);
    return span;
}

static int32_t
int_field(const PGresult *result, int column)
{
    int64_t value = 0; /* stays for null */
    jobq__field_int(result, 0, column, &value);
    return (int32_t)value;
}

/* The next job; claimed->result stays NULL when there is none. */
static int
claim(struct drain *drain, struct claimed *claimed, jobq_error *err)
{
    const jobq_testing_drain_options *options = drain->options;
    struct jobq__array done = {0};
    struct jobq__params params = {0};
    PGresult *result = NULL;
    jobq__params_text(&params, options->queue ? options->queue : "default");
    jobq__params_int8_array(&params, &done, drain->done, drain->n_done);
    jobq__params_int8(&params, drain->horizon);
    jobq__params_bool(&params, options->with_scheduled);
    int rc = jobq__sql_run(drain->conn, options->schema, JOBQ__SQL_DRAIN_CLAIM, &params,
                           &result, err);
    jobq__array_clear(&done);
    if (rc != 0)
        return rc;
    if (PQntuples(result) == 0) {
        PQclear(result);
        return 0;
    }
    claimed->result = result;
    claimed->frame = (struct jobq__frame){.type = JOBQ__FRAME_JOB,
                                          .kind = text_field(result, 1),
                                          .queue = text_field(result, 2),
                                          .args = json_field(result, 3),
                                          .meta = json_field(result, 4),
                                          .attempt = int_field(result, 5),
                                          .max_attempts = int_field(result, 6),
                                          .timeout_ms = int_field(result, 7)};
    jobq__field_int(result, 0, 0, &claimed->frame.id);
    return note_done(drain, claimed->frame.id, err);
}

/* ---- Settle ---- */

static void
put_member(struct jobq__buf *buf, const char *before, const char *text)
{
    jobq__buf_adds(buf, before);
    jobq__buf_add_json_string(buf, text, strlen(text));
}

static void
put_entry(struct settlement *settlement, const char *kind, const char *error,
          const char *detail)
{
    struct jobq__buf *buf = &settlement->entry;
    jobq__buf_reset(buf);
    put_member(buf, "{\"kind\":", kind);
    put_member(buf, ",\"error\":", error && *error ? error : "no reason given");
    if (detail && *detail)
        put_member(buf, ",\"detail\":", detail);
    jobq__buf_addc(buf, '}');
}

static int64_t
backoff_ms(const struct jobq__frame *job)
{
    static const struct jobq__backoff oban = {.formula = JOBQ__BACKOFF_OBAN};
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
        random = 0;
    return jobq__backoff_ms(&oban, job->attempt, job->max_attempts, random);
}

static void
fail(struct settlement *settlement, const struct jobq__frame *job, const char *kind,
     const char *error)
{
    settlement->outcome = "failed";
    settlement->delay_ms = backoff_ms(job);
    settlement->result = NULL;
    put_entry(settlement, kind, error, NULL);
}

static void
fill_settlement(struct settlement *settlement, const struct jobq__frame *job,
                const jobq_testing_outcome *said)
{
    settlement->delay_ms = said->delay_ms;
    switch ((enum jobq_testing_answer)said->answer) {
    case JOBQ_TESTING_OK:
        settlement->outcome = "completed";
        settlement->result = said->result;
        if (said->error)
            put_entry(settlement, "error", said->error, NULL);
        break;
    case JOBQ_TESTING_ERROR:
        settlement->outcome = "failed";
        if (said->delay_ms < 0)
            settlement->delay_ms = backoff_ms(job);
        put_entry(settlement, "error", said->error, said->detail);
        break;
    case JOBQ_TESTING_SNOOZE:
        settlement->outcome = "snoozed";
        break;
    case JOBQ_TESTING_DISCARD:
        settlement->outcome = "discarded";
        put_entry(settlement, "error", said->error, NULL);
        break;
    case JOBQ_TESTING_CANCEL:
        settlement->outcome = "cancelled";
        if (said->error)
            put_entry(settlement, "error", said->error, NULL);
        break;
    }
}

static bool
is_text(struct jobq__span span, const char *text)
{
    return span.at && strlen(text) == span.len && memcmp(span.at, text, span.len) == 0;
}

static void
count_state(jobq_testing_drained *count, const struct settlement *settlement,
            struct jobq__span state)
{
    if (is_text(state, "completed"))
        count->completed++;
    else if (is_text(state, "discarded"))
        count->discarded++;
    else if (is_text(state, "cancelled"))
        count->cancelled++;
    else if (strcmp(settlement->outcome, "snoozed") == 0)
        count->snoozed++;
    else
        count->retryable++;
}

/* No row took the answer: the handler ended its job itself (jobq.complete), or somebody
 * else did. */
static int
count_ended(struct drain *drain, const struct jobq__frame *job, jobq_error *err)
{
    struct jobq__params params = {0};
    PGresult *result;
    bool completed = false;
    jobq__params_int8(&params, job->id);
    jobq__params_int4(&params, job->attempt);
    int rc = jobq__sql_run(drain->conn, drain->options->schema, JOBQ__SQL_DRAIN_ENDED,
                           &params, &result, err);
    if (rc != 0)
        return rc;
    jobq__field_bool(result, 0, 0, &completed);
    PQclear(result);
    if (completed)
        drain->count.completed++;
    else
        drain->count.refused++;
    return 0;
}

static int
settle(struct drain *drain, const struct jobq__frame *job, int64_t run_us,
       struct settlement *settlement, jobq_error *err)
{
    struct jobq__params params = {0};
    PGresult *result;
    const char *entry =
        settlement->entry.len > 0 ? jobq__buf_cstr(&settlement->entry) : NULL;
    if (settlement->entry.failed)
        return jobq__error(err, JOBQ_ENOMEM, "drain: out of memory");
    jobq__params_int8(&params, job->id);
    jobq__params_int4(&params, job->attempt);
    jobq__params_text(&params, settlement->outcome);
    jobq__params_int8(&params, settlement->delay_ms);
    jobq__params_json(&params, entry);
    jobq__params_json(&params, settlement->result);
    jobq__params_int8(&params, run_us);
    int rc = jobq__sql_run(drain->conn, drain->options->schema, JOBQ__SQL_DRAIN_SETTLE,
                           &params, &result, err);
    if (rc != 0)
        return rc;
    bool taken = !PQgetisnull(result, 0, 0);
    if (taken)
        count_state(&drain->count, settlement, text_field(result, 0));
    PQclear(result);
    return taken ? 0 : count_ended(drain, job, err);
}

/* ---- One job ---- */

/* In the caller's transaction: undoes what a failed statement of the handler's left, or
 * keeps what it did. *failed: the former. Without our savepoint it is another
 * transaction, which the handler began. */
static int
leave_savepoint(struct drain *drain, const struct jobq__frame *job, bool *failed,
                jobq_error *err)
{
    jobq_error why = {0};
    int rc = 0;
    *failed = PQtransactionStatus(drain->conn) == PQTRANS_INERROR;
    bool ended = !*failed && PQtransactionStatus(drain->conn) != PQTRANS_INTRANS;
    if (*failed)
        rc = run_plain(drain, "ROLLBACK TO SAVEPOINT jobq_drain", &why);
    if (rc == 0 && !ended)
        rc = run_plain(drain, "RELEASE SAVEPOINT jobq_drain", &why);
    if (ended || strcmp(why.sqlstate, "3B001") == 0)
        return jobq__error(
            err, JOBQ_ESTATE,
            "the handler of job %lld (%.*s) ended the caller's transaction",
            (long long)job->id, (int)job->kind.len, job->kind.at);
    if (rc != 0 && err)
        *err = why;
    return rc;
}

/* What the handler left behind on the connection; *fault: why its answer cannot be
 * taken. */
static int
tidy(struct drain *drain, const struct jobq__frame *job, const char **fault,
     jobq_error *err)
{
    bool failed = false;
    PGTransactionStatusType status = PQtransactionStatus(drain->conn);
    if (PQstatus(drain->conn) != CONNECTION_OK || status == PQTRANS_ACTIVE ||
        PQpipelineStatus(drain->conn) != PQ_PIPELINE_OFF)
        return jobq__sql_check_conn(drain->conn, err);
    if (drain->in_transaction) {
        int rc = leave_savepoint(drain, job, &failed, err);
        if (failed)
            *fault = "a statement of the handler failed in the caller's transaction: the "
                     "handler's changes there were rolled back";
        return rc;
    }
    if (status == PQTRANS_IDLE)
        return 0;
    *fault = "the handler left a transaction open: it was rolled back";
    return run_plain(drain, "ROLLBACK", err);
}

static int
handle(struct drain *drain, const struct jobq__frame *job, struct settlement *settlement,
       jobq_testing_outcome **said, jobq_error *err)
{
    const jobq_testing_drain_options *options = drain->options;
    const char *fault = NULL;
    bool known =
        jobq__worker_find_kind(options->kinds, options->n_kinds, job->kind) != NULL;
    int rc = drain->in_transaction ? run_plain(drain, "SAVEPOINT jobq_drain", err) : 0;
    if (rc == 0)
        rc = jobq__testing_run(options->kinds, options->n_kinds, JOBQ_STOP_NO, job, said,
                               err);
    if (rc == 0)
        rc = tidy(drain, job, &fault, err);
    if (rc != 0)
        return rc;
    if (!known)
        fail(settlement, job, "unhandled", (*said)->error);
    else if (fault && (*said)->answer == JOBQ_TESTING_OK)
        fail(settlement, job, "error", fault);
    else
        fill_settlement(settlement, job, *said);
    return 0;
}

static int
do_job(struct drain *drain, const struct jobq__frame *job, jobq_error *err)
{
    struct settlement settlement = {.outcome = "failed"};
    jobq_testing_outcome *said = NULL;
    int64_t began_us = jobq__now_us();
    int rc = handle(drain, job, &settlement, &said, err);
    if (rc == 0)
        rc = settle(drain, job, jobq__now_us() - began_us, &settlement, err);
    jobq__buf_clear(&settlement.entry);
    jobq_testing_outcome_free(said);
    return rc;
}

/* ---- All ---- */

static int
run(struct drain *drain, jobq_error *err)
{
    size_t limit = drain->options->limit ? drain->options->limit : DEFAULT_LIMIT;
    int rc = drain->options->recursive ? 0 : find_horizon(drain, err);
    while (rc == 0) {
        struct claimed claimed = {0};
        if (drain->options->limit && drain->n_done == limit)
            return 0;
        if (drain->n_done == limit)
            return jobq__error(err, JOBQ_ESTATE,
                               "%d jobs have run and there may be more: does one enqueue "
                               "itself? If not, set a limit",
                               DEFAULT_LIMIT);
        rc = claim(drain, &claimed, err);
        if (rc == 0 && !claimed.result)
            return 0;
        if (rc == 0)
            rc = do_job(drain, &claimed.frame, err);
        PQclear(claimed.result);
    }
    return rc;
}

int
jobq_testing_drain(PGconn *conn, const jobq_testing_drain_options *options,
                   jobq_testing_drained *out, jobq_error *err)
{
    if (!options || options->size != sizeof *options)
        return jobq__error(
            err, JOBQ_EINVAL,
            "options.size must be %zu: start from JOBQ_TESTING_DRAIN_OPTIONS_INIT",
            sizeof *options);
    int rc = jobq__worker_check_kinds(options->kinds, options->n_kinds, false, err);
    if (rc == 0)
        rc = jobq__text_check(options->queue, "options.", "queue", err);
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    if (rc != 0)
        return rc;
    struct drain drain = {.conn = conn,
                          .options = options,
                          .in_transaction = PQtransactionStatus(conn) == PQTRANS_INTRANS};
    rc = run(&drain, err);
    free(drain.done);
    if (out)
        *out = drain.count;
    return rc;
}
