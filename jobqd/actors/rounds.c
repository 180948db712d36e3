/* rounds.c: see rounds.h. */
#include "jobqd/actors/rounds.h"

#include <assert.h>

static void
ask(struct rounds *rounds)
{
    rounds->state = ROUNDS_ASKING;
    if (rounds->options.ask(rounds->options.owner))
        return;
    if (rounds_take(rounds)) /* or its owner stopped it */
        rounds_sleep(rounds, rounds->options.idle_ms);
}

static void
on_timer(uv_timer_t *timer)
{
    ask(timer->data);
}

void
rounds_init(struct rounds *rounds, const struct rounds_options *options)
{
    *rounds = (struct rounds){.options = *options};
    uv_timer_init(options->loop, &rounds->timer);
    rounds->timer.data = rounds;
}

static void
sleep_for(struct rounds *rounds, int64_t ms)
{
    rounds->state = ROUNDS_SLEEPING;
    if (ms == ROUNDS_NEVER)
        uv_timer_stop(&rounds->timer);
    else
        uv_timer_start(&rounds->timer, on_timer, (uint64_t)(ms > 0 ? ms : 0), 0);
}

void
rounds_sleep(struct rounds *rounds, int64_t ms)
{
    sleep_for(rounds, rounds->state == ROUNDS_ASKED_AGAIN ? 0 : ms);
}

void
rounds_start(struct rounds *rounds)
{
    rounds->stopped = false;
    rounds->retry_ms = 0;
    if (rounds->state == ROUNDS_OFF)
        rounds_sleep(rounds, 0);
}

void
rounds_stop(struct rounds *rounds)
{
    uv_timer_stop(&rounds->timer);
    if (rounds->state == ROUNDS_ASKING || rounds->state == ROUNDS_ASKED_AGAIN)
        rounds->stopped = true;
    else
        rounds->state = ROUNDS_OFF;
}

void
rounds_poke(struct rounds *rounds)
{
    if (rounds->state == ROUNDS_SLEEPING && rounds->retry_ms == 0)
        rounds_poke_now(rounds);
    else if (rounds->state == ROUNDS_ASKING)
        rounds->state = ROUNDS_ASKED_AGAIN;
}

void
rounds_poke_now(struct rounds *rounds)
{
    if (rounds->state == ROUNDS_SLEEPING) {
        uv_timer_stop(&rounds->timer);
        ask(rounds);
    } else if (rounds->state == ROUNDS_ASKING) {
        rounds->state = ROUNDS_ASKED_AGAIN;
    }
}

bool
rounds_take(struct rounds *rounds)
{
    assert(rounds->state == ROUNDS_ASKING || rounds->state == ROUNDS_ASKED_AGAIN);
    if (!rounds->stopped)
        return true;
    rounds->stopped = false;
    rounds->state = ROUNDS_OFF;
    return false;
}

void
rounds_answered(struct rounds *rounds, int64_t ms)
{
    rounds->retry_ms = 0;
    rounds_sleep(rounds, ms);
}

int64_t
rounds_refused(struct rounds *rounds)
{
    int64_t most_ms = rounds->options.retry_most_ms;
    rounds->retry_ms =
        rounds->retry_ms > 0 ? rounds->retry_ms * 2 : rounds->options.retry_first_ms;
    if (rounds->retry_ms > most_ms)
        rounds->retry_ms = most_ms;
    sleep_for(rounds, rounds->retry_ms);
    return rounds->retry_ms;
}

static void
on_handle_closed(uv_handle_t *handle)
{
    struct rounds *rounds = handle->data;
    rounds->on_closed(rounds->options.owner);
}

void
rounds_close(struct rounds *rounds, void (*on_closed)(void *owner))
{
    rounds->on_closed = on_closed;
    uv_close((uv_handle_t *)&rounds->timer, on_handle_closed);
}
