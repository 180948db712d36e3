/* forks.h: the one fork of the daemon, and what each child of it does first.
 *
 * Between the fork and an exec only async-signal-safe calls are allowed: the last two
 * functions make no others.
 */
#ifndef JOBQD_FORKS_H
#define JOBQD_FORKS_H

#include <stdbool.h>
#include <sys/types.h>

/* Forks, and notes the child (reaper.h). run(plan) is what the child does; it does not
 * return. Every signal is blocked from before the fork on, so that no handler of ours
 * writes into our loop from the child. Returns the pid, or -1 with errno. */
pid_t fork_child(void (*run)(void *plan), void *plan);

/* In the child: every signal at its default, none blocked. */
void fork_reset_signals(void);
/* In the child: the kernel sends the signal when the parent dies; ends the child if the
 * parent is dead already. A change of the user clears it, so call it again after one.
 * False: refused, with errno. */
bool fork_die_with(pid_t parent, int signal);

#endif
