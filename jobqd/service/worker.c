/* worker.c: see worker.h. What happens to the process (a line, a deadline, its exit) and
 * what is wanted of it each move it by one state; nothing here waits, and a move that
 * is_legal does not list is a bug. */
#include "jobqd/service/worker_private.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/io/guard_table.h"
#include "jobqd/io/loopwatch.h"
#include "jobqd/service/launch.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"

/* BACKLOG_BYTES: frames beyond it wait as jobs, not as copies, until the worker has read
 * some. */
enum { BACKLOG_BYTES = 256 * 1024 };

/* HEAR_MS: after a hold, what has gathered is read within so long. LOOK_AGAIN_MS: how
 * often a deadline that has passed meanwhile is looked at. */
enum { HEAR_MS = 5000, LOOK_AGAIN_MS = 200 };

static void on_timer(uv_timer_t *timer);

static const char not_needed[] = "not needed any more";

/* ---- frames to the worker ---- */

/* A frame was put behind the first `before` bytes. Whole or not at all: returns false,
 * with the buffer as it was, when memory ran out within it. */
static bool
is_whole(struct worker *worker, size_t before)
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
    is_whole(worker, before);
}

static void
put_stop(struct worker *worker)
{
    size_t before = worker->channel.out.len;
    jobq__frame_put_stop(&worker->channel.out);
    is_whole(worker, before);
}

/* ---- states ---- */

const char *
worker_state_meaning(enum worker_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        WORKER_STATES(X)
#undef X
    };
    return meanings[state];
}

#define BIT(state) (1u << (state))
/* What every living process may come to at any moment. */
#define WHENEVER (BIT(WORKER_TERMINATING) | BIT(WORKER_KILLING) | BIT(WORKER_ENDED))

static bool
is_legal(enum worker_state from, enum worker_state to)
{
    static const unsigned moves[] = {
        [WORKER_UNBORN] = BIT(WORKER_BOOTING) | BIT(WORKER_ENDED),
        [WORKER_BOOTING] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_LEAVING),
        [WORKER_IDLE] =
            WHENEVER | BIT(WORKER_BUSY) | BIT(WORKER_STOPPING) | BIT(WORKER_LEAVING),
        [WORKER_BUSY] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_STOPPING) |
                        BIT(WORKER_CANCELLING) | BIT(WORKER_LEAVING),
        [WORKER_STOPPING] = WHENEVER | BIT(WORKER_CANCELLING) | BIT(WORKER_LEAVING),
        [WORKER_CANCELLING] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_BUSY) |
                              BIT(WORKER_STOPPING) | BIT(WORKER_LEAVING),
        [WORKER_LEAVING] = WHENEVER,
        [WORKER_TERMINATING] = BIT(WORKER_KILLING) | BIT(WORKER_ENDED),
        [WORKER_KILLING] = BIT(WORKER_ENDED),
        [WORKER_ENDED] = 0,
    };
    return moves[from] & BIT(to);
}

bool
worker_is_exec(const struct worker *worker)
{
    return worker->program->queue->mode == QUEUE_EXEC;
}

bool
worker_takes_jobs(const struct worker *worker)
{
    return !worker_is_exec(worker) &&
           (worker->state == WORKER_IDLE || worker->state == WORKER_BUSY);
}

void
worker_set_state(struct worker *worker, enum worker_state state, uint64_t now_ns)
{
    bool legal = is_legal(worker->state, state);
    assert(legal);
    (void)legal;
    bool took_jobs = worker_takes_jobs(worker);
    worker->state = state;
    worker->entered_ns = now_ns;
    /* A worker changes between these two with every burst of jobs: that would be all that
     * the log says. */
    if (state != WORKER_IDLE && state != WORKER_BUSY && log_wants(LOG_LEVEL_DEBUG))
        log_debug(worker->subject, "waits for %s", worker_state_meaning(state));
    if (took_jobs && !worker_takes_jobs(worker))
        worker->events->on_withdrawn(worker->owner, worker);
}

