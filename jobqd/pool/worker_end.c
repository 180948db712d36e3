/* worker_end.c: what a worker prints, how it ends, and what that means for the job at its
 * head. */
#include "jobqd/pool/worker_private.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"

/* For so long, 5 s, the end of a process may be kept from us. */
enum { EXIT_TRIES = 500, EXIT_AGAIN_MS = 10 };

static void on_exit_again(uv_timer_t *timer);

/* ---- its output ---- */

static void
on_output_line(void *owner, const char *line)
{
    struct worker *worker = owner;
    const struct job *job = worker->n_running == 1 ? worker_head(worker) : NULL;
    if (worker->seen_peak_kb < 0)
        worker_note_peak(worker);
    if (!log_wants(LOG_LEVEL_INFO))
        return;
    struct log_facts facts = worker_facts(worker, job);
    if (job)
        log_about(LOG_LEVEL_INFO, worker->subject, &facts, "job %" PRId64 " says: %s",
                  job->id, line);
    else
        log_about(LOG_LEVEL_INFO, worker->subject, &facts, "says: %s", line);
}

static void
on_output_dropped(void *owner, uint64_t lines)
{
    struct worker *worker = owner;
    log_warning(
        worker->subject,
        "%" PRIu64
        " lines of its output were not logged: more than %d lines or %d KiB per second",
        lines, OUTPUT_LINES_A_SECOND, OUTPUT_BYTES_A_SECOND / 1024);
}

const struct output_events worker_output_events = {
    .on_line = on_output_line,
    .on_dropped = on_output_dropped,
    .on_closed = worker_part_closed,
};

/* ---- its end ---- */

/* Whether the process can have begun the job. One that it was sent when it was on its way
 * out it has not: either its frame was not written whole (a process that takes no more
 * shuts its end for reading), or it was the last that was written and the socket was
 * closed with something unread. */
static bool
has_reached(const struct worker *worker, const struct job *job)
{
    const struct channel *channel = &worker->channel;
    if (worker_is_exec(worker))
        return true;
    if (channel->total < job->frame_end)
        return false;
    return !(channel->unread && channel->total == job->frame_end);
}

/* After so many workers that died with the same job first in line, but unread, it is
 * charged all the same. Not more than bad ends before the pool pauses: then it would be
 * given back to the database, and counted anew. */
enum { UNREAD_DEATHS = 3 };

static void
charge_unread(const struct worker *worker, struct job *job, struct ending *ending,
              struct outcome *outcome)
{
    int most = worker->program->queue->max_restarts + 1;
    if (!job || job != worker_head(worker) || ending->holds_job ||
        !(outcome->bad || outcome->kind == OUTCOME_CRASHED))
        return;
    if (++job->unread_deaths < (most < UNREAD_DEATHS ? most : UNREAD_DEATHS))
        return;
    ending->holds_job = true;
    ending->unread_deaths = job->unread_deaths;
    outcome_judge(ending, outcome);
}

static size_t
count_reached(const struct worker *worker)
{
    size_t n = 0;
    for (struct list *at = worker->running.next; at != &worker->running; at = at->next)
        n += has_reached(worker, list_entry(at, struct job, link));
    return n;
}

/* Why we ended the process, as far as that job is concerned: one may have been past its
 * deadline and another one cancelled. */
static enum intent
intent_for(const struct worker *worker, const struct job *job)
{
    if (!job || job->late_ns == 0 ||
        (worker->intent != INTENT_TIMEOUT && worker->intent != INTENT_CANCEL))
        return worker->intent;
    return job->cancel == JOB_GOES_ON ? INTENT_TIMEOUT : INTENT_CANCEL;
}

/* What the end means for a job that the process ran; NULL: it ran none. reached: how many
 * of those that it ran it can have begun. */
