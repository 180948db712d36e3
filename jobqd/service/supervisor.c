/* supervisor.c: implements pool.h. Which worker gets which job, and what replaces a
 * process that has ended.
 *
 * Everything that calls the owner, starts a process or hands out jobs happens in `turn`,
 * once a loop turn, or in the callbacks of a worker's own events; the functions of pool.h
 * only note what is wanted and ask for a turn.
 */
#include "jobqd/service/pool.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/log.h"
#include "jobqd/pure/intensity.h"
#include "jobqd/pure/mailbox.h"
#include "jobqd/service/launch.h"
#include "jobqd/service/worker.h"

/* STARTS_A_TURN: a fork costs up to a millisecond, and the loop has other work.
 * FRAME_OVERHEAD: a job's frame around its args, meta, kind and queue. */
enum { STARTS_A_TURN = 8, FRAME_OVERHEAD = 256 };

/* X(enumerator, what we are waiting for) */
#define POOL_STATES(X)                                                                   \
    X(POOL_OPEN, "jobs")                                                                 \
    X(POOL_DRAINING, "the workers to finish what they hold")                             \
    X(POOL_KILLING, "the killed workers' exits")                                         \
    X(POOL_CLOSING, "its handles to close")                                              \
    X(POOL_STOPPED, "pool_free")

enum pool_state {
#define X(name, meaning) name,
    POOL_STATES(X)
#undef X
};

/* A place for one process. */
struct slot {
    struct worker *worker;   /* NULL: empty */
    struct output_rate rate; /* belongs to the place, not to the process: see output.h */
    bool replaces;           /* its last process ended badly */
};

struct pool {
    enum pool_state state;
    char subject[160]; /* for the log: "queue NAME" */
    const struct queue_config *queue;
    const struct pool_events *events;
    void *owner;
    struct worker_program program;

    struct slot *slots; /* queue->concurrency of them */
    int n_slots;
    int n_filled; /* slots with a process */
    int n_lives;  /* workers whose memory is still in use, also after their slot was given
                     on */

    struct list waiting; /* jobs without a worker */
    size_t n_waiting;
    struct list
        *by_load; /* workers that take jobs, by how many they hold: 0 … depth_most */
    size_t *n_by_load;
    size_t depth_most;
    size_t lowest;     /* no worker holds fewer jobs */
    struct list dirty; /* workers with something to write */
    struct mailbox mailbox;

    struct intensity intensity;
    uint32_t random;
    bool room_changed; /* on_room is owed */
    uint64_t restarts;
    uint64_t crashes;

    uv_idle_t turn_soon; /* runs `turn` before the loop waits again */
    uv_timer_t timer;    /* POOL_OPEN: the pause's end; POOL_DRAINING: the grace's */
    int n_handles;
};

static void on_turn(uv_idle_t *idle);
static void on_timer(uv_timer_t *timer);

static void
ask_for_turn(struct pool *pool)
{
    if (pool->state != POOL_CLOSING && pool->state != POOL_STOPPED)
        uv_idle_start(&pool->turn_soon, on_turn);
}

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

/* xorshift: jitter needs no better. */
static uint32_t
next_random(struct pool *pool)
{
    pool->random ^= pool->random << 13;
    pool->random ^= pool->random >> 17;
    pool->random ^= pool->random << 5;
    return pool->random;
}

static bool
is_exec(const struct pool *pool)
{
    return pool->queue->mode == QUEUE_EXEC;
}

static int64_t
pause_left_ms(const struct pool *pool)
{
    return intensity_pause_left(&pool->intensity, (int64_t)(uv_hrtime() / 1000000u));
}

/* ---- which worker is next ---- */

/* Takes the worker off the list that it was on, and puts it where it belongs now:
 * nowhere, if it takes no jobs. */
static void
unplace(struct pool *pool, struct worker *worker)
{
    if (worker->placed_at == WORKER_NOWHERE)
        return;
    pool->n_by_load[worker->placed_at]--;
    worker->placed_at = WORKER_NOWHERE;
    list_remove(&worker->place);
}

