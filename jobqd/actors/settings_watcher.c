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
tell_refusal(struct settings_watcher *settings_watcher, const jobq_error *why)
{
    if (settings_watcher->refused++ % TELL_EVERY == 0)
        log_error("settings",
                  "could not read the queues' settings; queues without settings claim no "
                  "jobs until this succeeds: %s",
                  why->message);
}

static void
on_settings(void *data, const struct store_settings_result *result)
{
    struct settings_watcher *settings_watcher = data;
    if (!rounds_take(&settings_watcher->rounds))
        return;
    if (result->code == 0)
        settings_watcher->refused = 0;
    else if (result->code != JOBQ_ECONN)
        tell_refusal(settings_watcher, result->error);
    if (result->code == 0)
        rounds_answered(&settings_watcher->rounds, LOOK_EVERY_MS);
    else
        rounds_sleep(&settings_watcher->rounds, LOOK_EVERY_MS);
    if (result->code == 0)
        settings_watcher->options.on_settings(settings_watcher->options.owner, result);
}

static bool
ask(void *owner)
{
    struct settings_watcher *settings_watcher = owner;
    const struct settings_watcher_options *o = &settings_watcher->options;
    size_t n = 0;
    const char **queues = o->queues(o->owner, &n);
    bool asked =
        queues && n > 0 &&
        store_settings(o->store, o->node, queues, n, on_settings, settings_watcher) == 0;
    free(queues);
    return asked;
}

int
settings_watcher_new(struct settings_watcher **out,
                     const struct settings_watcher_options *options)
{
    struct settings_watcher *settings_watcher = calloc(1, sizeof *settings_watcher);
    if (!settings_watcher)
        return JOBQ_ENOMEM;
    settings_watcher->options = *options;
    rounds_init(&settings_watcher->rounds,
                &(struct rounds_options){.loop = options->loop,
                                         .ask = ask,
                                         .owner = settings_watcher,
                                         .idle_ms = LOOK_EVERY_MS});
    *out = settings_watcher;
    return 0;
}

void
settings_watcher_start(struct settings_watcher *settings_watcher)
{
    rounds_start(&settings_watcher->rounds);
    rounds_poke(&settings_watcher->rounds);
}

void
settings_watcher_poke(struct settings_watcher *settings_watcher)
{
    rounds_poke(&settings_watcher->rounds);
}

void
settings_watcher_stop(struct settings_watcher *settings_watcher)
{
    rounds_stop(&settings_watcher->rounds);
}

static void
on_closed(void *owner)
{
    free(owner);
}

void
settings_watcher_close(struct settings_watcher *settings_watcher)
{
    rounds_close(&settings_watcher->rounds, on_closed);
}
