/* limits.h: what a queue's processes are confined to, set between fork and exec.
 *
 * limits_resolve finds out everything that takes memory, files or a user database, in the
 * parent; limits_apply makes system calls alone, since it runs in a forked child.
 * limits_probe tries both in a child that executes nothing, so that what cannot be had is
 * said when the configuration is checked, not when the first job has been claimed.
 *
 * Memory is not among them: an address space (RLIMIT_AS) is not memory. Runtimes that
 * reserve much and touch little, and the sanitizers, would not start under it, and it
 * counts no child. See cgroup.h and pool/watch.h.
 */
#ifndef JOBQD_LIMITS_H
#define JOBQD_LIMITS_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "jobqd/config/config.h"

/* In the order in which they are taken. X(enumerator, the option that asks for it) */
#define LIMITS_STEPS(X)                                                                  \
    X(LIMITS_DONE, NULL)                                                                 \
    X(LIMITS_CGROUP, "max_memory_hard")                                                  \
    X(LIMITS_NOFILE, "nofile")                                                           \
    X(LIMITS_CPU, "cpu_limit")                                                           \
    X(LIMITS_NICE, "nice")                                                               \
    X(LIMITS_GROUPS, "user")                                                             \
    X(LIMITS_GROUP, "group")                                                             \
    X(LIMITS_USER, "user")                                                               \
    X(LIMITS_DIRECTORY, "working_directory")                                             \
    X(LIMITS_PRIVILEGES, "no_new_privs")                                                 \
    X(LIMITS_EXEC, "command")

enum limits_step {
#define X(name, option) name,
    LIMITS_STEPS(X)
#undef X
};

struct limits {
    const struct queue_config *queue; /* lent */
    struct rlimit cpu;                /* RLIMIT_CPU, seconds; rlim_cur 0: none */
    int nice;                         /* absolute; used where the queue asks for one */
    bool changes_user;
    bool changes_group;
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* supplementary ones */
    size_t n_groups;
    /* HOME=…, USER=…, LOGNAME=…, SHELL=…, NULL: of a queue with a user */
    char *account[5];
};

/* Looks up the queue's user and group. JOBQ_EINVAL names what there is not; *step says
 * which option is to blame. The queue outlives it. Clear with limits_clear, also after a
 * failure. */
int limits_resolve(struct limits *limits, const struct queue_config *queue,
                   enum limits_step *step, jobq_error *err);
void limits_clear(struct limits *limits);

/* In a forked child, async-signal-safe. Returns LIMITS_DONE, or the step that failed,
 * with errno. */
enum limits_step limits_apply(const struct limits *limits);

/* "changing to user "www-data"", as the subject of an error. */
void limits_describe(const struct limits *limits, enum limits_step step, char *out,
                     size_t size);
/* The option that asks for the step. */
const char *limits_option(const struct limits *limits, enum limits_step step);

/* Tries all steps in a child process, whether it could execute the program then (an
 * interpreter that `env` has to find is looked for in search, a PATH; NULL: is not looked
 * for), and whether we may kill such a process. Waits for it, until CLOCK_MONOTONIC is
 * until_ms at most. Returns 0, or JOBQ_EINVAL with the reason; JOBQ_ESTATE: all is well
 * but the program's file, which is there; JOBQ_EIO: it could not be tried, or took too
 * long. */
int limits_probe(const struct limits *limits, const char *search, int64_t until_ms,
                 enum limits_step *step, jobq_error *err);

#endif
