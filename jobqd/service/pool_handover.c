/* pool_handover.c: the pool stands still, and leaves its workers to another program. */
#include <assert.h>

#include "jobqd/service/pool_private.h"
#include "jobqd/service/worker_handover.h"
#include "libjobq/error.h"

/* The handover has one mode a queue: a process of the other one would be judged by its
 * exit code instead of what it says, or the other way round. */
static bool
is_of_one_mode(const struct pool *pool)
{
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (worker && worker->program->queue->mode != pool->program->queue->mode)
            return false;
    }
    return true;
}

bool
pool_can_freeze(const struct pool *pool)
{
    return pool->state == POOL_OPEN && is_of_one_mode(pool);
}

void
pool_freeze(struct pool *pool)
{
    assert(pool_can_freeze(pool));
    pool->frozen = true;
    uv_timer_stop(&pool->timer);
    nursery_put_away(pool);
    for (int i = 0; i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!worker)
            continue;
        if (worker->program != pool->program) /* only we can tell */
            roster_replace(pool, worker, DUE_CONFIG);
        pool_take_back(pool, worker);
        worker_freeze(worker);
    }
    pool_ask_for_turn(pool);
}

void
pool_thaw(struct pool *pool)
{
    pool->frozen = false;
    for (int i = 0; i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!worker)
            continue;
        worker_thaw(worker);
        pool_place(pool, worker);
    }
    pool->uneven = true;
    pool->room_changed = true;
    pool_ask_for_turn(pool);
}

bool
pool_is_still(const struct pool *pool)
{
    return pool->frozen && pool->n_waiting == 0 && nursery_is_away(pool);
}

void
pool_put(const struct pool *pool, struct handover *handover)
{
    handover_put_int(handover, "restarts", (int64_t)pool->restarts);
    handover_put_int(handover, "crashes", (int64_t)pool->crashes);
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (worker)
            worker_put(worker, handover);
    }
}

static int
adopt_one(struct pool *pool, const struct handover_reader *reader,
          const struct handover_entry **entry,
          void (*on_job)(void *owner, struct job *job), jobq_error *err)
{
    int64_t number;
    struct worker *worker;
    int rc = handover_get_int(*entry, "slot", 0, MOST_SLOTS, &number, err);
    if (rc < 0)
        return rc;
    struct slot *slot = roster_slot(pool, (int)number);
    if (!slot)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a worker");
    if (slot->worker)
        return jobq__error(err, JOBQ_EINVAL, "the handover has two workers w%d",
                           (int)number + 1);
    rc = worker_adopt(&worker, pool->program, &slot->rate, reader, entry,
                      &pool_worker_events, pool, err);
    if (rc < 0)
        return rc;
    roster_adopt(pool, slot, worker);
    for (struct list *at = worker->jobs.next; at != &worker->jobs; at = at->next)
        on_job(pool->owner, list_entry(at, struct job, link));
    return 0;
}

int
pool_adopt(struct pool *pool, const struct handover_reader *reader,
           const struct handover_entry **entry,
           void (*on_job)(void *owner, struct job *job), jobq_error *err)
{
    int64_t restarts, crashes;
    int rc = handover_get_int(*entry, "restarts", 0, INT64_MAX, &restarts, err);
    if (rc == 0)
        rc = handover_get_int(*entry, "crashes", 0, INT64_MAX, &crashes, err);
    if (rc < 0)
        return rc;
    pool->restarts = (uint64_t)restarts;
    pool->crashes = (uint64_t)crashes;
    pool->frozen = true;
    *entry = handover_next(reader, *entry);
    while (rc == 0 && *entry && handover_is(*entry, "worker"))
        rc = adopt_one(pool, reader, entry, on_job, err);
    return rc;
}
