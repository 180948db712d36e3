/* claim_pacer.c: see claim_pacer.h. */
#include "jobqd/pure/claim_pacer.h"

#include <string.h>

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t MS_NS = 1000000;

/* A look may take a sixth of the time: it waits five times as long as the last one's
 * round trip. */
static const uint64_t LOOK_PAUSE = 5;

void
claim_pacer_init(struct claim_pacer *pacer, int64_t poll_interval_ms)
{
    memset(pacer, 0, sizeof *pacer);
    pacer->poll_interval_ms = poll_interval_ms;
    pacer->poll_ms = 1;
    pacer->look_wanted = true;
    pacer->mean_bytes = 64;
}

size_t
claim_pacer_want(const struct claim_pacer *pacer, size_t room, size_t waiting)
{
    size_t ahead = pacer->ahead;
    size_t bytes = pacer->mean_bytes ? pacer->mean_bytes : 1;
    if (ahead > CLAIM_PACER_AHEAD_BYTES / bytes)
        ahead = CLAIM_PACER_AHEAD_BYTES / bytes;
    if (room > 1 && room > CLAIM_PACER_AHEAD_BYTES / bytes)
        room = CLAIM_PACER_AHEAD_BYTES / bytes > 0 ? CLAIM_PACER_AHEAD_BYTES / bytes : 1;
    size_t target = room + ahead;
    return target > waiting ? target - waiting : 0;
}

bool
claim_pacer_look_due(const struct claim_pacer *pacer, uint64_t now_ns)
{
    if (now_ns < pacer->look_again_ns)
        return false;
    return pacer->look_wanted || now_ns - pacer->looked_ns >= SECOND_NS;
}

void
claim_pacer_sent(struct claim_pacer *pacer, uint64_t now_ns, bool look)
{
    pacer->sent_ns = now_ns;
    pacer->ended = 0;
    if (look)
        pacer->looked_ns = now_ns;
}

void
claim_pacer_ended(struct claim_pacer *pacer, size_t jobs)
{
    pacer->ended += jobs;
}

/* A claim of so few jobs takes about as long as an insert: what both wait for is the
 * disk. */
enum { SMALL_CLAIM = 16 };

static void
measure_commit(struct claim_pacer *pacer, uint64_t now_ns, size_t claimed)
{
    uint64_t took_ns = now_ns - pacer->sent_ns;
    if (claimed == 0 || claimed > SMALL_CLAIM)
        return;
    pacer->commit_ns =
        pacer->commit_ns == 0 ? took_ns : (pacer->commit_ns * 7 + took_ns) / 8;
}

/* How many commits in a window, one after the other, take a third of it. */
static size_t
busy_jobs(const struct claim_pacer *pacer)
{
    if (pacer->commit_ns == 0)
        return CLAIM_PACER_BUSY_MAX;
    uint64_t jobs = CLAIM_PACER_WINDOW_MS * MS_NS / (3 * pacer->commit_ns);
    return jobs < CLAIM_PACER_BUSY_MIN   ? CLAIM_PACER_BUSY_MIN
           : jobs > CLAIM_PACER_BUSY_MAX ? CLAIM_PACER_BUSY_MAX
                                         : (size_t)jobs;
}

static void
count_window(struct claim_pacer *pacer, uint64_t now_ns, size_t claimed)
{
    if (now_ns - pacer->window_ns >= CLAIM_PACER_WINDOW_MS * MS_NS) {
        bool just_before = now_ns - pacer->window_ns < 2 * CLAIM_PACER_WINDOW_MS * MS_NS;
        pacer->busy = just_before && pacer->window_jobs > busy_jobs(pacer);
        pacer->window_ns = now_ns;
        pacer->window_jobs = 0;
    }
    pacer->window_jobs += claimed;
    if (pacer->window_jobs > busy_jobs(pacer))
        pacer->busy = true;
}

/* Larger jobs are believed at once, smaller ones little by little. */
static void
note_bytes(struct claim_pacer *pacer, size_t mean)
{
    pacer->mean_bytes = (pacer->mean_bytes * 7 + mean) / 8;
    if (mean > pacer->mean_bytes)
        pacer->mean_bytes = mean;
}

void
claim_pacer_fetched(struct claim_pacer *pacer, size_t jobs, size_t bytes)
{
    if (jobs > 0)
        note_bytes(pacer, bytes / jobs);
}

size_t
claim_pacer_fetch(const struct claim_pacer *pacer, size_t bytes)
{
    return 1 + bytes / (pacer->mean_bytes ? pacer->mean_bytes : 1);
}

void
claim_pacer_came_back(struct claim_pacer *pacer, uint64_t now_ns, size_t limit,
                      size_t claimed, size_t bytes, bool looked)
{
    measure_commit(pacer, now_ns, claimed);
    count_window(pacer, now_ns, claimed);
    /* Three times what a round trip used, falling slowly: a single odd round trip does
     * not starve the workers. With twice, the claims, which come in powers of two, settle
     * at half of what one can bring, and each costs a round trip and a commit. */
    size_t used = 3 * pacer->ended;
    size_t decayed = pacer->ahead - (pacer->ahead + 3) / 4;
    pacer->ahead = used > decayed ? used : decayed;
    if (pacer->ended < 2)
        pacer->ahead = decayed;
    if (pacer->ahead > CLAIM_PACER_AHEAD_MAX)
        pacer->ahead = CLAIM_PACER_AHEAD_MAX;
    if (claimed > 0) {
        note_bytes(pacer, bytes / claimed);
        pacer->poll_ms = 1;
    }
    if (looked) {
        pacer->look_again_ns = now_ns + LOOK_PAUSE * (now_ns - pacer->sent_ns);
        if (pacer->look_again_ns > now_ns + SECOND_NS)
            pacer->look_again_ns = now_ns + SECOND_NS;
        pacer->look_wanted = false;
    }
    if (claimed < limit)
        pacer->look_wanted = true;
}

void
claim_pacer_empty(struct claim_pacer *pacer)
{
    pacer->look_wanted = false;
    pacer->poll_ms *= 2;
    if (pacer->poll_ms > pacer->poll_interval_ms)
        pacer->poll_ms = pacer->poll_interval_ms;
}

bool
claim_pacer_busy(struct claim_pacer *pacer, uint64_t now_ns)
{
    count_window(pacer, now_ns, 0);
    return pacer->busy;
}

void
claim_pacer_locked(struct claim_pacer *pacer)
{
    pacer->poll_ms = pacer->poll_ms < CLAIM_PACER_LOCKED_MS / 2 ? pacer->poll_ms * 2
                                                                : CLAIM_PACER_LOCKED_MS;
    if (pacer->poll_ms > pacer->poll_interval_ms)
        pacer->poll_ms = pacer->poll_interval_ms;
}
