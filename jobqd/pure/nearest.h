/* nearest.h: which of the allowed words somebody meant who wrote another one. */
#ifndef JOBQD_NEAREST_H
#define JOBQD_NEAREST_H

#include <stddef.h>

/* Longer words are compared up to here. */
enum { NEAREST_MAX = 64 };

struct nearest {
    const char *word; /* what was written */
    const char *best; /* of the words offered so far; NULL: none is near */
    size_t distance;
};

void nearest_begin(struct nearest *nearest, const char *word);
/* Of two words that are equally near the first one stays. Lent. */
void nearest_offer(struct nearest *nearest, const char *allowed);

/* How many letters must be inserted, left out, replaced or swapped with their neighbour
 * to make one of the other. Case does not count, and - is _. */
size_t nearest_distance(const char *a, const char *b);

#endif
