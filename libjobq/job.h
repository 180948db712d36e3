/* job.h (internal): checks a job before it is sent, so that the error names the member
 * and not a column; a look-up with an end. */
#ifndef JOBQ__JOB_H
#define JOBQ__JOB_H

#include <jobq/job.h>

/* JOBQ_EINVAL: the message begins with prefix ("" or "jobs[3].") and the member's name.
 */
int jobq__job_check(const jobq_job *job, const char *prefix, jobq_error *err);

/* The job of a program that was built with an older header is shorter: a copy that has
 * zero for what it lacks. What is of no size that there ever was is for jobq__job_check
 * to refuse. */
void jobq__job_take(jobq_job *out, const jobq_job *given);
/* The same for an array of them, which lie as close as the first one's size says. *copy
 * is for free(); NULL: they can be used as they are. */
int jobq__jobs_take(const jobq_job **jobs, size_t n, jobq_job **copy, jobq_error *err);

/* As jobq_job_get; until_us: as in params.h. */
int jobq__job_get(struct pg_conn *conn, const char *schema, int64_t id, int64_t until_us,
                  jobq_job_info **out, jobq_error *err);

#endif
