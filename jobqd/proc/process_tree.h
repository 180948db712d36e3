/* process_tree.h: SIGKILL to a process, its group, and whoever of its descendants has left the
 * group (setsid does).
 *
 * All are stopped before the first is killed: a stopped process starts no other, and does
 * not reap, so that no number that was found can become a stranger's. Even one that forks
 * without end is found with all that it has forked, since its children are looked up once
 * it stands still (it is waited for, 10 ms at most for each member and 300 ms in all).
 * What cannot be found is a descendant whose own parent is dead already (a daemon, which
 * detaches by forking twice): only a control group knows that one.
 */
#ifndef JOBQD_PROCESS_TREE_H
#define JOBQD_PROCESS_TREE_H

#include <stdbool.h>
#include <sys/types.h>

enum { PROCESS_TREE_MAX = 1024 }; /* that have left the group, with all below them */

/* leader: unreaped, or otherwise known to be the process that is meant. Needs a kernel
 * with CONFIG_PROC_CHILDREN for those that have left the group. Returns whether there was
 * anybody to kill. */
bool process_tree_kill(pid_t leader);

#endif
