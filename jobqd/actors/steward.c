/* steward.c: see steward.h. */
#include "jobqd/actors/steward.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/base/log.h"

/* A pause counts within a second; the rest is for the answer, and for a claim that is
 * under way. */
enum { LOOK_EVERY_MS = 500 };

/* A refusal (a right is missing, say) is told again after so many. */
enum { TELL_EVERY = 120 };

struct steward {
    struct steward_options options;
    bool started;
    bool asked; /* a request is under way */
    bool poked; /* something came meanwhile: look once more */
    unsigned refused;
    uv_timer_t timer; /* repeats while started */
};

static void look(struct steward *steward);

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
    steward->asked = false;
    if (result->code == 0)
        steward->refused = 0;
    else if (result->code != JOBQ_ECONN)
        tell_refusal(steward, result->error);
    if (result->code == 0 && steward->started)
        steward->options.on_settings(steward->options.owner, result);
    if (steward->poked && result->code == 0)
        look(steward);
}

static void
look(struct steward *steward)
{
    const struct steward_options *o = &steward->options;
    size_t n = 0;
    steward->poked = false;
    if (!steward->started)
        return;
    const char **queues = o->queues(o->owner, &n);
    if (queues && n > 0)
        steward->asked =
            store_settings(o->store, o->node, queues, n, on_settings, steward) == 0;
    free(queues);
}

static void
on_timer(uv_timer_t *timer)
{
    struct steward *steward = timer->data;
    if (!steward->asked)
        look(steward);
}

int
steward_new(struct steward **out, const struct steward_options *options)
{
    struct steward *steward = calloc(1, sizeof *steward);
    if (!steward)
        return JOBQ_ENOMEM;
    steward->options = *options;
    uv_timer_init(options->loop, &steward->timer);
    steward->timer.data = steward;
    *out = steward;
    return 0;
}

void
steward_start(struct steward *steward)
{
    steward->started = true;
    uv_timer_start(&steward->timer, on_timer, LOOK_EVERY_MS, LOOK_EVERY_MS);
    steward_poke(steward);
}

void
steward_poke(struct steward *steward)
{
    if (!steward->asked)
        look(steward);
    else
        steward->poked = true; /* what is under way may have been read before */
}

void
steward_stop(struct steward *steward)
{
    steward->started = false;
    uv_timer_stop(&steward->timer);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
steward_close(struct steward *steward)
{
    uv_close((uv_handle_t *)&steward->timer, on_closed);
}
