/* fork_handoff.h: a worker that a forkserver forks: the request with the worker's descriptors, and
 * how the process that comes of it becomes a `struct child` like any other (spawn.h).
 * Knows neither the protocol nor the event loop.
 */
#ifndef JOBQD_FORK_HANDOFF_H
#define JOBQD_FORK_HANDOFF_H

#include <jobq/error.h>
#include <stddef.h>
#include <sys/types.h>

#include "jobqd/proc/spawn.h"

/* A worker to be. The descriptors are close-on-exec and ours; -1: none. */
struct fork_handoff {
    int channel_fd; /* our end of its socket */
    int output_fd;  /* the reading end of its stdout and stderr */
};

#define FORK_HANDOFF_NONE ((struct fork_handoff){-1, -1})

/* Makes the worker's socket and pipe, and writes line, a whole one, to the forkserver's
 * socket with their far ends beside it. Does not wait. JOBQ_EIO: out of descriptors.
 * JOBQ_ESTATE: the forkserver does not take it, and is of no more use, since part of the
 * line may have been written. */
int fork_handoff_ask(struct fork_handoff *handoff, int forkserver_fd, const char *line,
                     size_t len, jobq_error *err);

/* pid has been forked: makes sure that it is our child, so that no other process can
 * get its pid, gives it a process group of its own (a session is up to the worker)
 * and watches it. On success *out owns the descriptors and *handoff is empty. JOBQ_EINVAL:
 * it is no child of ours, or another one. */
int fork_handoff_take(struct fork_handoff *handoff, pid_t pid, struct child *out,
                      jobq_error *err);

/* Nothing came of it: a worker that is there nevertheless finds its socket closed. */
void fork_handoff_drop(struct fork_handoff *handoff);

#endif
