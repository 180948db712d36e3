/* producer_upgrade.c: a producer's part in an upgrade in place: it stands still, and
 * hands its workers and counters over to another program.
 *
 * Running jobs go with their workers (pool_put, pool_adopt). All others have been given
 * back, and all answers confirmed, before. */
#include "jobqd/actors/producer_private.h"

#include <assert.h>

bool
producer_can_freeze(const struct producer *p)
{
    return (p->state == PRODUCER_CLAIMING || p->state == PRODUCER_DETACHED) &&
           pool_can_freeze(p->pool);
}

void
producer_freeze(struct producer *p)
{
    assert(producer_can_freeze(p));
    producer_set_state(p, PRODUCER_FREEZING);
    pool_freeze(p->pool);
    producer_release_ready(p);
    producer_step_soon(p);
}

void
producer_thaw(struct producer *p)
{
    if (p->state != PRODUCER_FREEZING && p->state != PRODUCER_FROZEN)
        return;
    producer_set_state(p, p->attached ? PRODUCER_CLAIMING : PRODUCER_DETACHED);
    p->line = LINE_UNKNOWN;
    pool_thaw(p->pool);
    producer_step_soon(p);
}

void
producer_put(const struct producer *p, int scaled, int resized, struct handover *handover)
{
    const struct queue_config *queue = p->options.queue;
    handover_record(handover, "queue");
    handover_put_text(handover, "name", queue->name);
    handover_put_text(handover, "mode", queue->mode == QUEUE_EXEC ? "exec" : "command");
    if (scaled >= 0)
        handover_put_int(handover, "scaled", scaled);
    handover_put_int(handover, "resized", resized);
    handover_put_int(handover, "claimed", (int64_t)p->stats.claimed);
    handover_put_int(handover, "acked", (int64_t)p->stats.acked);
    handover_put_int(handover, "refused", (int64_t)p->stats.refused);
    if (p->state == PRODUCER_FROZEN)
        pool_put(p->pool, handover);
}

static void
on_adopted(void *owner, struct job *job)
{
    struct producer *p = owner;
    if (job->cancel == JOB_CANCEL_ASKED)
        job->cancel = JOB_GOES_ON; /* not acted upon yet: the request will be repeated */
    list_push(&p->all, &job->held);
    p->n_all++;
    p->bytes += job->args_len + job->meta_len;
}

int
producer_adopt(struct producer *p, const struct handover_reader *reader,
               const struct handover_entry **entry, jobq_error *err)
{
    int64_t claimed, acked, refused;
    int rc = handover_get_int(*entry, "claimed", 0, INT64_MAX, &claimed, err);
    if (rc == 0)
        rc = handover_get_int(*entry, "acked", 0, INT64_MAX, &acked, err);
    if (rc == 0)
        rc = handover_get_int(*entry, "refused", 0, INT64_MAX, &refused, err);
    if (rc < 0)
        return rc;
    p->stats.claimed = (uint64_t)claimed;
    p->stats.acked = (uint64_t)acked;
    p->stats.refused = (uint64_t)refused;
    p->state = PRODUCER_FROZEN; /* until producer_thaw */
    return pool_adopt(p->pool, reader, entry, on_adopted, err);
}
