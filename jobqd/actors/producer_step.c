/* producer_step.c: looks at the producer's state and does the next thing. Every callback
 * records what happened and then calls producer_step; so does the timer, for whatever is
 * due later.
 *
 * It decides when to send a cycle, when to set or clear the idle mark, when to fetch
 * arguments, and when the producer has stopped. The files below it do these things. */
#include "jobqd/actors/producer_private.h"

#include <assert.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

enum { FULL_FOR_MS = 100 }; /* without room so long: inserters need not notify us */

static void on_timer(uv_timer_t *timer);

void
producer_set_state(struct producer *p, enum producer_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        PRODUCER_STATES(X)
#undef X
    };
    if (p->state == state)
        return;
    assert(p->state != PRODUCER_STOPPED);
    assert(p->state != PRODUCER_ABANDONING || state == PRODUCER_STOPPED);
    p->state = state;
    log_debug(p->options.queue ? p->subject : "queue", "waits for %s", meanings[state]);
}

void
producer_step_soon(struct producer *p)
{
    uv_timer_start(&p->timer, on_timer, 0, 0);
}

static bool
stopping_is_done(const struct producer *p)
{
    bool asked = producer_mark_is_asked(&p->mark);
    bool marked = p->leaves && p->attached && p->mark.state == MARK_ON;
    if (!p->pool_stopped || p->in_flight || p->fetch.n > 0 || asked || marked ||
        p->ages == AGES_ASKED || p->holders.asked || p->doubts_asked)
        return false;
    if (p->state == PRODUCER_ABANDONING)
        return true;
    return p->state == PRODUCER_DRAINING && outbox_is_empty(&p->outbox) &&
           list_empty(&p->unsaid);
}

/* Nothing is on its way to or from the database. */
static bool
is_quiet(const struct producer *p)
{
    bool asked = producer_mark_is_asked(&p->mark);
    return !p->in_flight && !asked && p->fetch.n == 0 && p->n_ready == 0 &&
           p->ages != AGES_ASKED && !p->holders.asked && !p->doubts_asked &&
           list_empty(&p->unsaid) && outbox_is_empty(&p->outbox) &&
           pool_is_still(p->pool);
}

/* Or earlier, if an answer that was kept for later is due by then. */
static void
wake_me_in(struct producer *p, int64_t ms)
{
    int64_t due_ms = outbox_due_in_ms(&p->outbox, clock_ns() / 1000000u);
    if (due_ms >= 0 && due_ms < ms)
        ms = due_ms;
    uv_timer_start(&p->timer, on_timer, (uint64_t)(ms > 0 ? ms : 0), 0);
}

static void
set_mark(struct producer *p)
{
    producer_mark_set(&p->mark, p->options.queue->name, p->node);
}

static void
clear_mark(struct producer *p)
{
    if (producer_mark_clear(&p->mark, p->options.queue->name, p->node))
        p->line = LINE_UNKNOWN; /* from now on jobs arrive without a notification */
}

/* The line is, or may be, empty: ask inserters to notify us, and look again ourselves. */
static void
wait_for_jobs(struct producer *p)
{
    if (p->line == LINE_EMPTY && !claim_pacer_busy(&p->pacer, clock_ns()))
        set_mark(p);
    wake_me_in(p, p->pacer.poll_ms);
}

void
producer_step(struct producer *p)
{
    if (p->state == PRODUCER_STOPPED)
        return;
    if (stopping_is_done(p)) {
        /* The timer finishes it: on_stopped may free what our callers still use. */
        producer_step_soon(p);
        return;
    }
    if (!list_empty(&p->unsaid))
        producer_release_unsaid(p);
    if (p->leaves && p->attached && p->mark.state == MARK_ON) {
        p->leaves = false; /* one try: a mark that stays costs inserters a little */
        clear_mark(p);
    }
    producer_hand_over(p);
    producer_release_held(p);
    if (p->state == PRODUCER_FREEZING && is_quiet(p)) {
        producer_step_soon(p); /* for the same reason */
        return;
    }
    producer_fetch_large(p);
    if (!p->attached || p->in_flight || p->state == PRODUCER_ABANDONING)
        return;
    uint64_t now = clock_ns();
    if (now < p->retry.at_ns) {
        uv_timer_start(&p->timer, on_timer, (p->retry.at_ns - now) / 1000000u + 1, 0);
        return;
    }
    if (p->mark.state == MARK_ON && claim_pacer_busy(&p->pacer, now))
        clear_mark(p);
    size_t claim = producer_want(p);
    bool more = claim > 0 && (p->line == LINE_MORE || p->line == LINE_UNKNOWN);
    if (producer_answers_due(p, now) || more)
        producer_send_cycle(p, claim, false);
    else if (claim > 0)
        wait_for_jobs(p);
    else if (now < p->retry.claim_at_ns)
        wake_me_in(p, (int64_t)((p->retry.claim_at_ns - now) / 1000000u) + 1);
    else if (p->mark.state == MARK_ON)
        wake_me_in(p, FULL_FOR_MS); /* no room: if that lasts, the mark is cleared */
    else if (p->n_ready > 0)
        wake_me_in(p, PRODUCER_HELD_FOR_MS);
    else if (outbox_due_in_ms(&p->outbox, now / 1000000u) >= 0)
        wake_me_in(p, PRODUCER_HELD_FOR_MS);
}

static void
finish(struct producer *p)
{
    producer_set_state(p, PRODUCER_STOPPED);
    pool_free(p->pool);
    p->pool = NULL;
    p->options.on_stopped(p->options.owner);
}

static void
on_timer(uv_timer_t *timer)
{
    struct producer *p = timer->data;
    if (p->state == PRODUCER_STOPPED)
        return;
    if (stopping_is_done(p)) {
        finish(p);
        return;
    }
    if (p->state == PRODUCER_FREEZING && is_quiet(p)) {
        producer_set_state(p, PRODUCER_FROZEN);
        p->options.on_frozen(p->options.owner);
        return;
    }
    bool idle = p->line == LINE_SHORT || p->line == LINE_EMPTY;
    bool may_send = p->attached && !p->in_flight && clock_ns() >= p->retry.at_ns;
    if (may_send && idle && !producer_answers_due(p, clock_ns()) && producer_want(p) > 0)
        producer_send_cycle(p, 0, true);
    else if (may_send && p->mark.state == MARK_ON && producer_want(p) == 0 &&
             clock_ns() >= p->retry.claim_at_ns)
        clear_mark(p);
    else
        producer_step(p);
}

static void
on_marked(void *owner, bool failed)
{
    struct producer *p = owner;
    if (p->state != PRODUCER_CLAIMING) {
        producer_step(p);
        return;
    }
    if (failed && !uv_is_active((uv_handle_t *)&p->timer))
        wake_me_in(p, FULL_FOR_MS); /* not at once: the connection may be away */
    else if (p->n_ready > 0 && !uv_is_active((uv_handle_t *)&p->timer))
        wake_me_in(p, PRODUCER_HELD_FOR_MS);
    if (failed || p->mark.state != MARK_ON) {
        if (!uv_is_active((uv_handle_t *)&p->timer))
            producer_step(p);
        return;
    }
    /* A job that was inserted just before the mark came without a notification: look once
     * more, at once. */
    p->pacer.poll_ms = 1;
    if (!p->in_flight)
        wake_me_in(p, 0);
}

void
producer_step_init(struct producer *p, uv_loop_t *loop)
{
    uv_timer_init(loop, &p->timer);
    p->timer.data = p;
    p->step = producer_step;
    p->mark.store = p->options.store;
    p->mark.on_answer = on_marked;
    p->mark.owner = p;
}