static void
place(struct pool *pool, struct worker *worker)
{
    unplace(pool, worker);
    if (!worker_takes_jobs(worker) || worker->n_jobs > pool->depth_most)
        return;
    size_t load = worker->n_jobs;
    list_push(&pool->by_load[load], &worker->place);
    pool->n_by_load[load]++;
    worker->placed_at = load;
    if (load < pool->lowest)
        pool->lowest = load;
}

/* The worker with the fewest jobs that has room for one; NULL: none has. */
static struct worker *
least_loaded(struct pool *pool)
{
    size_t depth = mailbox_depth(&pool->mailbox);
    while (pool->lowest < depth && pool->n_by_load[pool->lowest] == 0)
        pool->lowest++;
    if (pool->lowest >= depth)
        return NULL;
    return list_entry(pool->by_load[pool->lowest].next, struct worker, place);
}

static void
make_dirty(struct pool *pool, struct worker *worker)
{
    list_remove(&worker->dirty);
    list_push(&pool->dirty, &worker->dirty);
}

/* ---- verdicts ---- */

static void
hand_back(struct pool *pool, struct job *job, const struct verdict *verdict)
{
    pool->room_changed = true;
    pool->events->on_verdict(pool->owner, job, verdict);
}

/* A verdict on a job that no process has seen. */
static void
refuse(struct pool *pool, struct job *job, enum verdict_kind kind, const char *error)
{
    struct verdict verdict = {.kind = kind,
                              .error = error,
                              .delay_ms = -1,
                              .exit_code = -1,
                              .run_us = -1,
                              .cpu_us = -1,
                              .max_rss_kb = -1};
    hand_back(pool, job, &verdict);
}

static struct job *
pop_waiting(struct pool *pool)
{
    struct list *link = list_pop(&pool->waiting);
    if (!link)
        return NULL;
    pool->n_waiting--;
    return list_entry(link, struct job, link);
}

static void
release_waiting(struct pool *pool)
{
    struct job *job;
    while ((job = pop_waiting(pool)) != NULL)
        refuse(pool, job, VERDICT_RELEASED, NULL);
}

/* Puts jobs in front of the line, in their order: they were claimed before those that
 * wait. */
static void
wait_again(struct pool *pool, struct list *jobs)
{
    while (!list_empty(jobs)) {
        struct job *job = list_entry(jobs->prev, struct job, link);
        list_remove(&job->link);
        job->started_ns = 0;
        list_push_front(&pool->waiting, &job->link);
        pool->n_waiting++;
    }
}

/* ---- what workers say ---- */

static void
on_worker_ready(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    place(pool, worker);
    pool->room_changed = true;
    ask_for_turn(pool);
}

static void
on_worker_withdrawn(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    struct list unsent;
    unplace(pool, worker);
    list_init(&unsent);
    worker_take_unsent(worker, &unsent);
    wait_again(pool, &unsent);
    ask_for_turn(pool);
}

static void
on_worker_verdict(void *owner, struct worker *worker, struct job *job,
                  const struct verdict *verdict)
{
    struct pool *pool = owner;
    place(pool, worker);
    hand_back(pool, job, verdict);
}

static void
on_worker_answers(void *owner, struct worker *worker, size_t n, uint64_t elapsed_ns)
{
    struct pool *pool = owner;
    mailbox_answered(&pool->mailbox, n, elapsed_ns);
    place(pool, worker); /* it may have been passed over for being slow */
    if (!list_empty(&worker->unsent))
        make_dirty(pool, worker);
    ask_for_turn(pool);
}

static void
note_bad_end(struct pool *pool)
{
    if (pause_left_ms(pool) > 0)
        return;
    int64_t pause_ms = intensity_bad_end(
        &pool->intensity, (int64_t)(uv_hrtime() / 1000000u), next_random(pool));
    if (pause_ms == 0)
        return;
    log_error(pool->subject,
              "more than %d processes ended badly within %" PRId64
              " ms: nothing is started for %" PRId64 " ms",
              pool->queue->max_restarts, pool->queue->max_seconds_ms, pause_ms);
    uv_timer_start(&pool->timer, on_timer, (uint64_t)pause_ms, 0);
}

