/* guard.h: jobqd's side of its guard (guard_main.h tells what that is for): starts it
 * before the first worker, sees it die or hang and starts another with the same table,
 * ends it last.
 */
#ifndef JOBQD_GUARD_H
#define JOBQD_GUARD_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/base/log.h"
#include "jobqd/proc/guard_table.h"

struct guard;

struct guard_options {
    uv_loop_t *loop;
    int64_t lease_ms;
    bool respawn; /* a jobqd that was killed is started again by its guard */
    struct log_options log;
};

/* Makes the table and starts the guard. Fails for want of memory, descriptors or
 * processes. */
int guard_new(struct guard **out, const struct guard_options *options, jobq_error *err);
/* jobqd ends in order: so does the guard, before this returns. Frees itself in the
 * loop. */
void guard_close(struct guard *guard);

/* Its process, to be told to the program that takes this one's place; 0: there is none.
 */
pid_t guard_pid(const struct guard *guard);
/* Ends the guard of the program before this one in the same process, after guard_new. */
void guard_dismiss(pid_t pid);

/* The moment at which the guard kills, for a lease that ends at lease_end_ns. jobqd
 * itself does so a tenth of the lease before its end, the guard a twentieth: late enough
 * not to come first, early enough for the kernel to have ended the processes. */
int64_t guard_deadline_ns(int64_t lease_end_ns, int64_t lease_ms);

#endif
