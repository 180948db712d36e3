/* workerset.c: which processes a pool has, against which it should have: starts what is
 * missing, lets go what is too much, and replaces workers that are due.
 *
 * A worker is due when it is of an older program than the newest (a reload), or when its
 * jobs, its age or its memory say so. One replacement at a time, the surge worker, is started
 * beside the workers. Once it has said hello, the next due worker that holds no job is
 * told to stop and the surge worker takes its place; so that there is one soon, one due worker
 * is passed over when jobs are handed out. Thus no job is interrupted, no more than the
 * wanted number of workers ever holds jobs, and a surge worker that does not come up leaves
 * everything as it was.
 *
 * Until the newest program has said hello once, a place that falls empty is given to the
 * last one that did, if the newest has failed: a broken program stops no queue that
 * worked.
 */
#include "jobqd/pool/pool_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/pool/launch.h"
#include "libjobq/duration.h"

/* SOONER: the part of max_jobs and max_age by which chance lets a worker go sooner, so
 * that those that began together are not all due at once. */
enum { SOONER = 5 };

/* ---- programs ---- */

int
workerset_set_program(struct pool *pool, uv_loop_t *loop,
                      const struct queue_config *queue, size_t max_frame)
{
    struct intensity restarts, replacing;
    struct worker_program *program;
    int rc = worker_program_new(&program, pool, loop, queue, max_frame);
    if (rc < 0)
        return rc;
    rc = intensity_init(&restarts, (size_t)queue->max_restarts, queue->max_seconds_ms);
    if (rc == 0)
        rc = intensity_init(&replacing, 0, queue->max_seconds_ms);
    if (rc < 0) {
        intensity_clear(&restarts);
        worker_program_unref(program);
        return rc;
    }
    intensity_clear(&pool->intensity);
    pool->intensity = restarts;
    intensity_clear(&pool->replacing);
    pool->replacing = replacing;
    worker_program_unref(pool->program);
    pool->program = program;
    pool->rolling = pool->n_filled > 0;
    pool->n_wanted = queue->concurrency;
    pool->needs_reconcile = true;
    return 0;
}

/* The newest, unless that has failed where the last one that worked has not. */
static struct worker_program *
choose_program(const struct pool *pool)
{
    if (pool->program->failed_boots > 0 && pool->last_good &&
        pool->last_good->failed_boots == 0)
        return pool->last_good;
    return pool->program;
}

void
workerset_clear(struct pool *pool)
{
    for (int i = 0; i < pool->n_slots; i++) {
        assert(!pool->slots[i]->worker);
        free(pool->slots[i]);
    }
    free(pool->slots);
    worker_program_unref(pool->last_good);
    worker_program_unref(pool->program);
    intensity_clear(&pool->replacing);
}

/* ---- starting processes ---- */

/* NULL: out of memory for one more. */
static struct slot *
add_slot(struct pool *pool)
{
    size_t n = (size_t)pool->n_slots + 1;
    struct slot **slots = realloc(pool->slots, n * sizeof(struct slot *));
    if (!slots)
        return NULL;
    pool->slots = slots;
    struct slot *slot = calloc(1, sizeof *slot);
    if (!slot)
        return NULL;
    slot->number = pool->n_slots;
    return pool->slots[pool->n_slots++] = slot;
}

static struct slot *
empty_slot(struct pool *pool)
{
    for (int i = 0; i < pool->n_slots; i++) {
        if (!pool->slots[i]->worker)
            return pool->slots[i];
    }
    return add_slot(pool);
}

struct slot *
workerset_slot(struct pool *pool, int number)
{
    while (pool->n_slots <= number) {
        if (!add_slot(pool))
            return NULL;
    }
    return pool->slots[number];
}

static uint64_t
less_by_chance(struct pool *pool, uint64_t most)
{
    return most - pool_random(pool) % (most / SOONER + 1);
}

static void
set_limits(struct pool *pool, struct worker *worker)
{
    const struct queue_config *queue = worker->program->queue;
    if (queue->max_jobs > 0)
        worker->most_jobs = less_by_chance(pool, (uint64_t)queue->max_jobs);
    if (queue->max_age_ms > 0)
        worker->expires_ns = worker->begun_ns +
                             less_by_chance(pool, (uint64_t)queue->max_age_ms) * 1000000u;
}

