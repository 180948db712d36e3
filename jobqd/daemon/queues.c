/* queues.c: see queues.h. Which queues there are: at the start, after a reload and after
 * a lost lease; and what goes to each of their producers. Settings, hand-over and
 * description are in the files that queues_private.h lists. */
#include "jobqd/daemon/queues_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/base/seams.h"
#include "jobqd/config/options.h"
#include "libjobq/duration.h"

static void
set_state(struct queues *queues, enum queues_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        QUEUES_STATES(X)
#undef X
    };
    assert(queues->state != QUEUES_DRAINING || state != QUEUES_SERVING);
    if (queues->state == state)
        return;
    queues->state = state;
    log_debug("queues", "wait for %s", meanings[state]);
}

static void
free_slot(struct slot *slot)
{
    if (slot->producer)
        producer_free(slot->producer);
    queue_config_unref(slot->queue);
    free(slot);
}

/* Those that were removed and have stopped. */
static void
forget_removed(struct queues *queues)
{
    size_t kept = 0;
    for (size_t i = 0; i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        if (!slot->removed || !slot->stopped) {
            queues->slots[kept++] = slot;
            continue;
        }
        log_info(slot->subject, "removed");
        free_slot(slot);
    }
    queues->n_slots = kept;
}

static void
on_producer_stopped(void *owner)
{
    struct slot *slot = owner;
    struct queues *queues = slot->queues;
    slot->stopped = true;
    if (queues->state == QUEUES_SERVING)
        forget_removed(queues);
    else if (queues_stopped(queues))
        queues->on_all_stopped(queues->owner);
}

static bool
all_frozen(const struct queues *queues)
{
    for (size_t i = 0; i < queues->n_slots; i++) {
        if (producer_state(queues->slots[i]->producer) != PRODUCER_FROZEN)
            return false;
    }
    return true;
}

static void
on_producer_frozen(void *owner)
{
    struct slot *slot = owner;
    struct queues *queues = slot->queues;
    if (all_frozen(queues))
        queues->on_all_frozen(queues->owner);
}

static void
on_progress(void *owner, const struct job *job, double done, const char *note)
{
    struct slot *slot = owner;
    slot->queues->on_progress(slot->queues->owner, job, done, note);
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
        .unsafe_base = seam_is_set(SEAM_UNSAFE_BASE),
        .lost_cycle = seam_is_set(SEAM_LOST_CYCLE),
        .on_stopped = on_producer_stopped,
        .on_frozen = on_producer_frozen,
        .failures = queues->failures,
        .on_progress = on_progress,
        .owner = slot,
    };
    slot->stopped = false;
    int rc = producer_new(&slot->producer, &options);
    if (rc < 0)
        return rc;
    if (slot->workers != slot->queue->concurrency)
        producer_resize(slot->producer, slot->workers); /* as before the lost lease */
    producer_listening(slot->producer, queues->listening);
    slot->settings = SETTINGS_UNREAD;
    queues_slot_hold(slot);
    producer_hold(slot->producer, PRODUCER_HOLD_SIGNAL, queues->held_back);
    if (queues->session != 0)
        producer_attach(slot->producer, queues->node, queues->session);
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
    snprintf(slot->subject, sizeof slot->subject, "queue %s", queue->name);
    slot->queue = queue;
    slot->workers = queue->concurrency;
    slot->scaled = -1;
    queue_config_ref(queue);
    int rc = new_producer(slot);
    if (rc < 0) {
        free_slot(slot);
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
queues_start(struct queues *queues, struct store *store, struct failures *failures,
             const struct config *config)
{
    int rc = 0;
    queues->store = store;
    queues->failures = failures;
    queues->config = config;
    for (size_t i = 0; rc == 0 && i < config->n_queues; i++)
        rc = add_slot(queues, &config->queues[i]);
    return rc;
}

/* ---- a reload ---- */

static const struct queue_config *
find_queue(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->n_queues; i++) {
        if (strcmp(config->queues[i].name, name) == 0)
            return &config->queues[i];
    }
    return NULL;
}

static int64_t
grace_of(const struct slot *slot, int64_t most_ms)
{
    int64_t own_ms = slot->queue->shutdown_grace_ms;
    return own_ms >= 0 && own_ms < most_ms ? own_ms : most_ms;
}