struct job *
worker_head(const struct worker *worker)
{
    if (list_empty(&worker->running))
        return NULL;
    return list_entry(worker->running.next, struct job, link);
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

static uint64_t
after_ms(uint64_t from_ns, int64_t ms)
{
    return from_ns + (uint64_t)ms * 1000000u;
}

/* When patience with a running job ends; 0: never. */
static uint64_t
job_due_ns(const struct worker *worker, const struct job *job)
{
    if (job->late_ns != 0)
        return after_ms(job->late_ns, worker->program->queue->stop_grace_ms);
    if (job->cancel != JOB_GOES_ON)
        return job->started_ns;
    int64_t timeout_ms = timeout_of(worker, job);
    return timeout_ms > 0 ? after_ms(job->started_ns, timeout_ms) : 0;
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
    case WORKER_UNBORN: /* the template has deadlines of its own */
        return worker->wanted == WANTED_UP ? 0 : worker->entered_ns;
    case WORKER_BOOTING:
        return after_ms(worker->entered_ns, queue->boot_timeout_ms);
    case WORKER_BUSY:
    case WORKER_CANCELLING:
        first_due(worker, &due);
        return due;
    case WORKER_STOPPING:
        if (worker_head(worker)) {
            first_due(worker, &due);
            return due;
        }
        return after_ms(worker->quiet_ns > worker->entered_ns ? worker->quiet_ns
                                                              : worker->entered_ns,
                        queue->stop_grace_ms);
    case WORKER_LEAVING:
    case WORKER_TERMINATING:
        return after_ms(worker->entered_ns, queue->stop_grace_ms);
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
    uv_timer_start(&worker->timer, on_timer, (left_ns + 999999u) / 1000000u, 0);
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
static void
on_kill_turn(struct turn *turn)
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
    if (worker->state == WORKER_UNBORN) {
        worker_arm(worker, now_ns);
        return;
    }
    worker_set_state(worker, WORKER_KILLING, now_ns);
    if (turn_now(&worker->kill_turn))
        on_kill_turn(&worker->kill_turn);
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
                  "job %" PRId64 " (kind %s) has run for its timeout of %.3g s; "
                  "asking it to stop",
                  job->id, job->kind, (double)timeout_of(worker, job) / 1000);
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
    return now_ns < after_ms(due_ns, HEAR_MS) && channel_has_unread(&worker->channel);
}

bool
worker_may_have_answered(const struct worker *worker, uint64_t now_ns)
{
    const struct channel *channel = &worker->channel;
    bool held_up =
        channel_is_held_up(channel) ||
        (channel->released_ns != 0 && now_ns < after_ms(channel->released_ns, HEAR_MS));
    return held_up && channel_is_behind(channel);
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
    worker->armed_ns = after_ms(now_ns, LOOK_AGAIN_MS);
    uv_timer_start(&worker->timer, on_timer, LOOK_AGAIN_MS, 0);
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
    case WORKER_UNBORN:
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
        log_warning(worker->subject, "did not go after %s: killing it",
                    worker->sent_signal == SIGXCPU ? "SIGXCPU" : "SIGTERM");
        worker_end_for(worker, INTENT_NONE, now_ns);
        return;
    case WORKER_IDLE:
    case WORKER_KILLING:
    case WORKER_ENDED:
        return;
    }
}

static void
on_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    uint64_t now_ns = uv_hrtime();
    loop_is_at("a worker's deadline", worker->program->queue->name);
    worker->armed_ns = 0;
    uint64_t due = due_ns(worker);
    if (due != 0 && now_ns >= due)
        patience_ends(worker, now_ns);
    else
        worker_arm(worker, now_ns);
}

/* ---- giving back, giving ---- */

const struct verdict worker_no_verdict = {
    .delay_ms = -1, .exit_code = -1, .run_us = -1, .cpu_us = -1, .max_rss_kb = -1};

int64_t
worker_run_us(const struct job *job, uint64_t now_ns)
{
    return job->started_ns ? (int64_t)((now_ns - job->started_ns) / 1000u) : -1;
}

static void
run(struct worker *worker, struct job *job, uint64_t now_ns)
{
    list_push(&worker->running, &job->link);
    worker->n_running++;
    job->started_ns = now_ns;
    job->output_from = worker->heard;
}