/* Returns NULL when there is no process; that was logged. */
static struct worker *
start_process(struct pool *pool, struct worker_program *program, struct job *job)
{
    jobq_error err = {.message = "out of memory"};
    struct worker *worker;
    struct slot *slot = empty_slot(pool);
    uint64_t from_ns = clock_ns();
    loop_is_at("starting a process", pool->program->queue->name);
    bool failed = !slot || worker_new(&worker, program, slot->number, &slot->rate, job,
                                      pool->worker_events, pool, &err) < 0;
    turns_started(from_ns);
    if (failed) {
        log_error(pool->subject, "cannot start a process: %s", err.message);
        snprintf(pool->trouble, sizeof pool->trouble, "cannot start a process: %.440s",
                 err.message);
        program->failed_boots += !job;
        if (slot)
            slot->replaces = true;
        pool->needs_reconcile = true;
        pool_ask_for_turn(pool);
        return NULL;
    }
    worker_program_ref(program); /* until workerset_gone */
    set_limits(pool, worker);
    if (!job)
        boot_begin(&worker->boot);
    if (slot->replaces)
        pool->restarts++;
    slot->replaces = false;
    worker->gap_ns = slot->gap_ns;
    worker_hold(worker, pool->holds);
    slot->worker = worker;
    pool->n_filled++;
    pool->n_lives++;
    return worker;
}

void
workerset_adopt(struct pool *pool, struct slot *slot, struct worker *worker)
{
    struct worker_program *program = worker_program_ref(worker->program);
    if (worker->said_hello && !pool->last_good)
        pool->last_good = worker_program_ref(program);
    set_limits(pool, worker);
    slot->worker = worker;
    pool->n_filled++;
    pool->n_lives++;
    pool->needs_reconcile = true;
    pool_place(pool, worker);
}

int
workerset_start_exec(struct pool *pool, struct job *job)
{
    if (start_process(pool, pool->program, job))
        return 0;
    pool_note_bad_end(pool);
    return JOBQ_EIO;
}

/* If not, it is tried again when it may. */
static bool
may_start_worker(struct pool *pool)
{
    bool may = boots_have_room(&pool->boots, pool->program->loop) && pool_may_start(pool);
    pool->needs_reconcile = pool->needs_reconcile || !may;
    return may;
}

static void
start_missing(struct pool *pool, int n)
{
    for (int started = 0; started < n; started++) {
        if (pool_pause_left_ms(pool) > 0)
            return;
        if (!may_start_worker(pool))
            return;
        if (!start_process(pool, choose_program(pool), NULL))
            pool_note_bad_end(pool);
    }
}

/* ---- replacements ---- */

static int64_t
replacing_pause_left_ms(const struct pool *pool)
{
    return intensity_pause_left(&pool->replacing, (int64_t)(clock_ns() / 1000000u));
}

static void
surge_failed(struct pool *pool)
{
    int64_t pause_ms = intensity_bad_end(
        &pool->replacing, (int64_t)(clock_ns() / 1000000u), pool_random(pool));
    log_error(pool->subject,
              "a replacement failed to start; keeping the old workers, retrying in %s",
              jobq__duration_show(pause_ms).text);
}

static void
start_surge(struct pool *pool)
{
    if (pool_pause_left_ms(pool) > 0 || replacing_pause_left_ms(pool) > 0)
        return;
    if (!may_start_worker(pool))
        return;
    pool->surge = start_process(pool, pool->program, NULL);
    if (!pool->surge)
        surge_failed(pool);
}

static bool
surge_is_up(const struct pool *pool)
{
    return pool->surge && pool->surge->state == WORKER_IDLE;
}

/* It is not needed any more, or of an older program. */
static void
drop_surge(struct pool *pool)
{
    struct worker *surge = pool->surge;
    pool->surge = NULL;
    worker_retire(surge);
}

/* From now on it is one of the workers. */
static void
promote_surge(struct pool *pool)
{
    struct worker *surge = pool->surge;
    pool->surge = NULL;
    pool_place(pool, surge);
    pool->room_changed = true;
}

static bool
is_outdated(const struct pool *pool, const struct worker *worker)
{
    return worker->program != pool->program;
}

/* A worker that boots is not replaced: it is at work sooner than another would be. */
static bool
is_due(const struct pool *pool, const struct worker *worker)
{
    return worker->said_hello && (is_outdated(pool, worker) || worker->due != DUE_NOT);
}

static const char *
why_due(const struct pool *pool, const struct worker *worker)
{
    static const char *const reasons[] = {
#define X(name, reason) [name] = reason,
        WORKER_DUE(X)
#undef X
    };
    return reasons[is_outdated(pool, worker) ? DUE_CONFIG : worker->due];
}

