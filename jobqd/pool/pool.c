/* pool.c: implements pool.h: its states and turns, and what is made of what workers say.
 * Which worker gets which job is dispatch.c's business, which workers there are
 * workerset.c's.
 *
 * Everything that calls the owner, starts a process or hands out jobs happens in `turn`,
 * once a loop turn, or in the callbacks of a worker's own events; the functions of pool.h
 * only note what is wanted and ask for a turn.
 */
#include "jobqd/pool/pool_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/jsontree.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/proc/spawn.h"
#include "libjobq/duration.h"

/* SOON_MS: what can be started within it may be claimed. */
enum { SOON_MS = 2000 };

/* A property of the process: all of them share its time. */
static size_t n_exec_pools;

static void on_turn(uv_idle_t *idle);
static void on_timer(uv_timer_t *timer);
static void on_start_turn(struct turn *start_turn);
static void on_boots_room(struct boots_asker *asker);

static void
set_state(struct pool *pool, enum pool_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        POOL_STATES(X)
#undef X
    };
    assert(state > pool->state);
    pool->state = state;
    log_debug(pool->subject, "the pool waits for %s", meanings[state]);
}

static void
count_among_exec(struct pool *pool, bool counts)
{
    if (counts != pool->counts_as_exec)
        n_exec_pools += counts ? 1 : (size_t)-1;
    pool->counts_as_exec = counts;
}

/* ---- what workers say ---- */

static void
on_worker_ready(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    workerset_hello(pool, worker);
    pool_note_concurrency(pool, worker);
    pool_place(pool, worker);
    pool->room_changed = true;
    pool_ask_for_turn(pool);
}

static void
on_worker_withdrawn(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    pool_unplace(pool, worker);
    pool_take_back(pool, worker);
}

static void
on_worker_verdict(void *owner, struct worker *worker, struct job *job,
                  const struct verdict *verdict)
{
    struct pool *pool = owner;
    pool_place(pool, worker);
    if (verdict_error_kind(verdict->kind) == NULL) {
        dispatch_hand_back(pool, job, verdict);
        return;
    }
    struct verdict named = *verdict;
    named.slot = worker->slot + 1;
    named.pid = (long)worker->child.pid;
    dispatch_hand_back(pool, job, &named);
}

static void
on_worker_answers(void *owner, struct worker *worker, size_t n, uint64_t elapsed_ns)
{
    struct pool *pool = owner;
    if (elapsed_ns > 0)
        mailbox_answered(&pool->mailbox, n, elapsed_ns);
    workerset_answered(pool, worker);
    pool_place(pool, worker); /* it may have been passed over for being slow */
    if (!list_empty(&worker->unsent))
        dispatch_make_dirty(pool, worker);
    pool_ask_for_turn(pool);
}

static void
on_worker_over_memory(void *owner, struct worker *worker)
{
    workerset_replace(owner, worker, DUE_MEMORY);
}

static void
on_worker_end(void *owner, struct worker *worker, const struct outcome *outcome)
{
    struct pool *pool = owner;
    list_remove(&worker->dirty);
    dispatch_wait_again(pool, &worker->sent);
    if (outcome->bad || outcome->kind == OUTCOME_CRASHED ||
        outcome->kind == OUTCOME_MEMORY)
        pool->crashes++;
    workerset_ended(pool, worker, outcome);
    pool->room_changed = true;
    pool_ask_for_turn(pool);
}

static void
on_worker_gone(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    workerset_gone(pool, worker);
    pool_ask_for_turn(pool);
}

static void
on_worker_progress(void *owner, struct worker *worker, const struct job *job, double done,
                   const char *note)
{
    struct pool *pool = owner;
    (void)worker;
    if (pool->events->on_progress)
        pool->events->on_progress(pool->owner, job, done, note);
}

static const struct worker_events worker_events = {
    .on_ready = on_worker_ready,
    .on_withdrawn = on_worker_withdrawn,
    .on_verdict = on_worker_verdict,
    .on_progress = on_worker_progress,
    .on_answers = on_worker_answers,
    .on_over_memory = on_worker_over_memory,
    .on_end = on_worker_end,
    .on_gone = on_worker_gone,
};

/* ---- handing out jobs ---- */

static void
assign_to_programs(struct pool *pool)
{
    while (pool->n_waiting > 0 && pool->n_filled < pool->n_wanted) {
        if (pool_pause_left_ms(pool) > 0 || !pool_may_start(pool))
            return;
        struct job *job = dispatch_pop_waiting(pool);
        pool->room_changed = true; /* another may wait in its place */
        if (workerset_start_exec(pool, job) < 0)
            dispatch_refuse(pool, job, VERDICT_RELEASED, NULL);
    }
}

