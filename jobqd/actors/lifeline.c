/* lifeline.c: see lifeline.h. */
#include "jobqd/actors/lifeline.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/base/log.h"

/* The look for strays reads the table through: at most a hundredth of the time. */
enum { STRAYS_EVERY_MS = 60 * 1000, STRAYS_PAUSE = 100 };

struct lifeline {
    struct lifeline_options options;
    bool asked;        /* a request is under way */
    bool asked_strays; /* likewise, for strays */
    uint64_t strays_sent_ms;
    uint64_t strays_next_ms;
    uv_timer_t timer; /* repeats while started */
};

static void
on_buried(void *data, const struct store_answer *answer)
{
    struct lifeline *lifeline = data;
    lifeline->asked = false;
    if (answer->code < 0) {
        if (answer->code != JOBQ_ECONN)
            log_warning("lifeline", "%s", answer->error->message);
        return;
    }
    if (answer->rows == 0)
        return;
    log_warning("lifeline",
                "%zu nodes whose lease had ended were removed (first: %s): %lld of their "
                "jobs are "
                "available again, %lld were discarded",
                answer->rows, answer->text, (long long)answer->values[0],
                (long long)answer->values[1]);
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
                    "%zu nodes hold jobs but their rows were deleted: the jobs are "
                    "given back in %lld ms",
                    answer->rows, (long long)lifeline->options.lease_ms);
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

static void
on_timer(uv_timer_t *timer)
{
    struct lifeline *lifeline = timer->data;
    look_for_strays(lifeline);
    if (!lifeline->asked)
        lifeline->asked =
            store_bury(lifeline->options.store, 0, on_buried, lifeline) == 0;
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
    uint64_t every_ms = (uint64_t)lifeline->options.lease_ms / 3;
    lifeline->strays_next_ms = 0; /* who led before may be such a node itself */
    uv_timer_start(&lifeline->timer, on_timer, 0, every_ms);
}

void
lifeline_stop(struct lifeline *lifeline)
{
    uv_timer_stop(&lifeline->timer);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
lifeline_close(struct lifeline *lifeline)
{
    uv_close((uv_handle_t *)&lifeline->timer, on_closed);
}
