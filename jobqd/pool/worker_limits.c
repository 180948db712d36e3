/* worker_limits.c: what a worker may use: how its process is confined from the start,
 * what follows when it uses more, and what an attempt is said to have used. */
#include "jobqd/pool/worker_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/usage.h"
#include "jobqd/pool/launch.h"
#include "libjobq/duration.h"

static const struct queue_config *
queue_of(const struct worker *worker)
{
    return worker->program->queue;
}

static int64_t
kib(size_t bytes)
{
    return (int64_t)(bytes / 1024);
}

static bool
is_watched(const struct worker *worker)
{
    const struct queue_config *queue = queue_of(worker);
    return queue->max_memory > 0 || queue->max_memory_hard > 0 || queue->cpu_limit_ms > 0;
}

/* Its boot may need as much as a job. */
static bool
is_busy(const struct worker *worker)
{
    return worker_head(worker) != NULL || !worker->said_hello;
}

/* When the last of the jobs that it runs was begun; 0: it runs none. */
static uint64_t
youngest_ns(const struct worker *worker)
{
    if (list_empty(&worker->running))
        return 0;
    return list_entry(worker->running.prev, struct job, link)->started_ns;
}

/* ---- too much ---- */

static enum worker_usage
uses_too_much_memory(struct worker *worker)
{
    const struct queue_config *queue = queue_of(worker);
    worker->exceeded_ns = youngest_ns(worker);
    worker->exceeded_kb = worker->watched.memory_kb;
    log_warning(worker->subject,
                "uses %" PRId64
                " KiB of memory, more than its max_memory_hard of %" PRId64
                " KiB: killing it",
                worker->exceeded_kb, kib(queue->max_memory_hard));
    return USAGE_TOO_MUCH_MEMORY;
}

static enum worker_usage
uses_too_much_cpu(struct worker *worker, const struct job *job)
{
    worker->exceeded_ns = job->started_ns;
    log_warning(worker->subject, "job %" PRId64 " has used its cpu_limit of %s", job->id,
                jobq__duration_show(queue_of(worker)->cpu_limit_ms).text);
    return USAGE_TOO_MUCH_CPU;
}

static void
is_to_be_replaced(struct worker *worker)
{
    if (worker->over_memory || worker->wanted != WANTED_UP)
        return;
    worker->over_memory = true;
    log_info(worker->subject,
             "uses %" PRId64 " KiB of memory, more than its max_memory of %" PRId64
             " KiB",
             worker->watched.memory_kb, kib(queue_of(worker)->max_memory));
    worker->events->on_over_memory(worker->owner, worker);
}

/* What the group had used when this job began: as far as we looked, at the first look
 * during it. An exec program has used nothing before its job. */
static int64_t
cpu_of_job_us(struct worker *worker, const struct job *job)
{
    if (worker_is_exec(worker))
        return worker->watched.cpu_us;
    if (worker->cpu_from_ns != job->started_ns) {
        worker->cpu_from_ns = job->started_ns;
        worker->cpu_from_us = worker->watched.cpu_us;
    }
    return worker->watched.cpu_us - worker->cpu_from_us;
}

enum worker_usage
worker_check_usage(struct worker *worker)
{
    const struct watched *watched = &worker->watched;
    const struct queue_config *queue = queue_of(worker);
    const struct job *job = worker_head(worker);
    if (worker->state >= WORKER_TERMINATING)
        return USAGE_FINE;
    bool kernel = watched->cgroup.serial != 0;
    if (queue->max_memory_hard > 0 && !kernel &&
        watched->memory_kb > kib(queue->max_memory_hard))
        return uses_too_much_memory(worker);
    if (queue->cpu_limit_ms > 0 && job && job->started_ns != 0 &&
        cpu_of_job_us(worker, job) > queue->cpu_limit_ms * 1000 &&
        !worker_may_have_answered(worker, clock_ns()))
        return uses_too_much_cpu(worker, job);
    /* What a job uses while it runs may be gone when it ends: that is looked at then. */
    worker->is_large =
        queue->max_memory > 0 && watched->memory_kb > kib(queue->max_memory);
    if (worker->is_large && worker->state == WORKER_IDLE)
        is_to_be_replaced(worker);
    return USAGE_FINE;
}

/* ---- the worker's life ---- */

static void
prepare_watch(struct worker *worker)
{
    const struct queue_config *queue = queue_of(worker);
    struct watched *watched = &worker->watched;
    worker->seen_peak_kb = -1;
    watched->memory_kb = watched->peak_kb = -1;
    if (queue->max_memory_hard > 0)
        watch_confine(worker->program->watch, watched, queue->max_memory_hard,
                      worker->subject);
}

