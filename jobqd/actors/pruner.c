/* pruner.c: see pruner.h. */
#include "jobqd/actors/pruner.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/base/log.h"

enum {
    PRUNE_EVERY_MS = 3600 * 1000,
    PRUNE_RETRY_MS =
        30 * 1000,      /* a partition was in use: its lock is only waited for briefly */
    PRUNE_NEXT_MS = 100 /* between two partitions, so that acks go on */
};

struct pruner {
    struct pruner_options options;
    bool started;
    bool asked; /* a request is under way */
    uv_timer_t timer;
};

static void on_timer(uv_timer_t *timer);

static void
again_in(struct pruner *pruner, uint64_t ms)
{
    pruner->asked = false;
    if (pruner->started)
        uv_timer_start(&pruner->timer, on_timer, ms, 0);
}

static bool
failed(struct pruner *pruner, const struct store_answer *answer)
{
    if (answer->code == 0)
        return false;
    if (answer->code != JOBQ_ECONN)
        log_warning("pruner", "%s", answer->error->message);
    again_in(pruner, PRUNE_RETRY_MS);
    return true;
}

static void
on_dropped(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    if (!failed(pruner, answer))
        again_in(pruner, answer->values[0] > 0 ? PRUNE_NEXT_MS : PRUNE_EVERY_MS);
}

static void
on_created(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    if (failed(pruner, answer))
        return;
    const struct pruner_options *o = &pruner->options;
    if (store_partitions_drop(o->store, o->keep_completed_ms, o->keep_failed_ms,
                              on_dropped, pruner) < 0)
        again_in(pruner, PRUNE_RETRY_MS);
}

static void
on_timer(uv_timer_t *timer)
{
    struct pruner *pruner = timer->data;
    if (pruner->asked)
        return;
    pruner->asked = true;
    if (store_partitions_create(pruner->options.store, on_created, pruner) < 0)
        again_in(pruner, PRUNE_RETRY_MS);
}

int
pruner_new(struct pruner **out, const struct pruner_options *options)
{
    struct pruner *pruner = calloc(1, sizeof *pruner);
    if (!pruner)
        return JOBQ_ENOMEM;
    pruner->options = *options;
    uv_timer_init(options->loop, &pruner->timer);
    pruner->timer.data = pruner;
    *out = pruner;
    return 0;
}

void
pruner_keep(struct pruner *pruner, int64_t completed_ms, int64_t failed_ms)
{
    pruner->options.keep_completed_ms = completed_ms;
    pruner->options.keep_failed_ms = failed_ms;
}

void
pruner_start(struct pruner *pruner)
{
    pruner->started = true;
    if (!pruner->asked)
        uv_timer_start(&pruner->timer, on_timer, 0, 0);
}

void
pruner_stop(struct pruner *pruner)
{
    pruner->started = false;
    uv_timer_stop(&pruner->timer);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
pruner_close(struct pruner *pruner)
{
    uv_close((uv_handle_t *)&pruner->timer, on_closed);
}
