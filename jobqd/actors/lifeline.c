/* lifeline.c: see lifeline.h. */
#include "jobqd/actors/lifeline.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/guard_table.h"
#include "jobqd/pure/failure_detector.h"
#include "libjobq/duration.h"

enum {
    /* The look for strays reads the table through: at most a hundredth of the time. */
    STRAYS_EVERY_MS = 60 * 1000,
    STRAYS_PAUSE = 100,
    /* So does giving back the jobs of dead nodes. What was left is tried again for a
     * twentieth of the time. */
    REAP_PAUSE = 20,
    LEFT_LOOK_MS = 1000, /* a lock that is gone is noticed that soon */
    LOOKS_A_LEASE = 6,
    LEFT_TELL_MS = 60 * 1000,
    MAX_DEAD = 100, /* at once; the rest with the next look */
    LEADER_PERCENT = 100,
    OTHERS_PERCENT = 150
};

struct lifeline {
    struct lifeline_options options;
    bool leads;
    struct failure_detector detector;
    struct rounds looks;   /* at the nodes; with each, the dead ones are reaped */
    struct rounds strays;  /* the leader's: for jobs whose node has no row */
    struct rounds cancels; /* the leader's: for requests to cancel that are left over */
    bool reaping;          /* the end of some nodes is under way */
    /* Whom the last end that did not fail was for: what is still there was left. */
    struct sight reaped[MAX_DEAD];
    size_t n_reaped;
    uint64_t reap_sent_ms;
    bool left;              /* jobs of dead nodes were, by the last end */
    uint64_t reap_again_ms; /* not before, for what was left */
    /* when it was last said that dead nodes' jobs are left; 0: not */
    uint64_t left_told_ms;
    uint64_t strays_sent_ms;
    int closing; /* how many of the rounds are not closed yet */
};

/* Jobs of dead nodes whose rows are locked, or that cannot be changed: tried again with
 * each look, said once a minute. */
static void
tell_left(struct lifeline *lifeline, long long left, const char *first)
{
    uint64_t now_ms = uv_now(lifeline->options.loop);
    lifeline->left = left > 0;
    if (left == 0) {
        lifeline->left_told_ms = 0;
        return;
    }
    if (lifeline->left_told_ms != 0 && now_ms - lifeline->left_told_ms < LEFT_TELL_MS)
        return;
    lifeline->left_told_ms = now_ms;
    log_warning("lifeline", "%lld job%s of dead nodes could not be given back yet: %s",
                left, left == 1 ? "" : "s", first ? first : "");
}

static int64_t look_ms(const struct lifeline *lifeline);
static int64_t next_look_ms(const struct lifeline *lifeline);

static void
on_reaped(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    uint64_t now_ms = uv_now(lifeline->options.loop);
    lifeline->reaping = false;
    lifeline->reap_again_ms = now_ms + (now_ms - lifeline->reap_sent_ms) * REAP_PAUSE;
    if (answer->code < 0) {
        lifeline->n_reaped = 0;
        if (answer->code != JOBQ_ECONN)
            log_warning("lifeline", "could not remove dead nodes: %s",
                        answer->error->message);
        return;
    }
    long long removed = answer->removed, again = answer->again;
    long long ended = answer->ended, left = answer->remaining;
    tell_left(lifeline, left, answer->note);
    if (left > 0 && lifeline->looks.state == ROUNDS_SLEEPING)
        rounds_sleep(&lifeline->looks, next_look_ms(lifeline));
    if (left > 0 && lifeline->cancels.state == ROUNDS_SLEEPING)
        rounds_sleep(&lifeline->cancels, look_ms(lifeline));
    failures_note_stories(lifeline->options.failures, answer->stories);
    if (removed == 0 && again == 0 && ended == 0)
        return;
    log_warning(
        "lifeline",
        "removed %lld node%s whose lease expired%s%s; jobs made available again: %lld, "
        "jobs discarded or cancelled: %lld",
        removed, removed == 1 ? "" : "s", left == 0 ? ", first: " : "",
        left == 0 && answer->note ? answer->note : "", again, ended);
    lifeline->options.on_rescued(lifeline->options.owner);
}

