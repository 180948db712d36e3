/* job.c: enqueue, look up, cancel and retry on the caller's connection. */
#include "libjobq/job.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libjobq/array.h"
#include "libjobq/error.h"
#include "libjobq/json.h"
#include "libjobq/params.h"
#include "libjobq/row.h"
#include "libjobq/sql.h"
#include "libjobq/text.h"
#include "libjobq/unique.h"

enum { DEFAULT_MAX_ATTEMPTS = 20 };

static const int64_t MAX_DELAY_MS =
    (int64_t)1000 * 366 * 24 * 3600 * 1000; /* a thousand years */
static const int64_t MAX_TIME_US =
    (int64_t)253402300799 * 1000000; /* the end of the year 9999 */

/* ---- checks ---- */

static int
check_name(const char *text, size_t most, const char *prefix, const char *member,
           jobq_error *err)
{
    size_t len = strlen(text);
    if (len >= 1 && len <= most)
        return jobq__text_check(text, prefix, member, err);
    return jobq__error(err, JOBQ_EINVAL,
                       "%s%s must be text of 1 to %zu bytes, got %zu bytes", prefix,
                       member, most, len);
}

static int
check_object(const char *text, const char *prefix, const char *member, jobq_error *err)
{
    char what[64];
    if (!text)
        return 0;
    snprintf(what, sizeof what, "%s%s", prefix, member);
    return jobq__json_check_object(text, strlen(text), what, err);
}

static int
check_texts(const jobq_job *job, const char *prefix, jobq_error *err)
{
    const struct {
        const char *text;
        const char *member;
        size_t most;
    } texts[] = {{job->kind, "kind", 128},
                 {job->queue, "queue", 128},
                 {job->key, "key", 512},
                 {job->unique_key, "unique_key", 512}};
    if (!job->kind)
        return jobq__error(err, JOBQ_EINVAL,
                           "%skind must be text of 1 to 128 bytes, got NULL", prefix);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int rc = texts[i].text ? check_name(texts[i].text, texts[i].most, prefix,
                                            texts[i].member, err)
                               : 0;
        if (rc < 0)
            return rc;
    }
    return jobq__texts_check(job->tags, job->n_tags, prefix, "tags", "n_tags", err);
}

/* What can be told without the database's clock: the rest, a delay and a time, is up to
 * it. */
static int
check_expiry(const jobq_job *job, const char *prefix, jobq_error *err)
{
    if (job->expires_in_ms > 0 && job->expires_at_us > 0)
        return jobq__error(err, JOBQ_EINVAL,
                           "%sexpires_in_ms and expires_at_us cannot both be set",
                           prefix);
    if (job->expires_in_ms > 0 && job->expires_in_ms <= job->delay_ms)
        return jobq__error(err, JOBQ_EINVAL,
                           "%sexpires_in_ms must be more than delay_ms, %" PRId64
                           ", or 0, got %" PRId64,
                           prefix, job->delay_ms, job->expires_in_ms);
    if (job->expires_at_us > 0 && job->expires_at_us <= job->scheduled_at_us)
        return jobq__error(err, JOBQ_EINVAL,
                           "%sexpires_at_us must be after scheduled_at_us, %" PRId64
                           ", or 0, got %" PRId64,
                           prefix, job->scheduled_at_us, job->expires_at_us);
    return 0;
}

/* What a jobq_job was before it had an expiry. */
#define FIRST_SIZE offsetof(jobq_job, expires_at_us)

void
jobq__job_take(jobq_job *out, const jobq_job *given)
{
    *out = (jobq_job){.size = given->size};
    if (given->size == FIRST_SIZE || given->size == sizeof *out)
        memcpy(out, given, given->size);
    if (given->size == FIRST_SIZE)
        out->size = sizeof *out;
}

int
jobq__jobs_take(const jobq_job **jobs, size_t n, jobq_job **copy, jobq_error *err)
{
    const char *given = (const char *)*jobs;
    *copy = NULL;
    if (n == 0 || !*jobs || (*jobs)->size != FIRST_SIZE)
        return 0;
    if (!(*copy = calloc(n, sizeof **copy)))
        return jobq__error(err, JOBQ_ENOMEM, "no memory for %zu jobs", n);
    for (size_t i = 0; i < n; i++) {
        jobq_job *job = &(*copy)[i];
        memcpy(job, given + i * FIRST_SIZE, FIRST_SIZE);
        if (job->size == FIRST_SIZE)
            job->size = sizeof *job;
    }
    *jobs = *copy;
    return 0;
}

