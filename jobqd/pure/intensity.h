/* intensity.h: how often a pool may restart its workers before it pauses. Pure: the
 * caller gives time and chance.
 *
 * OTP's restart intensity: more than max_restarts bad ends within a sliding window is too
 * many. OTP then gives up and lets its own supervisor decide; a queue has nobody above it
 * that could, so it pauses instead, each time twice as long up to a cap, until it has
 * behaved for a while.
 */
#ifndef JOBQD_INTENSITY_H
#define JOBQD_INTENSITY_H

#include <stddef.h>
#include <stdint.h>

enum {
    INTENSITY_FIRST_MS = 1000,
    INTENSITY_CAP_MS = 60000,
    INTENSITY_MAX_RESTARTS = 1000
};

struct intensity {
    size_t max_restarts; /* allowed in the window */
    int64_t window_ms;
    int64_t *ends_ms; /* a ring of the last max_restarts bad ends */
    size_t n_ends;    /* how many of them count: those since the last pause */
    size_t next;      /* where the next one goes */
    int64_t pause_ms; /* the last pause's length without jitter; 0: there was none */
    int64_t until_ms; /* when the last pause ends, or ended */
};

/* max_restarts: 0 … INTENSITY_MAX_RESTARTS; 0: each bad end pauses. Returns 0 or
 * JOBQ_ENOMEM. */
int intensity_init(struct intensity *intensity, size_t max_restarts, int64_t window_ms);
void intensity_clear(struct intensity *intensity);

/* A worker ended badly at now_ms (any monotonic clock). random: any 32 random bits.
 * Returns how long to start nothing from now on: 0, restart at once. A bad end during a
 * pause changes nothing: the rest of it is returned. */
int64_t intensity_bad_end(struct intensity *intensity, int64_t now_ms, uint32_t random);

/* How long the pause lasts from now_ms on; 0: there is none. */
int64_t intensity_pause_left(const struct intensity *intensity, int64_t now_ms);

#endif