static void
judge(struct worker *worker, struct job *job, size_t reached, const struct child_end *end,
      struct outcome *outcome)
{
    const struct queue_config *queue = worker->program->queue;
    bool late = job && job->late_ns != 0;
    char step[512], last[OUTCOME_LINE + 1];
    struct child_failure failure = child_failure(&worker->child);
    limits_describe(&worker->program->plan.limits, failure.step, step, sizeof step);
    struct ending ending = {
        .program = worker_is_exec(worker) ? PROGRAM_EXEC : PROGRAM_WORKER,
        .intent = intent_for(worker, job),
        .said_hello = worker->said_hello,
        .holds_job = job && has_reached(worker, job),
        .beside = reached > 0 ? reached - 1 : 0,
        .is_late = late,
        .half_line = worker->channel.state == CHANNEL_CUT,
        .answered = worker->answered,
        .exec_errno = failure.step == LIMITS_DONE ? 0 : failure.why,
        .exec_step = failure.step == LIMITS_EXEC ? NULL : step,
        .exec_fault = failure.text[0] ? failure.text : NULL,
        .exit_code = end->exit_code,
        .signal = end->signal,
        .sent_signal = worker->sent_signal,
        .limit_ms = late ? launch_timeout_ms(queue, job) : queue->boot_timeout_ms,
        .complaint = worker->complaint[0] ? worker->complaint : NULL,
        .path = queue->argv[0],
        .last_line = output_last_line(&worker->output, last, sizeof last),
    };
    worker_fill_ending(worker, job, end, &ending);
    outcome_judge(&ending, outcome);
    charge_unread(worker, job, &ending, outcome);
}

static void
settle(struct worker *worker, struct job *job, const struct child_end *end,
       const struct outcome *outcome, uint64_t now_ns)
{
    struct verdict verdict = worker_no_verdict;
    verdict.kind = outcome->verdict;
    verdict.delay_ms = outcome->delay_ms;
    verdict.run_us = worker_run_us(job, now_ns);
    /* Of a worker the kernel's sum is that of all the jobs that it ever had. */
    verdict.cpu_us = worker_is_exec(worker) ? end->cpu_us : worker->end_cpu_us;
    verdict.max_rss_kb =
        worker->peak_kb > end->max_rss_kb ? worker->peak_kb : end->max_rss_kb;
    verdict.exit_code = end->exit_code;
    verdict.signal = end->signal;
    if (verdict.kind != VERDICT_OK && verdict.kind != VERDICT_RELEASED &&
        verdict.kind != VERDICT_SNOOZE) {
        verdict.error = outcome->text;
        verdict.output = output_tail(&worker->output, job->output_from);
    }
    worker_take_off(worker, job);
    worker->events->on_verdict(worker->owner, worker, job, &verdict);
}

/* job: the one at its head that it could have begun; NULL: none. */
static void
log_end(const struct worker *worker, const struct job *job, const struct outcome *outcome)
{
    bool ordinary = outcome->kind == OUTCOME_FINISHED || outcome->kind == OUTCOME_STOPPED;
    enum log_level level = ordinary                             ? LOG_LEVEL_DEBUG
                           : outcome->kind == OUTCOME_CANCELLED ? LOG_LEVEL_INFO
                                                                : LOG_LEVEL_WARNING;
    struct log_facts facts = worker_facts(worker, job);
    if (!log_wants(level))
        return;
    if (!ordinary && outcome->charged)
        facts.error_kind = verdict_error_kind(outcome->verdict);
    if (ordinary)
        log_about(level, worker->subject, &facts, "%s", outcome->text);
    else if (job)
        log_about(level, worker->subject, &facts,
                  "%s: %s (job %" PRId64 ", kind %s, attempt %d of %d)",
                  outcome_name(outcome->kind), outcome->text, job->id, job->kind,
                  (int)job->attempt, (int)job->max_attempts);
    else
        log_about(level, worker->subject, &facts, "%s: %s", outcome_name(outcome->kind),
                  outcome->text);
}

/* The head's outcome is the worker's. What is not charged stays, in front of what it had
 * not begun. */
