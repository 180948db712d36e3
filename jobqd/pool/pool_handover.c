/* pool_handover.c: the pool stands still, and leaves its workers to another program. */
#include <assert.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/pool/launch.h"
#include "jobqd/pool/pool_private.h"
#include "jobqd/pool/worker_handover.h"
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
    forkservers_put_away(pool);
    for (int i = 0; i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!worker)
            continue;
        if (worker->program != pool->program) /* only we can tell */
            workerset_replace(pool, worker, DUE_CONFIG);
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
    pool->needs_reconcile = true;
    pool->room_changed = true;
    pool_ask_for_turn(pool);
}

bool
pool_is_still(const struct pool *pool)
{
    return pool->frozen && pool->n_waiting == 0 && forkservers_is_away(pool);
}

static void
put_launch(const struct pool *pool, struct handover *handover)
{
    const struct worker_program *program = pool->program;
    struct jobq__buf text = {0};
    launch_describe(program->queue, program->max_frame, &text);
    handover_put_bytes(handover, "launch", text.data, text.len);
    handover->text.failed = handover->text.failed || text.failed;
    jobq__buf_clear(&text);
}

/* The configuration was read again by whoever takes over, and may say something else by
 * now. *out: whether the workers were started as it says. */
static int
compare_launch(const struct pool *pool, const struct handover_entry *entry, bool *out,
               jobq_error *err)
{
    const struct worker_program *program = pool->program;
    const char *theirs;
    size_t len;
    *out = true;
    if (pool_is_exec(pool) || !handover_has(entry, "launch"))
        return 0;
    int rc = handover_get_bytes(entry, "launch", &theirs, &len, err);
    if (rc < 0)
        return rc;
    struct jobq__buf ours = {0};
    launch_describe(program->queue, program->max_frame, &ours);
    *out = !ours.failed && ours.len == len && memcmp(ours.data, theirs, len) == 0;
    jobq__buf_clear(&ours);
    return 0;
}

void
pool_put(const struct pool *pool, struct handover *handover)
{
    handover_put_int(handover, "restarts", (int64_t)pool->restarts);
    handover_put_int(handover, "crashes", (int64_t)pool->crashes);
    put_launch(pool, handover);
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (worker)
            worker_put(worker, handover);
    }
}

static int
adopt_one(struct pool *pool, bool is_current, const struct handover_reader *reader,
          const struct handover_entry **entry,
          void (*on_job)(void *owner, struct job *job), jobq_error *err)
{
    int64_t number;
    struct worker *worker;
    int rc = handover_get_int(*entry, "slot", 0, MAX_SLOTS, &number, err);
    if (rc < 0)
        return rc;
    struct slot *slot = workerset_slot(pool, (int)number);
    if (!slot)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a worker");
    if (slot->worker)
        return jobq__error(err, JOBQ_EINVAL, "the handover has two workers w%d",
                           (int)number + 1);
    rc = worker_adopt(&worker, pool->program, &slot->rate, reader, entry,
                      pool->worker_events, pool, err);
    if (rc < 0)
        return rc;
    workerset_adopt(pool, slot, worker);
    pool_note_concurrency(pool, worker);
    if (!is_current)
        workerset_replace(pool, worker, DUE_CONFIG);
    for (struct list *at = worker->running.next; at != &worker->running; at = at->next)
        on_job(pool->owner, list_entry(at, struct job, link));
    for (struct list *at = worker->sent.next; at != &worker->sent; at = at->next)
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
    bool is_current = true;
    if (rc == 0)
        rc = compare_launch(pool, *entry, &is_current, err);
    if (rc < 0)
        return rc;
    if (!is_current)
        log_info(pool->subject, "its configuration changed after the workers started; "
                                "replacing them one at a time");
    pool->restarts = (uint64_t)restarts;
    pool->crashes = (uint64_t)crashes;
    pool->frozen = true;
    *entry = handover_next(reader, *entry);
    while (rc == 0 && *entry && handover_is(*entry, "worker"))
        rc = adopt_one(pool, is_current, reader, entry, on_job, err);
    return rc;
}
