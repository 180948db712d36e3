/* loopwatch.h: tells when the loop stood still, and what it was at.
 *
 * A loop that is at one thing for long hears nobody meanwhile: not the database, not a
 * signal, not a worker's end. That may lose the lease, and nothing else would say why.
 */
#ifndef JOBQD_LOOPWATCH_H
#define JOBQD_LOOPWATCH_H

#include <stdint.h>
#include <uv.h>

/* Warns when the loop has not waited for events for longer than warn_ms. One in a
 * process. */
void loopwatch_open(uv_loop_t *loop, int64_t warn_ms);
void loopwatch_close(void);

/* From here on, until somebody says something else, the loop is at this: "starts a
 * process", "queue mail". what: a literal; whom: copied; NULL: none. To be called first
 * thing in each callback of the loop that may take long. */
void loop_is_at(const char *what, const char *whom);

/* The longest that it has stood still since the last call. */
int64_t loopwatch_take_longest_ms(void);

#endif
