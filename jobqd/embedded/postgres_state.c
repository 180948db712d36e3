/* postgres_state.c: the states of the embedded database, and how it is given up. */
#include "jobqd/embedded/postgres_private.h"

#include <assert.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

const char *
embedded_state_name(enum embedded_state state)
{
    static const char *const names[] = {
#define X(name, embedded_meaning) #name,
        EMBEDDED_STATES(X)
#undef X
    };
    return names[state] + strlen("EMBEDDED_");
}

const char *
embedded_meaning(enum embedded_state state)
{
    static const char *const meanings[] = {
#define X(name, embedded_meaning) embedded_meaning,
        EMBEDDED_STATES(X)
#undef X
    };
    return meanings[state];
}

static bool
may_follow(enum embedded_state from, enum embedded_state to)
{
    if (to == EMBEDDED_STOPPING)
        return from != EMBEDDED_STOPPED && from != EMBEDDED_STOPPING;
    switch (from) {
    case EMBEDDED_IDLE:
    case EMBEDDED_BACKING_OFF:
        return to == EMBEDDED_OUSTING || to == EMBEDDED_INITIALIZING ||
               to == EMBEDDED_FAILED;
    case EMBEDDED_OUSTING:
        return to == EMBEDDED_STARTING || to == EMBEDDED_FAILED;
    case EMBEDDED_INITIALIZING:
        return to == EMBEDDED_OUSTING || to == EMBEDDED_FAILED;
    case EMBEDDED_STARTING:
        return to == EMBEDDED_PROBING || to == EMBEDDED_BACKING_OFF ||
               to == EMBEDDED_FAILED;
    case EMBEDDED_PROBING:
        return to == EMBEDDED_UP || to == EMBEDDED_BACKING_OFF || to == EMBEDDED_FAILED;
    case EMBEDDED_UP:
        return to == EMBEDDED_BACKING_OFF;
    case EMBEDDED_STOPPING:
        return to == EMBEDDED_STOPPED;
    case EMBEDDED_FAILED:
    case EMBEDDED_STOPPED:
        return false;
    }
    return false;
}

void
embedded_move(struct embedded *embedded, enum embedded_state to)
{
    bool legal = may_follow(embedded->state, to);
    assert(legal);
    (void)legal;
    log_debug(SUBJECT, "%s to %s: waiting for %s", embedded_state_name(embedded->state),
              embedded_state_name(to), embedded_meaning(to));
    embedded->state = to;
    embedded->since_ms = uv_now(embedded->loop);
    embedded->noted_ms = embedded->since_ms;
}

uint64_t
embedded_waited_ms(const struct embedded *embedded)
{
    return uv_now(embedded->loop) - embedded->since_ms;
}

/* True once every NOTE_MS of a long wait. */
bool
embedded_is_time_to_note(struct embedded *embedded)
{
    if (uv_now(embedded->loop) - embedded->noted_ms < NOTE_MS)
        return false;
    embedded->noted_ms = uv_now(embedded->loop);
    return true;
}

void
embedded_wake_in(struct embedded *embedded, uint64_t delay_ms, uint64_t then_every_ms)
{
    int failed =
        uv_timer_start(&embedded->timer, embedded->on_timer, delay_ms, then_every_ms);
    assert(failed == 0); /* it fails for a closing handle or a missing callback alone */
    (void)failed;
}

void
embedded_report_if_stopped(struct embedded *embedded)
{
    if (embedded->state != EMBEDDED_STOPPING || embedded->child || embedded->closing > 0)
        return;
    embedded_move(embedded, EMBEDDED_STOPPED);
    embedded->events.on_stopped(embedded->owner); /* may free it */
}

void
embedded_on_timer_closed(uv_handle_t *handle)
{
    struct embedded *embedded = handle->data;
    embedded->closing--;
    embedded_report_if_stopped(embedded);
}

static void
on_probe_closed(void *owner)
{
    struct embedded *embedded = owner;
    embedded->closing--;
    embedded_report_if_stopped(embedded);
}

void
embedded_close_probe(struct embedded *embedded)
{
    if (!embedded->probe)
        return;
    struct pgconn *probe = embedded->probe;
    embedded->probe = NULL;
    embedded->closing++;
    pgconn_close(probe, false, on_probe_closed);
}

void
embedded_fail(struct embedded *embedded, const jobq_error *why)
{
    embedded_close_probe(embedded);
    embedded_move(embedded, EMBEDDED_FAILED);
    uv_timer_stop(&embedded->timer);
    embedded->events.on_failed(embedded->owner, why);
}

void
embedded_back_off(struct embedded *embedded)
{
    unsigned doublings = embedded->failures < 10 ? (unsigned)embedded->failures : 10;
    uint64_t delay_ms = (uint64_t)BACKOFF_BASE_MS << doublings;
    if (delay_ms > BACKOFF_CAP_MS)
        delay_ms = BACKOFF_CAP_MS;
    delay_ms += clock_ns() / 1000 % (delay_ms / 4 + 1); /* jitter */
    embedded_move(embedded, EMBEDDED_BACKING_OFF);
    embedded_wake_in(embedded, delay_ms, 0);
}
