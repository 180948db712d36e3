/* supervisor.c: implements pool.h. Which worker gets which job, and what is made of what
 * workers say. Which workers there are is roster.c's business.
 *
 * Everything that calls the owner, starts a process or hands out jobs happens in `turn`,
 * once a loop turn, or in the callbacks of a worker's own events; the functions of pool.h
 * only note what is wanted and ask for a turn.
 */
#include "jobqd/service/pool_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/io/loopwatch.h"
#include "jobqd/io/spawn.h"
#include "libjobq/duration.h"

/* FRAME_OVERHEAD: a job's frame around its args, meta, kind and queue. */
enum { FRAME_OVERHEAD = 256 };

/* SOON_MS: what can be started within it may be claimed. */
enum { SOON_MS = 2000 };

/* PUT_OFF_MS: after so long a job comes again that only a part of the workers handles, or
 * none yet, while they are replaced. */
enum { PUT_OFF_MS = 1000 };

/* A property of the process: all of them share its time. */
static size_t n_exec_pools;

static void on_turn(uv_idle_t *idle);
static void on_start_turn(struct turn *start_turn);
static void on_boots_room(struct boots_asker *asker);

void
pool_ask_for_turn(struct pool *pool)
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
uint32_t
pool_random(struct pool *pool)
{
    pool->random ^= pool->random << 13;
    pool->random ^= pool->random >> 17;
    pool->random ^= pool->random << 5;
    return pool->random;
}

bool
pool_is_exec(const struct pool *pool)
{
    return pool->program->queue->mode == QUEUE_EXEC;
}

int64_t
pool_pause_left_ms(const struct pool *pool)
{
    return intensity_pause_left(&pool->intensity, (int64_t)(uv_hrtime() / 1000000u));
}

static void
count_among_exec(struct pool *pool, bool counts)
{
    if (counts != pool->counts_as_exec)
        n_exec_pools += counts ? 1 : (size_t)-1;
    pool->counts_as_exec = counts;
}

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
    if (!worker_takes_jobs(worker) || worker->n_jobs > MAILBOX_MOST ||
        worker == pool->spare || worker->passed_over)
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
static size_t
depth_for(const struct pool *pool, size_t concurrency)
{
    size_t depth = concurrency + mailbox_depth(&pool->mailbox) - 1;
    return depth < MAILBOX_MOST ? depth : MAILBOX_MOST;
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
    return worker->n_jobs < depth_for(pool, worker->concurrency);
}

/* The worker with the fewest jobs that has room for one; NULL: none has. */
static struct worker *
least_loaded(struct pool *pool)
{
    size_t depth = depth_for(pool, pool->concurrency);
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
                              .delay_ms = kind == VERDICT_SNOOZE ? PUT_OFF_MS : -1,
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

void
pool_release_waiting(struct pool *pool)
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
    wait_again(pool, &unsent);
    pool_ask_for_turn(pool);
}

/* ---- what workers say ---- */

static void
on_worker_ready(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    roster_hello(pool, worker);
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
        hand_back(pool, job, verdict);
        return;
    }
    struct verdict named = *verdict;
    named.slot = worker->slot + 1;
    named.pid = (long)worker->child.pid;
    hand_back(pool, job, &named);
}

static void
on_worker_answers(void *owner, struct worker *worker, size_t n, uint64_t elapsed_ns)
{
    struct pool *pool = owner;
    if (elapsed_ns > 0)
        mailbox_answered(&pool->mailbox, n, elapsed_ns);
    roster_answered(pool, worker);
    pool_place(pool, worker); /* it may have been passed over for being slow */
    if (!list_empty(&worker->unsent))
        make_dirty(pool, worker);
    pool_ask_for_turn(pool);
}

static void
on_worker_over_memory(void *owner, struct worker *worker)
{
    roster_replace(owner, worker, DUE_MEMORY);
}

void
pool_note_bad_end(struct pool *pool)
{
    if (pool_pause_left_ms(pool) > 0)
        return;
    int64_t pause_ms = intensity_bad_end(
        &pool->intensity, (int64_t)(uv_hrtime() / 1000000u), pool_random(pool));
    if (pause_ms == 0)
        return;
    const struct queue_config *queue = pool->program->queue;
    log_error(pool->subject,
              "more than %d processes ended badly within %s: nothing is started "
              "for %s",
              queue->max_restarts, jobq__duration_show(queue->max_seconds_ms).text,
              jobq__duration_show(pause_ms).text);
    pool->uneven = true; /* the roster knows when the pause is over */
}

static void
on_worker_end(void *owner, struct worker *worker, const struct outcome *outcome)
{
    struct pool *pool = owner;
    list_remove(&worker->dirty);
    wait_again(pool, &worker->sent);
    if (outcome->bad || outcome->kind == OUTCOME_CRASHED ||
        outcome->kind == OUTCOME_MEMORY)
        pool->crashes++;
    roster_ended(pool, worker, outcome);
    pool->room_changed = true;
    pool_ask_for_turn(pool);
}