/* Nobody will come to take what waits by now, and who is there may have a long job:
 * another node may take it. */
static bool
nobody_will_come(const struct pool *pool)
{
    return pool->n_waiting > 0 && pool_nobody_comes(pool);
}

/* ---- the turn ---- */

static void
on_handle_closed(uv_handle_t *handle)
{
    struct pool *pool = handle->data;
    if (--pool->n_handles > 0)
        return;
    set_state(pool, POOL_STOPPED);
    pool->events->on_stopped(pool->owner); /* may free the pool */
}

static void
close_handles(struct pool *pool)
{
    set_state(pool, POOL_CLOSING);
    watch_leave(pool->watch);
    pool->watch = NULL;
    count_among_exec(pool, false);
    turn_leave(&pool->start_turn);
    boots_leave(&pool->boots);
    turns_leave();
    uv_close((uv_handle_t *)&pool->turn_soon, on_handle_closed);
    uv_close((uv_handle_t *)&pool->timer, on_handle_closed);
}

static void
turn(struct pool *pool)
{
    loop_is_at("handing out jobs", pool->program->queue->name);
    if (pool->frozen) {
        pool_release_waiting(pool);
        pool->events->on_room(pool->owner);
        return;
    }
    dispatch_cancels(pool);
    if (pool->gives_back)
        dispatch_return_unsent(pool);
    if (pool->state == POOL_OPEN) {
        workerset_step(pool);
        if (pool_is_exec(pool))
            assign_to_programs(pool);
        else
            dispatch_to_workers(pool);
    }
    if (pool->state != POOL_OPEN || nobody_will_come(pool))
        pool_release_waiting(pool);
    dispatch_flush(pool);
    if (pool->state != POOL_OPEN) {
        if (pool->n_lives == 0 && pool->n_waiting == 0 && list_empty(&pool->nursed))
            close_handles(pool);
    } else if (pool->room_changed) {
        pool->room_changed = false;
        pool->events->on_room(pool->owner);
    }
}

static void
on_turn(uv_idle_t *idle)
{
    uv_idle_stop(idle); /* whoever finds more to do asks again */
    turn(idle->data);
}

static void
on_start_turn(struct turn *start_turn)
{
    struct pool *pool = list_entry(start_turn, struct pool, start_turn);
    pool->may_start = true;
    turn(pool);
    pool->may_start = false;
}

static void
on_boots_room(struct boots_asker *asker)
{
    pool_ask_for_turn(list_entry(asker, struct pool, boots));
}

static void
on_timer(uv_timer_t *timer)
{
    struct pool *pool = timer->data;
    if (pool->state == POOL_DRAINING) {
        pool_kill(pool);
        return;
    }
    pool->needs_reconcile = true;
    pool->room_changed = true; /* a pause may be over */
    pool_ask_for_turn(pool);
}

/* ---- pool.h ---- */

/* What was learned about the time of a job holds, unless the depth is another matter now.
 */
static void
set_mailbox(struct pool *pool, const struct queue_config *queue)
{
    struct mailbox mailbox;
    mailbox_init(&mailbox, queue->mode == QUEUE_EXEC ? 1 : (size_t)queue->mailbox);
    assert(mailbox_most(&mailbox) <= MAILBOX_MAX);
    if (pool->mailbox.depth == 0 || mailbox.fixed != pool->mailbox.fixed)
        pool->mailbox = mailbox;
}

static void
free_memory(struct pool *pool)
{
    workerset_clear(pool);
    intensity_clear(&pool->intensity);
    watch_leave(pool->watch);
    free(pool->chunk);
    free(pool);
}

