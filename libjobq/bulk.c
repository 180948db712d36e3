/* bulk.c: many jobs at once; all of the work is done by the database's functions. */
#include <jobq/bulk.h>

#include <string.h>

#include "libjobq/array.h"
#include "libjobq/error.h"
#include "libjobq/json.h"
#include "libjobq/sql.h"
#include "libjobq/text.h"

/* Runs one of the functions that answer with a number. */
static int
count(PGconn *conn, const char *schema, enum jobq__statement statement,
      const struct jobq__params *params, int64_t *n, jobq_error *err)
{
    PGresult *result;
    int rc = jobq__sql_check_conn(conn, err);
    if (rc == 0)
        rc = jobq__sql_run(conn, schema, statement, params, &result, err);
    if (rc < 0)
        return rc;
    if (n)
        jobq__field_int(result, 0, 0, n);
    PQclear(result);
    return 0;
}

static int
check_object(const char *text, const char *what, jobq_error *err)
{
    if (!text)
        return jobq__error(err, JOBQ_EINVAL, "%s must be a JSON object, got NULL", what);
    return jobq__json_check_object(text, strlen(text), what, err);
}

static int
by_filter(PGconn *conn, const char *schema, enum jobq__statement statement,
          const char *filter, int64_t *n, jobq_error *err)
{
    struct jobq__params params = {0};
    int rc = check_object(filter, "filter", err);
    if (rc < 0)
        return rc;
    jobq__params_json(&params, filter);
    return count(conn, schema, statement, &params, n, err);
}

int
jobq_job_cancel_many(PGconn *conn, const char *schema, const char *filter, int64_t *n,
                     jobq_error *err)
{
    return by_filter(conn, schema, JOBQ__SQL_CANCEL_MANY, filter, n, err);
}

int
jobq_job_retry_many(PGconn *conn, const char *schema, const char *filter, int64_t *n,
                    jobq_error *err)
{
    return by_filter(conn, schema, JOBQ__SQL_RETRY_MANY, filter, n, err);
}

int
jobq_job_delete_many(PGconn *conn, const char *schema, const char *filter, int64_t *n,
                     jobq_error *err)
{
    return by_filter(conn, schema, JOBQ__SQL_DELETE_MANY, filter, n, err);
}

int
jobq_job_purge(PGconn *conn, const char *schema, const char *args, const char *kind,
               const char *queue, int64_t *n, jobq_error *err)
{
    struct jobq__params params = {0};
    int rc = check_object(args, "args", err);
    if (rc == 0)
        rc = jobq__text_check(kind, "", "kind", err);
    if (rc == 0)
        rc = jobq__text_check(queue, "", "queue", err);
    if (rc < 0)
        return rc;
    jobq__params_json(&params, args);
    jobq__params_text(&params, kind);
    jobq__params_text(&params, queue);
    return count(conn, schema, JOBQ__SQL_PURGE, &params, n, err);
}

int
jobq_job_delete(PGconn *conn, const char *schema, int64_t id, int *done, jobq_error *err)
{
    struct jobq__params params = {0};
    PGresult *result;
    int rc = jobq__sql_check_conn(conn, err);
    if (rc < 0)
        return rc;
    jobq__params_int8(&params, id);
    rc = jobq__sql_run(conn, schema, JOBQ__SQL_DELETE, &params, &result, err);
    if (rc < 0)
        return rc;
    bool gone = false;
    jobq__field_bool(result, 0, 0, &gone);
    if (done)
        *done = gone;
    PQclear(result);
    return 0;
}
