/* lifeline.c: see lifeline.h. */
#include "jobqd/actors/lifeline.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/io/guard_table.h"
#include "jobqd/pure/vigil.h"

enum {
    /* The look for strays reads the table through: at most a hundredth of the time. */
    STRAYS_EVERY_MS = 60 * 1000,
    STRAYS_PAUSE = 100,
    LOOKS_A_LEASE = 6,
    MOST_DEAD = 100, /* at once; the rest with the next look */
    LEADER_PERCENT = 100,
    OTHERS_PERCENT = 150
};

struct lifeline {
    struct lifeline_options options;
    bool started;
    bool leads;
    struct vigil vigil;
    bool watching;     /* a look at the nodes is under way */
    bool burying;      /* likewise, the end of some */
    bool asked_strays; /* likewise, the look for strays */
    bool asked_cancel; /* likewise, for requests to cancel that are left over */
    uint64_t strays_sent_ms;
    uint64_t strays_next_ms;
    uv_timer_t timer; /* the next look */
};

static void
on_buried(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    lifeline->burying = false;
    if (answer->code < 0) {
        if (answer->code != JOBQ_ECONN)
            log_warning("lifeline", "%s", answer->error->message);
        return;
    }
    if (answer->rows == 0)
        return;
    log_warning("lifeline",
                "removed %zu node%s whose lease had ended (first: %s): jobs available "
                "again: %lld, discarded or cancelled: %lld",
                answer->rows, answer->rows == 1 ? "" : "s", answer->text,
                (long long)answer->values[0], (long long)answer->values[1]);
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
        log_warning("lifeline", "%s", answer->error->message);
    else if (answer->rows > 0)
        log_warning("lifeline",
                    "the rows of %zu node%s with jobs were deleted: the jobs are given "
                    "back in %lld ms",
                    answer->rows, answer->rows == 1 ? "" : "s",
                    (long long)lifeline->options.lease_ms);
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

static void
bury(struct lifeline *lifeline)
{
    struct sight dead[MOST_DEAD];
    size_t n = vigil_dead(&lifeline->vigil, guard_boottime_ns(), percent(lifeline), dead,
                          MOST_DEAD);
    if (n > 0 && !lifeline->burying)
        lifeline->burying =
            store_bury(lifeline->options.store, 0, dead, n, on_buried, lifeline) == 0;
}

static void on_timer(uv_timer_t *timer);

/* At the moment at which another one is dead, if that comes before the next look. */
static void
arm(struct lifeline *lifeline)
{
    int64_t now_ns = guard_boottime_ns();
    int64_t next_ns = vigil_next_ns(&lifeline->vigil, now_ns, percent(lifeline));
    int64_t in_ms = lifeline->options.lease_ms / LOOKS_A_LEASE;
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
            log_warning("lifeline", "%s", answer->error->message);
        return;
    }
    size_t n = read_nodes(answer->text ? answer->text : "", &seen);
    if (!seen || vigil_look(&lifeline->vigil, seen, n, guard_boottime_ns()) < 0)
        log_error("lifeline", "no memory to watch the nodes");
    free(seen);
    bury(lifeline);
    arm(lifeline);
}

static void
on_cancelled_again(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    lifeline->asked_cancel = false;
    if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning("lifeline", "%s", answer->error->message);
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
    bury(lifeline);
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
    vigil_clear(&lifeline->vigil);
    uv_timer_stop(&lifeline->timer);
}

static void
on_closed(uv_handle_t *handle)
{
    struct lifeline *lifeline = handle->data;
    vigil_clear(&lifeline->vigil);
    free(lifeline);
}

void
lifeline_close(struct lifeline *lifeline)
{
    uv_close((uv_handle_t *)&lifeline->timer, on_closed);
}
