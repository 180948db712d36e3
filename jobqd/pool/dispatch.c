/* dispatch.c: which worker gets which job, and the line of jobs that wait for one. */
#include "jobqd/pool/pool_private.h"

#include <stdio.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

/* FRAME_OVERHEAD: a job's frame around its args, meta, kind and queue. */
enum { FRAME_OVERHEAD = 256 };

/* PUT_OFF_MS: after so long a job comes again that only a part of the workers handles, or
 * none yet, while they are replaced. */
enum { PUT_OFF_MS = 1000 };

/* ---- which worker is next ---- */

void
pool_unplace(struct pool *pool, struct worker *worker)
{
    if (worker->placed_at == WORKER_NOWHERE)
        return;
    pool->n_by_load[worker->placed_at]--;
    worker->placed_at = WORKER_NOWHERE;
    list_remove(&worker->place);
}

void
pool_place(struct pool *pool, struct worker *worker)
{
    pool_unplace(pool, worker);
    if (!worker_takes_jobs(worker) || worker->n_jobs > MAILBOX_MAX ||
        worker == pool->surge || worker->cordoned)
        return;
    size_t load = worker->n_jobs;
    list_push(&pool->by_load[load], &worker->place);
    pool->n_by_load[load]++;
    worker->placed_at = load;
    if (load < pool->lowest)
        pool->lowest = load;
}

/* How many jobs a worker holds that runs so many at a time: the mailbox has one of them,
 * and those that wait behind it. */
size_t
dispatch_depth(const struct pool *pool, size_t concurrency)
{
    size_t depth = concurrency + mailbox_depth(&pool->mailbox) - 1;
    return depth < MAILBOX_MAX ? depth : MAILBOX_MAX;
}

/* Programs that follow one another may differ in it: the newest one's counts. */
void
pool_note_concurrency(struct pool *pool, const struct worker *worker)
{
    if (worker->program == pool->program || worker->concurrency > pool->concurrency)
        pool->concurrency = worker->concurrency;
}

static bool
has_room(const struct pool *pool, const struct worker *worker)
{
    return worker->n_jobs < dispatch_depth(pool, worker->concurrency);
}

/* The worker with the fewest jobs that has room for one; NULL: none has. */
static struct worker *
least_loaded(struct pool *pool)
{
    size_t depth = dispatch_depth(pool, pool->concurrency);
    while (pool->lowest < depth && pool->n_by_load[pool->lowest] == 0)
        pool->lowest++;
    if (pool->lowest >= depth)
        return NULL;
    return list_entry(pool->by_load[pool->lowest].next, struct worker, place);
}

void
dispatch_make_dirty(struct pool *pool, struct worker *worker)
{
    list_remove(&worker->dirty);
    list_push(&pool->dirty, &worker->dirty);
}

/* ---- verdicts, and the line ---- */

void
dispatch_hand_back(struct pool *pool, struct job *job, const struct verdict *verdict)
{
    pool->room_changed = true;
    pool->events->on_verdict(pool->owner, job, verdict);
}

/* A verdict on a job that no process has seen. */
void
dispatch_refuse(struct pool *pool, struct job *job, enum verdict_kind kind,
                const char *error)
{
    struct verdict verdict = {.kind = kind,
                              .error = error,
                              .delay_ms = kind == VERDICT_SNOOZE ? PUT_OFF_MS : -1,
                              .exit_code = -1,
                              .run_us = -1,
                              .cpu_us = -1,
                              .max_rss_kb = -1};
    dispatch_hand_back(pool, job, &verdict);
}

struct job *
dispatch_pop_waiting(struct pool *pool)
{
    struct list *link = list_pop(&pool->waiting);
    if (!link)
        return NULL;
    pool->n_waiting--;
    return list_entry(link, struct job, link);
}

void
pool_release_waiting(struct pool *pool)
{
    struct job *job;
    while ((job = dispatch_pop_waiting(pool)) != NULL)
        dispatch_refuse(pool, job, VERDICT_RELEASED, NULL);
}

/* Puts jobs in front of the line, in their order: they were claimed before those that
 * wait. */
void
dispatch_wait_again(struct pool *pool, struct list *jobs)
{
    while (!list_empty(jobs)) {
        struct job *job = list_entry(jobs->prev, struct job, link);
        list_remove(&job->link);
        job->started_ns = job->late_ns = 0;
        pool->cancels = pool->cancels || job->cancel != JOB_GOES_ON;
        list_push_front(&pool->waiting, &job->link);
        pool->n_waiting++;
    }
}

void
pool_take_back(struct pool *pool, struct worker *worker)
{
    struct list unsent;
    list_init(&unsent);
    worker_take_unsent(worker, &unsent);
    dispatch_wait_again(pool, &unsent);
    pool_ask_for_turn(pool);
}

/* ---- cancelled jobs ---- */

