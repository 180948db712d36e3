/* producer_room.c: how many jobs the workers and the memory have room for: hands claimed
 * jobs over, says how many more to claim, and gives back those that no worker will take.
 *
 * `pacer` decides how far ahead a queue claims. */
#include "jobqd/actors/producer_private.h"

#include "jobqd/base/clock.h"

void
producer_hand_over(struct producer *p)
{
    if (!p->pool)
        return;
    size_t room = pool_room(p->pool);
    while (p->n_ready > 0 && room > 0) {
        struct job *job = producer_first_ready(p);
        if (!job->args)
            return; /* its arguments must be fetched first */
        list_remove(&job->link);
        p->n_ready--;
        room--;
        pool_give(p->pool, job);
    }
}

bool
producer_is_full(const struct producer *p)
{
    return p->bytes >= CLAIM_PACER_AHEAD_BYTES && pool_idle(p->pool) == 0;
}

static bool
nobody_works(const struct producer *p)
{
    struct pool_status status;
    pool_status(p->pool, &status);
    return status.busy == 0;
}

/* While the pool backs off, or no workers are wanted, no new workers will help those that
 * are left. Jobs that these have no room for go back, for another node: after a short
 * wait, since a worker may be about to finish its job; at once, if no worker has one. */
void
producer_release_held(struct producer *p)
{
    uint64_t now = clock_ns();
    if (p->n_ready == 0 || !p->pool || !pool_nobody_comes(p->pool)) {
        p->held_ns = 0;
        return;
    }
    if (p->held_ns == 0)
        p->held_ns = now;
    bool long_held = now - p->held_ns >= (uint64_t)PRODUCER_HELD_FOR_MS * 1000000u;
    if (pool_room(p->pool) == 0 && (long_held || nobody_works(p)))
        producer_release_ready(p);
}

size_t
producer_want(const struct producer *p)
{
    if (p->state != PRODUCER_CLAIMING || p->holds != 0 || !p->pool)
        return 0;
    if (clock_ns() < p->retry.claim_at_ns)
        return 0;
    size_t room = pool_room(p->pool);
    if (producer_is_full(p))
        return 0;
    size_t n = claim_pacer_want(&p->pacer, room, p->n_ready);
    if (pool_nobody_comes(p->pool) || pool_starts_late(p->pool)) { /* nothing ahead */
        size_t most = room > p->n_ready ? room - p->n_ready : 0;
        n = n < most ? n : most;
    }
    return n < STORE_MAX_CLAIM ? n : STORE_MAX_CLAIM;
}
