/* hostid.h: names a process so that another jobqd can tell whether it still lives. Reads
 * /proc; no state. */
#ifndef JOBQD_HOSTID_H
#define JOBQD_HOSTID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* This machine's boot and pid namespace: pids can be compared where these are equal. ""
 * when unreadable. */
void hostid_read(char *out, size_t size);

/* When this process started, in clock ticks after boot; -1 when unreadable. */
int64_t hostid_own_start(void);

enum hostid_fate {
    HOSTID_LIVES,  /* it is still the one that was noted */
    HOSTID_ENDED,  /* nothing of it runs any more; a zombie does not run */
    HOSTID_UNKNOWN /* it may live: it is elsewhere, or hidden from us */
};

/* What became of the process that was noted with this host, pid and start. Another
 * machine, another boot and another pid namespace are elsewhere. */
enum hostid_fate hostid_fate(const char *host, int pid, int64_t pid_start);

/* The same for a pid of this namespace. proc: "/proc", or a test's folder. */
enum hostid_fate hostid_fate_here(const char *proc, int pid, int64_t pid_start);

/* Whether the process is a jobqd that runs its queues: by its name, by its executable's
 * where we may read that, and by SIGUSR2 not ending it. */
bool hostid_is_jobqd(const char *proc, int pid);

#endif
