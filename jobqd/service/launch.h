/* launch.h: how a queue's program is started: what it finds in its environment, on stdin
 * and on JOBQ_FD. */
#ifndef JOBQD_LAUNCH_H
#define JOBQD_LAUNCH_H

#include <jobq/error.h>

#include "jobqd/base/config.h"
#include "jobqd/io/spawn.h"
#include "jobqd/pure/job.h"

/* The job's own timeout, or the queue's; 0: none. */
int64_t launch_timeout_ms(const struct queue_config *queue, const struct job *job);

/* What all processes of a queue find in their environment: for workers their socket and
 * the bytes that a line may have. For free(); NULL: out of memory. */
char **launch_environment(const struct queue_config *queue, size_t max_frame,
                          char *const *base);

/* Starts one process: a worker with a socket (job NULL), or an exec program for that job,
 * with the args on stdin. */
int launch(struct child *out, const struct queue_config *queue, char *const *environment,
           const struct job *job, jobq_error *err);

#endif