int
pool_new(struct pool **out, uv_loop_t *loop, const struct queue_config *queue,
         size_t max_frame, const struct pool_events *events, void *owner)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return JOBQ_ENOMEM;
    snprintf(pool->subject, sizeof pool->subject, "queue %s", queue->name);
    pool->events = events;
    pool->owner = owner;
    pool->on_turn = on_turn;
    pool->on_timer = on_timer;
    pool->worker_events = &worker_events;
    pool->random = (uint32_t)clock_ns() | 1u;
    list_init(&pool->waiting);
    list_init(&pool->dirty);
    list_init(&pool->nursed);
    for (size_t i = 0; i <= MAILBOX_MAX; i++)
        list_init(&pool->by_load[i]);
    set_mailbox(pool, queue);
    pool->concurrency = 1;
    pool->chunk = malloc(IO_CHUNK);
    pool->watch = watch_join(loop);
    int rc = pool->chunk && pool->watch
                 ? workerset_set_program(pool, loop, queue, max_frame)
                 : JOBQ_ENOMEM;
    if (rc < 0) {
        free_memory(pool);
        return rc;
    }
    rc = turns_join(loop);
    if (rc < 0) {
        free_memory(pool);
        return rc;
    }
    turn_init(&pool->start_turn, TURN_START, on_start_turn);
    list_init(&pool->boots.link);
    pool->boots.on_room = on_boots_room;
    spawn_prepare();
    uv_idle_init(loop, &pool->turn_soon);
    uv_timer_init(loop, &pool->timer);
    pool->turn_soon.data = pool->timer.data = pool;
    pool->n_handles = 2;
    count_among_exec(pool, pool_is_exec(pool));
    pool->room_changed = pool_is_exec(pool);
    pool_ask_for_turn(pool);
    *out = pool;
    return 0;
}

int
pool_configure(struct pool *pool, const struct queue_config *queue, size_t max_frame)
{
    if (pool->state != POOL_OPEN)
        return 0;
    int rc = workerset_set_program(pool, pool->program->loop, queue, max_frame);
    if (rc < 0)
        return rc;
    set_mailbox(pool, queue);
    count_among_exec(pool, pool_is_exec(pool));
    pool->room_changed = true;
    pool_ask_for_turn(pool);
    return 0;
}

void
pool_resize(struct pool *pool, int n)
{
    pool->n_wanted = n;
    pool->needs_reconcile = true;
    pool->room_changed = true;
    pool_ask_for_turn(pool);
}

void
pool_free(struct pool *pool)
{
    if (!pool)
        return;
    assert(pool->state == POOL_STOPPED);
    free_memory(pool);
}

bool
pool_is_backing_off(const struct pool *pool)
{
    return pool_pause_left_ms(pool) > 0;
}

bool
pool_nobody_comes(const struct pool *pool)
{
    return pool->n_wanted == 0 || pool_is_backing_off(pool);
}

/* For exec programs. */
static size_t
free_places(const struct pool *pool)
{
    if (pool_pause_left_ms(pool) > 0 || pool->n_filled >= pool->n_wanted)
        return 0;
    return (size_t)(pool->n_wanted - pool->n_filled);
}

/* The part of what can be started soon that falls to each queue. */
static size_t
starts_soon(void)
{
    size_t most = turns_starts_within(SOON_MS);
    return most > n_exec_pools ? most / n_exec_pools : 1;
}

bool
pool_starts_late(const struct pool *pool)
{
    return pool_is_exec(pool) && pool->n_waiting > 0;
}

size_t
pool_room(const struct pool *pool)
{
    size_t room = 0;
    if (pool->state != POOL_OPEN || pool->n_wanted == 0)
        return 0; /* those that are to go may not know it yet */
    if (pool_is_exec(pool)) {
        room = free_places(pool);
        room = room < starts_soon() ? room : starts_soon();
    } else {
        size_t depth = dispatch_depth(pool, pool->concurrency);
        for (size_t load = 0; load < depth; load++)
            room += pool->n_by_load[load] * (depth - load);
    }
    return room > pool->n_waiting ? room - pool->n_waiting : 0;
}

size_t
pool_idle(const struct pool *pool)
{
    size_t idle = 0;
    size_t most = pool->n_wanted > 0 ? pool->concurrency : 0;
    if (pool_is_exec(pool)) {
        idle = free_places(pool);
        most = 0;
    }
    for (size_t load = 0; load < most; load++)
        idle += pool->n_by_load[load] * (pool->concurrency - load);
    return idle > pool->n_waiting ? idle - pool->n_waiting : 0;
}

void
pool_give(struct pool *pool, struct job *job)
{
    assert(pool->state < POOL_CLOSING);
    job->started_ns = 0;
    list_push(&pool->waiting, &job->link);
    pool->n_waiting++;
    pool_ask_for_turn(pool);
}

void
pool_give_back(struct pool *pool)
{
    pool->gives_back = true;
    pool_ask_for_turn(pool);
}

void
pool_cancel(struct pool *pool, struct job *job)
{
    job->cancel = JOB_CANCEL_ASKED;
    pool->cancels = true;
    pool_ask_for_turn(pool);
}