static void
on_worker_end(void *owner, struct worker *worker, const struct outcome *outcome)
{
    struct pool *pool = owner;
    struct slot *slot = &pool->slots[worker->slot];
    list_remove(&worker->dirty);
    wait_again(pool, &worker->jobs);
    slot->worker = NULL;
    slot->replaces = outcome->bad;
    pool->n_filled--;
    if (outcome->bad || outcome->kind == OUTCOME_CRASHED)
        pool->crashes++;
    if (outcome->bad && pool->state == POOL_OPEN)
        note_bad_end(pool);
    pool->room_changed = true;
    ask_for_turn(pool);
}

static void
on_worker_gone(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    worker_free(worker);
    pool->n_lives--;
    ask_for_turn(pool);
}

static const struct worker_events worker_events = {
    .on_ready = on_worker_ready,
    .on_withdrawn = on_worker_withdrawn,
    .on_verdict = on_worker_verdict,
    .on_answers = on_worker_answers,
    .on_end = on_worker_end,
    .on_gone = on_worker_gone,
};

/* ---- starting processes ---- */

/* Returns 0, or a negative JOBQ_E… when there is no process: that counts as one that
 * ended badly. */
static int
fill(struct pool *pool, struct slot *slot, struct job *job)
{
    jobq_error err;
    struct worker *worker;
    int rc = worker_new(&worker, &pool->program, (int)(slot - pool->slots), &slot->rate,
                        job, &worker_events, pool, &err);
    if (rc < 0) {
        log_error(pool->subject, "cannot start a process: %s", err.message);
        slot->replaces = true;
        note_bad_end(pool);
        return rc;
    }
    if (slot->replaces)
        pool->restarts++;
    slot->replaces = false;
    slot->worker = worker;
    pool->n_filled++;
    pool->n_lives++;
    return 0;
}

static struct slot *
empty_slot(struct pool *pool)
{
    for (int i = 0; i < pool->n_slots; i++) {
        if (!pool->slots[i].worker)
            return &pool->slots[i];
    }
    return NULL;
}

/* Command mode: every slot is to have a process. */
static void
start_missing(struct pool *pool)
{
    for (int started = 0; pool->n_filled < pool->n_slots; started++) {
        if (pause_left_ms(pool) > 0)
            return;
        if (started == STARTS_A_TURN) {
            ask_for_turn(pool);
            return;
        }
        if (fill(pool, empty_slot(pool), NULL) < 0)
            ask_for_turn(pool);
    }
}

/* ---- handing out jobs ---- */

/* A frame that the worker would have to refuse, and die of it, is not sent. */
static bool
is_too_large(const struct pool *pool, const struct job *job)
{
    return job->args_len + job->meta_len + 6 * strlen(job->kind) + FRAME_OVERHEAD >
           pool->program.max_frame;
}

static void
refuse_too_large(struct pool *pool, struct job *job)
{
    char error[160];
    snprintf(error, sizeof error,
             "its args and meta of %zu bytes do not fit into a frame: max_frame is %zu",
             job->args_len + job->meta_len, pool->program.max_frame);
    refuse(pool, job, VERDICT_DISCARD, error); /* no attempt would end otherwise */
}

static void
refuse_unhandled(struct pool *pool, struct job *job)
{
    char error[256];
    snprintf(error, sizeof error, "no handler for kind \"%.200s\" in %s", job->kind,
             pool->queue->argv[0]);
    refuse(pool, job, VERDICT_UNHANDLED, error);
}

