/* spawn.h: starts one child process and sees it end. Knows neither the protocol nor the
 * event loop.
 *
 * libuv's uv_spawn has neither a parent-death signal nor a process group that is killed
 * whole, so this is our own fork and exec. A child
 *   - leads its own process group, and is killed by the kernel when jobqd dies
 * (PR_SET_PDEATHSIG);
 *   - has no controlling terminal; as another user it has a session and a session keyring
 * of its own, too;
 *   - has every signal at its default and unblocked;
 *   - has stdin from /dev/null or from what the caller gives, and stdout and stderr in
 * one pipe;
 *   - may have one end of a connected stream socket, whose number is in JOBQ_FD;
 *   - has no other open file of ours.
 *
 * It enters itself into the guard's table (guard_table.h) before it executes anything.
 *
 * Its end is seen through a pidfd. The pid cannot be reused by another process before
 * child_reap, so every signal sent through this file reaches this child or nobody.
 */
#ifndef JOBQD_SPAWN_H
#define JOBQD_SPAWN_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "jobqd/base/program.h"
#include "jobqd/proc/cgroup.h"
#include "jobqd/proc/limits.h"

/* The descriptor that a child finds its socket at. */
enum { SPAWN_CHANNEL_FD = 3 };

struct spawn_options {
    const char *path;            /* the executable; NULL: argv[0] */
    char *const *argv;           /* never given to a shell */
    char *const *environment;    /* complete: see environment_make */
    int stdin_fd;                /* lent; -1: /dev/null */
    bool channel;                /* connect a socket to it */
    const struct limits *limits; /* NULL: none */
    const int *entrance;         /* cgroup_entrance of the group to enter; NULL: none */
    /* Its file was no good when it was last looked at: it is looked at before it is
     * executed, since what the kernel executes may be an `env` that finds no NAME. */
    bool suspect;
};

struct child_failure {
    enum limits_step step;
    int why;                /* errno */
    char text[PROGRAM_WHY]; /* LIMITS_EXEC: what the program lacks; "": errno says it */
};

/* A started child. The descriptors are close-on-exec and ours to close; -1: none. */
struct child {
    pid_t pid;
    int pidfd;                    /* readable when the child has ended */
    int channel_fd;               /* our end of its socket */
    int output_fd;                /* the reading end of its stdout and stderr */
    int exec_error_fd;            /* see child_failure */
    int guarded;                  /* its slot in the guard's table */
    struct child_failure failure; /* as far as heard: see the function */
    bool executes;                /* likewise: the program has taken the copy's place */
    /* The most that it had resident before it executed its program, while it was a copy
     * of jobqd; 0: it was none (a forkserver has forked it); -1: not heard yet. */
    int64_t before_exec_kb;
};

/* How a child ended. */
struct child_end {
    int exit_code; /* -1: a signal ended it */
    int signal;    /* 0: it exited */
    int64_t cpu_us;
    int64_t max_rss_kb; /* of the program; -1: not known, since jobqd itself has more */
    bool by_guard;      /* the guard has killed it, since the lease was about to end */
};

/* Once, before the first child; more often does no harm.
 *
 * Raises this process's limit of open files as far as it may: a child costs us up to four
 * descriptors, and the usual soft limit of 1024 would end at some 250 of them. Children
 * get back the limit that was there before, since programs that use select() break above
 * 1024. And makes close-on-exec what we were started with. */
void spawn_prepare(void);
/* Instead, in a program that takes another one's place in this process: the soft limit of
 * open files that the other one had found (-1: it did not raise it), by
 * spawn_files_before. The descriptors that it left stay as they are. */
void spawn_inherit(int64_t files);
int64_t spawn_files_before(void);

/* Forks and executes. Returns 0, or a negative JOBQ_E… when there is no process (out of
 * descriptors, memory or processes). That the program cannot be executed is found out
 * later: child_failure. */
int spawn_child(struct child *out, const struct spawn_options *options, jobq_error *err);

/* Why there is no program in the child: what it was about to do, and errno. LIMITS_DONE:
 * there is one, or it is not known yet. Does not block. Certain once the child has ended.
 */
struct child_failure child_failure(struct child *child);

/* Whether it is the program already, and no copy of jobqd any more. Does not block. */
bool child_executes(struct child *child);

/* The child has shown that it executes its program: the descriptor behind
 * child_failure is not needed any more. */
void child_started(struct child *child);

/* Sends a signal to the child and its whole process group; SIGKILL also to those of its
 * descendants that have left it (process_tree.h). Only before child_reap. */
void child_signal(const struct child *child, int signal);

/* Whether child_reap would find its end. The pidfd may be readable a little before that.
 */
bool child_has_ended(const struct child *child);
/* Kills what is left of the process group, then takes the child's end, which must have
 * come (the pidfd is readable). Returns 0, or JOBQ_EIO. The pid is not ours any more
 * afterwards. */
int child_reap(struct child *child, struct child_end *out, jobq_error *err);

/* Kills a child that cannot be watched, waits for it and closes its descriptors. The one
 * call here that waits: as long as the kernel takes to end a process. */
void child_discard(struct child *child);

/* Closes the descriptors that are still in *child and sets them to -1. */
void child_close(struct child *child);

#endif
