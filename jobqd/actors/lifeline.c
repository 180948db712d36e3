/* lifeline.c: see lifeline.h. */
#include "jobqd/actors/lifeline.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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
    BURY_PAUSE = 20,
    LEFT_LOOK_MS = 1000, /* a lock that is gone is noticed that soon */
    LOOKS_A_LEASE = 6,
    LEFT_TELL_MS = 60 * 1000,
    MAX_DEAD = 100, /* at once; the rest with the next look */
    LEADER_PERCENT = 100,
    OTHERS_PERCENT = 150
};

struct lifeline {
    struct lifeline_options options;
    bool started;
    bool leads;
    struct failure_detector failure_detector;
    bool watching;     /* a look at the nodes is under way */
    bool reaping;      /* likewise, the end of some */
    bool asked_strays; /* likewise, the look for strays */
    bool asked_cancel; /* likewise, for requests to cancel that are left over */
    /* Whom the last end that did not fail was for: what is still there was left. */
    struct sight reaped[MAX_DEAD];
    size_t n_buried;
    uint64_t reap_sent_ms;
    bool left;              /* jobs of dead nodes were, by the last end */
    uint64_t reap_again_ms; /* not before, for what was left */
    /* when it was last said that dead nodes' jobs are left; 0: not */
    uint64_t left_told_ms;
    uint64_t strays_sent_ms;
    uint64_t strays_next_ms;
    uv_timer_t timer; /* the next look */
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

static void arm(struct lifeline *lifeline);

static void
on_reaped(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    uint64_t now_ms = uv_now(lifeline->options.loop);
    lifeline->reaping = false;
    lifeline->reap_again_ms = now_ms + (now_ms - lifeline->reap_sent_ms) * BURY_PAUSE;
    if (answer->code < 0) {
        lifeline->n_buried = 0;
        if (answer->code != JOBQ_ECONN)
            log_warning("lifeline", "could not remove dead nodes: %s",
                        answer->error->message);
        return;
    }
    long long removed = answer->values[0], again = answer->values[1];
    long long ended = answer->values[2], left = answer->values[3];
    tell_left(lifeline, left, answer->text);
    if (left > 0 && lifeline->started)
        arm(lifeline);
    failures_note_stories(lifeline->options.failures, answer->more);
    if (removed == 0 && again == 0 && ended == 0)
        return;
    log_warning(
        "lifeline",
        "removed %lld node%s whose lease had ended%s%s: jobs available again: %lld, "
        "discarded or cancelled: %lld",
        removed, removed == 1 ? "" : "s", left == 0 ? ", first: " : "",
        left == 0 && answer->text ? answer->text : "", again, ended);
    lifeline->options.on_rescued(lifeline->options.owner);
}

static void
on_strays(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    uint64_t now = uv_now(lifeline->options.loop);
    uint64_t pause = (now - lifeline->strays_sent_ms) * STRAYS_PAUSE;
    lifeline->asked_strays = false;
    if (answer->code == JOBQ_ECONN)
        return;
    lifeline->strays_next_ms = now + (pause > STRAYS_EVERY_MS ? pause : STRAYS_EVERY_MS);
    if (answer->code < 0)
        log_warning("lifeline", "could not look for jobs of deleted nodes: %s",
                    answer->error->message);
    else if (answer->values[0] > 0)
        log_warning("lifeline",
                    "the rows of %lld node%s were deleted while they held jobs; the jobs "
                    "will be given back in %s",
                    (long long)answer->values[0], answer->values[0] == 1 ? "" : "s",
                    jobq__duration_show(lifeline->options.lease_ms).text);
}

static void
look_for_strays(struct lifeline *lifeline)
{
    uint64_t now = uv_now(lifeline->options.loop);
    if (lifeline->asked_strays || now < lifeline->strays_next_ms)
        return;
    lifeline->strays_sent_ms = now;
    lifeline->asked_strays =
        store_strays(lifeline->options.store, lifeline->options.lease_ms, on_strays,
                     lifeline) == 0;
}

/* Three numbers a node, as watch.sql gives them. Returns how many nodes; for free(). */
static size_t
read_nodes(const char *text, struct sight **out)
{
    size_t room = strlen(text) / 6 + 1; /* "1 2 3 " is the shortest */
    size_t n = 0;
    struct sight *seen = calloc(room, sizeof *seen);
    for (char *end; seen && *text != '\0'; text = end) {
        struct sight *sight = &seen[n++];
        sight->id = strtoll(text, &end, 10);
        sight->mark = strtoll(end, &end, 10);
        sight->lease_ms = strtoll(end, &end, 10);
    }
    *out = seen;
    return n;
}

static int
percent(const struct lifeline *lifeline)
{
    return lifeline->leads ? LEADER_PERCENT : OTHERS_PERCENT;
}

static bool
was_buried(const struct lifeline *lifeline, const struct sight *node)
{
    for (size_t i = 0; i < lifeline->n_buried; i++)
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
        if (!was_buried(lifeline, &dead[i]))
            return true;
    return n > 0 && lifeline->leads &&
           uv_now(lifeline->options.loop) >= lifeline->reap_again_ms;
}

static void
reap(struct lifeline *lifeline)
{
    struct sight dead[MAX_DEAD];
    size_t n = failure_detector_dead(&lifeline->failure_detector, clock_boottime_ns(),
                                     percent(lifeline), dead, MAX_DEAD);
    if (lifeline->reaping || !may_reap(lifeline, dead, n))
        return;
    lifeline->reap_sent_ms = uv_now(lifeline->options.loop);
    lifeline->reaping =
        store_reap(lifeline->options.store, 0, dead, n, on_reaped, lifeline) == 0;
    lifeline->n_buried = lifeline->reaping ? n : 0;
    for (size_t i = 0; i < lifeline->n_buried; i++)
        lifeline->reaped[i] = dead[i];
}

static void on_timer(uv_timer_t *timer);

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
static void
arm(struct lifeline *lifeline)
{
    int64_t now_ns = clock_boottime_ns();
    int64_t next_ns =
        failure_detector_next_ns(&lifeline->failure_detector, now_ns, percent(lifeline));
    int64_t in_ms = look_ms(lifeline);
    if (next_ns < now_ns + in_ms * 1000000)
        in_ms = (next_ns - now_ns) / 1000000 + 1;
    uv_timer_start(&lifeline->timer, on_timer, (uint64_t)in_ms, 0);
}

static void
on_watched(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    struct sight *seen = NULL;
    lifeline->watching = false;
    if (!lifeline->started)
        return;
    if (answer->code < 0) {
        if (answer->code != JOBQ_ECONN)
            log_warning("lifeline", "could not read the other nodes: %s",
                        answer->error->message);
        return;
    }
    size_t n = read_nodes(answer->text ? answer->text : "", &seen);
    if (!seen || failure_detector_look(&lifeline->failure_detector, seen, n,
                                       clock_boottime_ns()) < 0)
        log_error("lifeline", "out of memory: cannot watch the other nodes");
    free(seen);
    reap(lifeline);
    arm(lifeline);
}

static void
on_cancelled_again(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    lifeline->asked_cancel = false;
    if (answer->code == 0)
        failures_note_stories(lifeline->options.failures, answer->text);
    else if (answer->code != JOBQ_ECONN)
        log_warning("lifeline", "could not look for unanswered cancel requests: %s",
                    answer->error->message);
}

/* Requests to cancel that nobody answers to any more: the job's node may be gone, or its
 * attempt ended as the request came. */
static void
look_for_cancels(struct lifeline *lifeline)
{
    if (!lifeline->asked_cancel)
        lifeline->asked_cancel = store_cancel_again(lifeline->options.store,
                                                    on_cancelled_again, lifeline) == 0;
}

static void
on_timer(uv_timer_t *timer)
{
    struct lifeline *lifeline = timer->data;
    if (lifeline->leads) {
        look_for_strays(lifeline);
        look_for_cancels(lifeline);
    }
    reap(lifeline);
    if (!lifeline->watching)
        lifeline->watching =
            store_watch(lifeline->options.store, on_watched, lifeline) == 0;
    arm(lifeline);
}

int
lifeline_new(struct lifeline **out, const struct lifeline_options *options)
{
    struct lifeline *lifeline = calloc(1, sizeof *lifeline);
    if (!lifeline)
        return JOBQ_ENOMEM;
    lifeline->options = *options;
    uv_timer_init(options->loop, &lifeline->timer);
    lifeline->timer.data = lifeline;
    *out = lifeline;
    return 0;
}

void
lifeline_start(struct lifeline *lifeline)
{
    lifeline->started = true;
    uv_timer_start(&lifeline->timer, on_timer, 0, 0);
}

void
lifeline_lead(struct lifeline *lifeline, bool leads)
{
    lifeline->leads = leads;
    lifeline->strays_next_ms = 0; /* who led before may be such a node itself */
    if (lifeline->started)
        uv_timer_start(&lifeline->timer, on_timer, 0, 0);
}

void
lifeline_stop(struct lifeline *lifeline)
{
    lifeline->started = false;
    lifeline->leads = false;
    failure_detector_clear(&lifeline->failure_detector);
    uv_timer_stop(&lifeline->timer);
}

static void
on_closed(uv_handle_t *handle)
{
    struct lifeline *lifeline = handle->data;
    failure_detector_clear(&lifeline->failure_detector);
    free(lifeline);
}

void
lifeline_close(struct lifeline *lifeline)
{
    uv_close((uv_handle_t *)&lifeline->timer, on_closed);
}
