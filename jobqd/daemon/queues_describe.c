/* queues_describe.c: the state of all queues, for the node's row, the log and the service
 * manager: in figures, and as JSON. It changes nothing. */
#include "jobqd/daemon/queues_private.h"

#include <stdio.h>

#include "jobqd/base/jsontree.h"

int64_t
queues_cycle_ms(const struct queues *queues)
{
    int64_t oldest_ms = 0;
    for (size_t i = 0; i < queues->n_slots; i++) {
        const struct slot *slot = queues->slots[i];
        int64_t ms = slot->producer ? producer_cycle_ms(slot->producer) : 0;
        if (ms > oldest_ms)
            oldest_ms = ms;
    }
    return oldest_ms;
}

void
queues_sum(const struct queues *queues, struct queues_sum *out)
{
    *out = (struct queues_sum){0};
    for (size_t i = 0; i < queues->n_slots; i++) {
        struct pool_status pool;
        if (!queues->slots[i]->producer)
            continue;
        producer_pool_status(queues->slots[i]->producer, &pool);
        out->wanted += pool.wanted;
        out->busy += pool.busy;
        out->backing_off += pool.backing_off;
        out->held += producer_held(queues->slots[i]->producer);
    }
}

void
queues_rollout(const struct queues *queues, struct queues_rollout *out)
{
    *out = (struct queues_rollout){0};
    for (size_t i = 0; i < queues->n_slots; i++) {
        const struct slot *slot = queues->slots[i];
        struct pool_status pool;
        if (!slot->producer)
            continue;
        producer_pool_status(slot->producer, &pool);
        out->leaving += (size_t)(pool.outdated - pool.outdated_idle);
        if (slot->removed)
            continue;
        if (!out->failed && (pool.backing_off || pool.failed_boots > 0)) {
            out->failed = slot->queue->name;
            snprintf(out->trouble, sizeof out->trouble, "%s", pool.trouble);
        }
        out->coming += pool.unproven || pool.outdated_idle > 0 || pool.missing > 0;
    }
}

/* For the leader (_queues_retention()); nothing if the queue has no rules of its own. */
static void
describe_retention(const struct queue_config *queue, cJSON *state)
{
    const struct {
        const char *name;
        int64_t value;
    } fields[] = {
        {"completed_ms", queue->keep_completed_ms},
        {"failed_ms", queue->keep_failed_ms},
        {"count", queue->keep_count > 0 ? queue->keep_count : -1},
    };
    cJSON *keep = NULL;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].value < 0)
            continue;
        keep = keep ? keep : tree_add_object(state, "keep");
        tree_add_int(keep, fields[i].name, fields[i].value);
    }
}

static void
describe_queue(const struct slot *slot, cJSON *queues)
{
    const struct producer *producer = slot->producer;
    cJSON *state = tree_add_object(queues, producer_queue(producer));
    struct pool_status pool;
    struct producer_stats stats;
    producer_pool_status(producer, &pool);
    producer_stats(producer, &stats);
    const struct {
        const char *name;
        int64_t value;
    } fields[] = {
        {"wanted", pool.wanted},
        {"ready", pool.ready},
        {"busy", pool.busy},
        {"booting", pool.booting + pool.surge},
        {"failed_boots", pool.failed_boots},
        {"outdated", pool.outdated},
        {"restarts", (int64_t)pool.restarts},
        {"crashes", (int64_t)pool.crashes},
        {"backoff_ms", pool.backing_off ? pool.backoff_ms_left : 0},
        {"held", (int64_t)stats.held},
        {"claimed", (int64_t)stats.claimed},
        {"acked", (int64_t)stats.acked},
        {"refused", (int64_t)stats.refused},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        tree_add_int(state, fields[i].name, fields[i].value);
    tree_add_bool(state, "paused", slot->paused);
    tree_add_bool(state, "backing_off", pool.backing_off);
    describe_retention(slot->queue, state);
    if (pool.trouble[0] != '\0')
        tree_add_text(state, "trouble", pool.trouble);
    producer_add_kinds(producer, state);
}

void
queues_describe(const struct queues *queues, struct jobq__buf *out)
{
    cJSON *document = cJSON_CreateObject();
    for (size_t i = 0; i < queues->n_slots; i++)
        describe_queue(queues->slots[i], document);
    tree_put(out, document);
}