void
worker_take_off(struct worker *worker, struct job *job)
{
    list_remove(&job->link);
    worker->n_jobs--;
    if (job->started_ns == 0)
        return;
    worker->n_running--;
    if (job->late_ns != 0)
        worker->n_late--;
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
        run(worker, list_entry(next, struct job, link), now_ns);
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
    if (!is_whole(worker, before)) {
        log_error(worker->subject, "no memory for job %" PRId64 ": killing it", job->id);
        worker_end_for(worker, INTENT_GIVE_UP, now_ns);
        return;
    }
    job->frame_end = worker->channel.total + channel_backlog(&worker->channel);
    if (worker->n_running < worker->concurrency) {
        output_catch_up(&worker->output); /* all of this is older */
        worker->heard = worker->output.total;
        list_remove(&job->link);
        run(worker, job, now_ns);
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
    uint64_t now_ns = uv_hrtime();
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
        worker_arm(worker, uv_hrtime());
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
    uint64_t now_ns = uv_hrtime();
    bool told = worker->wanted != WANTED_UP;
    if (worker->wanted >= wanted)
        return;
    worker->wanted = wanted;
    if (worker_is_exec(worker))
        return; /* it ends with its job */
    raise_intent(worker, INTENT_STOP);
    switch (worker->state) {
    case WORKER_UNBORN:
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
    worker_end_for(worker, INTENT_KILL, uv_hrtime());
}

/* ---- its beginning ---- */

static void
open_timer(struct worker *worker)
{
    uv_timer_init(worker->program->loop, &worker->timer);
    worker->timer.data = worker;
    worker->n_handles++;
}

int
worker_watch(struct worker *worker, jobq_error *err)
{
    uv_loop_t *loop = worker->program->loop;
    char *chunk = worker->program->chunk;
    int rc = uv_poll_init(loop, &worker->exit_poll, worker->child.pidfd);
    if (rc < 0)
        return jobq__error(err, JOBQ_EIO, "cannot watch process %ld: %s",
                           (long)worker->child.pid, uv_strerror(rc));
    worker->exit_poll.data = worker;
    worker->n_handles++;
    if (!worker->timer.data)
        open_timer(worker);
    uv_poll_start(&worker->exit_poll, UV_READABLE, worker_exit_seen);

    int output_fd = worker->child.output_fd;
    int channel_fd = worker->child.channel_fd;
    worker->child.output_fd = worker->child.channel_fd = -1; /* the parts' from here on */
    rc = output_open(&worker->output, loop, output_fd, chunk, worker->rate,
                     &worker_output_events, worker);
    worker->n_handles += rc == 0;
    int channel_rc =
        channel_open(&worker->channel, loop, channel_fd, worker->program->max_frame,
                     chunk, &worker_channel_events, worker);
    worker->n_handles += channel_rc == 0 && channel_fd >= 0;
    if (rc < 0 || channel_rc < 0) {
        log_error(worker->subject, "cannot watch its descriptors, killing it: %s",
                  uv_strerror(rc < 0 ? rc : channel_rc));
        worker_end_for(worker, INTENT_GIVE_UP, uv_hrtime());
    }
    return 0;
}

void
worker_name(struct worker *worker)
{
    snprintf(worker->name, sizeof worker->name, "%s/w%d", worker->program->queue->name,
             worker->slot + 1);
    int n = snprintf(worker->subject, sizeof worker->subject, "worker %s", worker->name);
    if (worker->child.pid > 0 && n > 0 && (size_t)n < sizeof worker->subject)
        snprintf(worker->subject + n, sizeof worker->subject - (size_t)n, " pid %ld",
                 (long)worker->child.pid);
}

struct log_facts
worker_facts(const struct worker *worker, const struct job *job)
{
    struct log_facts facts = {.queue = worker->program->queue->name,
                              .worker = worker->name,
                              .pid = (long)worker->child.pid};
    if (job) {
        facts.job = job->id;
        facts.kind = job->kind;
        facts.attempt = (int)job->attempt;
        facts.max_attempts = (int)job->max_attempts;
    }
    return facts;
}

/* The template has answered. From here on it is a worker like any other. */
static void
on_birth(struct template_request *request, const struct child *child, const char *why,
         bool bad)
{
    struct worker *worker = list_entry(request, struct worker, birth);
    jobq_error err;
    if (!child) {
        worker_end_unborn(worker, why, bad);
        return;
    }
    worker->child = *child;
    if (worker->wanted != WANTED_UP) { /* the timer was about to end it */
        child_discard(&worker->child);
        worker_end_unborn(worker, not_needed, false);
        return;
    }
    worker_name(worker);
    worker_confine(worker); /* before it is told to start */
    worker_set_state(worker, WORKER_BOOTING, uv_hrtime());
    if (worker_watch(worker, &err) < 0) {
        watch_remove(worker->program->watch, &worker->watched);
        child_discard(&worker->child);
        worker_end_unborn(worker, err.message, true);
        return;
    }
    if (worker->state != WORKER_BOOTING)
        return; /* its descriptors could not be watched: it was killed */
    size_t before = worker->channel.out.len;
    jobq__frame_put_start(&worker->channel.out);
    if (!is_whole(worker, before)) {
        log_error(worker->subject, "no memory to start it: killing it");
        worker_end_for(worker, INTENT_GIVE_UP, worker->entered_ns);
        return;
    }
    channel_flush(&worker->channel);
    worker_arm(worker, worker->entered_ns);
}

/* A process at once, or the promise of one. */
static int
begin(struct worker *worker, struct job *job, jobq_error *err)
{
    struct worker_program *program = worker->program;
    if (program->queue->preload && !program->template)
        return jobq__error(err, JOBQ_ENOMEM, "there is no template to fork it");
    if (program->template) {
        open_timer(worker);
        worker->birth.on_done = on_birth;
        template_ask(program->template, &worker->birth);
        return 0;
    }
    int rc = worker_launch(worker, job, err);
    if (rc < 0)
        return rc;
    worker->state = WORKER_BOOTING;
    worker_name(worker);
    rc = worker_watch(worker, err);
    if (rc < 0) {
        watch_remove(program->watch, &worker->watched);
        child_discard(&worker->child);
    }
    return rc;
}

struct worker *
worker_blank(struct worker_program *program, int slot, struct output_rate *rate)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return NULL;
    worker->program = program;
    worker->slot = slot;
    worker->rate = rate;
    worker->placed_at = WORKER_NOWHERE;
    worker->child = (struct child){.pidfd = -1,
                                   .channel_fd = -1,
                                   .output_fd = -1,
                                   .exec_error_fd = -1,
                                   .guarded = GUARD_NOWHERE};
    worker->channel.fd = worker->output.fd = -1;
    worker->channel.state = CHANNEL_CLOSED;
    worker->concurrency = 1;
    list_init(&worker->running);
    list_init(&worker->sent);
    list_init(&worker->unsent);
    list_init(&worker->place);
    list_init(&worker->dirty);
    list_init(&worker->birth.link);
    turn_init(&worker->end_turn, TURN_HEAR, worker_on_end_turn);
    turn_init(&worker->kill_turn, TURN_HEAR, on_kill_turn);
    worker_name(worker);
    return worker;
}

int
worker_new(struct worker **out, struct worker_program *program, int slot,
           struct output_rate *rate, struct job *job, const struct worker_events *events,
           void *owner, jobq_error *err)
{
    struct worker *worker = worker_blank(program, slot, rate);
    if (!worker)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a worker");
    worker->events = events;
    worker->owner = owner;
    worker->begun_ns = worker->entered_ns = uv_hrtime();
    int rc = begin(worker, job, err);
    if (rc < 0) {
        free(worker);
        return rc;
    }
    if (job && worker->state == WORKER_BOOTING) {
        worker->said_hello = true; /* its exit code is all that it will say */
        worker->state = WORKER_BUSY;
    }
    if (job) {
        job->late_ns = 0;
        run(worker, job, worker->entered_ns);
        worker->n_jobs = 1;
        worker_mark(worker);
    }
    log_debug(worker->subject, "started, waits for %s",
              worker_state_meaning(worker->state));
    worker_arm(worker, worker->entered_ns);
    *out = worker;
    return 0;
}

void
worker_free(struct worker *worker)
{
    assert(worker->n_handles == 0);
    free(worker->kinds);
    free(worker);
}
