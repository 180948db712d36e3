/* worker.c: see worker.h. What happens to the process (a line, a deadline, its exit) and
 * what is wanted of it each move it by one state; nothing here waits, and a move that
 * is_legal does not list is a bug. */
#include "jobqd/pool/worker_private.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/guard_table.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/pool/launch.h"
#include "libjobq/duration.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"

/* BACKLOG_BYTES: frames beyond it wait as jobs, not as copies, until the worker has read
 * some. */
enum { BACKLOG_BYTES = 256 * 1024 };

/* How often a deadline that has passed after a hold is looked at. */
enum { LOOK_AGAIN_MS = 200 };

static const char not_needed[] = "no longer needed";

/* ---- frames to the worker ---- */

/* A frame was put behind the first `before` bytes. Whole or not at all: returns false,
 * with the buffer as it was, when memory ran out within it. */
bool
worker_frame_is_whole(struct worker *worker, size_t before)
{
    struct jobq__buf *out = &worker->channel.out;
    if (!out->failed)
        return true;
    out->failed = false;
    out->len = before;
    return false;
}

/* A cancel or stop message that finds no memory is not missed: signals follow it. */
static void
put_cancel(struct worker *worker, int64_t id)
{
    size_t before = worker->channel.out.len;
    jobq__frame_put_cancel(&worker->channel.out, id);
    worker_frame_is_whole(worker, before);
}

static void
put_stop(struct worker *worker)
{
    size_t before = worker->channel.out.len;
    jobq__frame_put_stop(&worker->channel.out);
    worker_frame_is_whole(worker, before);
}

static int64_t
timeout_of(const struct worker *worker, const struct job *job)
{
    return launch_timeout_ms(worker->program->queue, job);
}

/* ---- deadlines ----
 *
 * One timer a worker, set lazily: while it is set for a moment that is not later than
 * needed, a new deadline costs nothing; when it goes off too early, it is set again. */

/* When patience with a running job ends; 0: never. */
static uint64_t
job_due_ns(const struct worker *worker, const struct job *job)
{
    if (job->late_ns != 0)
        return worker_after_ms(job->late_ns, worker->program->queue->stop_grace_ms);
    if (job->cancel != JOB_GOES_ON)
        return job->started_ns;
    int64_t timeout_ms = timeout_of(worker, job);
    return timeout_ms > 0 ? worker_after_ms(job->started_ns, timeout_ms) : 0;
}

/* The running job that is due first, and when; NULL and 0: none ever is. */
static struct job *
first_due(const struct worker *worker, uint64_t *due_ns)
{
    struct job *first = NULL;
    *due_ns = 0;
    for (struct list *at = worker->running.next; at != &worker->running; at = at->next) {
        struct job *job = list_entry(at, struct job, link);
        uint64_t due = job_due_ns(worker, job);
        if (due != 0 && (!first || due < *due_ns)) {
            first = job;
            *due_ns = due;
        }
    }
    return first;
}

/* When the present state's patience ends; 0: never. */
static uint64_t
due_ns(const struct worker *worker)
{
    const struct queue_config *queue = worker->program->queue;
    uint64_t due;
    switch (worker->state) {
    case WORKER_UNFORKED: /* the forkserver has deadlines of its own */
        return worker->wanted == WANTED_UP ? 0 : worker->entered_ns;
    case WORKER_BOOTING:
        return worker_after_ms(worker->entered_ns, queue->boot_timeout_ms);
    case WORKER_BUSY:
    case WORKER_CANCELLING:
        first_due(worker, &due);
        return due;
    case WORKER_STOPPING:
        if (worker_head(worker)) {
            first_due(worker, &due);
            return due;
        }
        return worker_after_ms(worker->quiet_ns > worker->entered_ns ? worker->quiet_ns
                                                                     : worker->entered_ns,
                               queue->stop_grace_ms);
    case WORKER_LEAVING:
    case WORKER_TERMINATING:
        return worker_after_ms(worker->entered_ns, queue->stop_grace_ms);
    case WORKER_IDLE:
    case WORKER_KILLING:
    case WORKER_ENDED:
        return 0;
    }
    return 0;
}

void
worker_arm(struct worker *worker, uint64_t now_ns)
{
    uint64_t due = due_ns(worker);
    if (worker->exit_tries > 0) /* nothing is due any more but its end */
        return;
    if (due == 0 || (worker->armed_ns != 0 && worker->armed_ns <= due))
        return;
    worker->armed_ns = due;
    uint64_t left_ns = due > now_ns ? due - now_ns : 0;
    uv_timer_start(&worker->timer, worker_on_timer, (left_ns + 999999u) / 1000000u, 0);
}

/* ---- ending a process ---- */

static void
raise_intent(struct worker *worker, enum intent intent)
{
    if (intent > worker->intent)
        worker->intent = intent;
}

