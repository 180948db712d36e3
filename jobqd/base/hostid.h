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

/* When the process started, in clock ticks after boot; -1 when there is no such process.
 */
int64_t hostid_pid_start(int pid);

/* Whether a process noted with this host, pid and start is certainly dead. False when it
 * cannot be known from here: another machine, another boot, another pid namespace. */
bool hostid_is_dead(const char *host, int pid, int64_t pid_start);

#endif