int
jobq__job_check(const jobq_job *job, const char *prefix, jobq_error *err)
{
    if (job->size != sizeof *job)
        return jobq__error(
            err, JOBQ_EINVAL,
            "%ssize must be sizeof(jobq_job), %zu, got %zu: start from JOBQ_JOB_INIT",
            prefix, sizeof *job, job->size);
    const struct {
        int64_t value;
        int64_t least, most;
        const char *member;
        const char *allowed;
    } numbers[] = {
        {job->priority, 0, 9, "priority", "0 to 9"},
        {job->max_attempts, 0, 1000, "max_attempts", "1 to 1000, or 0 for the queue's"},
        {job->timeout_ms, 0, INT32_MAX, "timeout_ms",
         "1 to 2147483647, or 0 for its queue's"},
        {job->delay_ms, 0, MAX_DELAY_MS, "delay_ms", "0 to 31622400000000"},
        {job->scheduled_at_us, 0, MAX_TIME_US, "scheduled_at_us",
         "0 to 253402300799000000"},
        {job->expires_at_us, 0, MAX_TIME_US, "expires_at_us", "0 to 253402300799000000"},
        {job->expires_in_ms, 0, MAX_DELAY_MS, "expires_in_ms", "0 to 31622400000000"},
    };
    int rc = check_texts(job, prefix, err);
    for (size_t i = 0; rc == 0 && i < sizeof numbers / sizeof numbers[0]; i++)
        if (numbers[i].value < numbers[i].least || numbers[i].value > numbers[i].most)
            rc = jobq__error(err, JOBQ_EINVAL, "%s%s must be %s, got %" PRId64, prefix,
                             numbers[i].member, numbers[i].allowed, numbers[i].value);
    if (rc == 0 && job->delay_ms > 0 && job->scheduled_at_us > 0)
        rc = jobq__error(err, JOBQ_EINVAL,
                         "%sdelay_ms and scheduled_at_us cannot both be set", prefix);
    if (rc == 0)
        rc = check_expiry(job, prefix, err);
    if (rc == 0)
        rc = check_object(job->args, prefix, "args", err);
    if (rc == 0)
        rc = check_object(job->meta, prefix, "meta", err);
    if (rc == 0)
        rc = jobq__unique_check(job, prefix, err);
    return rc;
}

/* ---- one ---- */

static const char *
or_else(const char *text, const char *otherwise)
{
    return text ? text : otherwise;
}

static void
put_tags(struct jobq__array *array, const jobq_job *job)
{
    jobq__array_begin(array, JOBQ__TEXT);
    for (size_t i = 0; i < job->n_tags; i++)
        jobq__array_add_text(array, job->tags[i], strlen(job->tags[i]));
}

static void
put_int8_or_null(struct jobq__params *params, int64_t value)
{
    if (value > 0)
        jobq__params_int8(params, value);
    else
        jobq__params_null(params, JOBQ__INT8);
}

/* The parameters that try_enqueue has beyond enqueue's. */
static void
put_rest(struct jobq__params *params, const jobq_job *job, struct jobq__buf *unique)
{
    if (job->unique_by) {
        jobq__unique_put(unique, job->unique_by);
        params->failed |= !jobq__buf_cstr(unique);
    }
    jobq__params_json(params, job->unique_by ? unique->data : NULL);
    jobq__params_text(params, jobq__conflict_word(job->on_conflict));
    jobq__params_json(params, job->replace);
    put_int8_or_null(params, job->expires_at_us);
    put_int8_or_null(params, job->expires_in_ms);
}

static int
enqueue(PGconn *conn, const jobq_job *job, jobq_enqueued *out, jobq_error *err)
{
    bool plain = !job->unique_key && !job->unique_by && !job->expires_at_us &&
                 !job->expires_in_ms && job->on_conflict == JOBQ_ON_CONFLICT_IGNORE;
    struct jobq__array tags = {0};
    struct jobq__params params = {0};
    struct jobq__buf unique = {0};
    PGresult *result;
    put_tags(&tags, job);
    jobq__params_text(&params, job->kind);
    jobq__params_json(&params, or_else(job->args, "{}"));
    jobq__params_text(&params, or_else(job->queue, "default"));
    jobq__params_int4(&params, job->priority);
    put_int8_or_null(&params, job->scheduled_at_us);
    put_int8_or_null(&params, job->delay_ms);
    if (job->max_attempts > 0)
        jobq__params_int4(&params, job->max_attempts);
    else
        jobq__params_null(&params, JOBQ__INT4);
    jobq__params_text(&params, job->key);
    jobq__params_text(&params, job->unique_key);
    jobq__params_array(&params, JOBQ__TEXT_ARRAY, &tags);
    jobq__params_json(&params, or_else(job->meta, "{}"));
    if (job->timeout_ms > 0)
        jobq__params_int4(&params, job->timeout_ms);
    else
        jobq__params_null(&params, JOBQ__INT4);
    if (!plain)
        put_rest(&params, job, &unique);
    int rc = jobq__sql_run(conn, job->schema,
                           plain ? JOBQ__SQL_ENQUEUE : JOBQ__SQL_TRY_ENQUEUE, &params,
                           &result, err);
    jobq__array_clear(&tags);
    jobq__buf_clear(&unique);
    if (rc < 0)
        return rc;
    if (out) {
        const char *word = NULL;
        size_t len = 0;
        jobq__field_int(result, 0, 0, &out->id);
        jobq__field_text(result, 0, 1, &word, &len);
        out->conflict = jobq__conflict_read(word, len);
    }
    PQclear(result);
    return 0;
}

