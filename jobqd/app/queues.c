/* queues.c: see queues.h. */
#include "jobqd/app/queues.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/actors/producer.h"

/* A queue's place: its producer, and what replaces it after a lost lease. */
struct slot {
    struct queues *queues;
    const struct queue_config *queue;
    struct producer *producer;
    bool stopped; /* the producer is, and waits to be freed */
};

static void
on_producer_stopped(void *owner)
{
    struct slot *slot = owner;
    struct queues *queues = slot->queues;
    slot->stopped = true;
    if (queues_stopped(queues))
        queues->on_all_stopped(queues->owner);
}

static int
new_producer(struct slot *slot)
{
    struct queues *queues = slot->queues;
    struct producer_options options = {
        .loop = queues->loop,
        .store = queues->store,
        .queue = slot->queue,
        .max_frame = queues->config->max_frame,
        .poll_interval_ms = queues->config->poll_interval_ms,
        .unsafe_base = getenv("JOBQ_TEST_UNSAFE_BASE") != NULL,
        .on_stopped = on_producer_stopped,
        .owner = slot,
    };
    slot->stopped = false;
    int rc = producer_new(&slot->producer, &options);
    if (rc < 0)
        return rc;
    producer_listening(slot->producer, queues->listening);
    if (queues->held_back)
        producer_hold(slot->producer, true);
    return 0;
}

static int
add_slot(struct queues *queues, const struct queue_config *queue)
{
    struct slot **slots =
        realloc(queues->slots, (queues->n_slots + 1) * sizeof(struct slot *));
    if (!slots)
        return JOBQ_ENOMEM;
    queues->slots = slots;
    struct slot *slot = calloc(1, sizeof *slot);
    if (!slot)
        return JOBQ_ENOMEM;
    slot->queues = queues;
    slot->queue = queue;
    int rc = new_producer(slot);
    if (rc < 0) {
        free(slot);
        return rc;
    }
    queues->slots[queues->n_slots++] = slot;
    return 0;
}

void
queues_init(struct queues *queues, uv_loop_t *loop, void (*on_all_stopped)(void *owner),
            void *owner)
{
    memset(queues, 0, sizeof *queues);
    queues->loop = loop;
    queues->on_all_stopped = on_all_stopped;
    queues->owner = owner;
}

int
queues_start(struct queues *queues, struct store *store, const struct config *config)
{
    int rc = 0;
    queues->store = store;
    queues->config = config;
    for (size_t i = 0; rc == 0 && i < config->n_queues; i++)
        rc = add_slot(queues, &config->queues[i]);
    return rc;
}

void
queues_clear(struct queues *queues)
{
    while (queues->n_slots > 0) {
        struct slot *slot = queues->slots[--queues->n_slots];
        producer_free(slot->producer);
        free(slot);
    }
    free(queues->slots);
    queues->slots = NULL;
}

bool
queues_stopped(const struct queues *queues)
{
    for (size_t i = 0; i < queues->n_slots; i++) {
        if (!queues->slots[i]->stopped)
            return false;
    }
    return true;
}

void
queues_attach(struct queues *queues, int64_t node, int64_t session)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_attach(queues->slots[i]->producer, node, session);
}

void
queues_detach(struct queues *queues)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_detach(queues->slots[i]->producer);
}

void
queues_listening(struct queues *queues, bool listening)
{
    queues->listening = listening;
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_listening(queues->slots[i]->producer, listening);
}

void
queues_hold(struct queues *queues, bool held_back)
{
    queues->held_back = held_back;
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_hold(queues->slots[i]->producer, held_back);
}

void
queues_drain(struct queues *queues, int64_t grace_ms)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_drain(queues->slots[i]->producer, grace_ms);
}

void
queues_abandon(struct queues *queues)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_abandon(queues->slots[i]->producer);
}

void
queues_poke(struct queues *queues, const char *name)
{
    for (size_t i = 0; i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        if (!name || strcmp(slot->queue->name, name) == 0)
            producer_poke(slot->producer);
    }
}

int
queues_come_back(struct queues *queues)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        assert(slot->stopped);
        producer_free(slot->producer);
        slot->producer = NULL;
        rc = new_producer(slot);
    }
    return rc;
}

size_t
queues_held(const struct queues *queues)
{
    size_t n = 0;
    for (size_t i = 0; i < queues->n_slots; i++)
        n += producer_held(queues->slots[i]->producer);
    return n;
}

size_t
queues_held_ids(const struct queues *queues, int64_t *ids)
{
    size_t n = 0;
    for (size_t i = 0; i < queues->n_slots; i++)
        n += producer_held_ids(queues->slots[i]->producer, ids + n);
    return n;
}

static void
describe_queue(const struct producer *producer, struct jobq__buf *out)
{
    struct pool_status pool;
    struct producer_stats stats;
    producer_pool_status(producer, &pool);
    producer_stats(producer, &stats);
    const char *name = producer_queue(producer);
    jobq__buf_add_json_string(out, name, strlen(name));
    const struct {
        const char *name;
        int64_t value;
    } fields[] = {
        {":{\"wanted\":", pool.wanted},
        {",\"ready\":", pool.ready},
        {",\"busy\":", pool.busy},
        {",\"restarts\":", (int64_t)pool.restarts},
        {",\"crashes\":", (int64_t)pool.crashes},
        {",\"backoff_ms\":", pool.backing_off ? pool.backoff_ms_left : 0},
        {",\"held\":", (int64_t)stats.held},
        {",\"claimed\":", (int64_t)stats.claimed},
        {",\"acked\":", (int64_t)stats.acked},
        {",\"refused\":", (int64_t)stats.refused},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        jobq__buf_adds(out, fields[i].name);
        jobq__buf_add_i64(out, fields[i].value);
    }
    jobq__buf_adds(out, pool.backing_off ? ",\"backing_off\":true}"
                                         : ",\"backing_off\":false}");
}

void
queues_describe(const struct queues *queues, struct jobq__buf *out)
{
    jobq__buf_addc(out, '{');
    for (size_t i = 0; i < queues->n_slots; i++) {
        if (i > 0)
            jobq__buf_addc(out, ',');
        describe_queue(queues->slots[i]->producer, out);
    }
    jobq__buf_addc(out, '}');
}
