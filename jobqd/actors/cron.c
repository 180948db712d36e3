/* cron.c: see cron.h. */
#include "jobqd/actors/cron.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"
#include "libjobq/duration.h"

/* Rows that somebody else has locked have come and cannot be had: the pause until they
 * are asked for again, which doubles. */
enum { SHORTEST_SLEEP_MS = 10 };
/* A change of a cron counts within a second, without a notification too. */
enum { LONGEST_SLEEP_MS = 1000 };
/* The pause after the database has refused, which doubles from LONGEST_SLEEP_MS on. */
enum { RETRY_MAX_MS = 8000 };
/* Well within the time after which cron_sweep begins its watch anew. */
enum { SWEEP_EVERY_MS = 60 * 1000 };

struct cron_actor {
    struct cron_actor_options options;
    struct rounds rounds;
    int64_t locked_ms;      /* the pause for rows that were locked; 0: there were none */
    bool sweeping;          /* a request of that is under way */
    uv_timer_t sweep_timer; /* repeats while started */
};

static int64_t
next_sleep_ms(struct cron_actor *cron, const struct store_answer *answer)
{
    int64_t fired = answer->fired;
    int64_t next_ms = answer->next_ms;
    if (fired == 0 && next_ms == 0)
        cron->locked_ms = cron->locked_ms ? cron->locked_ms * 2 : SHORTEST_SLEEP_MS;
    else
        cron->locked_ms = 0;
    if (cron->locked_ms > LONGEST_SLEEP_MS)
        cron->locked_ms = LONGEST_SLEEP_MS;
    if (fired > 0 && next_ms == 0)
        return 0;
    if (next_ms < 0 || next_ms > LONGEST_SLEEP_MS)
        return LONGEST_SLEEP_MS;
    return next_ms > 0 ? next_ms : cron->locked_ms;
}

static void
on_answer(void *data, const struct store_answer *answer)
{
    struct cron_actor *cron = data;
    if (!rounds_take(&cron->rounds))
        return;
    if (answer->code == JOBQ_ECONN) {
        rounds_sleep(&cron->rounds, LONGEST_SLEEP_MS);
    } else if (answer->code < 0) {
        int64_t pause_ms = rounds_refused(&cron->rounds);
        log_warning("cron",
                    "the database refused to enqueue the due jobs, retrying in %s: %s",
                    jobq__duration_show(pause_ms).text, answer->error->message);
    } else {
        rounds_answered(&cron->rounds, next_sleep_ms(cron, answer));
        if (answer->fired > 0)
            cron->options.on_fired(cron->options.owner);
    }
}

static bool
ask(void *owner)
{
    struct cron_actor *cron = owner;
    return store_cron_fire(cron->options.store, on_answer, cron) == 0;
}

/* ---- crons whose nodes are gone ---- */

static void
on_swept(void *data, const struct store_answer *answer)
{
    struct cron_actor *cron = data;
    cron->sweeping = false;
    if (answer->code == 0 && answer->removed > 0)
        log_info("cron", "deleted crons whose nodes have been gone for a day: %s",
                 answer->names ? answer->names : "");
    else if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning("cron",
                    "could not delete crons whose nodes are gone, retrying in %s: %s",
                    jobq__duration_show(SWEEP_EVERY_MS).text, answer->error->message);
}

static void
on_sweep_timer(uv_timer_t *timer)
{
    struct cron_actor *cron = timer->data;
    if (!cron->sweeping)
        cron->sweeping = store_cron_sweep(cron->options.store, on_swept, cron) == 0;
}

/* ---- the public face ---- */

int
cron_actor_new(struct cron_actor **out, const struct cron_actor_options *options)
{
    struct cron_actor *cron = calloc(1, sizeof *cron);
    if (!cron)
        return JOBQ_ENOMEM;
    cron->options = *options;
    rounds_init(&cron->rounds,
                &(struct rounds_options){.loop = options->loop,
                                         .ask = ask,
                                         .owner = cron,
                                         .idle_ms = LONGEST_SLEEP_MS,
                                         .retry_first_ms = LONGEST_SLEEP_MS,
                                         .retry_most_ms = RETRY_MAX_MS});
    uv_timer_init(options->loop, &cron->sweep_timer);
    cron->sweep_timer.data = cron;
    *out = cron;
    return 0;
}

void
cron_actor_start(struct cron_actor *cron)
{
    cron->locked_ms = 0;
    uv_timer_start(&cron->sweep_timer, on_sweep_timer, 0, SWEEP_EVERY_MS);
    rounds_start(&cron->rounds);
}

void
cron_actor_stop(struct cron_actor *cron)
{
    uv_timer_stop(&cron->sweep_timer);
    rounds_stop(&cron->rounds);
}

void
cron_actor_poke(struct cron_actor *cron)
{
    rounds_poke(&cron->rounds);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
on_rounds_closed(void *owner)
{
    struct cron_actor *cron = owner;
    uv_close((uv_handle_t *)&cron->sweep_timer, on_closed);
}

void
cron_actor_close(struct cron_actor *cron)
{
    rounds_close(&cron->rounds, on_rounds_closed);
}
