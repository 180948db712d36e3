/* stager.c: see stager.h. */
#include "jobqd/actors/stager.h"

#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"

/* Due rows that are locked by somebody else are due at once, again and again: not faster
 * than this. */
enum { SHORTEST_SLEEP_MS = 10 };

/* As many as expire_jobs() ends at once: there may be more. */
enum { EXPIRE_BATCH = 1000 };

/* What has expired since the last time, and in so long before that, is looked for each
 * time. What was locked then, or was committed after its time, is found when all is
 * looked through: which may have to read many rows that are past their expiry for good,
 * their first attempt having begun. It is done also where many expire at once. */
enum { EXPIRED_MS = 10000, ALL_EXPIRED_EACH_MS = 60000 };

/* Only jobs that are due within two seconds are announced (jobs_after_insert): so it
 * looks more often than that, whatever the poll interval. */
enum { LONGEST_SLEEP_MS = 1000 };

/* The pause after the database has refused (its disk is full, a right is missing), which
 * doubles from LONGEST_SLEEP_MS on. */
enum { RETRY_MAX_MS = 8000 };

struct stager {
    struct stager_options options;
    struct rounds rounds; /* of staging */
    bool started;
    /* What has expired is ended by requests of its own: what stops those does not stop
     * the staging. */
    bool expiring;       /* one is under way */
    bool through;        /* all that has expired is being looked through ... */
    uint64_t through_ms; /* ... and is again at this time of the loop */
    uint64_t asked_ms;   /* when the last look began; when the last good one did */
    uint64_t looked_ms;
    int64_t expire_retry_ms; /* the pause after a refusal; 0: the last answer was good */
    uint64_t expire_at_ms;   /* not before */
};

static void expire(struct stager *stager);

static void
tell_refusal(const char *what, int64_t pause_ms, const jobq_error *why)
{
    log_warning("stager", "the database refused to %s, retrying in %lld s: %s", what,
                (long long)pause_ms / 1000, why->message);
}

static int64_t
next_sleep_ms(const struct store_answer *answer)
{
    int64_t staged = answer->staged;
    int64_t next_ms = answer->next_ms;
    if (staged > 0 && next_ms == 0)
        return 0;
    if (next_ms < 0 || next_ms > LONGEST_SLEEP_MS)
        return LONGEST_SLEEP_MS;
    return next_ms > 0 ? next_ms : SHORTEST_SLEEP_MS;
}

static void
on_answer(void *data, const struct store_answer *answer)
{
    struct stager *stager = data;
    if (!rounds_take(&stager->rounds))
        return;
    if (answer->code == JOBQ_ECONN) {
        rounds_sleep(&stager->rounds, LONGEST_SLEEP_MS);
    } else if (answer->code < 0) {
        tell_refusal("stage due jobs", rounds_refused(&stager->rounds), answer->error);
    } else {
        rounds_answered(&stager->rounds, next_sleep_ms(answer));
        if (answer->staged > 0)
            stager->options.on_staged(stager->options.owner);
    }
}

static void
on_expired(void *data, const struct store_answer *answer)
{
    struct stager *stager = data;
    uint64_t now_ms = uv_now(stager->options.loop);
    stager->expiring = false;
    if (answer->code < 0) {
        stager->through_ms = 0;
        if (answer->code != JOBQ_ECONN && stager->started) {
            int64_t ms = stager->expire_retry_ms * 2;
            stager->expire_retry_ms = ms == 0             ? LONGEST_SLEEP_MS
                                      : ms > RETRY_MAX_MS ? RETRY_MAX_MS
                                                          : ms;
            tell_refusal("end expired jobs", stager->expire_retry_ms, answer->error);
            stager->expire_at_ms = now_ms + (uint64_t)stager->expire_retry_ms;
        }
        return;
    }
    stager->expire_retry_ms = 0;
    stager->looked_ms = stager->asked_ms;
    failures_note_stories(stager->options.failures, answer->stories);
    if (answer->expired >= EXPIRE_BATCH) {
        stager->through = true;
        expire(stager);
    } else if (stager->through) {
        stager->through = false;
        stager->through_ms = now_ms + ALL_EXPIRED_EACH_MS;
    }
}

static void
expire(struct stager *stager)
{
    uint64_t now_ms = uv_now(stager->options.loop);
    if (stager->expiring || !stager->started || now_ms < stager->expire_at_ms)
        return;
    stager->asked_ms = now_ms;
    if (now_ms >= stager->through_ms)
        stager->through = true;
    int64_t expired_ms = (int64_t)(now_ms - stager->looked_ms) + EXPIRED_MS;
    stager->expiring =
        store_expire(stager->options.store, stager->through ? -1 : expired_ms, on_expired,
                     stager) == 0;
}

static bool
ask(void *owner)
{
    struct stager *stager = owner;
    bool asked = store_stage(stager->options.store, on_answer, stager) == 0;
    expire(stager);
    return asked;
}

int
stager_new(struct stager **out, const struct stager_options *options)
{
    struct stager *stager = calloc(1, sizeof *stager);
    if (!stager)
        return JOBQ_ENOMEM;
    stager->options = *options;
    rounds_init(&stager->rounds,
                &(struct rounds_options){.loop = options->loop,
                                         .ask = ask,
                                         .owner = stager,
                                         .idle_ms = LONGEST_SLEEP_MS,
                                         .retry_first_ms = LONGEST_SLEEP_MS,
                                         .retry_most_ms = RETRY_MAX_MS});
    *out = stager;
    return 0;
}

void
stager_start(struct stager *stager)
{
    stager->started = true;
    stager->expire_retry_ms = 0;
    stager->expire_at_ms = 0;
    stager->through_ms = 0;
    rounds_start(&stager->rounds);
}

void
stager_stop(struct stager *stager)
{
    stager->started = false;
    rounds_stop(&stager->rounds);
}

void
stager_poke(struct stager *stager)
{
    rounds_poke(&stager->rounds);
}

static void
on_closed(void *owner)
{
    free(owner);
}

void
stager_close(struct stager *stager)
{
    rounds_close(&stager->rounds, on_closed);
}
