/* cron.c: see jobq/cron.h. What a schedule and a time zone are is up to the database's
 * functions; the rest is checked as that of any job. */
#include <jobq/cron.h>

#include <string.h>

#include "libjobq/array.h"
#include "libjobq/error.h"
#include "libjobq/job.h"
#include "libjobq/sql.h"
#include "libjobq/text.h"

static int
check(const jobq_cron *cron, jobq_error *err)
{
    if (!cron)
        return jobq__error(err, JOBQ_EINVAL, "cron must be a jobq_cron, got NULL");
    if (cron->size != sizeof *cron)
        return jobq__error(err, JOBQ_EINVAL,
                           "size must be sizeof(jobq_cron), %zu, got %zu: start from "
                           "JOBQ_CRON_INIT",
                           sizeof *cron, cron->size);
    if (!cron->name || !cron->schedule)
        return jobq__error(err, JOBQ_EINVAL, "%s must be text, got NULL",
                           cron->name ? "schedule" : "name");
    int rc = jobq__text_check(cron->name, "", "name", err);
    if (rc == 0)
        rc = jobq__text_check(cron->schedule, "", "schedule", err);
    if (rc == 0)
        rc = jobq__text_check(cron->timezone, "", "timezone", err);
    if (rc == 0)
        rc = jobq__text_check(cron->missed, "", "missed", err);
    if (rc < 0)
        return rc;
    jobq_job job = JOBQ_JOB_INIT;
    job.schema = cron->schema;
    job.kind = cron->kind;
    job.args = cron->args;
    job.meta = cron->meta;
    job.queue = cron->queue;
    job.priority = cron->priority;
    job.max_attempts = cron->max_attempts;
    job.timeout_ms = cron->timeout_ms;
    job.tags = cron->tags;
    job.n_tags = cron->n_tags;
    return jobq__job_check(&job, "", err);
}

static const char *
or_else(const char *text, const char *fallback)
{
    return text ? text : fallback;
}

int
jobq_cron_set(PGconn *conn, const jobq_cron *cron, jobq_error *err)
{
    int rc = check(cron, err);
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    if (rc < 0)
        return rc;
    struct jobq__array tags = {0};
    struct jobq__params params = {0};
    jobq__array_begin(&tags, JOBQ__TEXT);
    for (size_t i = 0; i < cron->n_tags; i++)
        jobq__array_add_text(&tags, cron->tags[i], strlen(cron->tags[i]));
    jobq__params_text(&params, cron->name);
    jobq__params_text(&params, cron->schedule);
    jobq__params_text(&params, cron->kind);
    jobq__params_json(&params, or_else(cron->args, "{}"));
    jobq__params_text(&params, or_else(cron->timezone, "UTC"));
    jobq__params_text(&params, or_else(cron->queue, "default"));
    jobq__params_int4(&params, cron->priority);
    if (cron->max_attempts > 0)
        jobq__params_int4(&params, cron->max_attempts);
    else
        jobq__params_null(&params, JOBQ__INT4);
    jobq__params_text(&params, or_else(cron->missed, "once"));
    jobq__params_json(&params, or_else(cron->meta, "{}"));
    jobq__params_array(&params, JOBQ__TEXT_ARRAY, &tags);
    if (cron->timeout_ms > 0)
        jobq__params_int4(&params, cron->timeout_ms);
    else
        jobq__params_null(&params, JOBQ__INT4);
    PGresult *result = NULL;
    rc = jobq__sql_run(conn, cron->schema, JOBQ__SQL_CRON_SET, &params, &result, err);
    PQclear(result);
    jobq__array_clear(&tags);
    return rc;
}

/* Runs a statement whose parameter is the name. *out is the caller's. */
static int
run_on_name(PGconn *conn, const char *schema, enum jobq__statement statement,
            const char *name, PGresult **out, jobq_error *err)
{
    if (!name)
        return jobq__error(err, JOBQ_EINVAL, "name must be text, got NULL");
    int rc = jobq__text_check(name, "", "name", err);
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    if (rc < 0)
        return rc;
    struct jobq__params params = {0};
    jobq__params_text(&params, name);
    return jobq__sql_run(conn, schema, statement, &params, out, err);
}

static int
change(PGconn *conn, const char *schema, enum jobq__statement statement, const char *name,
       int *changed, jobq_error *err)
{
    PGresult *result;
    bool yes = false;
    int rc = run_on_name(conn, schema, statement, name, &result, err);
    if (rc < 0)
        return rc;
    jobq__field_bool(result, 0, 0, &yes);
    if (changed)
        *changed = yes;
    PQclear(result);
    return 0;
}

int
jobq_cron_pause(PGconn *conn, const char *schema, const char *name, int *changed,
                jobq_error *err)
{
    return change(conn, schema, JOBQ__SQL_CRON_PAUSE, name, changed, err);
}

int
jobq_cron_resume(PGconn *conn, const char *schema, const char *name, int *changed,
                 jobq_error *err)
{
    return change(conn, schema, JOBQ__SQL_CRON_RESUME, name, changed, err);
}

int
jobq_cron_delete(PGconn *conn, const char *schema, const char *name, jobq_error *err)
{
    return change(conn, schema, JOBQ__SQL_CRON_DELETE, name, NULL, err);
}

int
jobq_cron_run(PGconn *conn, const char *schema, const char *name, int64_t *id,
              jobq_error *err)
{
    PGresult *result;
    int64_t job = 0;
    int rc = run_on_name(conn, schema, JOBQ__SQL_CRON_RUN, name, &result, err);
    if (rc < 0)
        return rc;
    jobq__field_int(result, 0, 0, &job);
    if (id)
        *id = job;
    PQclear(result);
    return 0;
}
