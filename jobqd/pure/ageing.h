/* ageing.h: in which order a queue's jobs are claimed where waiting counts (the option
 * `ageing`). Pure: the caller brings the time.
 *
 * Time is cut into steps of that option's length. A job's rank is the step in which it
 * got its position plus its priority; a smaller rank goes first, and among equal ranks a
 * better priority. So a job of priority p is overtaken by fresh ones of priority 0 until
 * it has waited p to p + 1 steps, and by nobody who came later still: none is starved,
 * however many come.
 *
 * Positions are given out in the order of time, so it is enough to know how far they had
 * been given out at the beginning of each step: the line of each priority falls into
 * segments, one a step, and the segments of all lines are walked in the order of their
 * ranks. Within a line that is the order of positions, as the cursor needs it.
 */
#ifndef JOBQD_AGEING_H
#define JOBQD_AGEING_H

#include <stddef.h>
#include <stdint.h>

#include "jobqd/pure/cursor.h"

enum {
    AGEING_SAMPLES = 64,
    AGEING_SEGMENTS = 48 /* the first of them by rank; the rest of each line behind */
};

/* Positions after this one were given out in that step or later. */
struct ageing_sample {
    int64_t step;
    int64_t position;
};

struct ageing {
    int64_t step_ms; /* 0: off */
    size_t n;
    struct ageing_sample samples[AGEING_SAMPLES]; /* oldest first; when there are too many
                                                     the old ones are thinned out */
};

/* A part of a priority's line: after < position <= upto. */
struct segment {
    int priority;
    int64_t after;
    int64_t upto;
};

/* A job that waits, and for how long. */
struct ageing_head {
    int64_t position;
    int64_t age_ms;
};

/* Nothing is known of the past: all that waits has the rank of its priority. */
void ageing_init(struct ageing *ageing, int64_t step_ms);

/* How far positions are given out now. Fewer than before (the sequence was set back):
 * starts anew. */
void ageing_note(struct ageing *ageing, int64_t now_ms, int64_t position);

/* What is known of the time before the first note, from jobs that wait since then, in the
 * order of their positions. */
void ageing_recall(struct ageing *ageing, int64_t now_ms, const struct ageing_head *heads,
                   size_t n);

/* What lies beyond the cursors (after), in the order in which it is to be claimed; each
 * position there is in one segment. Returns how many. */
size_t ageing_segments(const struct ageing *ageing,
                       const int64_t after[CURSOR_PRIORITIES],
                       struct segment out[AGEING_SEGMENTS]);

#endif
