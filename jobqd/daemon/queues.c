/* queues.c: see queues.h. */
#include "jobqd/daemon/queues.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/actors/producer.h"
#include "jobqd/base/log.h"
#include "jobqd/base/seams.h"
#include "jobqd/config/options.h"
#include "libjobq/error.h"

enum { MOST_WORKERS = 1000 }; /* as the option `concurrency` allows */

/* Whether `paused` and `scaled` can be gone by. Values that were read once hold while the
 * database is away, but nothing is claimed before they have been read anew. */
enum settings_state {
    SETTINGS_UNREAD, /* not since the session was opened, or the queue came */
    SETTINGS_ASKED,  /* a request that was sent since then is under way, or was lost */
    SETTINGS_READ
};

/* A queue's place: its producer, and what replaces it after a lost lease. */
struct slot {
    struct queues *queues;
    char subject[160];                /* for the log: "queue NAME" */
    const struct queue_config *queue; /* held */
    int workers;                      /* how many are wanted */
    int scaled;                       /* jobq.scale's word on that; -1: none */
    bool paused;                      /* jobq.pause, as was read last */
    enum settings_state settings;
    struct producer *producer;
    bool removed; /* by a reload: it drains */
    bool stopped; /* the producer is, and waits to be freed */
};

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
    queue_config_drop(slot->queue);
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
        log_info(slot->subject, "is gone");
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

/* What of the slot counts for its producer, too. A producer claims as soon as its last
 * hold is gone: the pause that was read comes before the end of not having read it. */
static void
hold_by_settings(struct slot *slot)
{
    producer_hold(slot->producer, PRODUCER_HOLD_PAUSED, slot->paused);
    producer_hold(slot->producer, PRODUCER_HOLD_UNREAD, slot->settings != SETTINGS_READ);
}

/* How many workers there are to be, but for TTIN and TTOU. */
static int
base_workers(const struct slot *slot, const struct queue_config *queue)
{
    return slot->scaled >= 0 ? slot->scaled : queue->concurrency;
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
    hold_by_settings(slot);
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
    queue_config_hold(queue);
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

/* NULL: there is none that this node goes on serving. */
static struct slot *
find_slot(const struct queues *queues, const char *name)
{
    for (size_t i = 0; i < queues->n_slots; i++) {
        struct slot *slot = queues->slots[i];
        if (!slot->removed && strcmp(slot->queue->name, name) == 0)
            return slot;
    }
    return NULL;
}

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
             "no longer in the configuration: waiting up to %.3g s for its running jobs",
             (double)grace_ms / 1000);
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
        log_error(slot->subject, "no memory for its new configuration: stays as it was");
        return;
    }
    log_changes(slot, queue);
    queue_config_hold(queue);
    queue_config_drop(slot->queue);
    slot->queue = queue;
    slot->workers = base_workers(slot, queue);
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
        if (find_slot(queues, queue->name))
            continue;
        snprintf(subject, sizeof subject, "queue %s", queue->name);
        if (add_slot(queues, queue) < 0)
            log_error(subject, "no memory to start it");
        else
            log_info(subject, "is new");
    }
}

static void
resize(struct slot *slot, int by)
{
    int n = slot->workers + by;
    if (by == 0 || n < 1 || n > MOST_WORKERS)
        return;
    log_info(slot->subject, "%d workers instead of %d", n, slot->workers);
    slot->workers = n;
    producer_resize(slot->producer, n);
}

void
queues_resize(struct queues *queues, int by)
{
    if (queues->state != QUEUES_SERVING)
        return;
    for (size_t i = 0; i < queues->n_slots; i++) {
        if (!queues->slots[i]->removed)
            resize(queues->slots[i], by);
    }
}

/* ---- what operators have set ---- */

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
    log_info(slot->subject, paused ? "is paused: claims no more jobs until jobq.resume"
                                   : "is resumed: claims jobs again");
}

/* A new word of jobq.scale undoes TTIN and TTOU. */
static void
set_scaled(struct slot *slot, int scaled)
{
    if (slot->scaled == scaled)
        return;
    slot->scaled = scaled;
    int workers = base_workers(slot, slot->queue);
    log_info(slot->subject, "is scaled to %d workers, instead of %d%s", workers,
             slot->workers, scaled < 0 ? ": as configured" : "");
    slot->workers = workers;
    producer_resize(slot->producer, workers);
}

