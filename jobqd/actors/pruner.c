/* pruner.c: see pruner.h. */
#include "jobqd/actors/pruner.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/actors/rounds.h"
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
    struct rounds days;    /* the partitions, then the keys */
    bool locked;           /* a partition to drop was: sooner than in an hour, then */
    int64_t uniques_after; /* how far the keys of unique jobs were looked through; 0: not
                              at all, or all of them */
    struct rounds steps;   /* of deletion */
    uint64_t step_ms;      /* when the last one was sent */
    uint64_t round_began;  /* 0: none is under way */
    int closing;           /* how many of both are not closed yet */
};

/* Takes the answer; false: the round goes no further. */
static bool
take(struct rounds *rounds, const struct store_answer *answer)
{
    if (!rounds_take(rounds))
        return false;
    if (answer->code == 0)
        return true;
    if (answer->code != JOBQ_ECONN)
        log_warning("pruner", "could not delete what has expired: %s",
                    answer->error->message);
    rounds_sleep(rounds, PRUNE_RETRY_MS);
    return false;
}

/* ---- days ---- */

static void
on_uniques_pruned(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    if (!take(&pruner->days, answer))
        return;
    pruner->uniques_after = answer->after;
    if (pruner->uniques_after > 0)
        rounds_answered(&pruner->days, PRUNE_NEXT_MS);
    else
        rounds_answered(&pruner->days, pruner->locked ? PRUNE_RETRY_MS : PRUNE_EVERY_MS);
}

/* The history first: a key goes when its job has. */
static bool
prune_uniques(struct pruner *pruner)
{
    return store_prune_uniques(pruner->options.store, pruner->uniques_after,
                               on_uniques_pruned, pruner) == 0;
}

static void
on_dropped(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    if (!take(&pruner->days, answer))
        return;
    pruner->locked = answer->more < 0;
    if (answer->more > 0)
        rounds_answered(&pruner->days, PRUNE_NEXT_MS);
    else if (!prune_uniques(pruner))
        rounds_sleep(&pruner->days, PRUNE_RETRY_MS);
}

static void
on_created(void *data, const struct store_answer *answer)
{
    struct pruner *pruner = data;
    const struct config *c = pruner->options.config;
    /* What is out of its time goes also where the coming days' partitions are refused. */
    if (answer->code == JOBQ_EDB)
        log_warning("pruner", "could not create partitions of the history: %s",
                    answer->error->message);
    if (answer->code == JOBQ_EDB ? !rounds_take(&pruner->days)
                                 : !take(&pruner->days, answer))
        return;
    if (store_partitions_drop(pruner->options.store, c->keep_completed_ms,
                              config_drop_failed_ms(c), on_dropped, pruner) < 0)
        rounds_sleep(&pruner->days, PRUNE_RETRY_MS);
}

static bool
ask_days(void *owner)
{
    struct pruner *pruner = owner;
    if (pruner->uniques_after > 0)
        return prune_uniques(pruner);
    return store_partitions_create(pruner->options.store, on_created, pruner) == 0;
}

/* ---- what goes sooner ---- */

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
    if (!take(&pruner->steps, answer))
        return;
    uint64_t pause = (now - pruner->step_ms) * STEP_PAUSE;
    if (answer->more <= 0)
        pause = round_pause(pruner, now);
    rounds_answered(&pruner->steps,
                    pause > PRUNE_NEXT_MS ? (int64_t)pause : PRUNE_NEXT_MS);
}

/* A state that goes with its day needs no deletion. */
static int64_t
sooner(const struct config *config, int64_t keep_ms)
{
    return keep_ms < config_drop_failed_ms(config) ? keep_ms : -1;
}

static bool
ask_step(void *owner)
{
    struct pruner *pruner = owner;
    const struct config *c = pruner->options.config;
    pruner->step_ms = uv_now(pruner->options.loop);
    if (pruner->round_began == 0)
        pruner->round_began = pruner->step_ms;
    return store_prune(pruner->options.store, sooner(c, config_keep_cancelled_ms(c)),
                       sooner(c, config_keep_discarded_ms(c)), STEP_PAGES, on_pruned,
                       pruner) == 0;
}

/* ---- the public face ---- */

int
pruner_new(struct pruner **out, const struct pruner_options *options)
{
    struct pruner *pruner = calloc(1, sizeof *pruner);
    if (!pruner)
        return JOBQ_ENOMEM;
    pruner->options = *options;
    struct rounds_options rounds = {
        .loop = options->loop, .owner = pruner, .idle_ms = PRUNE_RETRY_MS};
    rounds.ask = ask_days;
    rounds_init(&pruner->days, &rounds);
    rounds.ask = ask_step;
    rounds_init(&pruner->steps, &rounds);
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
    rounds_start(&pruner->days);
    rounds_start(&pruner->steps);
    if (pruner->steps.state == ROUNDS_SLEEPING)
        rounds_sleep(&pruner->steps, PRUNE_NEXT_MS);
}

void
pruner_stop(struct pruner *pruner)
{
    rounds_stop(&pruner->days);
    rounds_stop(&pruner->steps);
}

static void
on_closed(void *owner)
{
    struct pruner *pruner = owner;
    if (--pruner->closing == 0)
        free(pruner);
}

void
pruner_close(struct pruner *pruner)
{
    pruner->closing = 2;
    rounds_close(&pruner->days, on_closed);
    rounds_close(&pruner->steps, on_closed);
}
