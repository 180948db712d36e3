/* canceller.c: see canceller.h. */
#include "jobqd/actors/canceller.h"

#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"

enum { LOOK_EVERY_MS = 500 };

struct canceller {
    struct canceller_options options;
    struct rounds rounds;
    int64_t node;     /* 0: not started */
    int64_t asked_as; /* the node that the request under way is for */
};

static void
on_cancels(void *data, const struct store_list *result)
{
    struct canceller *canceller = data;
    if (!rounds_take(&canceller->rounds))
        return;
    bool ours = canceller->asked_as == canceller->node;
    if (result->code < 0 && result->code != JOBQ_ECONN)
        log_warning("canceller", "could not read cancel requests: %s",
                    result->error->message);
    if (result->code == 0)
        rounds_answered(&canceller->rounds, LOOK_EVERY_MS);
    else
        rounds_sleep(&canceller->rounds, LOOK_EVERY_MS);
    if (ours && result->n > 0)
        canceller->options.on_cancels(canceller->options.owner, result->cancels,
                                      result->n);
}

static bool
ask(void *owner)
{
    struct canceller *canceller = owner;
    canceller->asked_as = canceller->node;
    return canceller->options.holds_jobs(canceller->options.owner) &&
           store_cancels(canceller->options.store, canceller->node, on_cancels,
                         canceller) == 0;
}

int
canceller_new(struct canceller **out, const struct canceller_options *options)
{
    struct canceller *canceller = calloc(1, sizeof *canceller);
    if (!canceller)
        return JOBQ_ENOMEM;
    canceller->options = *options;
    rounds_init(&canceller->rounds, &(struct rounds_options){.loop = options->loop,
                                                             .ask = ask,
                                                             .owner = canceller,
                                                             .idle_ms = LOOK_EVERY_MS});
    *out = canceller;
    return 0;
}

void
canceller_start(struct canceller *canceller, int64_t node)
{
    canceller->node = node;
    rounds_start(&canceller->rounds);
}

void
canceller_poke(struct canceller *canceller)
{
    rounds_poke(&canceller->rounds);
}

void
canceller_stop(struct canceller *canceller)
{
    canceller->node = 0;
    rounds_stop(&canceller->rounds);
}

static void
on_closed(void *owner)
{
    free(owner);
}

void
canceller_close(struct canceller *canceller)
{
    rounds_close(&canceller->rounds, on_closed);
}
