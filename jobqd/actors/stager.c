/* stager.c: see stager.h. */
#include "jobqd/actors/stager.h"

#include <stdlib.h>

#include "jobqd/base/log.h"

enum stager_state {
    STAGER_OFF,        /* this node does not lead */
    STAGER_SLEEPING,   /* until the next due time */
    STAGER_ASKING,     /* a request is under way */
    STAGER_ASKED_AGAIN /* likewise, and somebody poked: another follows at once */
};

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
enum { RETRY_MOST_MS = 8000 };

struct stager {
    struct stager_options options;
    enum stager_state state;
    int64_t retry_ms; /* the pause that was made, or is; 0: the last answer was good */
    bool stopped;     /* while a request is under way: do not go on after it */
    /* What has expired is ended by requests of its own: what stops those does not stop
     * the staging. */
    bool expiring;       /* one is under way */
    bool through;        /* all that has expired is being looked through ... */
    uint64_t through_ms; /* ... and is again at this time of the loop */
    uint64_t asked_ms;   /* when the last look began; when the last good one did */
    uint64_t looked_ms;
    int64_t expire_retry_ms; /* the pause after a refusal; 0: the last answer was good */
    uint64_t expire_at_ms;   /* not before */
    uv_timer_t timer;
};

static void ask(struct stager *stager);
static void expire(struct stager *stager);

static void
on_timer(uv_timer_t *timer)
{
    ask(timer->data);
}

static void
sleep_for(struct stager *stager, int64_t ms)
{
    stager->state = STAGER_SLEEPING;
    if (ms > LONGEST_SLEEP_MS)
        ms = LONGEST_SLEEP_MS;
    uv_timer_start(&stager->timer, on_timer, (uint64_t)(ms > 0 ? ms : 0), 0);
}

/* The next pause after this one; 0: there was none. Logs the refusal. */
static int64_t
longer_pause_ms(int64_t ms, const char *what, const jobq_error *why)
{
    ms = ms ? ms * 2 : LONGEST_SLEEP_MS;
    if (ms > RETRY_MOST_MS)
        ms = RETRY_MOST_MS;
    log_warning("stager", "the database refused to %s, again in %lld s: %s", what,
                (long long)ms / 1000, why->message);
    return ms;
}

static void
back_off(struct stager *stager, const jobq_error *why)
{
    stager->retry_ms = longer_pause_ms(stager->retry_ms, "stage due jobs", why);
    stager->state = STAGER_SLEEPING;
    uv_timer_start(&stager->timer, on_timer, (uint64_t)stager->retry_ms, 0);
}

static int64_t
next_sleep_ms(const struct stager *stager, const struct store_answer *answer)
{
    int64_t staged = answer->values[0];
    int64_t next_ms = answer->values[1];
    if (stager->state == STAGER_ASKED_AGAIN || (staged > 0 && next_ms == 0))
        return 0;
    if (next_ms < 0)
        return LONGEST_SLEEP_MS;
    return next_ms > 0 ? next_ms : SHORTEST_SLEEP_MS;
}

static void
on_answer(void *data, const struct store_answer *answer)
{
    struct stager *stager = data;
    if (stager->stopped) {
        stager->stopped = false;
        stager->state = STAGER_OFF;
        return;
    }
    if (answer->code == JOBQ_ECONN) {
        sleep_for(stager, LONGEST_SLEEP_MS);
        return;
    }
    if (answer->code < 0) {
        back_off(stager, answer->error);
        return;
    }
    stager->retry_ms = 0;
    int64_t ms = next_sleep_ms(stager, answer);
    sleep_for(stager, ms);
    if (answer->values[0] > 0)
        stager->options.on_staged(stager->options.owner);
}

static void
on_expired(void *data, const struct store_answer *answer)
{
    struct stager *stager = data;
    uint64_t now_ms = uv_now(stager->options.loop);
    stager->expiring = false;
    if (answer->code < 0) {
        stager->through_ms = 0;
        if (answer->code != JOBQ_ECONN && stager->state != STAGER_OFF) {
            stager->expire_retry_ms = longer_pause_ms(stager->expire_retry_ms,
                                                      "end expired jobs", answer->error);
            stager->expire_at_ms = now_ms + (uint64_t)stager->expire_retry_ms;
        }
        return;
    }
    stager->expire_retry_ms = 0;
    stager->looked_ms = stager->asked_ms;
    failures_note_stories(stager->options.failures, answer->text);
    if (answer->values[0] >= EXPIRE_BATCH) {
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
    if (stager->expiring || stager->state == STAGER_OFF || stager->stopped ||
        now_ms < stager->expire_at_ms)
        return;
    stager->asked_ms = now_ms;
    if (now_ms >= stager->through_ms)
        stager->through = true;
    int64_t expired_ms = (int64_t)(now_ms - stager->looked_ms) + EXPIRED_MS;
    stager->expiring =
        store_expire(stager->options.store, stager->through ? -1 : expired_ms, on_expired,
                     stager) == 0;
}

static void
ask(struct stager *stager)
{
    if (stager->state != STAGER_SLEEPING)
        return;
    stager->state = STAGER_ASKING;
    if (store_stage(stager->options.store, on_answer, stager) < 0)
        sleep_for(stager, LONGEST_SLEEP_MS);
    expire(stager);
}

int
stager_new(struct stager **out, const struct stager_options *options)
{
    struct stager *stager = calloc(1, sizeof *stager);
    if (!stager)
        return JOBQ_ENOMEM;
    stager->options = *options;
    uv_timer_init(options->loop, &stager->timer);
    stager->timer.data = stager;
    *out = stager;
    return 0;
}

void
stager_start(struct stager *stager)
{
    stager->stopped = false;
    stager->retry_ms = 0;
    stager->expire_retry_ms = 0;
    stager->expire_at_ms = 0;
    stager->through_ms = 0;
    if (stager->state == STAGER_OFF)
        sleep_for(stager, 0);
}

void
stager_stop(struct stager *stager)
{
    uv_timer_stop(&stager->timer);
    if (stager->state == STAGER_ASKING || stager->state == STAGER_ASKED_AGAIN)
        stager->stopped = true;
    else
        stager->state = STAGER_OFF;
}

void
stager_poke(struct stager *stager)
{
    if (stager->state == STAGER_SLEEPING && stager->retry_ms == 0)
        ask(stager);
    else if (stager->state == STAGER_ASKING)
        stager->state = STAGER_ASKED_AGAIN;
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
stager_close(struct stager *stager)
{
    uv_close((uv_handle_t *)&stager->timer, on_closed);
}
