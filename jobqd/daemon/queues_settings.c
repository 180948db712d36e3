/* queues_settings.c: what operators have set with jobq.pause and jobq.scale, from the
 * request for it to its effect on each queue.
 *
 * The settings watcher sends the request. */
#include "jobqd/daemon/queues_private.h"

#include <stdlib.h>

#include "jobqd/base/log.h"

const char **
queues_ask_settings(struct queues *queues, size_t *n)
{
    const char **names = malloc((queues->n_slots + 1) * sizeof *names);
    *n = 0;
    for (size_t i = 0; names && i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        if (slot->removed)
            continue;
        names[(*n)++] = slot->queue->name;
        if (slot->settings == SETTINGS_UNREAD)
            slot->settings = SETTINGS_ASKED;
    }
    return names;
}

static void
set_paused(struct slot *slot, bool paused)
{
    if (slot->paused == paused)
        return;
    slot->paused = paused;
    log_info(slot->subject, paused ? "paused: claiming no jobs until `jobqd resume`"
                                   : "resumed: claiming jobs again");
}

void
queues_take_settings(struct queues *queues, const struct store_list *result)
{
    if (queues->state != QUEUES_SERVING)
        return;
    for (size_t i = 0; i < result->n; i++) {
        const struct store_setting *setting = &result->settings[i];
        struct slot *slot = queues_slot_find(queues, setting->queue);
        if (!slot)
            continue;
        set_paused(slot, setting->paused);
        queues_slot_scale(slot, setting->workers < QUEUES_MAX_WORKERS
                                    ? setting->workers
                                    : QUEUES_MAX_WORKERS);
        if (slot->settings == SETTINGS_ASKED)
            slot->settings = SETTINGS_READ;
        producer_note_position(slot->producer, setting->position);
        queues_slot_hold(slot);
    }
}
