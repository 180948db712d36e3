/* cursor.h: from where a queue's claims walk the line of available jobs. Pure: no clock,
 * no database.
 *
 * Per priority there are two positions. `cursor`: the next claim looks after it; it runs
 * ahead with what was claimed. `base`: nothing at or before it will ever be available
 * again, so no look needs to go further back. Positions come from a sequence, but a
 * transaction that took one may commit late: its job then appears behind the cursor. So
 * the base follows only as far as
 *   - every transaction that could hold a position has ended (`safe`: see below), and
 *   - a plain read found nothing available (a claim would skip what another transaction
 * has locked and may give back). From time to time, and when a claim comes back short, a
 * look from the bases finds what was left behind.
 *
 * `safe` comes from notes: (position given out, a transaction id taken after reading it).
 * Each position up to the noted one belongs to a transaction with a smaller id
 * (_next_position() in the schema sees to that), so once the oldest running transaction is
 * not older than the noted id, the noted position is safe.
 *
 * The order within one round trip is: note, look, claim; their results are fed in this
 * order.
 */
#ifndef JOBQD_CURSOR_H
#define JOBQD_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CURSOR_PRIORITIES = 10, CURSOR_NOTES = 32 };

struct cursor_note {
    int64_t position; /* given out when the note was made */
    /* a transaction id that is larger than any that holds such a position */
    int64_t upto;
};

struct cursor {
    int64_t after[CURSOR_PRIORITIES];       /* where the next claim looks */
    int64_t base[CURSOR_PRIORITIES];        /* where the next look looks */
    int64_t safe;                           /* up to here, every transaction has ended */
    int64_t noted;                          /* the newest noted position */
    struct cursor_note notes[CURSOR_NOTES]; /* not yet safe, oldest first */
    size_t n_notes;
    bool unsafe; /* test seam: take what was noted for safe at once, as if nobody
                    committed late */
};

/* Starts at the front of the line: the first look and claim find everything. */
void cursor_init(struct cursor *cursor, bool unsafe);

/* A note's result. upto 0: no note was made, since no position was given out since the
 * last one. oldest: the oldest transaction id that still runs. When the ring is full the
 * newest note is replaced: safe then lags, no harm. A position before the last noted one
 * (the sequence was set back by hand, or a standby took over that lacks the end) makes
 * the cursor start anew. */
void cursor_noted(struct cursor *cursor, int64_t position, int64_t upto, int64_t oldest);

/* A look's result: the first available position of each priority, 0 for none. A position
 * below 0 was set by hand. sent: the
 * `after` of the claim in the same round trip, whose walk may have begun behind what the
 * look found. A look may also have begun before the base: what it found there moves the
 * base back. Returns whether anything was found. */
bool cursor_looked(struct cursor *cursor, const int64_t first[CURSOR_PRIORITIES]);

/* Whether a look has moved the cursor behind what the claim in the same round trip was
 * sent with: then that claim walked past a job. */
bool cursor_is_behind(const struct cursor *cursor, const int64_t sent[CURSOR_PRIORITIES]);

/* A claimed job. Call for each, in any order, after cursor_looked of the same round trip;
 * `sent` is what the claim was sent with: a look that moved the cursor behind that wins.
 */
void cursor_claimed(struct cursor *cursor, const int64_t sent[CURSOR_PRIORITIES],
                    int priority, int64_t position);

#endif
