/* queues_handover.c: the queues' part in an upgrade in place: whether they can stand
 * still now, and how they and their workers go over to another program. */
#include "jobqd/daemon/queues_private.h"

#include <stdio.h>

#include "libjobq/error.h"

bool
queues_can_freeze(const struct queues *queues, char *why, size_t size)
{
    if (queues->state != QUEUES_SERVING) {
        snprintf(why, size, "the queues are shutting down");
        return false;
    }
    for (size_t i = 0; i < queues->n_slots; i++) {
        const struct slot *slot = queues->slots[i];
        const char *name = slot->queue->name;
        if (slot->removed)
            snprintf(why, size,
                     "queue %s was removed, but its last jobs are still running", name);
        else if (!producer_can_freeze(slot->producer))
            snprintf(why, size,
                     "processes of queue %s from before the reload are still running",
                     name);
        else
            continue;
        return false;
    }
    return true;
}

void
queues_freeze(struct queues *queues)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_freeze(queues->slots[i]->producer);
}

void
queues_thaw(struct queues *queues)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_thaw(queues->slots[i]->producer);
}

void
queues_put(const struct queues *queues, struct handover *handover)
{
    for (size_t i = 0; i < queues->n_slots; i++) {
        const struct slot *slot = queues->slots[i];
        producer_put(slot->producer, slot->scaled,
                     slot->workers - queues_slot_base(slot, slot->queue), handover);
    }
}

int
queues_adopt(struct queues *queues, const struct handover_reader *reader, jobq_error *err)
{
    const struct handover_entry *entry = handover_next(reader, NULL);
    while (entry) {
        if (!handover_is(entry, "queue")) {
            entry = handover_next(reader, entry);
            continue;
        }
        const char *name;
        int rc = handover_get_bytes(entry, "name", &name, NULL, err);
        if (rc < 0)
            return rc;
        struct slot *slot = queues_slot_find(queues, name);
        if (!slot)
            return jobq__error(err, JOBQ_EINVAL,
                               "queue %s is no longer in the configuration", name);
        int64_t scaled = -1, resized = 0;
        if (handover_has(entry, "scaled"))
            rc = handover_get_int(entry, "scaled", 0, QUEUES_MAX_WORKERS, &scaled, err);
        if (rc == 0 && handover_has(entry, "resized"))
            rc = handover_get_int(entry, "resized", -QUEUES_MAX_WORKERS,
                                  QUEUES_MAX_WORKERS, &resized, err);
        if (rc == 0)
            rc = producer_adopt(slot->producer, reader, &entry, err);
        if (rc < 0)
            return rc;
        queues_slot_scale(slot, (int)scaled);
        queues_slot_resize(slot, (int)resized);
    }
    return 0;
}
