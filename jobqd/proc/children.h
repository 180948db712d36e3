/* children.h: which processes jobqd has started, and the end of those that it has not.
 *
 * A worker that a template forks becomes jobqd's child because jobqd asks the kernel for
 * the orphans among its descendants. So it gets the others as well: what a worker had
 * started and left behind. They stay its children when nothing is preloaded any more, and
 * through an upgrade in place. Their ends must be taken, or they stay as zombies for as
 * long as jobqd runs; and the end of a child that somebody here waits for must not be.
 * wait() cannot tell the two apart, so every fork in the daemon is noted here. (A test
 * looks for forks that are not.)
 *
 * There is one set of children a process, so this state is the process's, too.
 */
#ifndef JOBQD_CHILDREN_H
#define JOBQD_CHILDREN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

/* Somebody here will wait for this child. */
void children_note(pid_t pid);
/* Somebody has: the pid means nothing any more. Harmless when it was not noted. */
void children_forget(pid_t pid);
bool children_is_noted(pid_t pid);

/* Asks for orphans, until children_leave has been called as often. Those that are there
 * stay. */
void children_adopt(void);
void children_leave(void);
/* In a program that takes another one's place in this process: what the other one had
 * asked for does not hold any more. */
void children_inherit(void);

/* Between these two no end is taken: a child may come that is not noted yet. They nest.
 */
void children_hold(void);
void children_release(void);

/* Takes the ends of children that nobody waits for, those that have ended already too,
 * from the loop and until children_unwatch. Returns 0 or libuv's error. */
int children_watch(uv_loop_t *loop);
void children_unwatch(void);

/* The same once, for when SIGCHLD has come. Returns how many there were. */
size_t children_reap_orphans(void);

#endif
