/* intensity.c: see intensity.h. */
#include "jobqd/pure/intensity.h"

#include <jobq/error.h>
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { JITTER_PERCENT = 25 };

int
intensity_init(struct intensity *intensity, size_t max_restarts, int64_t window_ms)
{
    assert(max_restarts <= INTENSITY_MAX_RESTARTS && window_ms > 0);
    memset(intensity, 0, sizeof *intensity);
    intensity->max_restarts = max_restarts;
    intensity->window_ms = window_ms;
    intensity->ends_ms =
        calloc(max_restarts ? max_restarts : 1, sizeof intensity->ends_ms[0]);
    return intensity->ends_ms ? 0 : JOBQ_ENOMEM;
}

void
intensity_clear(struct intensity *intensity)
{
    free(intensity->ends_ms);
    memset(intensity, 0, sizeof *intensity);
}

/* Whether this end is one more than the window allows. The ring's oldest entry is the one
 * that max_restarts ends ago happened: if that lies within the window, this one is too
 * many. */
static bool
is_too_many(const struct intensity *intensity, int64_t now_ms)
{
    if (intensity->max_restarts == 0)
        return true;
    if (intensity->n_ends < intensity->max_restarts)
        return false;
    return now_ms - intensity->ends_ms[intensity->next] < intensity->window_ms;
}

static void
note_end(struct intensity *intensity, int64_t now_ms)
{
    intensity->ends_ms[intensity->next] = now_ms;
    intensity->next = (intensity->next + 1) % intensity->max_restarts;
    if (intensity->n_ends < intensity->max_restarts)
        intensity->n_ends++;
}

static int64_t
begin_pause(struct intensity *intensity, int64_t now_ms, uint32_t random)
{
    /* Forgiven: since the last pause as much time has passed without another as that
     * pause and a window took. */
    if (now_ms - intensity->until_ms >= intensity->pause_ms + intensity->window_ms)
        intensity->pause_ms = 0;
    if (intensity->pause_ms == 0)
        intensity->pause_ms = INTENSITY_FIRST_MS;
    else if (intensity->pause_ms < INTENSITY_CAP_MS / 2)
        intensity->pause_ms *= 2;
    else
        intensity->pause_ms = INTENSITY_CAP_MS;
    /* Taken off, not added, so that the cap holds. */
    int64_t most_off = intensity->pause_ms * JITTER_PERCENT / 100;
    int64_t pause_ms = intensity->pause_ms - (int64_t)(random % (uint32_t)(most_off + 1));
    intensity->until_ms = now_ms + pause_ms;
    intensity->n_ends = 0;
    intensity->next = 0;
    return pause_ms;
}

int64_t
intensity_bad_end(struct intensity *intensity, int64_t now_ms, uint32_t random)
{
    int64_t left_ms = intensity_pause_left(intensity, now_ms);
    if (left_ms > 0)
        return left_ms;
    if (is_too_many(intensity, now_ms))
        return begin_pause(intensity, now_ms, random);
    note_end(intensity, now_ms);
    return 0;
}

int64_t
intensity_pause_left(const struct intensity *intensity, int64_t now_ms)
{
    if (intensity->pause_ms == 0 || now_ms >= intensity->until_ms)
        return 0;
    return intensity->until_ms - now_ms;
}
