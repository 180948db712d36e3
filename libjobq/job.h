/* job.h (internal): checks a job before it is sent, so that the error names the member
 * and not a column. */
#ifndef JOBQ__JOB_H
#define JOBQ__JOB_H

#include <jobq/job.h>

/* JOBQ_EINVAL: the message begins with prefix ("" or "jobs[3].") and the member's name.
 */
int jobq__job_check(const jobq_job *job, const char *prefix, jobq_error *err);

#endif
