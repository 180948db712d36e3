/* cgroup.h: control groups (version 2) of our own below the one that jobqd was given, one
 * a process group whose memory is limited. The kernel then keeps the limit itself: to the
 * page, children that left their process group included, at no cost for us.
 *
 * Where that is not to be had (no cgroup v2, no memory controller, not delegated to us,
 * somebody else in our group), cgroup_open says why, and memory is watched instead
 * (pool/watch.h).
 *
 * "Delegated" means: we may write there, nobody but jobqd and its descendants lives in
 * the group, and where systemd runs the system it has marked the group as ours
 * (Delegate=). Since a group with members cannot hand controllers on to its children,
 * jobqd moves itself and what it has started into a group "jobqd" below; workers get
 * "worker-N".
 */
#ifndef JOBQD_CGROUP_H
#define JOBQD_CGROUP_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup; /* the place below which groups are made */

/* One group. Copied freely; nothing is open. serial 0: none. */
struct cgroup_group {
    uint64_t serial;
};

/* Finds the group that jobqd is in and takes it over. JOBQ_ESTATE: memory cannot be
 * limited by groups here, err says why. Nothing was changed then, but for one case: where
 * the group cannot be divided after all, jobqd and what it has started may be in the
 * group "jobqd" below it already, and stay there. That changes nothing for them, and the
 * next start finds them there. */
int cgroup_open(struct cgroup **out, jobq_error *err);
/* The same for a group's folder that is known; systemd: whether its mark is asked for. */
int cgroup_open_at(struct cgroup **out, const char *folder, bool systemd,
                   jobq_error *err);
void cgroup_free(struct cgroup *cgroup);

const char *cgroup_folder(const struct cgroup *cgroup);

/* Makes a group for one worker, with the most memory that it may use. */
int cgroup_make(struct cgroup *cgroup, struct cgroup_group *out, size_t max_memory,
                jobq_error *err);
/* A descriptor, close-on-exec, for the child to enter the group by before it executes
 * (cgroup_enter); -1 with errno. */
int cgroup_entrance(struct cgroup *cgroup, struct cgroup_group group);
/* In a forked child, async-signal-safe; false with errno. */
bool cgroup_enter(int entrance);
/* Puts a running process into the group: one that was not forked by us. What it has
 * allocated before stays charged to where it was. */
int cgroup_place(struct cgroup *cgroup, struct cgroup_group group, pid_t pid,
                 jobq_error *err);

/* How many processes of the group the kernel has killed for its limit. */
int64_t cgroup_oom_kills(struct cgroup *cgroup, struct cgroup_group group);
/* The most memory that the group has used, in KiB; -1: not known (before Linux 5.19). */
int64_t cgroup_peak_kb(struct cgroup *cgroup, struct cgroup_group group);

/* Kills what is left in the group and removes it; as long as the kernel is still busy
 * with its end, that is left to cgroup_tidy. */
void cgroup_remove(struct cgroup *cgroup, struct cgroup_group group);
/* Removes what could not be removed before. Costs nothing if there is nothing. */
void cgroup_tidy(struct cgroup *cgroup);

#endif