static void
on_strays(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    int64_t took_ms =
        (int64_t)(uv_now(lifeline->options.loop) - lifeline->strays_sent_ms);
    int64_t pause_ms = took_ms * STRAYS_PAUSE;
    if (!rounds_take(&lifeline->strays))
        return;
    if (answer->code == JOBQ_ECONN)
        pause_ms = lifeline->options.lease_ms / LOOKS_A_LEASE;
    else if (pause_ms < STRAYS_EVERY_MS)
        pause_ms = STRAYS_EVERY_MS;
    rounds_answered(&lifeline->strays, pause_ms);
    if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning("lifeline", "could not look for jobs of deleted nodes: %s",
                    answer->error->message);
    else if (answer->strays > 0)
        log_warning("lifeline",
                    "the rows of %lld node%s were deleted while they held jobs; the jobs "
                    "will be given back in %s",
                    (long long)answer->strays, answer->strays == 1 ? "" : "s",
                    jobq__duration_show(lifeline->options.lease_ms).text);
}

static bool
look_for_strays(void *owner)
{
    struct lifeline *lifeline = owner;
    lifeline->strays_sent_ms = uv_now(lifeline->options.loop);
    return store_strays(lifeline->options.store, lifeline->options.lease_ms, on_strays,
                        lifeline) == 0;
}

static int
percent(const struct lifeline *lifeline)
{
    return lifeline->leads ? LEADER_PERCENT : OTHERS_PERCENT;
}

static bool
was_reaped(const struct lifeline *lifeline, const struct sight *node)
{
    for (size_t i = 0; i < lifeline->n_reaped; i++)
        if (lifeline->reaped[i].id == node->id && lifeline->reaped[i].mark == node->mark)
            return true;
    return false;
}

/* A node that has just died is anybody's. For one of whose jobs some were left, since
 * they are locked, the whole table is read again: the leader does that, and not all of
 * the time. */
static bool
may_reap(const struct lifeline *lifeline, const struct sight *dead, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!was_reaped(lifeline, &dead[i]))
            return true;
    return n > 0 && lifeline->leads &&
           uv_now(lifeline->options.loop) >= lifeline->reap_again_ms;
}

static void
reap(struct lifeline *lifeline)
{
    struct sight dead[MAX_DEAD];
    size_t n = failure_detector_dead(&lifeline->detector, clock_boottime_ns(),
                                     percent(lifeline), dead, MAX_DEAD);
    if (lifeline->reaping || !may_reap(lifeline, dead, n))
        return;
    lifeline->reap_sent_ms = uv_now(lifeline->options.loop);
    lifeline->reaping =
        store_reap(lifeline->options.store, 0, dead, n, on_reaped, lifeline) == 0;
    lifeline->n_reaped = lifeline->reaping ? n : 0;
    for (size_t i = 0; i < lifeline->n_reaped; i++)
        lifeline->reaped[i] = dead[i];
}

/* How long until the next look: sooner while the leader waits for locks on jobs. */
static int64_t
look_ms(const struct lifeline *lifeline)
{
    int64_t in_ms = lifeline->options.lease_ms / LOOKS_A_LEASE;
    if (!lifeline->leads || !lifeline->left)
        return in_ms;
    uint64_t now_ms = uv_now(lifeline->options.loop);
    int64_t left_ms = LEFT_LOOK_MS;
    if (lifeline->reap_again_ms > now_ms + LEFT_LOOK_MS)
        left_ms = (int64_t)(lifeline->reap_again_ms - now_ms);
    return left_ms < in_ms ? left_ms : in_ms;
}

