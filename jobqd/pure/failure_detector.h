/* failure_detector.h: which nodes have not renewed their lease, by the observer's own clock. Pure:
 * the caller gives what it saw and when.
 *
 * The wall clocks of the database and of the nodes may be set, forwards and back, at any
 * moment: whoever compares the lease's end with one of them takes the jobs of a node that
 * lives, or leaves a dead one's for hours. So nobody does. A renewal changes the row's
 * mark; a node whose mark has not changed for a whole lease on our clock, counted from
 * after we saw it, has ended its workers by its own clock, which it started before that
 * mark was made.
 */
#ifndef JOBQD_FAILURE_DETECTOR_H
#define JOBQD_FAILURE_DETECTOR_H

#include <stddef.h>
#include <stdint.h>

/* A node as its row shows it. */
struct sight {
    int64_t id;
    int64_t mark; /* another one after each renewal */
    int64_t lease_ms;
    int64_t since_ns; /* the detector's: when this mark was first seen */
};

struct failure_detector {
    struct sight *sights;
    size_t n;
};

/* What all the rows show, read before now_ns. Returns 0 or JOBQ_ENOMEM, and then knows
 * nothing new. */
int failure_detector_look(struct failure_detector *detector, const struct sight *seen,
                          size_t n, int64_t now_ns);
/* Forgets all: nothing was looked at for a while. */
void failure_detector_clear(struct failure_detector *detector);

/* The nodes that were still for `percent` of their lease or longer, at most `most`:
 * copied to out. Returns how many. */
size_t failure_detector_dead(const struct failure_detector *detector, int64_t now_ns,
                             int percent, struct sight *out, size_t most);
/* The earliest moment after now_ns at which there is one more; INT64_MAX: none is known.
 */
int64_t failure_detector_next_ns(const struct failure_detector *detector, int64_t now_ns,
                                 int percent);

#endif
