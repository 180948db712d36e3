/* repeats.h: which of many failures that are alike are worth a line in the log, and which
 * are counted.
 *
 * Failures are alike when they have the same key: a text in which every word with a digit
 * in it counts as the same, so that ids, times and addresses make no difference. The
 * first REPEATS_SHOWN of a key are shown; what follows is counted, and the count is told
 * REPEATS_FIRST_MS after the first one, then every REPEATS_NEXT_MS for as long as more
 * come. At most REPEATS_KEYS keys are told apart at a time: what has no room is counted
 * together.
 *
 * Times are of any clock that only grows.
 */
#ifndef JOBQD_REPEATS_H
#define JOBQD_REPEATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REPEATS_KEYS = 64,
    REPEATS_SHOWN = 5,
    REPEATS_FIRST_MS = 10 * 1000,
    REPEATS_NEXT_MS = 60 * 1000,
    REPEATS_KEY = 256 /* bytes of a key; the rest makes no difference */
};

struct repeats_entry {
    char key[REPEATS_KEY]; /* "": free */
    uint64_t shown;
    uint64_t hidden; /* since the last count was told */
    uint64_t since_ms;
    uint64_t due_ms; /* when the count is told */
};

struct repeats {
    struct repeats_entry entries[REPEATS_KEYS];
    struct repeats_entry rest; /* of keys without room */
};

/* One has happened. entry: its number, below REPEATS_KEYS, or REPEATS_KEYS: counted with
 * the rest. Returns whether to show it. */
bool repeats_note(struct repeats *repeats, const char *text, uint64_t now_ms,
                  size_t *entry);

/* A count to tell: how many of that entry (REPEATS_KEYS: of the rest) in how many ms. */
struct repeats_count {
    size_t entry;
    uint64_t n;
    uint64_t within_ms;
};

/* The next count that is due; false: none is. Call it until then. all: even before its
 * time. */
bool repeats_due(struct repeats *repeats, uint64_t now_ms, bool all,
                 struct repeats_count *out);

/* When to ask again; UINT64_MAX: not before the next repeats_note. */
uint64_t repeats_due_ms(const struct repeats *repeats);

#endif
