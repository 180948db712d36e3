/* worker_says.c: what a worker says on its socket, and what follows from it: hello,
 * answers, and everything that the protocol does not know. */
#include "jobqd/pool/worker_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "libjobq/wire.h"
#include "libjobq/duration.h"

/* ---- answers ---- */

static struct job *
find_among(const struct list *jobs, int64_t id)
{
    for (struct list *at = jobs->next; at != jobs; at = at->next) {
        struct job *job = list_entry(at, struct job, link);
        if (job->id == id)
            return job;
    }
    return NULL;
}

/* What runs comes first: that is where almost every answer belongs. */
static struct job *
find_job(const struct worker *worker, int64_t id)
{
    struct job *job = find_among(&worker->running, id);
    return job ? job : find_among(&worker->sent, id);
}

/* Once a process: it goes on for as long as it lives. */
static void
warn_of_order(struct worker *worker, const struct job *answered)
{
    if (worker->told_of_order)
        return;
    worker->told_of_order = true;
    log_warning(worker->subject,
                "answered job %" PRId64 " before job %" PRId64
                ", which it got first; if it reads and writes through one buffered file, "
                "it loses the lines that it has read ahead and their jobs time out: use "
                "one file to read and another to write",
                answered->id, worker_head(worker)->id);
}

/* The protocol is broken: nothing that it says is believed any more. Returns false, for
 * on_line to return. */
static bool __attribute__((format(printf, 2, 3)))
complain(struct worker *worker, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(worker->complaint, sizeof worker->complaint, format, args);
    va_end(args);
    worker_end_for(worker, INTENT_PROTOCOL, clock_ns());
    return false;
}

/* Puts the handler's words into a C string; NULL for an absent member. The byte after a
 * decoded span inside a frame is a quote or what was decoded from, so it may be
 * overwritten. */
static const char *
text_of(struct jobq__span span)
{
    if (!span.at)
        return NULL;
    char *text = (char *)(uintptr_t)span.at;
    text[span.len] = '\0';
    return text;
}

static void
fill_verdict(const struct jobq__frame *frame, const struct job *job,
             struct verdict *verdict)
{
    static const enum verdict_kind kinds[JOBQ__N_FRAMES] = {
        [JOBQ__FRAME_OK] = VERDICT_OK,
        [JOBQ__FRAME_ERROR] = VERDICT_ERROR,
        [JOBQ__FRAME_SNOOZE] = VERDICT_SNOOZE,
        [JOBQ__FRAME_DISCARD] = VERDICT_DISCARD,
        [JOBQ__FRAME_CANCEL] = VERDICT_CANCELLED};
    assert(jobq__frame_is(frame->type, JOBQ__IS_ANSWER));
    verdict->kind = kinds[frame->type];
    /* What was asked back when the worker was told to stop was given back, not cancelled. */
    if (verdict->kind == VERDICT_CANCELLED && job->asked_back)
        verdict->kind = VERDICT_RELEASED;
    /* The members that a type does not have are absent. ok: why there is no result. */
    verdict->error = text_of(frame->error.at ? frame->error : frame->reason);
    verdict->detail = text_of(frame->detail);
    verdict->delay_ms = frame->delay_ms;
    verdict->result = frame->result.at;
    verdict->result_len = frame->result.len;
}

/* An answer after the deadline counts as it is if the job was done after all; anything
 * else is a timeout. */
static void
make_late(int64_t timeout_ms, struct verdict *verdict, char *text, size_t size)
{
    if (verdict->kind == VERDICT_OK)
        return;
    snprintf(text, size, "ran longer than its timeout of %s%s%s",
             jobq__duration_show(timeout_ms).text,
             verdict->error ? " and then said: " : "",
             verdict->error ? verdict->error : "");
    verdict->kind = VERDICT_TIMEOUT;
    verdict->error = text;
    verdict->delay_ms = -1;
}

/* The worker obeyed the cancel message. When there is no other that it has not obeyed
 * yet, it may go on, or go as it was told. */