/* The requests reach the jobs where they are by now. */
void
dispatch_cancels(struct pool *pool)
{
    struct list taken, *next;
    if (!pool->cancels)
        return;
    pool->cancels = false;
    list_init(&taken);
    for (struct list *at = pool->waiting.next; at != &pool->waiting; at = next) {
        next = at->next;
        if (list_entry(at, struct job, link)->cancel == JOB_GOES_ON)
            continue;
        pool->n_waiting--;
        list_remove(at);
        list_push(&taken, at);
    }
    for (int i = 0; i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!worker)
            continue;
        worker_cancel(worker, &taken);
        pool_place(pool, worker);
    }
    while ((next = list_pop(&taken)) != NULL)
        dispatch_refuse(pool, list_entry(next, struct job, link), VERDICT_RELEASED, NULL);
}

/* ---- handing out jobs ---- */

/* A frame that the worker would have to refuse, and die of it, is not sent. */
static bool
is_too_large(const struct worker *worker, const struct job *job)
{
    return job->args_len + job->meta_len + 6 * strlen(job->kind) + FRAME_OVERHEAD >
           worker->program->max_frame;
}

static void
refuse_too_large(struct pool *pool, const struct worker *worker, struct job *job)
{
    char error[160];
    snprintf(
        error, sizeof error,
        "args and meta take %zu bytes, too many for a message to a worker (max_frame = "
        "%zu bytes)",
        job->args_len + job->meta_len, worker->program->max_frame);
    dispatch_refuse(pool, job, VERDICT_DISCARD,
                    error); /* no attempt would end otherwise */
}

static void
refuse_unhandled(struct pool *pool, const struct worker *worker, struct job *job)
{
    char error[256];
    snprintf(error, sizeof error, "no handler for kind \"%.200s\" in %s", job->kind,
             worker->program->queue->argv[0]);
    dispatch_refuse(pool, job, VERDICT_UNHANDLED, error);
}

/* While one program takes the place of another, their kinds may differ. The worker with
 * room that handles this one; NULL: none does. */
static struct worker *
other_that_handles(struct pool *pool, const char *kind)
{
    for (int i = 0; pool->rolling && i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (worker && worker->placed_at != WORKER_NOWHERE && has_room(pool, worker) &&
            worker_handles(worker, kind))
            return worker;
    }
    return NULL;
}

/* Whether somebody will have room for that kind before the roll is over, as far as can be
 * told: a worker that stays and handles it has none now, or none of the newest program
 * has said yet what it handles. */
static bool
may_be_handled(const struct pool *pool, const char *kind)
{
    bool known = false;
    for (int i = 0; pool->rolling && i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (!worker || !worker->said_hello || worker->wanted != WANTED_UP)
            continue;
        bool stays = !worker->cordoned && worker->program->queue->mode == QUEUE_COMMAND;
        if (stays && worker_handles(worker, kind))
            return true;
        known = known || worker->program == pool->program;
    }
    return pool->rolling && !known && pool->program->failed_boots == 0;
}

/* It is not for any worker that has room. It does not wait here: others would wait behind
 * it, and another node may have room. */
static void
put_off_or_refuse(struct pool *pool, const struct worker *asked, struct job *job)
{
    if (may_be_handled(pool, job->kind))
        dispatch_refuse(pool, job, VERDICT_SNOOZE, NULL);
    else
        refuse_unhandled(pool, asked, job);
}

/* It has as many jobs as it should, or has been at one for too long to get more behind
 * it. */
static bool
has_enough(struct pool *pool, const struct worker *worker, uint64_t now_ns)
{
    if (!has_room(pool, worker))
        return true;
    if (pool->holds) /* how long it is at a job cannot be seen */
        return false;
    return worker->n_jobs >= worker->concurrency &&
           mailbox_is_stuck(&pool->mailbox, now_ns - worker_busy_since(worker));
}

void
dispatch_to_workers(struct pool *pool)
{
    uint64_t now_ns = clock_ns();
    struct worker *worker;
    while (pool->n_waiting > 0 && (worker = least_loaded(pool)) != NULL) {
        if (has_enough(pool, worker, now_ns)) {
            pool_unplace(pool, worker); /* until it answers */
            continue;
        }
        struct job *job = dispatch_pop_waiting(pool);
        struct worker *asked = worker;
        if (!worker_handles(worker, job->kind))
            worker = other_that_handles(pool, job->kind);
        if (!worker) {
            put_off_or_refuse(pool, asked, job);
        } else if (is_too_large(worker, job)) {
            refuse_too_large(pool, worker, job);
        } else {
            worker_give(worker, job, now_ns);
            pool_place(pool, worker);
            dispatch_make_dirty(pool, worker);
        }
    }
}

void
dispatch_flush(struct pool *pool)
{
    struct list *link;
    while ((link = list_pop(&pool->dirty)) != NULL)
        worker_flush(list_entry(link, struct worker, dirty));
}

void
dispatch_return_unsent(struct pool *pool)
{
    pool->gives_back = false;
    for (int i = 0; i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!worker)
            continue;
        pool_take_back(pool, worker);
        pool_place(pool, worker);
    }
    pool_release_waiting(pool);
}