static void
send_signal(struct worker *worker, int signal)
{
    worker_note_peak(worker);
    worker->sent_signal = signal;
    child_signal(&worker->child, signal);
}

void
worker_terminate(struct worker *worker, enum intent intent, uint64_t now_ns)
{
    raise_intent(worker, intent);
    worker_set_state(worker, WORKER_TERMINATING, now_ns);
    send_signal(worker, intent == INTENT_CPU ? SIGXCPU : SIGTERM);
    worker_arm(worker, now_ns);
}

/* To find all that it has started takes a while. */
void
worker_on_kill_turn(struct turn *turn)
{
    struct worker *worker = list_entry(turn, struct worker, kill_turn);
    loop_is_at("killing a worker", worker->program->queue->name);
    send_signal(worker, SIGKILL);
}

void
worker_end_for(struct worker *worker, enum intent intent, uint64_t now_ns)
{
    raise_intent(worker, intent);
    if (worker->state == WORKER_KILLING || worker->state == WORKER_ENDED)
        return;
    if (worker->state == WORKER_UNFORKED) {
        worker_arm(worker, now_ns);
        return;
    }
    worker_set_state(worker, WORKER_KILLING, now_ns);
    if (turn_now(&worker->kill_turn))
        worker_on_kill_turn(&worker->kill_turn);
}

void
worker_on_measured(struct watched *watched)
{
    struct worker *worker = list_entry(watched, struct worker, watched);
    switch (worker_check_usage(worker)) {
    case USAGE_FINE:
        return;
    case USAGE_TOO_MUCH_MEMORY:
        worker_end_for(worker, INTENT_MEMORY, clock_ns());
        return;
    case USAGE_TOO_MUCH_CPU:
        worker_terminate(worker, INTENT_CPU, clock_ns());
        return;
    }
}

/* A running job's deadline has passed, or somebody has cancelled it. */
static void
job_is_late(struct worker *worker, struct job *job, uint64_t now_ns)
{
    bool cancelled = job->cancel != JOB_GOES_ON;
    enum intent intent = cancelled ? INTENT_CANCEL : INTENT_TIMEOUT;
    job->late_ns = now_ns;
    worker->n_late++;
    struct log_facts facts = worker_facts(worker, job);
    if (cancelled)
        log_about(LOG_LEVEL_INFO, worker->subject, &facts,
                  "job %" PRId64 " (kind %s) was cancelled; asking it to stop", job->id,
                  job->kind);
    else
        log_about(LOG_LEVEL_WARNING, worker->subject, &facts,
                  "job %" PRId64
                  " (kind %s) has reached its timeout of %s; asking it to stop",
                  job->id, job->kind, jobq__duration_show(timeout_of(worker, job)).text);
    if (worker_is_exec(worker)) {
        worker_terminate(worker, intent, now_ns);
        return;
    }
    raise_intent(worker, intent);
    if (worker->state != WORKER_CANCELLING)
        worker_set_state(worker, WORKER_CANCELLING, now_ns);
    put_cancel(worker, job->id);
    channel_flush(&worker->channel);
    worker_arm(worker, now_ns);
}

/* Read or not: what came in the time that the loop itself took. For a while only: there
 * are workers that never stop talking. */
static bool
is_unread(const struct worker *worker, uint64_t due_ns, uint64_t now_ns)
{
    return now_ns < worker_after_ms(due_ns, WORKER_HEAR_MS) &&
           channel_has_unread(&worker->channel);
}

/* It has ended, or answered, and we have not come to see that yet. */
static bool
may_be_over(const struct worker *worker, uint64_t due_ns, uint64_t now_ns)
{
    return worker_may_have_answered(worker, now_ns) ||
           is_unread(worker, due_ns, now_ns) ||
           (worker->child.pid > 0 && child_has_ended(&worker->child));
}

/* What it has said may be the answer, or only its progress: a little of it is read, and
 * if that was all and no answer, the job is late at the next look. */
static void
hear_first(struct worker *worker, uint64_t now_ns)
{
    channel_hear(&worker->channel);
    worker->armed_ns = worker_after_ms(now_ns, LOOK_AGAIN_MS);
    uv_timer_start(&worker->timer, worker_on_timer, LOOK_AGAIN_MS, 0);
}

/* Late now, or it has not stopped that job within stop_grace: then all that it runs ends
 * with it. To be told of a cancellation does a job no harm that has ended. */
static void
job_is_due(struct worker *worker, uint64_t now_ns)
{
    uint64_t due;
    struct job *job = first_due(worker, &due);
    bool harmless = job->late_ns == 0 && job->cancel != JOB_GOES_ON;
    if (!harmless && may_be_over(worker, due, now_ns))
        hear_first(worker, now_ns);
    else if (job->late_ns != 0)
        worker_terminate(worker, INTENT_NONE, now_ns); /* why was noted when it began */
    else
        job_is_late(worker, job, now_ns);
}

