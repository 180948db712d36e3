/* settings_watcher.c: see settings_watcher.h. */
#include "jobqd/actors/settings_watcher.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"

/* A pause counts within a second; the rest is for the answer, and for a claim that is
 * under way. */
enum { LOOK_EVERY_MS = 500 };

/* A refusal (a right is missing, say) is told again after so many. */
enum { TELL_EVERY = 120 };

struct settings_watcher {
    struct settings_watcher_options options;
    struct rounds rounds;
    unsigned refused;
};

/* Without its settings a queue claims nothing: somebody has to know. */
static void
tell_refusal(struct settings_watcher *watcher, const jobq_error *why)
{
    if (watcher->refused++ % TELL_EVERY == 0)
        log_error("settings",
                  "could not read the queues' settings; queues without settings claim no "
                  "jobs until this succeeds: %s",
                  why->message);
}

static void
on_settings(void *data, const struct store_list *result)
{
    struct settings_watcher *watcher = data;
    if (!rounds_take(&watcher->rounds))
        return;
    if (result->code == 0)
        watcher->refused = 0;
    else if (result->code != JOBQ_ECONN)
        tell_refusal(watcher, result->error);
    if (result->code == 0)
        rounds_answered(&watcher->rounds, LOOK_EVERY_MS);
    else
        rounds_sleep(&watcher->rounds, LOOK_EVERY_MS);
    if (result->code == 0)
        watcher->options.on_settings(watcher->options.owner, result);
}

static bool
ask(void *owner)
{
    struct settings_watcher *watcher = owner;
    const struct settings_watcher_options *o = &watcher->options;
    size_t n = 0;
    const char **queues = o->queues(o->owner, &n);
    bool asked = queues && n > 0 &&
                 store_settings(o->store, o->node, queues, n, on_settings, watcher) == 0;
    free(queues);
    return asked;
}

int
settings_watcher_new(struct settings_watcher **out,
                     const struct settings_watcher_options *options)
{
    struct settings_watcher *watcher = calloc(1, sizeof *watcher);
    if (!watcher)
        return JOBQ_ENOMEM;
    watcher->options = *options;
    rounds_init(&watcher->rounds, &(struct rounds_options){.loop = options->loop,
                                                           .ask = ask,
                                                           .owner = watcher,
                                                           .idle_ms = LOOK_EVERY_MS});
    *out = watcher;
    return 0;
}

void
settings_watcher_start(struct settings_watcher *watcher)
{
    rounds_start(&watcher->rounds);
    rounds_poke(&watcher->rounds);
}

void
settings_watcher_poke(struct settings_watcher *watcher)
{
    rounds_poke(&watcher->rounds);
}

void
settings_watcher_stop(struct settings_watcher *watcher)
{
    rounds_stop(&watcher->rounds);
}

static void
on_closed(void *owner)
{
    free(owner);
}

void
settings_watcher_close(struct settings_watcher *watcher)
{
    rounds_close(&watcher->rounds, on_closed);
}
