/* cron.c: see cron.h. */
#include "jobqd/actors/cron.h"

#include <stdbool.h>
#include <stdlib.h>

#include "jobqd/base/log.h"
#include "libjobq/duration.h"

enum cron_state {
    CRON_OFF,        /* this node does not lead */
    CRON_SLEEPING,   /* until the next slot */
    CRON_ASKING,     /* a request is under way */
    CRON_ASKED_AGAIN /* likewise, and somebody poked: another follows at once */
};

/* Rows that somebody else has locked have come and cannot be had: the pause until they
 * are asked for again, which doubles. */
enum { SHORTEST_SLEEP_MS = 10 };
/* A change of a cron counts within a second, without a notification too. */
enum { LONGEST_SLEEP_MS = 1000 };
/* The pause after the database has refused, which doubles from LONGEST_SLEEP_MS on. */
enum { RETRY_MOST_MS = 8000 };
/* Well within the time after which cron_sweep begins its watch anew. */
enum { SWEEP_EVERY_MS = 60 * 1000 };

struct cron_actor {
    struct cron_actor_options options;
    enum cron_state state;
    int64_t retry_ms;  /* the pause that was made, or is; 0: the last answer was good */
    int64_t locked_ms; /* likewise, of rows that were locked; 0: there were none */
    bool stopped;      /* while a request is under way: do not go on after it */
    uv_timer_t timer;
    bool sweeping;          /* a request of that is under way */
    uv_timer_t sweep_timer; /* repeats while started */
};

static void ask(struct cron_actor *cron);

static void
on_timer(uv_timer_t *timer)
{
    ask(timer->data);
}

static void
sleep_for(struct cron_actor *cron, int64_t ms)
{
    cron->state = CRON_SLEEPING;
    uv_timer_start(&cron->timer, on_timer, (uint64_t)(ms > 0 ? ms : 0), 0);
}

static void
back_off(struct cron_actor *cron, const jobq_error *why)
{
    cron->retry_ms = cron->retry_ms ? cron->retry_ms * 2 : LONGEST_SLEEP_MS;
    if (cron->retry_ms > RETRY_MOST_MS)
        cron->retry_ms = RETRY_MOST_MS;
    log_warning("cron", "the database refused to enqueue what has come, again in %s: %s",
                jobq__duration_show(cron->retry_ms).text, why->message);
    sleep_for(cron, cron->retry_ms);
}

static int64_t
next_sleep_ms(struct cron_actor *cron, const struct store_answer *answer)
{
    int64_t fired = answer->values[0];
    int64_t next_ms = answer->values[1];
    if (fired == 0 && next_ms == 0)
        cron->locked_ms = cron->locked_ms ? cron->locked_ms * 2 : SHORTEST_SLEEP_MS;
    else
        cron->locked_ms = 0;
    if (cron->locked_ms > LONGEST_SLEEP_MS)
        cron->locked_ms = LONGEST_SLEEP_MS;
    if (cron->state == CRON_ASKED_AGAIN || (fired > 0 && next_ms == 0))
        return 0;
    if (next_ms < 0 || next_ms > LONGEST_SLEEP_MS)
        return LONGEST_SLEEP_MS;
    return next_ms > 0 ? next_ms : cron->locked_ms;
}

static void
on_answer(void *data, const struct store_answer *answer)
{
    struct cron_actor *cron = data;
    if (cron->stopped) {
        cron->stopped = false;
        cron->state = CRON_OFF;
    } else if (answer->code == JOBQ_ECONN) {
        sleep_for(cron, LONGEST_SLEEP_MS);
    } else if (answer->code < 0) {
        back_off(cron, answer->error);
    } else {
        cron->retry_ms = 0;
        sleep_for(cron, next_sleep_ms(cron, answer));
        if (answer->values[0] > 0)
            cron->options.on_fired(cron->options.owner);
    }
}

static void
ask(struct cron_actor *cron)
{
    if (cron->state != CRON_SLEEPING)
        return;
    cron->state = CRON_ASKING;
    if (store_cron_fire(cron->options.store, on_answer, cron) < 0)
        sleep_for(cron, LONGEST_SLEEP_MS);
}

/* ---- crons whose nodes are gone ---- */

static void
on_swept(void *data, const struct store_answer *answer)
{
    struct cron_actor *cron = data;
    cron->sweeping = false;
    if (answer->code == 0 && answer->values[0] > 0)
        log_info("cron", "deleted, since the nodes that had them are gone for a day: %s",
                 answer->text ? answer->text : "");
    else if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning("cron", "crons whose nodes are gone, again in %s: %s",
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
    uv_timer_init(options->loop, &cron->timer);
    cron->timer.data = cron;
    uv_timer_init(options->loop, &cron->sweep_timer);
    cron->sweep_timer.data = cron;
    *out = cron;
    return 0;
}

void
cron_actor_start(struct cron_actor *cron)
{
    cron->stopped = false;
    cron->retry_ms = 0;
    cron->locked_ms = 0;
    uv_timer_start(&cron->sweep_timer, on_sweep_timer, 0, SWEEP_EVERY_MS);
    if (cron->state == CRON_OFF)
        sleep_for(cron, 0);
}

void
cron_actor_stop(struct cron_actor *cron)
{
    uv_timer_stop(&cron->sweep_timer);
    uv_timer_stop(&cron->timer);
    if (cron->state == CRON_ASKING || cron->state == CRON_ASKED_AGAIN)
        cron->stopped = true;
    else
        cron->state = CRON_OFF;
}

void
cron_actor_poke(struct cron_actor *cron)
{
    if (cron->state == CRON_SLEEPING && cron->retry_ms == 0)
        ask(cron);
    else if (cron->state == CRON_ASKING)
        cron->state = CRON_ASKED_AGAIN;
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    struct cron_actor *cron = handle->data;
    uv_close((uv_handle_t *)&cron->sweep_timer, on_closed);
}

void
cron_actor_close(struct cron_actor *cron)
{
    uv_close((uv_handle_t *)&cron->timer, on_timer_closed);
}