static void
assign_to_workers(struct pool *pool)
{
    uint64_t now_ns = uv_hrtime();
    struct worker *worker;
    while (pool->n_waiting > 0 && (worker = least_loaded(pool)) != NULL) {
        if (worker->n_jobs > 0 &&
            mailbox_is_stuck(&pool->mailbox, now_ns - worker_busy_since(worker))) {
            unplace(pool, worker); /* until it answers */
            continue;
        }
        struct job *job = pop_waiting(pool);
        if (!worker_handles(worker, job->kind)) {
            refuse_unhandled(pool, job);
        } else if (is_too_large(pool, job)) {
            refuse_too_large(pool, job);
        } else {
            worker_give(worker, job, now_ns);
            place(pool, worker);
            make_dirty(pool, worker);
        }
    }
}

static void
assign_to_programs(struct pool *pool)
{
    struct slot *slot;
    for (int started = 0; pool->n_waiting > 0 && (slot = empty_slot(pool)) != NULL;
         started++) {
        if (pause_left_ms(pool) > 0)
            return;
        if (started == STARTS_A_TURN) {
            ask_for_turn(pool);
            return;
        }
        struct job *job = pop_waiting(pool);
        if (fill(pool, slot, job) < 0)
            refuse(pool, job, VERDICT_RELEASED, NULL);
    }
}

static void
flush_dirty(struct pool *pool)
{
    struct list *link;
    while ((link = list_pop(&pool->dirty)) != NULL)
        worker_flush(list_entry(link, struct worker, dirty));
}

/* During a pause with no process left nobody will take what waits: another node may. */
static bool
nobody_will_come(const struct pool *pool)
{
    return pool->n_waiting > 0 && pool->n_filled == 0 && pause_left_ms(pool) > 0;
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
    uv_close((uv_handle_t *)&pool->turn_soon, on_handle_closed);
    uv_close((uv_handle_t *)&pool->timer, on_handle_closed);
}

static void
on_turn(uv_idle_t *idle)
{
    struct pool *pool = idle->data;
    uv_idle_stop(idle); /* whoever finds more to do asks again */
    if (pool->state == POOL_OPEN && is_exec(pool)) {
        assign_to_programs(pool);
    } else if (pool->state == POOL_OPEN) {
        start_missing(pool);
        assign_to_workers(pool);
    }
    if (pool->state != POOL_OPEN || nobody_will_come(pool))
        release_waiting(pool);
    flush_dirty(pool);
    if (pool->state != POOL_OPEN) {
        if (pool->n_lives == 0 && pool->n_waiting == 0)
            close_handles(pool);
    } else if (pool->room_changed) {
        pool->room_changed = false;
        pool->events->on_room(pool->owner);
    }
}

static void
on_timer(uv_timer_t *timer)
{
    struct pool *pool = timer->data;
    if (pool->state == POOL_DRAINING) {
        pool_kill(pool);
        return;
    }
    int64_t left_ms = pause_left_ms(pool);
    if (left_ms > 0) { /* the loop's clock is a little ahead */
        uv_timer_start(&pool->timer, on_timer, (uint64_t)left_ms, 0);
        return;
    }
    pool->room_changed = true;
    ask_for_turn(pool);
}

/* ---- pool.h ---- */

static int
allocate(struct pool *pool)
{
    const struct queue_config *queue = pool->queue;
    pool->n_slots = queue->concurrency;
    pool->depth_most = mailbox_most(&pool->mailbox);
    pool->slots = calloc((size_t)pool->n_slots, sizeof pool->slots[0]);
    pool->by_load = calloc(pool->depth_most + 1, sizeof pool->by_load[0]);
    pool->n_by_load = calloc(pool->depth_most + 1, sizeof pool->n_by_load[0]);
    pool->program.chunk = malloc(IO_CHUNK);
    pool->program.environment =
        launch_environment(queue, pool->program.max_frame, environ);
    if (!pool->slots || !pool->by_load || !pool->n_by_load || !pool->program.chunk ||
        !pool->program.environment)
        return JOBQ_ENOMEM;
    for (size_t i = 0; i <= pool->depth_most; i++)
        list_init(&pool->by_load[i]);
    return intensity_init(&pool->intensity, (size_t)queue->max_restarts,
                          queue->max_seconds_ms);
}

