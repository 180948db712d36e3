/* guard_main.h: the guard, a very small process beside jobqd.
 *
 * A jobqd that is stopped, hung or starved cannot kill its workers, and one that was
 * killed leaves behind what they had started. The guard does it in its place: it sleeps
 * until the lease's deadline in the table that both share (guard_table.h), and until
 * jobqd is gone, whichever comes first. It talks to nobody, allocates next to nothing and
 * never waits for anything else.
 *
 * jobqd starts it as `jobqd guard [-- ARGV]`, with the table and a pidfd of jobqd at
 * fixed descriptors, in a session of its own and with every signal blocked: it ends when
 * jobqd has ended. With an ARGV, a jobqd that was killed is started again by it.
 */
#ifndef JOBQD_GUARD_MAIN_H
#define JOBQD_GUARD_MAIN_H

#define GUARD_COMMAND "guard"

enum { GUARD_TABLE_FD = 3, GUARD_JOBQD_FD = 4 };

/* Returns the exit code. */
int guard_main(int argc, char **argv);

#endif