void
queues_take_settings(struct queues *queues, const struct store_settings_result *result)
{
    if (queues->state != QUEUES_SERVING)
        return;
    for (size_t i = 0; i < result->n; i++) {
        const struct store_setting *setting = &result->settings[i];
        struct slot *slot = find_slot(queues, setting->queue);
        if (!slot)
            continue;
        set_paused(slot, setting->paused);
        set_scaled(slot,
                   setting->workers < MOST_WORKERS ? setting->workers : MOST_WORKERS);
        if (slot->settings == SETTINGS_ASKED)
            slot->settings = SETTINGS_READ;
        producer_note_position(slot->producer, result->position);
        hold_by_settings(slot);
    }
}

/* ---- to all ---- */

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
        hold_by_settings(slot);
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

bool
queues_can_freeze(const struct queues *queues, char *why, size_t size)
{
    if (queues->state != QUEUES_SERVING) {
        snprintf(why, size, "the queues are given up");
        return false;
    }
    for (size_t i = 0; i < queues->n_slots; i++) {
        const struct slot *slot = queues->slots[i];
        const char *name = slot->queue->name;
        if (slot->removed)
            snprintf(why, size, "queue %s was removed, and its last jobs still run",
                     name);
        else if (!producer_can_freeze(slot->producer))
            snprintf(why, size,
                     "the last processes of queue %s from before the reload still run",
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
                     slot->workers - base_workers(slot, slot->queue), handover);
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
        struct slot *slot = find_slot(queues, name);
        if (!slot)
            return jobq__error(err, JOBQ_EINVAL,
                               "queue %s is not in the configuration any more", name);
        int64_t scaled = -1, resized = 0;
        if (handover_has(entry, "scaled"))
            rc = handover_get_int(entry, "scaled", 0, MOST_WORKERS, &scaled, err);
        if (rc == 0 && handover_has(entry, "resized"))
            rc = handover_get_int(entry, "resized", -MOST_WORKERS, MOST_WORKERS, &resized,
                                  err);
        if (rc == 0)
            rc = producer_adopt(slot->producer, reader, &entry, err);
        if (rc < 0)
            return rc;
        set_scaled(slot, (int)scaled);
        resize(slot, (int)resized);
    }
    return 0;
}

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
queues_tell_slow(const struct queues *queues, int64_t limit_ms)
{
    for (size_t i = 0; i < queues->n_slots; i++)
        if (queues->slots[i]->producer)
            producer_tell_slow(queues->slots[i]->producer, limit_ms);
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
        if (out->failed == NULL && (pool.backing_off || pool.failed_boots > 0)) {
            out->failed = slot->queue->name;
            snprintf(out->trouble, sizeof out->trouble, "%s", pool.trouble);
        }
        out->coming += pool.unproven || pool.outdated_idle > 0 || pool.missing > 0;
    }
}

/* For the node that keeps house (_queues_retention()); nothing where the days decide. */
static void
describe_retention(const struct queue_config *queue, struct jobq__buf *out)
{
    const struct {
        const char *name;
        int64_t value;
    } fields[] = {
        {"completed_ms", queue->keep_completed_ms},
        {"failed_ms", queue->keep_failed_ms},
        {"count", queue->keep_count > 0 ? queue->keep_count : -1},
    };
    bool any = false;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].value < 0)
            continue;
        jobq__buf_adds(out, any ? ",\"" : ",\"keep\":{\"");
        jobq__buf_adds(out, fields[i].name);
        jobq__buf_adds(out, "\":");
        jobq__buf_add_i64(out, fields[i].value);
        any = true;
    }
    if (any)
        jobq__buf_addc(out, '}');
}

static void
describe_queue(const struct slot *slot, struct jobq__buf *out)
{
    const struct producer *producer = slot->producer;
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
        {",\"booting\":", pool.booting + pool.spare},
        {",\"failed_boots\":", pool.failed_boots},
        {",\"outdated\":", pool.outdated},
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
    jobq__buf_adds(out, slot->paused ? ",\"paused\":true" : ",\"paused\":false");
    jobq__buf_adds(out,
                   pool.backing_off ? ",\"backing_off\":true" : ",\"backing_off\":false");
    describe_retention(slot->queue, out);
    if (pool.trouble[0] != '\0') {
        jobq__buf_adds(out, ",\"trouble\":");
        jobq__buf_add_json_string(out, pool.trouble, strlen(pool.trouble));
    }
    size_t before = out->len;
    jobq__buf_adds(out, ",\"kinds\":");
    size_t empty = out->len;
    producer_put_kinds(producer, out);
    if (out->len == empty)
        out->len = before;
    jobq__buf_addc(out, '}');
}

void
queues_describe(const struct queues *queues, struct jobq__buf *out)
{
    jobq__buf_addc(out, '{');
    for (size_t i = 0; i < queues->n_slots; i++) {
        if (i > 0)
            jobq__buf_addc(out, ',');
        describe_queue(queues->slots[i], out);
    }
    jobq__buf_addc(out, '}');
}