static void
on_worker_gone(void *owner, struct worker *worker)
{
    struct pool *pool = owner;
    roster_gone(pool, worker);
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

const struct worker_events pool_worker_events = {
    .on_ready = on_worker_ready,
    .on_withdrawn = on_worker_withdrawn,
    .on_verdict = on_worker_verdict,
    .on_progress = on_worker_progress,
    .on_answers = on_worker_answers,
    .on_over_memory = on_worker_over_memory,
    .on_end = on_worker_end,
    .on_gone = on_worker_gone,
};

/* ---- cancelled jobs ---- */

/* The requests reach the jobs where they are by now. */
static void
pass_on_cancels(struct pool *pool)
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
        refuse(pool, list_entry(next, struct job, link), VERDICT_RELEASED, NULL);
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
    snprintf(error, sizeof error,
             "its args and meta of %zu bytes do not fit into a frame: max_frame is %zu",
             job->args_len + job->meta_len, worker->program->max_frame);
    refuse(pool, job, VERDICT_DISCARD, error); /* no attempt would end otherwise */
}

static void
refuse_unhandled(struct pool *pool, const struct worker *worker, struct job *job)
{
    char error[256];
    snprintf(error, sizeof error, "no handler for kind \"%.200s\" in %s", job->kind,
             worker->program->queue->argv[0]);
    refuse(pool, job, VERDICT_UNHANDLED, error);
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
        bool stays =
            !worker->passed_over && worker->program->queue->mode == QUEUE_COMMAND;
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
        refuse(pool, job, VERDICT_SNOOZE, NULL);
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

static void
assign_to_workers(struct pool *pool)
{
    uint64_t now_ns = uv_hrtime();
    struct worker *worker;
    while (pool->n_waiting > 0 && (worker = least_loaded(pool)) != NULL) {
        if (has_enough(pool, worker, now_ns)) {
            pool_unplace(pool, worker); /* until it answers */
            continue;
        }
        struct job *job = pop_waiting(pool);
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
            make_dirty(pool, worker);
        }
    }
}

static void
assign_to_programs(struct pool *pool)
{
    while (pool->n_waiting > 0 && pool->n_filled < pool->n_wanted) {
        if (pool_pause_left_ms(pool) > 0 || !pool_may_start(pool))
            return;
        struct job *job = pop_waiting(pool);
        pool->room_changed = true; /* another may wait in its place */
        if (roster_start_exec(pool, job) < 0)
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

/* Nobody will come to take what waits by now, and who is there may have a long job:
 * another node may take it. */
static bool
nobody_will_come(const struct pool *pool)
{
    return pool->n_waiting > 0 && pool_nobody_comes(pool);
}

static void
return_unsent(struct pool *pool)
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
    pass_on_cancels(pool);
    if (pool->gives_back)
        return_unsent(pool);
    if (pool->state == POOL_OPEN) {
        roster_step(pool);
        if (pool_is_exec(pool))
            assign_to_programs(pool);
        else
            assign_to_workers(pool);
    }
    if (pool->state != POOL_OPEN || nobody_will_come(pool))
        pool_release_waiting(pool);
    flush_dirty(pool);
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

bool
pool_may_start(struct pool *pool)
{
    bool may = pool->may_start || turn_now(&pool->start_turn);
    pool->may_start = false;
    return may;
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

void
pool_on_timer(uv_timer_t *timer)
{
    struct pool *pool = timer->data;
    if (pool->state == POOL_DRAINING) {
        pool_kill(pool);
        return;
    }
    pool->uneven = true;
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
    assert(mailbox_most(&mailbox) <= MAILBOX_MOST);
    if (pool->mailbox.depth == 0 || mailbox.fixed != pool->mailbox.fixed)
        pool->mailbox = mailbox;
}

static void
free_memory(struct pool *pool)
{
    roster_clear(pool);
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
    pool->random = (uint32_t)uv_hrtime() | 1u;
    list_init(&pool->waiting);
    list_init(&pool->dirty);
    list_init(&pool->nursed);
    for (size_t i = 0; i <= MAILBOX_MOST; i++)
        list_init(&pool->by_load[i]);
    set_mailbox(pool, queue);
    pool->concurrency = 1;
    pool->chunk = malloc(IO_CHUNK);
    pool->watch = watch_join(loop);
    int rc = pool->chunk && pool->watch ? roster_set_program(pool, loop, queue, max_frame)
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
    int rc = roster_set_program(pool, pool->program->loop, queue, max_frame);
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
    pool->uneven = true;
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
        size_t depth = depth_for(pool, pool->concurrency);
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
    log_debug(pool->subject,
              on ? "answers wait in the workers' sockets" : "answers are read again");
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
    nursery_close(pool, false);
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
        uv_timer_start(&pool->timer, pool_on_timer, grace, 0);
    pool_ask_for_turn(pool);
}

void
pool_kill(struct pool *pool)
{
    if (pool->state > POOL_DRAINING)
        return;
    set_state(pool, POOL_KILLING);
    uv_timer_stop(&pool->timer);
    nursery_close(pool, true);
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
        if (worker->program == pool->proven)
            return worker;
        found = found ? found : worker;
    }
    return found;
}

void
pool_put_kinds(const struct pool *pool, struct jobq__buf *out)
{
    enum { MOST_BYTES = 16 * 1024 };
    size_t before = out->len;
    const struct worker *worker = who_knows_kinds(pool);
    if (!worker || !worker->kinds)
        return;
    jobq__buf_addc(out, '[');
    for (size_t i = 0; i < worker->n_kinds && out->len - before <= MOST_BYTES; i++) {
        jobq__buf_adds(out, i > 0 ? "," : "");
        jobq__buf_add_json_string(out, worker->kinds[i], strlen(worker->kinds[i]));
    }
    jobq__buf_addc(out, ']');
    if (out->len - before > MOST_BYTES)
        out->len = before;
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
        out->wanted > 0 && !pool_is_exec(pool) && pool->proven != pool->program;
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
        if (worker == pool->spare)
            out->spare++;
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
