/* usage.h: what the processes of a group use, read from /proc.
 *
 * All groups are counted in one walk: a system call a process of the machine, and two
 * small files for each one that belongs to a group that is asked for. Children are
 * counted wherever their parent went, as long as they stay in the process group.
 */
#ifndef JOBQD_USAGE_H
#define JOBQD_USAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct usage {
    pid_t group;    /* asked for */
    int processes;  /* living or zombie; 0: none were found */
    int64_t rss_kb; /* resident; pages that several processes share count in each */
    int64_t cpu_us; /* user and system, with that of children that were waited for */
};

/* rows: sorted by group, no group twice. Fills in the rest. Returns 0, or a negative
 * errno: /proc cannot be read. */
int usage_read(struct usage *rows, size_t n);

/* Resident memory of a group in which a page that n processes share counts 1/n in each,
 * so that workers forked from one process are not charged for each other. Costs the
 * kernel a walk through their page tables, some 5 ms a GiB. -1: the kernel does not tell.
 */
int64_t usage_pss_kb(pid_t group);

/* Processor time of one process, all its threads, without its children; also of a zombie.
 * -1: there is no such process. Some 300 ns. */
int64_t usage_cpu_us(pid_t pid);

/* The most that the process ever had resident, in KiB; -1: not known. */
int64_t usage_peak_kb(pid_t pid);

/* How many processes the kernel has killed for want of memory since it was booted, for
 * whatever limit; -1: not known. */
int64_t usage_oom_kills(void);

#endif