static void
late_job_answered(struct worker *worker, struct job *job)
{
    job->late_ns = 0;
    worker->n_late--;
    if (worker->n_late > 0 || worker->sent_signal != 0)
        return; /* with a signal it is too late: it goes */
    bool stopped = worker->wanted == WANTED_RETIRED || worker->wanted == WANTED_STOPPED;
    if (worker->intent == INTENT_TIMEOUT || worker->intent == INTENT_CANCEL)
        worker->intent = stopped ? INTENT_STOP : INTENT_NONE;
    if (worker->state == WORKER_CANCELLING)
        worker_set_state(worker, stopped ? WORKER_STOPPING : WORKER_BUSY,
                         worker->batch_ns);
}

static bool
take_answer(struct worker *worker, const struct jobq__frame *frame)
{
    struct job *job = find_job(worker, frame->id);
    if (!job)
        return complain(worker, "answered job %" PRId64 ", which it does not hold",
                        frame->id);
    if (worker->batch++ == 0) {
        uint64_t head_ns = worker_head(worker)->started_ns;
        output_catch_up(&worker->output); /* what it said before is about this job */
        worker->batch_from_ns = head_ns > worker->batch_ns ? head_ns : worker->batch_ns;
        worker->batch_ns = clock_ns();
    }
    bool told_to_end = job->asked_back || job->cancel != JOB_GOES_ON;
    if (!told_to_end && !find_among(&worker->running, job->id))
        warn_of_order(worker, job);
    char text[OUTCOME_TEXT];
    struct verdict verdict = worker_no_verdict;
    fill_verdict(frame, job, &verdict);
    verdict.run_us = worker_run_us(job, worker->batch_ns);
    worker->answered++;
    if (verdict_error_kind(verdict.kind) != NULL)
        worker_measure_answer(worker, job, &verdict);
    if (job->late_ns != 0) {
        if (job->cancel == JOB_GOES_ON)
            make_late(launch_timeout_ms(worker->program->queue, job), &verdict, text,
                      sizeof text);
        late_job_answered(worker, job);
    }
    worker_settle(worker, job, &verdict, worker->batch_ns);
    if (worker->state == WORKER_BUSY && worker->n_jobs == 0)
        worker_set_state(worker, WORKER_IDLE, worker->batch_ns);
    return true;
}

/* ---- hello ---- */

