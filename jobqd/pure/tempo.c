/* tempo.c: see tempo.h. */
#include "jobqd/pure/tempo.h"

#include <string.h>

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t MS_NS = 1000000;

/* A look may take a sixth of the time: it waits five times as long as the last one's
 * round trip. */
static const uint64_t LOOK_PAUSE = 5;

void
tempo_init(struct tempo *tempo, int64_t poll_interval_ms)
{
    memset(tempo, 0, sizeof *tempo);
    tempo->poll_interval_ms = poll_interval_ms;
    tempo->poll_ms = 1;
    tempo->look_wanted = true;
    tempo->mean_bytes = 64;
}

size_t
tempo_want(const struct tempo *tempo, size_t room, size_t waiting)
{
    size_t ahead = tempo->ahead;
    size_t bytes = tempo->mean_bytes ? tempo->mean_bytes : 1;
    if (ahead > TEMPO_AHEAD_BYTES / bytes)
        ahead = TEMPO_AHEAD_BYTES / bytes;
    if (room > 1 && room > TEMPO_AHEAD_BYTES / bytes)
        room = TEMPO_AHEAD_BYTES / bytes > 0 ? TEMPO_AHEAD_BYTES / bytes : 1;
    size_t target = room + ahead;
    return target > waiting ? target - waiting : 0;
}

bool
tempo_look_due(const struct tempo *tempo, uint64_t now_ns)
{
    if (now_ns < tempo->look_again_ns)
        return false;
    return tempo->look_wanted || now_ns - tempo->looked_ns >= SECOND_NS;
}

void
tempo_sent(struct tempo *tempo, uint64_t now_ns, bool look)
{
    tempo->sent_ns = now_ns;
    tempo->ended = 0;
    if (look)
        tempo->looked_ns = now_ns;
}

void
tempo_ended(struct tempo *tempo, size_t jobs)
{
    tempo->ended += jobs;
}

/* A claim of so few jobs takes about as long as an insert: what both wait for is the
 * disk. */
enum { SMALL_CLAIM = 16 };

static void
measure_commit(struct tempo *tempo, uint64_t now_ns, size_t claimed)
{
    uint64_t took_ns = now_ns - tempo->sent_ns;
    if (claimed == 0 || claimed > SMALL_CLAIM)
        return;
    tempo->commit_ns =
        tempo->commit_ns == 0 ? took_ns : (tempo->commit_ns * 7 + took_ns) / 8;
}

/* How many commits in a window, one after the other, take a third of it. */
static size_t
busy_jobs(const struct tempo *tempo)
{
    if (tempo->commit_ns == 0)
        return TEMPO_BUSY_MOST;
    uint64_t jobs = TEMPO_WINDOW_MS * MS_NS / (3 * tempo->commit_ns);
    return jobs < TEMPO_BUSY_LEAST  ? TEMPO_BUSY_LEAST
           : jobs > TEMPO_BUSY_MOST ? TEMPO_BUSY_MOST
                                    : (size_t)jobs;
}

static void
count_window(struct tempo *tempo, uint64_t now_ns, size_t claimed)
{
    if (now_ns - tempo->window_ns >= TEMPO_WINDOW_MS * MS_NS) {
        bool just_before = now_ns - tempo->window_ns < 2 * TEMPO_WINDOW_MS * MS_NS;
        tempo->busy = just_before && tempo->window_jobs > busy_jobs(tempo);
        tempo->window_ns = now_ns;
        tempo->window_jobs = 0;
    }
    tempo->window_jobs += claimed;
    if (tempo->window_jobs > busy_jobs(tempo))
        tempo->busy = true;
}

/* Larger jobs are believed at once, smaller ones little by little. */
static void
note_bytes(struct tempo *tempo, size_t mean)
{
    tempo->mean_bytes = (tempo->mean_bytes * 7 + mean) / 8;
    if (mean > tempo->mean_bytes)
        tempo->mean_bytes = mean;
}

void
tempo_fetched(struct tempo *tempo, size_t jobs, size_t bytes)
{
    if (jobs > 0)
        note_bytes(tempo, bytes / jobs);
}

size_t
tempo_fetch(const struct tempo *tempo, size_t bytes)
{
    return 1 + bytes / (tempo->mean_bytes ? tempo->mean_bytes : 1);
}

void
tempo_came_back(struct tempo *tempo, uint64_t now_ns, size_t limit, size_t claimed,
                size_t bytes, bool looked)
{
    measure_commit(tempo, now_ns, claimed);
    count_window(tempo, now_ns, claimed);
    /* Three times what a round trip used, falling slowly: a single odd round trip does
     * not starve the workers. With twice, the claims, which come in powers of two, settle
     * at half of what one can bring, and each costs a round trip and a commit. */
    size_t used = 3 * tempo->ended;
    size_t decayed = tempo->ahead - (tempo->ahead + 3) / 4;
    tempo->ahead = used > decayed ? used : decayed;
    if (tempo->ended < 2)
        tempo->ahead = decayed;
    if (tempo->ahead > TEMPO_AHEAD_MOST)
        tempo->ahead = TEMPO_AHEAD_MOST;
    if (claimed > 0) {
        note_bytes(tempo, bytes / claimed);
        tempo->poll_ms = 1;
    }
    if (looked) {
        tempo->look_again_ns = now_ns + LOOK_PAUSE * (now_ns - tempo->sent_ns);
        if (tempo->look_again_ns > now_ns + SECOND_NS)
            tempo->look_again_ns = now_ns + SECOND_NS;
        tempo->look_wanted = false;
    }
    if (claimed < limit)
        tempo->look_wanted = true;
}

void
tempo_empty(struct tempo *tempo)
{
    tempo->look_wanted = false;
    tempo->poll_ms *= 2;
    if (tempo->poll_ms > tempo->poll_interval_ms)
        tempo->poll_ms = tempo->poll_interval_ms;
}

bool
tempo_busy(struct tempo *tempo, uint64_t now_ns)
{
    count_window(tempo, now_ns, 0);
    return tempo->busy;
}

void
tempo_locked(struct tempo *tempo)
{
    tempo->poll_ms =
        tempo->poll_ms < TEMPO_LOCKED_MS / 2 ? tempo->poll_ms * 2 : TEMPO_LOCKED_MS;
    if (tempo->poll_ms > tempo->poll_interval_ms)
        tempo->poll_ms = tempo->poll_interval_ms;
}
