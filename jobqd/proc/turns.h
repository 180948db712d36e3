/* turns.h: whose turn it is to do what costs time: one line for all queues, and so much
 * time for it each time around the loop.
 *
 * To start a process, to kill one with all that it has started, to take its end, to read
 * what it says: each costs some tenths of a millisecond, and much more where processor
 * time is short. A hundred queues that each do a few of these at once would hold up the
 * loop, and with it the lease, for seconds. So whoever is about to do one asks first.
 * While there is time left it may go ahead; else it joins the line, and has its turn when
 * those before it have had theirs, one step each. At least one step is made each time
 * around, however short time is.
 *
 * Starts have a line of their own: a process that is started later costs nothing, an
 * answer that is read later does.
 */
#ifndef JOBQD_TURNS_H
#define JOBQD_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/pure/list.h"

enum { TURNS_BUDGET_MS = 20 };

enum turn_kind {
    TURN_HEAR,  /* reads, kills and ends */
    TURN_START, /* starts */
    TURN_KINDS
};

/* Embedded in whoever asks. */
struct turn {
    struct list link;
    enum turn_kind kind;
    /* It is your turn: one step, then turn_wait again for the next. May do anything. */
    void (*step)(struct turn *turn);
};

/* One for the whole process, made at the first call; each is answered by turns_leave.
 * Without it everybody may always go ahead. Returns 0 or JOBQ_ENOMEM. */
int turns_join(uv_loop_t *loop);
void turns_leave(void);

void turn_init(struct turn *turn, enum turn_kind kind, void (*step)(struct turn *turn));
/* Whether it may be done now; otherwise step is called later, from the loop. */
bool turn_now(struct turn *turn);
/* step is called later, from the loop, after those that wait already. */
void turn_wait(struct turn *turn);
bool turn_waits(const struct turn *turn);
/* It is not needed any more. */
void turn_leave(struct turn *turn);

/* A process was started, or tried to be, from then (clock_ns) until now. */
void turns_started(uint64_t from_ns);
/* How long a start takes, from one to the next where others wait; what it was lately. */
int64_t turns_start_ms(void);
/* How many processes can be started within that time, as things go at present; at least
 * 1. */
size_t turns_starts_within(int64_t ms);

#endif