/* At the moment at which another one is dead, if that comes before the next look. */
static int64_t
next_look_ms(const struct lifeline *lifeline)
{
    int64_t now_ns = clock_boottime_ns();
    int64_t next_ns =
        failure_detector_next_ns(&lifeline->detector, now_ns, percent(lifeline));
    int64_t in_ms = look_ms(lifeline);
    if (next_ns < now_ns + in_ms * 1000000)
        in_ms = (next_ns - now_ns) / 1000000 + 1;
    return in_ms;
}

static void
on_watched(void *data, const struct store_list *answer)
{
    struct lifeline *lifeline = data;
    if (!rounds_take(&lifeline->looks))
        return;
    if (answer->code == 0 && failure_detector_look(&lifeline->detector, answer->nodes,
                                                   answer->n, clock_boottime_ns()) < 0)
        log_error("lifeline", "out of memory: cannot watch the other nodes");
    else if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning("lifeline", "could not read the other nodes: %s",
                    answer->error->message);
    reap(lifeline);
    rounds_answered(&lifeline->looks, next_look_ms(lifeline));
}

static bool
look_at_nodes(void *owner)
{
    struct lifeline *lifeline = owner;
    reap(lifeline);
    return store_watch(lifeline->options.store, on_watched, lifeline) == 0;
}

static void
on_cancelled_again(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    if (answer->code == 0)
        failures_note_stories(lifeline->options.failures, answer->stories);
    else if (answer->code != JOBQ_ECONN)
        log_warning("lifeline", "could not look for unanswered cancel requests: %s",
                    answer->error->message);
    if (rounds_take(&lifeline->cancels))
        rounds_answered(&lifeline->cancels, look_ms(lifeline));
}

/* Requests to cancel that nobody answers to any more: the job's node may be gone, or its
 * attempt ended as the request came. */
static bool
look_for_cancels(void *owner)
{
    struct lifeline *lifeline = owner;
    return store_cancel_again(lifeline->options.store, on_cancelled_again, lifeline) == 0;
}

int
lifeline_new(struct lifeline **out, const struct lifeline_options *options)
{
    struct lifeline *lifeline = calloc(1, sizeof *lifeline);
    if (!lifeline)
        return JOBQ_ENOMEM;
    lifeline->options = *options;
    struct rounds_options rounds = {.loop = options->loop,
                                    .owner = lifeline,
                                    .idle_ms = options->lease_ms / LOOKS_A_LEASE};
    rounds.ask = look_at_nodes;
    rounds_init(&lifeline->looks, &rounds);
    rounds.ask = look_for_strays;
    rounds_init(&lifeline->strays, &rounds);
    rounds.ask = look_for_cancels;
    rounds_init(&lifeline->cancels, &rounds);
    *out = lifeline;
    return 0;
}

void
lifeline_start(struct lifeline *lifeline)
{
    rounds_start(&lifeline->looks);
}

void
lifeline_lead(struct lifeline *lifeline, bool leads)
{
    lifeline->leads = leads;
    if (leads) {
        rounds_start(&lifeline->strays); /* who led before may be such a node itself */
        rounds_start(&lifeline->cancels);
    } else {
        rounds_stop(&lifeline->strays);
        rounds_stop(&lifeline->cancels);
    }
    rounds_poke(&lifeline->looks);
}

void
lifeline_stop(struct lifeline *lifeline)
{
    rounds_stop(&lifeline->looks); /* first, so that nothing is asked any more */
    lifeline_lead(lifeline, false);
    failure_detector_clear(&lifeline->detector);
}

static void
on_closed(void *owner)
{
    struct lifeline *lifeline = owner;
    if (--lifeline->closing > 0)
        return;
    failure_detector_clear(&lifeline->detector);
    free(lifeline);
}

void
lifeline_close(struct lifeline *lifeline)
{
    struct rounds *all[] = {&lifeline->looks, &lifeline->strays, &lifeline->cancels};
    lifeline->closing = sizeof all / sizeof *all;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        rounds_close(all[i], on_closed);
}
