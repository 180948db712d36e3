/* forkserver.h (internal): the forkserver process of a queue with `preload`: it has loaded
 * the program, runs no job, and forks each worker on jobqd's request.
 *
 * Why a worker is forked twice: it is to be jobqd's own child, since only a parent can
 * rely on a pid (it is not given to another process before its parent has taken the end)
 * and learns what the process used. So the forkserver forks a process that forks the worker
 * and exits; the kernel gives the orphan to the nearest process above that asked for
 * orphans (PR_SET_CHILD_SUBREAPER), which is jobqd. clone(CLONE_PARENT) would do it in
 * one step, but not through fork(): pthread_atfork's handlers, malloc's locks and what
 * glibc keeps about the calling thread would be passed over, and no other language has
 * it.
 */
#ifndef JOBQ__FORKSERVER_H
#define JOBQ__FORKSERVER_H

#include <jobq/error.h>
#include <stdbool.h>

/* jobqd has started this process as a forkserver (JOBQ_PRELOAD=1). */
bool jobq__forkserver_is_wanted(void);

/* Says hello on fd, then forks workers until told to stop, or until wake_fd is readable.
 * Returns 0 in the forkserver at its end (*is_worker false), and 0 in each worker
 * (*is_worker true): there fd is the worker's own socket, its output goes into its own
 * pipe, jobqd is its parent and has told it to start. JOBQ_EIO: jobqd is gone.
 * JOBQ_EPROTO. */
int jobq__forkserver_run(int fd, int wake_fd, bool *is_worker, jobq_error *err);

#endif
