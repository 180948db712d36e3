/* postgres_child.h: one child process of the embedded database, as an unprivileged user,
 * that dies with us.
 *
 * Not uv_spawn: libuv knows no PR_SET_PDEATHSIG, and the order of steps matters (a setuid
 * after it clears it). A child is watched through its pidfd, so that a signal never
 * reaches a pid that was used again.
 */
#ifndef JOBQD_POSTGRES_CHILD_H
#define JOBQD_POSTGRES_CHILD_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

/* Whom a child runs as. */
struct postgres_user {
    uid_t uid;
    gid_t gid;
    char name[64];
    bool drop; /* we are root: change to this user; otherwise it is ourselves */
};

struct postgres_child; /* frees itself after on_exit */

struct postgres_child_options {
    char *const *argv;  /* argv[0]: absolute path of the program */
    const char *folder; /* its working directory; must be open to the user */
    const struct postgres_user *user;
    int output;       /* file descriptor for its stdout and stderr; stays the caller's */
    int death_signal; /* what the kernel sends it when we die */
};

/* status: as waitpid gives it. The child object is gone when this is called. */
typedef void (*postgres_child_exit)(void *owner, int status);

/* Starts it in a session of its own (so that Ctrl-C in our terminal does not reach it),
 * with the environment less PG*, NOTIFY_SOCKET, WATCHDOG_* and LISTEN_*, which postgres
 * would obey. Returns 0, JOBQ_EIO (the message names the step that failed) or
 * JOBQ_ENOMEM. Blocks until the exec, about a millisecond. */
int postgres_child_start(struct postgres_child **out, uv_loop_t *loop,
                         const struct postgres_child_options *options,
                         postgres_child_exit on_exit, void *owner, jobq_error *err);
/* Watches a child of this process that runs already: one that the program before this one
 * in the same process has started. JOBQ_EIO, JOBQ_ENOMEM. */
int postgres_child_adopt(struct postgres_child **out, uv_loop_t *loop, pid_t pid,
                         postgres_child_exit on_exit, void *owner, jobq_error *err);
pid_t postgres_child_pid(const struct postgres_child *child);
void postgres_child_signal(struct postgres_child *child, int signal);

/* "was killed by signal 9 (Killed)", "exited with code 1": for log lines. */
void postgres_child_describe(int status, char *text, size_t size);

#endif
