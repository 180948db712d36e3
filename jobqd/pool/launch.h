/* launch.h: how a queue's program is started: what it finds in its environment, on stdin
 * and on JOBQ_FD. */
#ifndef JOBQD_LAUNCH_H
#define JOBQD_LAUNCH_H

#include <jobq/error.h>

#include "jobqd/config/config.h"
#include "jobqd/proc/limits.h"
#include "jobqd/proc/spawn.h"
#include "jobqd/pure/job.h"
#include "libjobq/buf.h"

/* The job's own timeout, or the queue's; 0: none. */
int64_t launch_timeout_ms(const struct queue_config *queue, const struct job *job);

/* What is found out once for all processes of a queue. */
struct launch_plan {
    const struct queue_config *queue; /* outlives it */
    struct limits limits;
    char **environment; /* for workers with their socket and the bytes that a line may
                           have; an exec program's job brings the rest along */
    bool is_suspect;    /* see spawn_options */
};

/* base: jobqd's own environment. Returns 0, JOBQ_ENOMEM, or JOBQ_EINVAL for a user or
 * group that is not there (any more). Clear with launch_plan_clear, also after a failure.
 */
int launch_plan_make(struct launch_plan *plan, const struct queue_config *queue,
                     size_t max_frame, char *const *base, jobq_error *err);
void launch_plan_clear(struct launch_plan *plan);

/* Appends what the queue's workers are started with, as text: where it is equal, so are
 * they. What an option leaves as it is stands nowhere, so that a release with one more
 * says the same. */
void launch_describe(const struct queue_config *queue, size_t max_frame,
                     struct jobq__buf *out);

/* Starts one process: a worker with a socket (job NULL), or an exec program for that job,
 * with the args on stdin. entrance: of a control group (cgroup_entrance), or -1. */
int launch(struct child *out, const struct launch_plan *plan, int entrance,
           const struct job *job, jobq_error *err);

/* Starts a hook: plan is of a queue whose program it is, in exec mode. variables:
 * NAME=VALUE, NULL-terminated, beside those of the plan; story: its stdin. */
int launch_hook(struct child *out, const struct launch_plan *plan,
                const char *const *variables, const char *story, size_t len,
                jobq_error *err);

enum launch_use {
    LAUNCH_JUDGES, /* whatever is wrong is an error */
    LAUNCH_STARTS /* the queues are about to be served: a program's file that is there and
                     cannot be executed is one queue's trouble, which backs off until the
                     file is mended. It is logged, and no error */
};

/* Whether every queue's programs can be started here, as far as that can be tried without
 * starting them: its user and group, its limits, its folder, and whether that user may
 * execute the program. Waits for a child process for each that differs, from jobqd itself
 * and from the queues before it: two seconds for one that hangs, half a lease in all. Not
 * for the loop's callbacks, but for a start or a reload. JOBQ_EINVAL begins with file and
 * line, as does JOBQ_ESTATE, which LAUNCH_STARTS does not return. */
int launch_check(const struct config *config, enum launch_use use, jobq_error *err);

#endif