int
jobq_job_try_enqueue(PGconn *conn, const jobq_job *job, jobq_enqueued *out,
                     jobq_error *err)
{
    if (!job)
        return jobq__error(err, JOBQ_EINVAL, "job must point to a jobq_job, got NULL");
    jobq_job taken;
    jobq__job_take(&taken, job);
    int rc = jobq__job_check(&taken, "", err);
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    return rc < 0 ? rc : enqueue(conn, &taken, out, err);
}

int
jobq_enqueue(PGconn *conn, const jobq_job *job, int64_t *id, jobq_error *err)
{
    jobq_enqueued done;
    int rc = jobq_job_try_enqueue(conn, job, &done, err);
    if (rc == 0 && id)
        *id = done.id;
    return rc;
}

/* ---- by id ---- */

static int
run_on_id(PGconn *conn, const char *schema, int64_t id, enum jobq__statement statement,
          int64_t until_us, PGresult **out, jobq_error *err)
{
    int rc = jobq__sql_check_conn(conn, err);
    if (rc < 0)
        return rc;
    struct jobq__params params = {.until_us = until_us};
    jobq__params_int8(&params, id);
    return jobq__sql_run(conn, schema, statement, &params, out, err);
}

int
jobq__job_get(PGconn *conn, const char *schema, int64_t id, int64_t until_us,
              jobq_job_info **out, jobq_error *err)
{
    if (!out)
        return jobq__error(err, JOBQ_EINVAL,
                           "out must point to a jobq_job_info *, got NULL");
    PGresult *result;
    int rc = run_on_id(conn, schema, id, JOBQ__SQL_GET, until_us, &result, err);
    if (rc < 0)
        return rc;
    if (PQntuples(result) == 0)
        rc = jobq__error(err, JOBQ_ENOTFOUND, "no job has the id %lld", (long long)id);
    else
        rc = jobq__row_read(result, 0, out, err);
    PQclear(result);
    return rc;
}

int
jobq_job_get(PGconn *conn, const char *schema, int64_t id, jobq_job_info **out,
             jobq_error *err)
{
    return jobq__job_get(conn, schema, id, 0, out, err);
}

void
jobq_job_info_free(jobq_job_info *info)
{
    free(info);
}

static int
change(PGconn *conn, const char *schema, int64_t id, enum jobq__statement statement,
       int *done, jobq_error *err)
{
    PGresult *result;
    int rc = run_on_id(conn, schema, id, statement, 0, &result, err);
    if (rc < 0)
        return rc;
    bool changed = false;
    jobq__field_bool(result, 0, 0, &changed);
    if (done)
        *done = changed;
    PQclear(result);
    return 0;
}

int
jobq_job_cancel(PGconn *conn, const char *schema, int64_t id, int *done, jobq_error *err)
{
    return change(conn, schema, id, JOBQ__SQL_CANCEL, done, err);
}

int
jobq_job_retry(PGconn *conn, const char *schema, int64_t id, int *done, jobq_error *err)
{
    return change(conn, schema, id, JOBQ__SQL_RETRY, done, err);
}

int
jobq_job_complete(PGconn *conn, const char *schema, int64_t id, int attempt,
                  const char *result, jobq_error *err)
{
    int rc = result ? jobq__json_check(result, strlen(result), "result", err) : 0;
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    if (rc < 0)
        return rc;
    struct jobq__params params = {0};
    PGresult *done;
    jobq__params_int8(&params, id);
    jobq__params_int4(&params, attempt);
    jobq__params_json(&params, result);
    rc = jobq__sql_run(conn, schema, JOBQ__SQL_COMPLETE, &params, &done, err);
    if (rc == 0)
        PQclear(done);
    return rc;
}