static void
begin_watch(struct worker *worker, bool entered)
{
    const struct queue_config *queue = queue_of(worker);
    if (!is_watched(worker))
        return;
    size_t least = queue->max_memory > 0 ? queue->max_memory : queue->max_memory_hard;
    worker->watched.exact_from_kb = kib(least);
    worker->watched.limit_kb = kib(queue->max_memory_hard);
    watch_add(worker->program->watch, &worker->watched, worker->child.pid, entered,
              worker->subject);
    watch_set_busy(worker->program->watch, &worker->watched, is_busy(worker));
}

void
worker_confine(struct worker *worker)
{
    prepare_watch(worker);
    begin_watch(worker, false);
}

void
worker_limit_again(struct worker *worker)
{
    struct watched *watched = &worker->watched;
    struct watch *watch = worker->program->watch;
    watched->memory_kb = watched->peak_kb = -1;
    if (!watch_cgroup(watch))
        watched->cgroup.serial = 0;
    begin_watch(worker, true);
}

int
worker_launch(struct worker *worker, const struct job *job, jobq_error *err)
{
    const struct worker_program *program = worker->program;
    prepare_watch(worker);
    int entrance = watch_entrance(program->watch, &worker->watched);
    int rc = launch(&worker->child, &program->plan, entrance, job, err);
    if (rc < 0)
        watch_remove(program->watch, &worker->watched);
    else
        begin_watch(worker, entrance >= 0);
    if (entrance >= 0)
        close(entrance);
    return rc;
}

void
worker_mark(struct worker *worker)
{
    const struct job *job = worker_head(worker);
    watch_set_busy(worker->program->watch, &worker->watched, is_busy(worker));
    if (!job || worker->concurrency > 1 || job->started_ns == worker->marked_ns)
        return;
    worker->marked_ns = job->started_ns;
    worker->marked_cpu_us = worker_is_exec(worker) ? 0 : usage_cpu_us(worker->child.pid);
}

void
worker_after_jobs(struct worker *worker)
{
    if (worker->is_large && !worker->over_memory && worker->state < WORKER_TERMINATING)
        watch_measure(worker->program->watch, &worker->watched);
    if (worker->is_large && worker->state < WORKER_TERMINATING)
        is_to_be_replaced(worker);
}

/* ---- what was used ---- */

static int64_t
cpu_since_mark_us(const struct worker *worker, const struct job *job)
{
    if (worker->marked_ns != job->started_ns || worker->marked_cpu_us < 0)
        return -1;
    int64_t now_us = usage_cpu_us(worker->child.pid);
    return now_us < 0 ? -1 : now_us - worker->marked_cpu_us;
}

void
worker_measure_answer(struct worker *worker, const struct job *job,
                      struct verdict *verdict)
{
    if (worker->output.fd >= 0)
        output_catch_up(&worker->output);
    if (job->started_ns != 0)
        verdict->output = output_tail(&worker->output, job->output_from);
    verdict->cpu_us = cpu_since_mark_us(worker, job);
    verdict->max_rss_kb = usage_peak_kb(worker->child.pid);
}

void
worker_note_peak(struct worker *worker)
{
    int64_t peak_kb =
        child_executes(&worker->child) ? usage_peak_kb(worker->child.pid) : -1;
    if (peak_kb > worker->seen_peak_kb)
        worker->seen_peak_kb = peak_kb;
}

void
worker_measure_end(struct worker *worker)
{
    const struct job *job = worker_head(worker);
    struct watched *watched = &worker->watched;
    worker->end_cpu_us =
        job && !worker_is_exec(worker) ? cpu_since_mark_us(worker, job) : -1;
    worker->hit_limit = watch_hit_its_limit(worker->program->watch, watched);
    worker->peak_kb =
        watched->peak_kb > worker->seen_peak_kb ? watched->peak_kb : worker->seen_peak_kb;
    if (watched->cgroup.serial) {
        int64_t peak_kb =
            cgroup_peak_kb(watch_cgroup(worker->program->watch), watched->cgroup);
        if (peak_kb > worker->peak_kb)
            worker->peak_kb = peak_kb;
    }
    watch_remove(worker->program->watch, watched);
}

void
worker_fill_ending(const struct worker *worker, const struct job *job,
                   const struct child_end *end, struct ending *ending)
{
    const struct queue_config *queue = queue_of(worker);
    const struct rlimit *cpu = &worker->program->plan.limits.cpu;
    ending->exceeded = job && job->started_ns <= worker->exceeded_ns;
    ending->memory_kb = worker->exceeded_kb;
    ending->memory_limit_kb = kib(queue->max_memory_hard);
    ending->cpu_limit_ms = queue->cpu_limit_ms;
    ending->cpu_exhausted =
        cpu->rlim_cur > 0 && end->cpu_us >= (int64_t)cpu->rlim_max * 1000000;
    if (end->signal != SIGKILL || worker->sent_signal == SIGKILL)
        return;
    if (worker->hit_limit)
        ending->oom = OOM_LIMIT;
    else if (watch_saw_oom_kill(worker->program->watch))
        ending->oom = OOM_SYSTEM;
}
