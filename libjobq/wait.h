/* wait.h (internal): waiting for a job's end, a look at a time: jobq_job_wait and the client,
 * which makes its connection anew between two looks, share it. */
#ifndef JOBQ__WAIT_H
#define JOBQ__WAIT_H

#include <jobq/job.h>
#include <stdbool.h>

struct jobq__wait {
    int64_t ends_us; /* as in poll_deadline.h */
    int64_t pause_us;
    /* the job's at the last look, a label of state.h; NULL: none yet */
    const char *state;
    bool seen; /* it was there */
};

/* What jobq_job_wait and jobq_client_wait refuse. */
int jobq__wait_check(int64_t timeout_ms, jobq_job_info **out, jobq_error *err);
void jobq__wait_begin(struct jobq__wait *wait, int64_t timeout_ms);
/* By when the database must have answered, as in params.h. */
int64_t jobq__wait_until(const struct jobq__wait *wait);
/* 1: it has ended, *out is the caller's. 0: not yet. */
int jobq__wait_look(struct jobq__wait *wait, struct pg_conn *conn, const char *schema,
                    int64_t id, jobq_job_info **out, jobq_error *err);
/* Longer each time; not beyond the end. False: the time is over. */
bool jobq__wait_pause(struct jobq__wait *wait);
int jobq__wait_timed_out(const struct jobq__wait *wait, int64_t id, int64_t timeout_ms,
                         jobq_error *err);

#endif