static void
free_memory(struct pool *pool)
{
    intensity_clear(&pool->intensity);
    free(pool->program.environment);
    free(pool->program.chunk);
    free(pool->n_by_load);
    free(pool->by_load);
    free(pool->slots);
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
    pool->queue = queue;
    pool->events = events;
    pool->owner = owner;
    pool->program =
        (struct worker_program){.loop = loop, .queue = queue, .max_frame = max_frame};
    pool->random = (uint32_t)uv_hrtime() | 1u;
    list_init(&pool->waiting);
    list_init(&pool->dirty);
    mailbox_init(&pool->mailbox, queue->mode == QUEUE_EXEC ? 1 : (size_t)queue->mailbox);
    int rc = allocate(pool);
    if (rc < 0) {
        free_memory(pool);
        return rc;
    }
    spawn_raise_file_limit();
    uv_idle_init(loop, &pool->turn_soon);
    uv_timer_init(loop, &pool->timer);
    pool->turn_soon.data = pool->timer.data = pool;
    pool->n_handles = 2;
    pool->room_changed = is_exec(pool);
    ask_for_turn(pool);
    *out = pool;
    return 0;
}

void
pool_free(struct pool *pool)
{
    if (!pool)
        return;
    assert(pool->state == POOL_STOPPED);
    free_memory(pool);
}

size_t
pool_room(const struct pool *pool)
{
    size_t room = 0;
    if (pool->state != POOL_OPEN)
        return 0;
    if (is_exec(pool)) {
        room = pause_left_ms(pool) > 0 ? 0 : (size_t)(pool->n_slots - pool->n_filled);
    } else {
        size_t depth = mailbox_depth(&pool->mailbox);
        for (size_t load = 0; load < depth; load++)
            room += pool->n_by_load[load] * (depth - load);
    }
    return room > pool->n_waiting ? room - pool->n_waiting : 0;
}

size_t
pool_idle_workers(const struct pool *pool)
{
    size_t idle = pool->n_by_load[0];
    if (is_exec(pool))
        idle = pause_left_ms(pool) > 0 ? 0 : (size_t)(pool->n_slots - pool->n_filled);
    return idle > pool->n_waiting ? idle - pool->n_waiting : 0;
}

void
pool_give(struct pool *pool, struct job *job)
{
    assert(pool->state < POOL_CLOSING);
    job->started_ns = 0;
    list_push(&pool->waiting, &job->link);
    pool->n_waiting++;
    ask_for_turn(pool);
}

/* Nothing new for anybody, and a last word to each. */
static void
begin_draining(struct pool *pool)
{
    set_state(pool, POOL_DRAINING);
    uv_timer_stop(&pool->timer);
    for (int i = 0; i < pool->n_slots; i++) {
        if (pool->slots[i].worker)
            worker_stop(pool->slots[i].worker);
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
    ask_for_turn(pool);
}

void
pool_kill(struct pool *pool)
{
    if (pool->state > POOL_DRAINING)
        return;
    set_state(pool, POOL_KILLING);
    uv_timer_stop(&pool->timer);
    for (int i = 0; i < pool->n_slots; i++) {
        if (pool->slots[i].worker)
            worker_kill(pool->slots[i].worker);
    }
    ask_for_turn(pool);
}

void
pool_status(const struct pool *pool, struct pool_status *out)
{
    *out = (struct pool_status){.wanted = pool->state == POOL_OPEN ? pool->n_slots : 0,
                                .restarts = pool->restarts,
                                .crashes = pool->crashes,
                                .backoff_ms_left = pause_left_ms(pool)};
    out->backing_off = out->backoff_ms_left > 0;
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i].worker;
        if (!worker) {
            out->ready += is_exec(pool) && pool->state == POOL_OPEN;
            continue;
        }
        out->busy += worker->n_jobs > 0;
        if (worker->state == WORKER_BOOTING)
            out->booting++;
        else if (worker->state > WORKER_BUSY && worker->state != WORKER_CANCELLING)
            out->stopping++;
        else
            out->ready += !is_exec(pool);
    }
}
