/* queue.c: see jobq/queue.h. What is allowed is checked by the database's functions. */
#include <jobq/queue.h>

#include "libjobq/error.h"
#include "libjobq/sql.h"
#include "libjobq/text.h"

/* Runs a statement whose first parameter is the queue, and the last the node. */
static int
set(PGconn *conn, const char *schema, enum jobq__statement statement, const char *queue,
    const int *n, const char *node, int *changed, jobq_error *err)
{
    if (!queue)
        return jobq__error(err, JOBQ_EINVAL,
                           "queue must be text of 1 to 128 bytes, got NULL");
    int rc = jobq__text_check(queue, "", "queue", err);
    if (rc == 0)
        rc = jobq__text_check(node, "", "node", err);
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    if (rc < 0)
        return rc;
    struct jobq__params params = {0};
    PGresult *result;
    jobq__params_text(&params, queue);
    if (n && *n == JOBQ_WORKERS_CONFIGURED)
        jobq__params_null(&params, JOBQ__INT4);
    else if (n)
        jobq__params_int4(&params, *n);
    jobq__params_text(&params, node);
    rc = jobq__sql_run(conn, schema, statement, &params, &result, err);
    if (rc < 0)
        return rc;
    bool yes = false;
    jobq__field_bool(result, 0, 0, &yes);
    if (changed)
        *changed = yes;
    PQclear(result);
    return 0;
}

int
jobq_queue_pause(PGconn *conn, const char *schema, const char *queue, const char *node,
                 int *changed, jobq_error *err)
{
    return set(conn, schema, JOBQ__SQL_PAUSE, queue, NULL, node, changed, err);
}

int
jobq_queue_resume(PGconn *conn, const char *schema, const char *queue, const char *node,
                  int *changed, jobq_error *err)
{
    return set(conn, schema, JOBQ__SQL_RESUME, queue, NULL, node, changed, err);
}

int
jobq_queue_scale(PGconn *conn, const char *schema, const char *queue, int n,
                 const char *node, int *changed, jobq_error *err)
{
    return set(conn, schema, JOBQ__SQL_SCALE, queue, &n, node, changed, err);
}
