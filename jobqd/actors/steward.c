/* steward.c: see steward.h. */
#include "jobqd/actors/steward.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"

/* A pause counts within a second; the rest is for the answer, and for a claim that is
 * under way. */
enum { LOOK_EVERY_MS = 500 };

/* A refusal (a right is missing, say) is told again after so many. */
enum { TELL_EVERY = 120 };

struct steward {
    struct steward_options options;
    struct rounds rounds;
    unsigned refused;
};

/* Without its settings a queue claims nothing: somebody has to know. */
static void
tell_refusal(struct steward *steward, const jobq_error *why)
{
    if (steward->refused++ % TELL_EVERY == 0)
        log_error("steward",
                  "the queues' settings cannot be read, so those that were not read "
                  "before claim nothing: %s",
                  why->message);
}

static void
on_settings(void *data, const struct store_settings_result *result)
{
    struct steward *steward = data;
    if (!rounds_take(&steward->rounds))
        return;
    if (result->code == 0)
        steward->refused = 0;
    else if (result->code != JOBQ_ECONN)
        tell_refusal(steward, result->error);
    if (result->code == 0)
        rounds_answered(&steward->rounds, LOOK_EVERY_MS);
    else
        rounds_sleep(&steward->rounds, LOOK_EVERY_MS);
    if (result->code == 0)
        steward->options.on_settings(steward->options.owner, result);
}

static bool
ask(void *owner)
{
    struct steward *steward = owner;
    const struct steward_options *o = &steward->options;
    size_t n = 0;
    const char **queues = o->queues(o->owner, &n);
    bool asked = queues && n > 0 &&
                 store_settings(o->store, o->node, queues, n, on_settings, steward) == 0;
    free(queues);
    return asked;
}

int
steward_new(struct steward **out, const struct steward_options *options)
{
    struct steward *steward = calloc(1, sizeof *steward);
    if (!steward)
        return JOBQ_ENOMEM;
    steward->options = *options;
    rounds_init(&steward->rounds, &(struct rounds_options){.loop = options->loop,
                                                           .ask = ask,
                                                           .owner = steward,
                                                           .idle_ms = LOOK_EVERY_MS});
    *out = steward;
    return 0;
}

void
steward_start(struct steward *steward)
{
    rounds_start(&steward->rounds);
    rounds_poke(&steward->rounds);
}

void
steward_poke(struct steward *steward)
{
    rounds_poke(&steward->rounds);
}

void
steward_stop(struct steward *steward)
{
    rounds_stop(&steward->rounds);
}

static void
on_closed(void *owner)
{
    free(owner);
}

void
steward_close(struct steward *steward)
{
    rounds_close(&steward->rounds, on_closed);
}