static void
judge_all(struct worker *worker, const struct child_end *end, struct outcome *outcome,
          uint64_t now_ns)
{
    struct job *head = worker_head(worker);
    size_t reached = count_reached(worker);
    struct list *next;
    judge(worker, head, reached, end, outcome);
    log_end(worker, head && outcome->charged ? head : NULL, outcome);
    for (struct list *at = worker->running.next; at != &worker->running; at = next) {
        struct job *job = list_entry(at, struct job, link);
        struct outcome own = *outcome;
        next = at->next;
        if (job != head)
            judge(worker, job, reached, end, &own);
        if (own.charged)
            settle(worker, job, end, &own, now_ns);
    }
    while (!list_empty(&worker->running)) {
        struct list *last = worker->running.prev;
        list_remove(last);
        list_push_front(&worker->sent, last);
    }
}

void
worker_part_closed(void *owner)
{
    struct worker *worker = owner;
    if (--worker->n_handles == 0)
        worker->events->on_gone(worker->owner, worker);
}

static void
on_handle_closed(uv_handle_t *handle)
{
    worker_part_closed(handle->data);
}

static void
close_all(struct worker *worker)
{
    if (worker->channel.fd >= 0)
        channel_close(&worker->channel);
    if (worker->output.fd >= 0)
        output_close(&worker->output);
    uv_close((uv_handle_t *)&worker->timer, on_handle_closed);
    if (worker->child.pidfd >= 0)
        uv_close((uv_handle_t *)&worker->exit_poll, on_handle_closed);
    child_close(&worker->child);
}

static void
end_life(struct worker *worker)
{
    uint64_t now_ns = clock_ns();
    struct child_end end = {.exit_code = -1, .cpu_us = -1, .max_rss_kb = -1};
    struct outcome outcome;
    jobq_error err;

    turn_leave(&worker->kill_turn);
    boot_end(&worker->boot);
    worker_set_state(worker, WORKER_ENDED,
                     now_ns);              /* from here on nothing is sent to it */
    child_signal(&worker->child, SIGKILL); /* its group; it is dead itself */
    /* What it said before it died counts: the answers first, then the judgement. */
    if (worker->channel.state == CHANNEL_OPEN)
        channel_drain(&worker->channel);
    output_drain(&worker->output);
    worker_measure_end(worker);
    if (child_reap(&worker->child, &end, &err) < 0)
        log_error(worker->subject, "%s", err.message);
    if (end.by_guard)
        worker->intent = INTENT_GUARD;
    judge_all(worker, &end, &outcome, now_ns);
    worker->events->on_end(worker->owner, worker, &outcome);
    assert(list_empty(&worker->sent));
    close_all(worker);
}

/* Somebody who traces the process (strace, a debugger) takes its end first, and only then
 * is it ours to take. */
static void
try_to_end(struct worker *worker)
{
    if (child_has_ended(&worker->child) || worker->exit_tries == EXIT_TRIES) {
        end_life(worker);
        return;
    }
    worker->exit_tries++;
    uv_timer_start(&worker->timer, on_exit_again, EXIT_AGAIN_MS, 0);
}

void
worker_on_end_turn(struct turn *turn)
{
    struct worker *worker = list_entry(turn, struct worker, end_turn);
    loop_is_at("reaping a worker", worker->program->queue->name);
    try_to_end(worker);
}

static void
on_exit_again(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    worker_on_end_turn(&worker->end_turn);
}

void
worker_end_unborn(struct worker *worker, const char *why, bool bad)
{
    struct outcome outcome = {.kind = bad ? OUTCOME_BOOT_FAILED : OUTCOME_STOPPED,
                              .bad = bad,
                              .verdict = VERDICT_RELEASED,
                              .delay_ms = -1};
    snprintf(outcome.text, sizeof outcome.text, "%s", why);
    forkserver_forget(worker->program->forkserver, &worker->fork_handoff);
    turn_leave(&worker->kill_turn);
    boot_end(&worker->boot);
    worker_set_state(worker, WORKER_ENDED, clock_ns());
    log_end(worker, NULL, &outcome);
    worker->events->on_end(worker->owner, worker, &outcome);
    close_all(worker);
}

void
worker_exit_seen(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    if (turn_now(&worker->end_turn))
        worker_on_end_turn(&worker->end_turn);
}