void
workerset_replace(struct pool *pool, struct worker *worker, enum worker_due due)
{
    if (worker->due != DUE_NOT)
        return;
    worker->due = due;
    pool->needs_reconcile = true;
    pool_ask_for_turn(pool);
}

/* ---- who is there, and who is to go ---- */

struct census {
    int staying;  /* workers that were not told to go, without the surge worker */
    int due;      /* of these */
    int programs; /* exec programs that run */
    int others;   /* processes on their way out, and the surge worker */
    int outdated; /* of all of them: of an older program */
};

static bool
is_staying(const struct pool *pool, const struct worker *worker)
{
    return worker && worker != pool->surge && worker->wanted == WANTED_UP &&
           worker->program->queue->mode == QUEUE_COMMAND;
}

static struct census
take_census(struct pool *pool)
{
    struct census census = {0};
    uint64_t now_ns = clock_ns();
    for (int i = 0; i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!worker)
            continue;
        census.outdated += is_outdated(pool, worker);
        if (worker->program->queue->mode == QUEUE_EXEC) {
            census.programs++;
        } else if (!is_staying(pool, worker)) {
            census.others++;
        } else {
            if (worker->expires_ns != 0 && now_ns >= worker->expires_ns)
                workerset_replace(pool, worker, DUE_AGE);
            census.staying++;
            census.due += is_due(pool, worker);
        }
    }
    return census;
}

static void
let_go(struct pool *pool, struct worker *worker)
{
    if (surge_is_up(pool) && is_due(pool, worker))
        log_info(worker->subject, "replaced by pid %ld: %s", (long)pool->surge->child.pid,
                 why_due(pool, worker));
    if (worker->cordoned)
        pool->n_cordoned--;
    worker->cordoned = false;
    worker_retire(worker);
}

/* Of the workers that may go: those without a job. Returns how many went. */
static int
let_idle_go(struct pool *pool, int n, bool only_due)
{
    int gone = 0;
    for (int i = 0; gone < n && i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!is_staying(pool, worker) || worker->n_jobs > 0 ||
            (only_due && !is_due(pool, worker)))
            continue;
        let_go(pool, worker);
        gone++;
    }
    return gone;
}

/* The one that will probably have no job soonest. */
static struct worker *
soonest_done(const struct pool *pool, bool only_due)
{
    struct worker *best = NULL;
    for (int i = 0; i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!is_staying(pool, worker) || worker->cordoned ||
            (only_due && !is_due(pool, worker)))
            continue;
        if (!best || worker->n_jobs < best->n_jobs ||
            (worker->n_jobs == best->n_jobs &&
             worker_busy_since(worker) < worker_busy_since(best)))
            best = worker;
    }
    return best;
}

static void
pass_over(struct pool *pool, struct worker *worker)
{
    worker->cordoned = true;
    pool->n_cordoned++;
    pool_unplace(pool, worker);
    pool_take_back(pool, worker);
}

/* Those of which there are too many by now, or who need not go. */
static void
feed_again(struct pool *pool, int most_cordoned, bool only_due)
{
    for (int i = 0; pool->n_cordoned > 0 && i < pool->n_slots; i++) {
        struct worker *worker = pool->slots[i]->worker;
        if (!is_staying(pool, worker) || !worker->cordoned)
            continue;
        if (pool->n_cordoned <= most_cordoned && (!only_due || is_due(pool, worker)))
            continue;
        worker->cordoned = false;
        pool->n_cordoned--;
        pool_place(pool, worker);
    }
}

/* n workers are to go: those without a job at once, the others when they have none.
 * Returns how many went. */
static int
send_off(struct pool *pool, int n, bool only_due)
{
    int gone = let_idle_go(pool, n, true); /* who is due anyway goes first */
    if (!only_due)
        gone += let_idle_go(pool, n - gone, false);
    struct worker *worker;
    feed_again(pool, n - gone, only_due);
    while (pool->n_cordoned < n - gone && (worker = soonest_done(pool, only_due)) != NULL)
        pass_over(pool, worker);
    return gone;
}

/* ---- the step ---- */

/* Exec programs say no hello: the last one that did would stay for ever. It goes with its
 * last worker. Until then a reload may bring it back. */
static void
forget_last_good(struct pool *pool)
{
    if (!pool->last_good || !pool_is_exec(pool))
        return;
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (worker && worker->program == pool->last_good)
            return;
    }
    worker_program_unref(pool->last_good);
    pool->last_good = NULL;
}

