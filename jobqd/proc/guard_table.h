/* guard_table.h: the page that jobqd and its guard share: which process groups there are,
 * and until when they may run.
 *
 * Shared memory, not messages: a jobqd that is stopped or killed in the middle of
 * anything leaves a table that can be read. jobqd alone takes and clears slots; the guard
 * only strikes. Every moment is CLOCK_BOOTTIME, which no clock step moves and which goes
 * on while the machine sleeps.
 *
 * A slot's way: FREE -> TAKEN before the fork, -> HELD by the child itself before its
 * exec (so that there is no moment in which a process runs its program unseen),
 * -> STRIKING -> STRUCK by the guard, -> FREE before jobqd reaps the process. While the
 * guard is between STRIKING and STRUCK jobqd does not reap, so the number that is about
 * to be killed cannot become another process's.
 */
#ifndef JOBQD_GUARD_TABLE_H
#define JOBQD_GUARD_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    GUARD_MAGIC = 0x4a514744,
    GUARD_VERSION = 1, /* of this layout: a jobqd and its guard are of one version */
    GUARD_SLOTS = 32768,
    GUARD_NOWHERE = -1, /* instead of a slot: nobody guards */
    GUARD_FULL = -2
};

/* X(enumerator, meaning) */
#define GUARD_SLOT_STATES(X)                                                             \
    X(GUARD_FREE, "a process")                                                           \
    X(GUARD_TAKEN, "its process to enter itself")                                        \
    X(GUARD_HELD, "its process to end")                                                  \
    X(GUARD_STRIKING, "the guard to have killed it")                                     \
    X(GUARD_STRUCK, "jobqd to see that the guard has killed it")

enum guard_slot_state {
#define X(name, meaning) name,
    GUARD_SLOT_STATES(X)
#undef X
};

struct guard_slot {
    _Atomic uint32_t state; /* enum guard_slot_state */
    int32_t pid;            /* the leader of the group, whose number is the same */
    int64_t start;          /* /proc/PID/stat's; -1: not known */
};

struct guard_table {
    uint32_t magic;
    uint32_t version;
    uint32_t capacity; /* slots */
    int32_t session;   /* jobqd's, and that of its workers that run as its user */
    int32_t jobqd;     /* its pid */
    int32_t log_level;
    int32_t log_format;
    int32_t tick_ms;              /* how often both look at the table */
    int64_t begun_ns;             /* when this jobqd started */
    _Atomic int64_t deadline_ns;  /* what runs then is killed; 0: no lease, so no job */
    _Atomic int64_t jobqd_ns;     /* when jobqd was last seen going */
    _Atomic uint64_t guard_beats; /* moves as long as the guard goes */
    _Atomic uint64_t strikes;     /* groups killed for the deadline */
    _Atomic uint32_t ending;      /* jobqd ends in order */
    _Atomic uint32_t high;        /* slots from here on were never taken */
    struct guard_slot slots[];
};

/* ---- jobqd's side. There is one table in a process; without one, as in most unit tests,
 * nobody guards and all of these do nothing. ---- */

/* Makes the table, for capacity slots. Returns a descriptor (close-on-exec), which stays
 * open as long as the table, or -1 and errno. */
int guard_table_open(uint32_t capacity);
/* Takes over the table behind a descriptor that an earlier program of this process has
 * opened. Returns 0, or -1: not a table of this version. */
int guard_table_adopt(int fd);
void guard_table_close(void);
struct guard_table *guard_table(void); /* NULL: there is none */

/* A slot for a process that is about to be forked. GUARD_NOWHERE: there is no table;
 * GUARD_FULL: no more processes may be started. */
int guard_take(void);
/* In the child, before its exec; async-signal-safe. false: the lease is over, so it must
 * not run. */
bool guard_enter(int slot);
/* The same for a process that somebody else has forked, by its parent or whoever started
 * it; it leads its process group. Returns the slot, GUARD_NOWHERE or GUARD_FULL. */
int guard_add(pid_t pid);
/* Before the process is reaped (or when it was not forked at all). true: the guard has
 * killed it. */
bool guard_remove(int slot);
/* The slot of that process; GUARD_NOWHERE: it has none. */
int guard_find(pid_t pid);

/* Until when processes may run; 0: there is no lease, and none runs a job. */
void guard_set_deadline(int64_t deadline_ns);

/* Called when the guard does not come out of STRIKING: ends it, and returns when it can
 * do nothing any more. */
extern void (*guard_table_on_stuck)(void);

/* ---- what both sides use; async-signal-safe ---- */

struct guard_process {
    char state; /* R, S, D, Z, … */
    pid_t group;
    pid_t session;
    int64_t start;
};

/* Reads /proc/PID/stat. false: there is no such process. */
bool guard_read_process(pid_t pid, struct guard_process *out);

#endif
