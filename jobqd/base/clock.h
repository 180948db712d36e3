/* clock.h: the clocks that the daemon goes by. Neither is set by anybody, as the wall clock
 * is; a test can hold the one and move it by hand.
 */
#ifndef JOBQD_CLOCK_H
#define JOBQD_CLOCK_H

#include <stdint.h>

/* In ns since some moment; stands still while the machine sleeps. For deadlines and for how
 * long something took. */
uint64_t clock_ns(void);

/* In ns since the machine was booted; goes on while it sleeps. For leases: the database's
 * clock goes on, too. The same in all processes of this boot. */
int64_t clock_boottime_ns(void);

/* For tests. From here on clock_ns() is `ns`, until the next call. */
void clock_hold(uint64_t ns);
/* It is the machine's again. */
void clock_let_go(void);

#endif
