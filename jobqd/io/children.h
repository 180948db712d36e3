/* children.h: which processes jobqd has started, and the end of those that it has not.
 *
 * A worker that a template forks becomes jobqd's child because jobqd asks the kernel for
 * the orphans among its descendants. So it gets the others as well: what a worker had
 * started and left behind. Their ends must be taken, or they stay as zombies for as long
 * as jobqd runs; and the end of a child that somebody here waits for must not be. wait()
 * cannot tell the two apart, so every fork in the daemon is noted here. (A test looks for
 * forks that are not.)
 *
 * There is one set of children a process, so this state is the process's, too.
 */
#ifndef JOBQD_CHILDREN_H
#define JOBQD_CHILDREN_H

#include <stddef.h>
#include <sys/types.h>

/* Somebody here will wait for this child. */
void children_note(pid_t pid);
/* Somebody has: the pid means nothing any more. Harmless when it was not noted. */
void children_forget(pid_t pid);

/* Asks for orphans, until children_leave has been called as often. Those that are there
 * stay. */
void children_adopt(void);
void children_leave(void);

/* Between these two no end is taken: a child may come that is not noted yet. They nest.
 */
void children_hold(void);
void children_release(void);

/* Takes the ends of children that nobody waits for; to be called when SIGCHLD has come.
 * Does nothing unless orphans were asked for. Returns how many there were. */
size_t children_reap_orphans(void);

#endif