static void
patience_ends(struct worker *worker, uint64_t now_ns)
{
    switch (worker->state) {
    case WORKER_UNFORKED:
        worker_end_unborn(worker, not_needed, false);
        return;
    case WORKER_BOOTING:
        worker_end_for(worker, INTENT_BOOT_TIMEOUT, now_ns);
        return;
    case WORKER_BUSY:
    case WORKER_CANCELLING:
        job_is_due(worker, now_ns);
        return;
    case WORKER_STOPPING:
        if (worker_head(worker))
            job_is_due(worker, now_ns);
        else
            worker_terminate(worker, INTENT_STOP, now_ns);
        return;
    case WORKER_LEAVING:
        if (worker->wanted == WANTED_UP && worker->complaint[0] == '\0')
            snprintf(worker->complaint, sizeof worker->complaint,
                     "closed its socket but did not exit");
        worker_terminate(worker, INTENT_NONE, now_ns);
        return;
    case WORKER_TERMINATING:
        log_warning(worker->subject, "did not exit after %s; killing it",
                    worker->sent_signal == SIGXCPU ? "SIGXCPU" : "SIGTERM");
        worker_end_for(worker, INTENT_NONE, now_ns);
        return;
    case WORKER_IDLE:
    case WORKER_KILLING:
    case WORKER_ENDED:
        return;
    }
}

void
worker_on_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    uint64_t now_ns = clock_ns();
    loop_is_at("checking a worker's deadline", worker->program->queue->name);
    worker->armed_ns = 0;
    uint64_t due = due_ns(worker);
    if (due != 0 && now_ns >= due)
        patience_ends(worker, now_ns);
    else
        worker_arm(worker, now_ns);
}

/* ---- giving back, giving ---- */

void
worker_run(struct worker *worker, struct job *job, uint64_t now_ns)
{
    list_push(&worker->running, &job->link);
    worker->n_running++;
    job->started_ns = now_ns;
    job->output_from = worker->heard;
}

void
worker_settle(struct worker *worker, struct job *job, const struct verdict *verdict,
              uint64_t now_ns)
{
    worker_take_off(worker, job);
    /* The next one may have begun, and printed, before we heard of this answer, but not
     * before we heard of the one before. */
    struct list *next = NULL;
    if (worker->n_running < worker->concurrency)
        next = list_pop(&worker->sent);
    if (next)
        worker_run(worker, list_entry(next, struct job, link), now_ns);
    if (worker->n_jobs == 0)
        worker->quiet_ns = now_ns;
    worker->events->on_verdict(worker->owner, worker, job, verdict);
}

/* Puts one job into the buffer that the next flush writes. Out of memory: no state is
 * worth keeping then, and a killed worker's jobs go to another. */
static void
send_job(struct worker *worker, struct job *job, uint64_t now_ns)
{
    struct jobq__buf *out = &worker->channel.out;
    size_t before = out->len;
    const char *queue = worker->program->queue->name;
    struct jobq__frame frame = {
        .type = JOBQ__FRAME_JOB,
        .id = job->id,
        .attempt = job->attempt,
        .max_attempts = job->max_attempts,
        .timeout_ms = timeout_of(worker, job),
        .queue = {queue, strlen(queue)},
        .kind = {job->kind, strlen(job->kind)},
        .args = {job->args, job->args_len},
        .meta = {job->meta, job->meta_len},
    };
    jobq__frame_put_job(out, &frame);
    job->frame_end = UINT64_MAX;
    list_push(&worker->sent, &job->link);
    if (!worker_frame_is_whole(worker, before)) {
        log_error(worker->subject, "no memory for job %" PRId64 ": killing it", job->id);
        worker_end_for(worker, INTENT_GIVE_UP, now_ns);
        return;
    }
    job->frame_end = worker->channel.total + channel_backlog(&worker->channel);
    if (worker->n_running < worker->concurrency) {
        output_catch_up(&worker->output); /* all of this is older */
        worker->heard = worker->output.total;
        list_remove(&job->link);
        worker_run(worker, job, now_ns);
    }
}

void
worker_give(struct worker *worker, struct job *job, uint64_t now_ns)
{
    assert(worker_takes_jobs(worker) && !worker_is_exec(worker));
    job->started_ns = job->late_ns = 0;
    job->asked_back = false;
    worker->n_jobs++;
    if (worker->state == WORKER_IDLE)
        worker_set_state(worker, WORKER_BUSY, now_ns);
    list_push(&worker->unsent, &job->link);
}