/* When to look again without being asked to. */
static void
arm_timer(struct pool *pool, bool replace)
{
    uint64_t now_ns = clock_ns();
    uint64_t first_ns = UINT64_MAX;
    int64_t pause_ms = pool_pause_left_ms(pool);
    if (pause_ms == 0 && replace)
        pause_ms = replacing_pause_left_ms(pool);
    if (pause_ms > 0)
        first_ns = now_ns + (uint64_t)pause_ms * 1000000u;
    for (int i = 0; i < pool->n_slots; i++) {
        const struct worker *worker = pool->slots[i]->worker;
        if (is_staying(pool, worker) && worker->expires_ns != 0 &&
            worker->due == DUE_NOT && worker->expires_ns < first_ns)
            first_ns = worker->expires_ns;
    }
    uint64_t left_ns = first_ns > now_ns ? first_ns - now_ns : 0;
    if (first_ns == UINT64_MAX)
        uv_timer_stop(&pool->timer);
    else
        uv_timer_start(&pool->timer, pool->on_timer, left_ns / 1000000u + 1, 0);
}

void
workerset_step(struct pool *pool)
{
    if (!pool->needs_reconcile)
        return;
    pool->needs_reconcile = false;
    forkservers_step(pool);
    struct census now = take_census(pool);
    int target = pool_is_exec(pool) ? 0 : pool->n_wanted - now.programs;
    if (target < 0)
        target = 0;
    bool surge_is_needed = now.due > 0 || now.staying < target;
    if (pool->surge && (is_outdated(pool, pool->surge) || !surge_is_needed))
        drop_surge(pool);

    int to_go = now.staying - target;
    bool swap = to_go == 0 && now.due > 0 && surge_is_up(pool);
    int gone = send_off(pool, swap ? 1 : to_go, swap);
    int missing = target - now.staying + gone;
    if (missing > 0 && pool->surge) {
        promote_surge(pool);
        missing--;
    }
    start_missing(pool, missing);
    if (missing <= 0 && to_go <= 0 && now.due > 0 && now.others + gone == 0)
        start_surge(pool);
    forget_last_good(pool);
    forkservers_step(pool); /* for those who wait now */
    arm_timer(pool, now.due > 0);
    if (pool->rolling && now.outdated == 0 && missing <= 0) {
        pool->rolling = false;
        log_info(pool->subject, "reload complete: all workers run the new configuration");
    }
}

/* ---- what has happened ---- */

void
workerset_hello(struct pool *pool, struct worker *worker)
{
    struct worker_program *program = worker->program;
    program->failed_boots = 0;
    bool counts = program == pool->program || (!pool->last_good && !pool_is_exec(pool));
    if (program != pool->last_good && counts) {
        worker_program_unref(pool->last_good);
        pool->last_good = worker_program_ref(program);
    }
    pool->needs_reconcile = true;
}

void
workerset_answered(struct pool *pool, struct worker *worker)
{
    if (worker->most_jobs != 0 && worker->answered >= worker->most_jobs)
        workerset_replace(pool, worker, DUE_JOBS);
    if (pool->surge || pool->n_cordoned > 0)
        pool->needs_reconcile = true; /* it may have no job any more */
}

static void
note_trouble(struct pool *pool, const struct outcome *outcome)
{
    bool says_all = outcome->kind == OUTCOME_BOOT_FAILED;
    snprintf(pool->trouble, sizeof pool->trouble, "%s%s%.440s",
             says_all ? "" : outcome_name(outcome->kind), says_all ? "" : ": ",
             outcome->text);
}

void
workerset_ended(struct pool *pool, struct worker *worker, const struct outcome *outcome)
{
    struct slot *slot = pool->slots[worker->slot];
    slot->worker = NULL;
    slot->replaces = outcome->bad;
    if (worker->child.pid > 0)
        slot->gap_ns = outcome->bad ? worker->entered_ns : 0;
    pool->n_filled--;
    pool->needs_reconcile = true;
    if (worker->cordoned)
        pool->n_cordoned--;
    if (outcome->bad && !worker->said_hello)
        worker->program->failed_boots++;
    /* Why a new program does not come up is not forgotten for how an old worker ends. */
    if (outcome->bad && (pool->program->failed_boots == 0 || !worker->said_hello))
        note_trouble(pool, outcome);
    bool was_surge = worker == pool->surge;
    if (was_surge)
        pool->surge = NULL;
    if (!outcome->bad || pool->state != POOL_OPEN)
        return;
    if (was_surge)
        surge_failed(pool);
    else
        pool_note_bad_end(pool);
}

void
workerset_gone(struct pool *pool, struct worker *worker)
{
    struct worker_program *program = worker->program;
    worker_free(worker);
    worker_program_unref(program);
    pool->n_lives--;
}
