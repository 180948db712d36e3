/* pruner.c: see pruner.h. */
#include "jobqd/actors/pruner.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/base/log.h"

enum {
    PRUNE_EVERY_MS = 3600 * 1000,
    PRUNE_RETRY_MS =
        30 * 1000,       /* a partition was in use: its lock is only waited for briefly */
    PRUNE_NEXT_MS = 100, /* between two partitions, so that acks go on, or batches */
    ROUND_EVERY_MS = 60 * 1000,
    ROUND_PAUSE =
        20,         /* rounds may take a twentieth of the time; but one comes each hour */
    STEP_PAUSE = 2, /* a step's time, twice over, until the next: others wait for the
                       connection, too */
    STEP_PAGES = 500
};

struct pruner {
    struct pruner_options options;
    bool started;
    bool asked;            /* a request of the days, or of the keys, is under way */
    bool locked;           /* a partition to drop was: sooner than in an hour, then */
    int64_t uniques_after; /* how far the keys of unique jobs were looked through; 0: not
                              at all, or all of them */
    uv_timer_t timer;
    bool deleting;        /* a step of a round is under way */
    uint64_t step_ms;     /* since then */
    uint64_t round_began; /* 0: none is under way */
    uv_timer_t next_step;
};

/* ---- days ---- */

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
        log_warning("pruner", "could not delete what has expired: %s",
                    answer->error->message);
    again_in(pruner, PRUNE_RETRY_MS);
    return true;
}

static void
on_uniques_pruned(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    if (failed(pruner, answer))
        return;
    pruner->uniques_after = answer->values[1];
    if (pruner->uniques_after > 0)
        again_in(pruner, PRUNE_NEXT_MS);
    else
        again_in(pruner, pruner->locked ? PRUNE_RETRY_MS : PRUNE_EVERY_MS);
}

/* The history first: a key goes when its job has. */
static void
prune_uniques(struct pruner *pruner)
{
    if (store_prune_uniques(pruner->options.store, pruner->uniques_after,
                            on_uniques_pruned, pruner) < 0)
        again_in(pruner, PRUNE_RETRY_MS);
}

static void
on_dropped(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    if (failed(pruner, answer))
        return;
    pruner->locked = answer->values[0] < 0;
    if (answer->values[0] > 0)
        again_in(pruner, PRUNE_NEXT_MS);
    else
        prune_uniques(pruner);
}

static void
on_created(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    if (answer->code == JOBQ_ECONN) {
        failed(pruner, answer);
        return;
    }
    if (answer->code < 0) /* what is out of its time goes all the same */
        log_warning("pruner", "could not create partitions of the history: %s",
                    answer->error->message);
    const struct config *c = pruner->options.config;
    if (store_partitions_drop(pruner->options.store, c->keep_completed_ms,
                              config_drop_failed_ms(c), on_dropped, pruner) < 0)
        again_in(pruner, PRUNE_RETRY_MS);
}

static void
on_timer(uv_timer_t *timer)
{
    struct pruner *pruner = timer->data;
    if (pruner->asked)
        return;
    pruner->asked = true;
    if (pruner->uniques_after > 0)
        prune_uniques(pruner);
    else if (store_partitions_create(pruner->options.store, on_created, pruner) < 0)
        again_in(pruner, PRUNE_RETRY_MS);
}

/* ---- what goes sooner ---- */

static void on_next_step(uv_timer_t *timer);

static void
step_in(struct pruner *pruner, uint64_t ms)
{
    if (pruner->started)
        uv_timer_start(&pruner->next_step, on_next_step, ms, 0);
}

static uint64_t
round_pause(struct pruner *pruner, uint64_t now)
{
    uint64_t least = pruner->options.round_ms > 0 ? (uint64_t)pruner->options.round_ms
                                                  : ROUND_EVERY_MS;
    uint64_t pause = (now - pruner->round_began) * ROUND_PAUSE;
    pruner->round_began = 0;
    if (pause > PRUNE_EVERY_MS)
        pause = PRUNE_EVERY_MS;
    return pause > least ? pause : least;
}

static void
on_pruned(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    uint64_t now = uv_now(pruner->options.loop);
    pruner->deleting = false;
    if (answer->code < 0) {
        if (answer->code != JOBQ_ECONN)
            log_warning("pruner", "could not delete finished jobs: %s",
                        answer->error->message);
        step_in(pruner, PRUNE_RETRY_MS);
    } else if (answer->values[0] > 0) {
        uint64_t pause = (now - pruner->step_ms) * STEP_PAUSE;
        step_in(pruner, pause > PRUNE_NEXT_MS ? pause : PRUNE_NEXT_MS);
    } else {
        step_in(pruner, round_pause(pruner, now));
    }
}

/* A state that goes with its day needs no deletion. */
static int64_t
sooner(const struct config *config, int64_t keep_ms)
{
    return keep_ms < config_drop_failed_ms(config) ? keep_ms : -1;
}

static void
on_next_step(uv_timer_t *timer)
{
    struct pruner *pruner = timer->data;
    const struct config *c = pruner->options.config;
    if (pruner->deleting)
        return;
    pruner->step_ms = uv_now(pruner->options.loop);
    if (pruner->round_began == 0)
        pruner->round_began = pruner->step_ms;
    pruner->deleting =
        store_prune(pruner->options.store, sooner(c, config_keep_cancelled_ms(c)),
                    sooner(c, config_keep_discarded_ms(c)), STEP_PAGES, on_pruned,
                    pruner) == 0;
    if (!pruner->deleting)
        step_in(pruner, PRUNE_RETRY_MS);
}

/* ---- the public face ---- */

int
pruner_new(struct pruner **out, const struct pruner_options *options)
{
    struct pruner *pruner = calloc(1, sizeof *pruner);
    if (!pruner)
        return JOBQ_ENOMEM;
    pruner->options = *options;
    uv_timer_init(options->loop, &pruner->timer);
    pruner->timer.data = pruner;
    uv_timer_init(options->loop, &pruner->next_step);
    pruner->next_step.data = pruner;
    *out = pruner;
    return 0;
}

void
pruner_configure(struct pruner *pruner, const struct config *config)
{
    pruner->options.config = config;
}

void
pruner_start(struct pruner *pruner)
{
    pruner->started = true;
    if (!pruner->asked)
        uv_timer_start(&pruner->timer, on_timer, 0, 0);
    if (!pruner->deleting)
        step_in(pruner, PRUNE_NEXT_MS);
}

void
pruner_stop(struct pruner *pruner)
{
    pruner->started = false;
    uv_timer_stop(&pruner->timer);
    uv_timer_stop(&pruner->next_step);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    struct pruner *pruner = handle->data;
    uv_close((uv_handle_t *)&pruner->next_step, on_closed);
}

void
pruner_close(struct pruner *pruner)
{
    uv_close((uv_handle_t *)&pruner->timer, on_timer_closed);
}
