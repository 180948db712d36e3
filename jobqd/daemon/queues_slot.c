/* queues_slot.c: one queue's place: how many workers it wants, and what keeps its
 * producer from claiming.
 *
 * queues.c makes and frees it. */
#include "jobqd/daemon/queues_private.h"

#include <string.h>

#include "jobqd/base/log.h"

struct slot *
queues_slot_find(const struct queues *queues, const char *name)
{
    for (size_t i = 0; i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        if (!slot->removed && strcmp(slot->queue->name, name) == 0)
            return slot;
    }
    return NULL;
}

/* A producer claims as soon as its last hold is gone: so the pause is set before the hold
 * for unread settings is lifted. */
void
queues_slot_hold(struct slot *slot)
{
    producer_hold(slot->producer, PRODUCER_HOLD_PAUSED, slot->paused);
    producer_hold(slot->producer, PRODUCER_HOLD_UNREAD, slot->settings != SETTINGS_READ);
}

int
queues_slot_base(const struct slot *slot, const struct queue_config *queue)
{
    return slot->scaled >= 0 ? slot->scaled : queue->concurrency;
}

void
queues_slot_resize(struct slot *slot, int by)
{
    int n = slot->workers + by;
    if (by == 0 || n < 1 || n > QUEUES_MAX_WORKERS)
        return;
    log_info(slot->subject, "number of workers changed from %d to %d", slot->workers, n);
    slot->workers = n;
    producer_resize(slot->producer, n);
}

void
queues_slot_scale(struct slot *slot, int scaled)
{
    if (slot->scaled == scaled)
        return;
    slot->scaled = scaled;
    int workers = queues_slot_base(slot, slot->queue);
    log_info(slot->subject, "number of workers scaled from %d to %d%s", slot->workers,
             workers, scaled < 0 ? ", as configured" : "");
    slot->workers = workers;
    producer_resize(slot->producer, workers);
}
