/* wait.c: waits for a job's end by looking again and again, with pauses that grow: no
 * LISTEN, no session, so that a pooler may stand between. A look at a live job descends
 * one index; the history is looked at only when the job is live no more. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "libjobq/array.h"
#include "libjobq/error.h"
#include "libjobq/job.h"
#include "libjobq/sql.h"
#include "libjobq/state.h"
#include "libjobq/poll_deadline.h"
#include "libjobq/wait.h"
#include "libjobq/duration.h"

enum { MIN_PAUSE_US = 1000, MAX_PAUSE_US = 100 * 1000 };
/* What was begun within the time may take so much longer: a network that is merely slow
 * shall not cost the connection, and even a wait of 0 ms is to look. */
enum { GRACE_US = 1500 * 1000 };

void
jobq__wait_begin(struct jobq__wait *wait, int64_t timeout_ms)
{
    *wait = (struct jobq__wait){.pause_us = MIN_PAUSE_US, .ends_us = JOBQ__FOR_EVER};
    int64_t now = jobq__now_us();
    if (timeout_ms >= 0 && timeout_ms < (INT64_MAX - now - GRACE_US) / 1000)
        wait->ends_us = now + timeout_ms * 1000;
}

int64_t
jobq__wait_until(const struct jobq__wait *wait)
{
    return wait->ends_us == JOBQ__FOR_EVER ? 0 : wait->ends_us + GRACE_US;
}

bool
jobq__wait_pause(struct jobq__wait *wait)
{
    int64_t left = wait->ends_us - jobq__now_us();
    if (left <= 0)
        return false;
    int64_t us = wait->pause_us < left ? wait->pause_us : left;
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
        ;
    wait->pause_us += wait->pause_us / 2;
    if (wait->pause_us > MAX_PAUSE_US)
        wait->pause_us = MAX_PAUSE_US;
    return true;
}

/* Notes the state of a live job; *live is false when it is not there. */
static int
look_at_live(PGconn *conn, const char *schema, int64_t id, struct jobq__wait *wait,
             bool *live, jobq_error *err)
{
    struct jobq__params params = {.until_us = jobq__wait_until(wait)};
    PGresult *result;
    const char *state;
    size_t len;
    jobq__params_int8(&params, id);
    int rc = jobq__sql_run(conn, schema, JOBQ__SQL_LIVE, &params, &result, err);
    if (rc < 0)
        return rc;
    *live = PQntuples(result) > 0;
    if (*live && jobq__field_text(result, 0, 0, &state, &len))
        wait->state = jobq__state_find(state, len);
    wait->seen = wait->seen || *live;
    PQclear(result);
    return 0;
}

static bool
has_ended(const jobq_job_info *info)
{
    return strcmp(info->state, "completed") == 0 ||
           strcmp(info->state, "cancelled") == 0 || strcmp(info->state, "discarded") == 0;
}

int
jobq__wait_look(struct jobq__wait *wait, PGconn *conn, const char *schema, int64_t id,
                jobq_job_info **out, jobq_error *err)
{
    bool live;
    jobq_job_info *info;
    int rc = jobq__sql_check_conn(conn, err);
    if (rc < 0)
        return rc;
    if (PQtransactionStatus(conn) != PQTRANS_IDLE)
        return jobq__error(err, JOBQ_ESTATE,
                           "the connection is in a transaction: a job enqueued in it "
                           "cannot run before it commits");
    rc = look_at_live(conn, schema, id, wait, &live, err);
    if (rc < 0 || live)
        return rc;
    rc = jobq__job_get(conn, schema, id, jobq__wait_until(wait), &info, err);
    if (rc == JOBQ_ENOTFOUND && wait->seen)
        return jobq__error(
            err, rc,
            "job %" PRId64
            " is gone: it completed in a queue that keeps nothing, or was deleted",
            id);
    if (rc < 0)
        return rc;
    wait->seen = true;
    if (has_ended(info)) {
        *out = info; /* the caller's */
        return 1;
    }
    wait->state =
        jobq__state_find(info->state, strlen(info->state)); /* retried by hand */
    jobq_job_info_free(info);
    return 0;
}

int
jobq__wait_timed_out(const struct jobq__wait *wait, int64_t id, int64_t timeout_ms,
                     jobq_error *err)
{
    return jobq__error(err, JOBQ_ETIMEOUT, "job %" PRId64 " is %s after %s", id,
                       wait->state ? wait->state : "in an unknown state",
                       jobq__duration_show(timeout_ms).text);
}

int
jobq__wait_check(int64_t timeout_ms, jobq_job_info **out, jobq_error *err)
{
    if (!out)
        return jobq__error(err, JOBQ_EINVAL,
                           "out must point to a jobq_job_info *, got NULL");
    if (timeout_ms < -1)
        return jobq__error(
            err, JOBQ_EINVAL,
            "timeout_ms must be 0 or more, or -1 for no limit, got %" PRId64, timeout_ms);
    return 0;
}

int
jobq_job_wait(PGconn *conn, const char *schema, int64_t id, int64_t timeout_ms,
              jobq_job_info **out, jobq_error *err)
{
    struct jobq__wait wait;
    int rc = jobq__wait_check(timeout_ms, out, err);
    if (rc < 0)
        return rc;
    jobq__wait_begin(&wait, timeout_ms);
    do {
        rc = jobq__wait_look(&wait, conn, schema, id, out, err);
        if (rc != 0)
            return rc < 0 ? rc : 0;
    } while (jobq__wait_pause(&wait));
    return jobq__wait_timed_out(&wait, id, timeout_ms, err);
}