static void
remove_slot(struct slot *slot)
{
    int64_t grace_ms = grace_of(slot, slot->queues->config->shutdown_grace_ms);
    log_info(slot->subject,
             "no longer in the configuration: waiting up to %s for its running jobs",
             jobq__duration_show(grace_ms).text);
    slot->removed = true;
    producer_leave(slot->producer, grace_ms);
}

/* Names the options that differ. */
static void
log_changes(const struct slot *slot, const struct queue_config *queue)
{
    struct jobq__buf names = {0};
    for (size_t i = 0; i < queue_options_count; i++) {
        const struct option_row *row = &queue_options[i];
        bool mode = row->type == OPTION_COMMAND || row->type == OPTION_EXEC;
        if (option_equal(row, slot->queue, queue) &&
            (!mode || slot->queue->mode == queue->mode))
            continue;
        if (mode &&
            queue->mode != (row->type == OPTION_EXEC ? QUEUE_EXEC : QUEUE_COMMAND))
            continue; /* both fields are the one argv */
        jobq__buf_adds(&names, names.len > 0 ? ", " : "");
        jobq__buf_adds(&names, row->name);
    }
    if (names.len > 0 && jobq__buf_cstr(&names))
        log_info(slot->subject, "changed: %s", names.data);
    jobq__buf_clear(&names);
}

static void
change_slot(struct slot *slot, const struct queue_config *queue)
{
    const struct config *config = slot->queues->config;
    if (producer_configure(slot->producer, queue, config->max_frame,
                           config->poll_interval_ms) < 0) {
        log_error(slot->subject,
                  "no memory for its new configuration; keeping the old one");
        return;
    }
    log_changes(slot, queue);
    queue_config_ref(queue);
    queue_config_unref(slot->queue);
    slot->queue = queue;
    slot->workers = queues_slot_base(slot, queue);
    producer_resize(slot->producer, slot->workers);
}

void
queues_configure(struct queues *queues, const struct config *config)
{
    assert(queues->state == QUEUES_SERVING);
    queues->config = config;
    for (size_t i = 0; i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        if (slot->removed)
            continue;
        const struct queue_config *queue = find_queue(config, slot->queue->name);
        if (queue)
            change_slot(slot, queue);
        else
            remove_slot(slot);
    }
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        char subject[160];
        if (queues_slot_find(queues, queue->name))
            continue;
        snprintf(subject, sizeof subject, "queue %s", queue->name);
        if (add_slot(queues, queue) < 0)
            log_error(subject, "no memory to start it");
        else
            log_info(subject, "added");
    }
}

/* ---- to all ---- */

void
queues_resize(struct queues *queues, int by)
{
    if (queues->state != QUEUES_SERVING)
        return;
    for (size_t i = 0; i < queues->n_slots; i++) {
        if (!queues->slots[i]->removed)
            queues_slot_resize(queues->slots[i], by);
    }
}

void
queues_clear(struct queues *queues)
{
    while (queues->n_slots > 0)
        free_slot(queues->slots[--queues->n_slots]);
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
    queues->node = node;
    queues->session = session;
    for (size_t i = 0; i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        slot->settings = SETTINGS_UNREAD; /* they may have changed meanwhile */
        queues_slot_hold(slot);
        producer_attach(slot->producer, node, session);
    }
}

void
queues_detach(struct queues *queues)
{
    queues->session = 0;
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
        producer_hold(queues->slots[i]->producer, PRODUCER_HOLD_SIGNAL, held_back);
}

void
queues_drain(struct queues *queues, int64_t grace_ms)
{
    set_state(queues, QUEUES_DRAINING);
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_drain(queues->slots[i]->producer, grace_of(queues->slots[i], grace_ms));
}

void
queues_abandon(struct queues *queues)
{
    queues->session = 0;
    if (queues->state == QUEUES_SERVING)
        set_state(queues, QUEUES_ABANDONED);
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

void
queues_cancel(struct queues *queues, const struct store_cancel *cancels, size_t n)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        producer_cancel(queues->slots[i]->producer, cancels, n);
}

int
queues_come_back(struct queues *queues)
{
    int rc = 0;
    forget_removed(queues);
    set_state(queues, QUEUES_SERVING);
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

void
queues_tell_slow(const struct queues *queues, int64_t limit_ms)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        if (queues->slots[i]->producer)
            producer_tell_slow(queues->slots[i]->producer, limit_ms);
}