static int
compare_kinds(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool
worker_handles(const struct worker *worker, const char *kind)
{
    if (!worker->kinds)
        return true;
    return bsearch(&kind, worker->kinds, worker->n_kinds, sizeof kind, compare_kinds) !=
           NULL;
}

/* The names go into one allocation, behind the array. A kind costs at least three bytes
 * of the list: "" and a comma. */
static int
take_kinds(struct worker *worker, struct jobq__span list)
{
    if (!list.at)
        return 0;
    size_t most = list.len / 3 + 1;
    char **kinds = malloc(most * sizeof kinds[0] + list.len + most);
    if (!kinds)
        return JOBQ_ENOMEM;
    char *text = (char *)(kinds + most);
    size_t n = 0;
    struct jobq__span kind;
    while (n < most && jobq__frame_next_kind(&list, &kind)) {
        kinds[n++] = text;
        memcpy(text, kind.at, kind.len);
        text[kind.len] = '\0';
        text += kind.len + 1;
    }
    qsort(kinds, n, sizeof kinds[0], compare_kinds);
    worker->kinds = kinds;
    worker->n_kinds = n;
    return 0;
}

static bool
take_hello(struct worker *worker, const struct jobq__frame *frame)
{
    if (worker->said_hello)
        return complain(worker, "said hello twice");
    if (frame->protocol != JOBQ__PROTOCOL_VERSION)
        return complain(worker, "speaks protocol %d, this jobqd speaks %d",
                        (int)frame->protocol, JOBQ__PROTOCOL_VERSION);
    if (frame->forkserver)
        return complain(
            worker, "said hello as a forkserver, but was not started as one (preload)");
    if (frame->concurrency > 1 && worker->program->queue->cpu_limit_ms > 0)
        return complain(worker, "runs %d jobs at a time, but cpu_limit allows only one",
                        (int)frame->concurrency);
    uint64_t now_ns = clock_ns();
    if (take_kinds(worker, frame->kinds) < 0) {
        log_error(worker->subject, "no memory for its kinds: killing it");
        worker_end_for(worker, INTENT_GIVE_UP, now_ns);
        return false;
    }
    worker->concurrency = (size_t)frame->concurrency;
    worker->said_hello = true;
    boot_end(&worker->boot);
    worker_hold(worker, worker->held);
    child_started(&worker->child);
    worker_note_peak(worker);
    if (worker->state != WORKER_BOOTING)
        return true; /* it is on its way out already */
    if (worker->gap_ns != 0)
        log_info(worker->subject, "replacement ready, %s after w%d exited",
                 jobq__duration_show_ns(now_ns - worker->gap_ns).text, worker->slot + 1);
    else
        log_info(worker->subject, "ready after %s",
                 jobq__duration_show_ns(now_ns - worker->begun_ns).text);
    worker->quiet_ns = now_ns;
    worker_set_state(worker, WORKER_IDLE, now_ns);
    worker_mark(worker);
    worker->events->on_ready(worker->owner, worker);
    return true;
}

static bool
take_progress(struct worker *worker, const struct jobq__frame *frame)
{
    const struct job *job = find_job(worker, frame->id);
    if (!job)
        return complain(worker,
                        "reported progress of job %" PRId64 ", which it does not hold",
                        frame->id);
    worker->events->on_progress(worker->owner, worker, job, frame->done,
                                text_of(frame->note));
    return true;
}

/* ---- the channel ---- */

static bool
on_line(void *owner, char *line, size_t len)
{
    struct worker *worker = owner;
    struct jobq__frame frame;
    jobq_error err;
    if (jobq__frame_parse(line, len, &frame, &err) < 0)
        return complain(worker, "%s", err.message);
    if (!worker->said_hello && frame.type != JOBQ__FRAME_HELLO)
        return complain(worker, "sent another message before its hello");
    if (!jobq__frame_is(frame.type, JOBQ__BY_WORKER))
        return complain(worker, "sent a \"%s\" message, which only %s",
                        jobq__frame_name(frame.type),
                        jobq__frame_is(frame.type, JOBQ__BY_JOBQD) ? "jobqd sends"
                                                                   : "forkservers send");
    if (frame.type == JOBQ__FRAME_HELLO)
        return take_hello(worker, &frame);
    if (frame.type == JOBQ__FRAME_PROGRESS)
        return take_progress(worker, &frame);
    return take_answer(worker, &frame);
}

static void
on_lines_end(void *owner)
{
    struct worker *worker = owner;
    size_t n = worker->batch;
    worker->batch = 0;
    worker->heard = worker->output.total;
    if (n == 0)
        return;
    uint64_t elapsed_ns = worker->batch_ns - worker->batch_from_ns;
    if (channel_is_held_up(&worker->channel) ||
        worker->channel.released_ns > worker->batch_from_ns)
        elapsed_ns = 0; /* it is ours, not the worker's */
    worker->events->on_answers(worker->owner, worker, n, elapsed_ns);
    worker_mark(worker);
    worker_after_jobs(worker);
    worker_arm(worker, worker->batch_ns);
}

/* There is room for frames again. It may give no answer before it has them: it runs many
 * jobs at a time. */
static void
on_written(void *owner)
{
    struct worker *worker = owner;
    if (!list_empty(&worker->unsent))
        worker_flush(worker);
}

static void
on_channel_end(void *owner)
{
    struct worker *worker = owner;
    enum channel_state why = worker->channel.state;
    uint64_t now_ns = clock_ns();
    if (why == CHANNEL_TOO_LONG) {
        complain(worker, "sent a line longer than %zu bytes (max_frame)",
                 worker->program->max_frame);
        return;
    }
    if (why == CHANNEL_FAILED) {
        log_error(worker->subject, "cannot read from its socket: killing it");
        worker_end_for(worker, INTENT_GIVE_UP, now_ns);
        return;
    }
    /* Nearly always the process has ended, and its exit is what we see next. */
    if (why != CHANNEL_REFUSED && worker->state < WORKER_LEAVING) {
        worker_set_state(worker, WORKER_LEAVING, now_ns);
        worker_arm(worker, now_ns);
    }
}

const struct channel_events worker_channel_events = {
    .on_line = on_line,
    .on_lines_end = on_lines_end,
    .on_written = on_written,
    .on_end = on_channel_end,
    .on_closed = worker_part_closed,
};
