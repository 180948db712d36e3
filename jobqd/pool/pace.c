/* pace.c: when a pool may do something: its next turn, its turn to start a process, and
 * the pause after too many bad ends. */
#include "jobqd/pool/pool_private.h"

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "libjobq/duration.h"

void
pool_ask_for_turn(struct pool *pool)
{
    if (pool->state != POOL_CLOSING && pool->state != POOL_STOPPED)
        uv_idle_start(&pool->turn_soon, pool->on_turn);
}

/* xorshift: jitter needs no better. */
uint32_t
pool_random(struct pool *pool)
{
    pool->random ^= pool->random << 13;
    pool->random ^= pool->random >> 17;
    pool->random ^= pool->random << 5;
    return pool->random;
}

bool
pool_is_exec(const struct pool *pool)
{
    return pool->program->queue->mode == QUEUE_EXEC;
}

int64_t
pool_pause_left_ms(const struct pool *pool)
{
    return intensity_pause_left(&pool->intensity, (int64_t)(clock_ns() / 1000000u));
}

void
pool_note_bad_end(struct pool *pool)
{
    if (pool_pause_left_ms(pool) > 0)
        return;
    int64_t pause_ms = intensity_bad_end(
        &pool->intensity, (int64_t)(clock_ns() / 1000000u), pool_random(pool));
    if (pause_ms == 0)
        return;
    const struct queue_config *queue = pool->program->queue;
    log_error(pool->subject,
              "process failures exceeded max_restarts = %d within %s; starting no "
              "processes for %s",
              queue->max_restarts, jobq__duration_show(queue->max_seconds_ms).text,
              jobq__duration_show(pause_ms).text);
    pool->needs_reconcile = true; /* the workerset knows when the pause is over */
}

bool
pool_may_start(struct pool *pool)
{
    bool may = pool->may_start || turn_now(&pool->start_turn);
    pool->may_start = false;
    return may;
}
