/* watch.h: what the workers' process groups use, measured again and again.
 *
 * One for the whole process, shared by all pools, since all groups are counted in one
 * walk through /proc. It looks ten times a second while a watched worker boots or is at
 * work (WATCH_BUSY_MS), else once a second; never for more than a twentieth of the time.
 * What follows from a measurement is the worker's business.
 *
 * It also knows whether a process that died of SIGKILL may have been killed by the kernel
 * for want of memory, and makes the control groups by which the kernel keeps
 * max_memory_hard itself, where it can (proc/cgroup.h).
 */
#ifndef JOBQD_WATCH_H
#define JOBQD_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "jobqd/proc/cgroup.h"
#include "jobqd/pure/list.h"

enum { WATCH_BUSY_MS = 100, WATCH_IDLE_MS = 1000 };

struct watch;

/* One process group. Embedded in what it belongs to; group 0: not watched. */
struct watched {
    struct list link;
    pid_t group;
    struct cgroup_group cgroup; /* serial 0: it has none */
    bool busy;                  /* is to be looked at often */
    /* Resident memory up to here need not be exact: what processes share counts in each
     * of them. Beyond it, the proportional share is asked for, which costs more. 0:
     * never. */
    int64_t exact_from_kb;
    int64_t limit_kb;  /* what memory_kb is compared with beside that; 0: nothing */
    int64_t memory_kb; /* as last measured; -1: not yet */
    int64_t shared_kb; /* what the last exact figure was below the plain one; -1: none */
    int64_t peak_kb;   /* the most that was measured; -1: nothing was */
    int64_t cpu_us;    /* of the group, as last measured */
    /* Until then the exact figure is not asked for again, unless a comparison hangs on
     * it: the plain figure less shared_kb will do. */
    uint64_t exact_after_ns;
    /* Measured. Must not take anything off the watch. */
    void (*on_measured)(struct watched *watched);
};

/* The process's watch, made at the first call; each is answered by watch_leave. NULL: out
 * of memory. */
struct watch *watch_join(uv_loop_t *loop);
/* max_memory_hard is wanted: the first time, looks whether there are control groups, and
 * logs how that limit will be kept. */
void watch_choose(struct watch *watch);
void watch_leave(struct watch *watch);

/* A group for a process that is to be limited to max_memory, in watched->cgroup, if the
 * kernel does that here; otherwise, or when there is no room for one, serial 0. */
void watch_confine(struct watch *watch, struct watched *watched, size_t max_memory,
                   const char *subject);
/* Where the groups are; NULL: the kernel does not keep limits for us. */
struct cgroup *watch_cgroup(const struct watch *watch);
/* For the child to enter it by; -1: it has none. The caller closes it. */
int watch_entrance(struct watch *watch, const struct watched *watched);

/* From here on the group of this process is measured. A process that was not started
 * through watch_entrance (one that was forked by another of our children) is put into the
 * control group now. */
void watch_add(struct watch *watch, struct watched *watched, pid_t group, bool entered,
               const char *subject);
void watch_set_busy(struct watch *watch, struct watched *watched, bool busy);
/* Measures this group now. */
void watch_measure(struct watch *watch, struct watched *watched);
/* The group has ended: it is measured no more, its control group goes. */
void watch_remove(struct watch *watch, struct watched *watched);

/* For a process that has just died of a SIGKILL that we did not send: whether the kernel
 * did for its own limit (its control group says so), or was out of memory itself (it has
 * killed some process within the last second or two, as far as it tells). */
bool watch_hit_its_limit(struct watch *watch, const struct watched *watched);
bool watch_saw_oom_kill(struct watch *watch);

#endif
