/* reaper.h: which processes jobqd has started, and the end of those that it has not.
 *
 * A worker that a forkserver forks becomes jobqd's child because jobqd asks the kernel for
 * the orphans among its descendants. So it gets the others as well: what a worker had
 * started and left behind. They stay its children when nothing is preloaded any more, and
 * through an upgrade in place. Their ends must be taken, or they stay as zombies for as
 * long as jobqd runs; and the end of a child that somebody here waits for must not be.
 * wait() cannot tell the two apart, so every fork in the daemon is noted here. (A test
 * looks for forks that are not.)
 *
 * There is one set of children a process, so this state is the process's, too.
 */
#ifndef JOBQD_REAPER_H
#define JOBQD_REAPER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

/* Somebody here will wait for this child. */
void reaper_note(pid_t pid);
/* Somebody has: the pid means nothing any more. Harmless when it was not noted. */
void reaper_forget(pid_t pid);
bool reaper_is_noted(pid_t pid);

/* Asks for orphans, until reaper_leave has been called as often. Those that are there
 * stay. */
void reaper_adopt(void);
void reaper_leave(void);
/* In a program that takes another one's place in this process: what the other one had
 * asked for does not hold any more. */
void reaper_inherit(void);

/* Between these two no end is taken: a child may come that is not noted yet. They nest.
 */
void reaper_hold(void);
void reaper_release(void);

/* Takes the ends of children that nobody waits for, those that have ended already too,
 * from the loop and until reaper_unwatch. Returns 0 or libuv's error. */
int reaper_watch(uv_loop_t *loop);
void reaper_unwatch(void);

/* The same once, for when SIGCHLD has come. Returns how many there were. */
size_t reaper_reap_orphans(void);

#endif