void
pool_hold_answers(struct pool *pool, bool on)
{
    if (pool->holds == on)
        return;
    pool->holds = on;
    log_debug(pool->subject, on ? "not reading answers: they wait in the workers' sockets"
                                : "reading answers again");
    for (int i = 0; i < pool->n_slots; i++) {
        if (pool->slots[i]->worker)
            worker_hold(pool->slots[i]->worker, on);
    }
}

/* Nothing new for anybody, and a last word to each. */
static void
begin_draining(struct pool *pool)
{
    set_state(pool, POOL_DRAINING);
    uv_timer_stop(&pool->timer);
    forkservers_close(pool, false);
    for (int i = 0; i < pool->n_slots; i++) {
        if (pool->slots[i]->worker)
            worker_stop(pool->slots[i]->worker);
    }
}

void
pool_stop(struct pool *pool, int64_t grace_ms)
{
    if (pool->state > POOL_DRAINING)
        return;
    if (pool->state == POOL_OPEN)
        begin_draining(pool);
    uint64_t grace = (uint64_t)(grace_ms > 0 ? grace_ms : 0);
    bool counting = uv_is_active((uv_handle_t *)&pool->timer);
    if (!counting || grace < uv_timer_get_due_in(&pool->timer))
        uv_timer_start(&pool->timer, on_timer, grace, 0);
    pool_ask_for_turn(pool);
}

void
pool_kill(struct pool *pool)
{
    if (pool->state > POOL_DRAINING)
        return;
    set_state(pool, POOL_KILLING);
    uv_timer_stop(&pool->timer);
    forkservers_close(pool, true);
    for (int i = 0; i < pool->n_slots; i++) {
        if (pool->slots[i]->worker)
            worker_kill(pool->slots[i]->worker);
    }
    pool_ask_for_turn(pool);
}

/* Whose kinds are the pool's: of the last program that came up, where it can be. */
static const struct worker *
who_knows_kinds(const struct pool *pool)
{
    const struct worker *found = NULL;
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (!worker || !worker->said_hello || worker->wanted != WANTED_UP)
            continue;
        if (worker->program == pool->last_good)
            return worker;
        found = found ? found : worker;
    }
    return found;
}

void
pool_add_kinds(const struct pool *pool, struct cJSON *object)
{
    enum { MAX_BYTES = 16 * 1024 };
    const struct worker *worker = who_knows_kinds(pool);
    if (!worker || !worker->kinds)
        return;
    size_t bytes = 1; /* [ and ], without the last comma */
    for (size_t i = 0; i < worker->n_kinds; i++)
        bytes += strlen(worker->kinds[i]) + strlen("\"\",");
    if (bytes > MAX_BYTES)
        return;
    cJSON *kinds = tree_add_list(object, "kinds");
    for (size_t i = 0; i < worker->n_kinds; i++)
        tree_add_text(kinds, NULL, worker->kinds[i]);
}

void
pool_status(const struct pool *pool, struct pool_status *out)
{
    bool open = pool->state == POOL_OPEN;
    *out = (struct pool_status){.wanted = open ? pool->n_wanted : 0,
                                .restarts = pool->restarts,
                                .crashes = pool->crashes,
                                .backoff_ms_left = pool_pause_left_ms(pool)};
    out->backing_off = out->backoff_ms_left > 0;
    out->failed_boots = pool->program->failed_boots;
    out->unproven =
        out->wanted > 0 && !pool_is_exec(pool) && pool->last_good != pool->program;
    out->trouble = out->backing_off || out->failed_boots > 0 ? pool->trouble : "";
    if (open && pool_is_exec(pool) && pool->n_filled < pool->n_wanted)
        out->ready = pool->n_wanted - pool->n_filled;
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (!worker)
            continue;
        out->busy += worker->n_jobs > 0;
        bool outdated = worker->program != pool->program;
        out->outdated += outdated;
        out->outdated_idle += outdated && worker->n_jobs == 0;
        if (worker == pool->surge)
            out->surge++;
        else if (worker->state <= WORKER_BOOTING)
            out->booting++;
        else if (worker->state > WORKER_BUSY && worker->state != WORKER_CANCELLING)
            out->stopping++;
        else
            out->ready += worker->program->queue->mode == QUEUE_COMMAND;
    }
    if (!pool_is_exec(pool) && out->ready < out->wanted)
        out->missing = out->wanted - out->ready;
}