static bool
has_to_send(const struct worker *worker)
{
    return !list_empty(&worker->unsent) && worker_takes_jobs(worker) &&
           channel_backlog(&worker->channel) < BACKLOG_BYTES;
}

void
worker_flush(struct worker *worker)
{
    if (worker->channel.state == CHANNEL_CLOSED)
        return;
    uint64_t now_ns = clock_ns();
    bool more = true;
    while (more) {
        while (has_to_send(worker)) {
            struct list *link = list_pop(&worker->unsent);
            send_job(worker, list_entry(link, struct job, link), now_ns);
        }
        channel_flush(&worker->channel);
        /* If the socket took all of it, no event will say that there is room. */
        more = channel_backlog(&worker->channel) == 0 && has_to_send(worker);
    }
    worker_mark(worker);
    worker_arm(worker, now_ns);
}

uint64_t
worker_busy_since(const struct worker *worker)
{
    const struct job *job = worker_head(worker);
    return job ? job->started_ns
               : worker->entered_ns; /* nothing sent yet: it has just become busy */
}

/* ---- stopping ---- */

/* What it was sent but has not begun is asked back: it comes as the answer "cancel", or
 * is done after all. */
static void
ask_back(struct worker *worker)
{
    for (struct list *at = worker->sent.next; at != &worker->sent; at = at->next) {
        struct job *job = list_entry(at, struct job, link);
        job->asked_back = true;
        put_cancel(worker, job->id);
    }
}

void
worker_take_unsent(struct worker *worker, struct list *to)
{
    struct list *link;
    while ((link = list_pop(&worker->unsent)) != NULL) {
        worker->n_jobs--;
        list_push(to, link);
    }
}

static void
take_cancelled(struct worker *worker, struct list *to)
{
    struct list *next;
    for (struct list *at = worker->unsent.next; at != &worker->unsent; at = next) {
        next = at->next;
        if (list_entry(at, struct job, link)->cancel == JOB_GOES_ON)
            continue;
        worker->n_jobs--;
        list_remove(at);
        list_push(to, at);
    }
}

void
worker_cancel(struct worker *worker, struct list *unsent)
{
    bool listens = worker->state == WORKER_BUSY || worker->state == WORKER_STOPPING ||
                   worker->state == WORKER_CANCELLING;
    take_cancelled(worker, unsent);
    for (struct list *at = worker->running.next; at != &worker->running; at = at->next) {
        struct job *job = list_entry(at, struct job, link);
        if (job->cancel == JOB_CANCEL_ASKED)
            job->cancel = JOB_CANCEL_TOLD; /* its deadline is now */
    }
    for (struct list *at = worker->sent.next; at != &worker->sent; at = at->next) {
        struct job *job = list_entry(at, struct job, link);
        if (job->cancel != JOB_CANCEL_ASKED)
            continue;
        job->cancel = JOB_CANCEL_TOLD;
        if (listens)
            put_cancel(worker, job->id);
    }
    if (listens) {
        worker_flush(worker);
        worker_arm(worker, clock_ns());
    }
}

/* ---- not being read ---- */

void
worker_hold(struct worker *worker, bool on)
{
    worker->held = on;
    if (worker->said_hello || !on)
        channel_hold(&worker->channel, on);
}

/* The last word to it. */
static void
dismiss(struct worker *worker, enum worker_wanted wanted)
{
    uint64_t now_ns = clock_ns();
    bool told = worker->wanted != WANTED_UP;
    if (worker->wanted >= wanted)
        return;
    worker->wanted = wanted;
    if (worker_is_exec(worker))
        return; /* it ends with its job */
    raise_intent(worker, INTENT_STOP);
    switch (worker->state) {
    case WORKER_UNFORKED:
        worker_arm(worker, now_ns);
        return;
    case WORKER_BOOTING:
        worker_terminate(worker, INTENT_STOP, now_ns);
        return;
    case WORKER_IDLE:
    case WORKER_BUSY:
        worker_set_state(worker, WORKER_STOPPING, now_ns);
        break;
    case WORKER_CANCELLING:
    case WORKER_STOPPING:
        break;
    case WORKER_LEAVING:
    case WORKER_TERMINATING:
    case WORKER_KILLING:
    case WORKER_ENDED:
        return;
    }
    if (wanted == WANTED_STOPPED)
        ask_back(worker);
    if (!told)
        put_stop(worker);
    channel_flush(&worker->channel);
    worker_arm(worker, now_ns);
}

void
worker_stop(struct worker *worker)
{
    dismiss(worker, WANTED_STOPPED);
}

void
worker_retire(struct worker *worker)
{
    dismiss(worker, WANTED_RETIRED);
}

void
worker_kill(struct worker *worker)
{
    worker->wanted = WANTED_GONE;
    worker_end_for(worker, INTENT_KILL, clock_ns());
}
