/* canceller.c: see canceller.h. */
#include "jobqd/actors/canceller.h"

#include <stdlib.h>

#include "jobqd/base/log.h"

enum { LOOK_EVERY_MS = 500 };

struct canceller {
    struct canceller_options options;
    int64_t node;     /* 0: not started */
    int64_t asked_as; /* the node that a request is under way for; 0: none is */
    bool poked;       /* something came meanwhile: look once more */
    uv_timer_t timer; /* repeats while started */
};

static void look(struct canceller *canceller);

static void
on_cancels(void *data, const struct store_cancels_result *result)
{
    struct canceller *canceller = data;
    bool ours = canceller->asked_as == canceller->node;
    canceller->asked_as = 0;
    if (result->code < 0 && result->code != JOBQ_ECONN)
        log_warning("canceller", "%s", result->error->message);
    if (ours && result->n > 0)
        canceller->options.on_cancels(canceller->options.owner, result->cancels,
                                      result->n);
    if (canceller->poked && result->code == 0)
        look(canceller);
}

static void
look(struct canceller *canceller)
{
    canceller->poked = false;
    if (canceller->node == 0 || !canceller->options.holds_jobs(canceller->options.owner))
        return;
    if (store_cancels(canceller->options.store, canceller->node, on_cancels, canceller) ==
        0)
        canceller->asked_as = canceller->node;
}

static void
on_timer(uv_timer_t *timer)
{
    struct canceller *canceller = timer->data;
    if (canceller->asked_as == 0)
        look(canceller);
}

int
canceller_new(struct canceller **out, const struct canceller_options *options)
{
    struct canceller *canceller = calloc(1, sizeof *canceller);
    if (!canceller)
        return JOBQ_ENOMEM;
    canceller->options = *options;
    uv_timer_init(options->loop, &canceller->timer);
    canceller->timer.data = canceller;
    *out = canceller;
    return 0;
}

void
canceller_start(struct canceller *canceller, int64_t node)
{
    canceller->node = node;
    uv_timer_start(&canceller->timer, on_timer, LOOK_EVERY_MS, LOOK_EVERY_MS);
}

void
canceller_poke(struct canceller *canceller)
{
    if (canceller->asked_as == 0)
        look(canceller);
    else
        canceller->poked = true; /* what is under way may have been read before */
}

void
canceller_stop(struct canceller *canceller)
{
    canceller->node = 0;
    uv_timer_stop(&canceller->timer);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
canceller_close(struct canceller *canceller)
{
    uv_close((uv_handle_t *)&canceller->timer, on_closed);
}
