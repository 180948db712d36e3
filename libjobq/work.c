/* work.c: the job under way, as its handler sees it: what it is, the answers, progress
 * and the question whether to stop. Checks what handlers say before it becomes a frame,
 * so that a handler's mistake is that handler's error and never a broken protocol. */
#include "libjobq/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libjobq/error.h"
#include "libjobq/json.h"
#include "libjobq/utf8.h"

enum { ERROR_MAX = 4096, DETAIL_MAX = 64 * 1024, MARK_MAX = 64, PROGRESS_MS = 50 };
#define DELAY_MAX_MS INT64_C(315360000000) /* ten years */

int64_t
jobq_work_id(const jobq_work *work)
{
    return work->frame.id;
}

int
jobq_work_attempt(const jobq_work *work)
{
    return work->frame.attempt;
}

int
jobq_work_max_attempts(const jobq_work *work)
{
    return work->frame.max_attempts;
}

const char *
jobq_work_queue(const jobq_work *work)
{
    return work->frame.queue.at;
}

const char *
jobq_work_kind(const jobq_work *work)
{
    return work->frame.kind.at;
}

const char *
jobq_work_args(const jobq_work *work)
{
    return work->frame.args.at;
}

size_t
jobq_work_args_len(const jobq_work *work)
{
    return work->frame.args.len;
}

const char *
jobq_work_meta(const jobq_work *work)
{
    return work->frame.meta.at;
}

int64_t
jobq_work_timeout_ms(const jobq_work *work)
{
    return work->frame.timeout_ms;
}

/* ---- Answers ---- */

/* Remembers why an answer was refused: if the handler gives no other, this is its error.
 */
static int
refuse(jobq_work *work, jobq_error *err, const jobq_error *why)
{
    work->refused = *why;
    if (err)
        *err = *why;
    return why->code;
}

static int
check_open(jobq_work *work, const char *answer, jobq_error *err)
{
    int rc = jobq__worker_check_owner(work->worker, err);
    if (rc || (!work->answered && !work->was_kept))
        return rc;
    return jobq__error(err, JOBQ_ESTATE, "%s: job %lld was already %s", answer,
                       (long long)work->frame.id, work->answered ? "answered" : "kept");
}

/* The answer's frame stands in the outbox behind `before`; it counts unless memory ran
 * out or it is too long, and is taken out again then. */
static int
close_answer(jobq_work *work, size_t before, const char *answer, jobq_error *err)
{
    struct jobq__buf *out = &work->worker->outbox;
    jobq_error why;
    if (out->failed) {
        out->failed = false;
        out->len = before;
        jobq__error(&why, JOBQ_ENOMEM, "%s: out of memory", answer);
        return refuse(work, err, &why);
    }
    size_t bytes = out->len - before - 1;
    if (bytes > work->worker->max_frame) {
        out->len = before;
        jobq__error(&why, JOBQ_EINVAL,
                    "%s: the answer takes %zu bytes, at most %zu are allowed", answer,
                    bytes, work->worker->max_frame);
        return refuse(work, err, &why);
    }
    work->answered = true;
    return work->is_kept ? jobq__work_release(work, err) : JOBQ_OK;
}

int
jobq_work_ok(jobq_work *work, const char *result, jobq_error *err)
{
    struct jobq__buf *out = &work->worker->outbox;
    size_t before = out->len;
    jobq_error why;
    int rc = check_open(work, "jobq_work_ok", err);
    if (rc)
        return rc;
    if (!result) {
        jobq__frame_put_ok(out, work->frame.id, (struct jobq__span){NULL, 0});
        return close_answer(work, before, "jobq_work_ok", err);
    }
    struct jobq__span span = {result, strlen(result)};
    work->result_refused = true; /* unless it is taken: then that means nothing */
    if (jobq__json_check(span.at, span.len, "result", &why) != 0)
        return refuse(work, err, &why);
    struct jobq__buf line = {0};
    jobq__json_compact(&line, span.at, span.len);
    if (line.failed)
        out->failed = true;
    else
        jobq__frame_put_ok(out, work->frame.id, (struct jobq__span){line.data, line.len});
    jobq__buf_clear(&line);
    return close_answer(work, before, "jobq_work_ok", err);
}

/* The first byte of a character, at or before `at`. */
static size_t
border(const char *text, size_t at)
{
    for (int i = 0; i < 3 && at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80; i++)
        at--;
    return at;
}

/* A copy of the line that text is, of at most `most` bytes. */
static char *
cut(const char *text, size_t most)
{
    size_t len = strnlen(text, most + 1);
    char *copy = strndup(text, len > most ? border(text, most) : len);
    for (char *at = copy; copy && *at; at++)
        if (*at == '\n' || *at == '\r')
            *at = ' ';
    return copy;
}

/* A copy of a trace of at most `most` bytes. Of a longer one the middle is left out: its
 * end says what happened, in most languages, and its beginning in the others. */
static char *
cut_middle(const char *text, size_t most)
{
    size_t len = strlen(text);
    if (len <= most)
        return strdup(text);
    size_t head = border(text, (most - MARK_MAX) / 2);
    size_t tail = len - (most - MARK_MAX) / 2;
    while (tail < len && ((unsigned char)text[tail] & 0xC0) == 0x80)
        tail++;
    char *copy = malloc(most + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, head);
    int mark = snprintf(copy + head, MARK_MAX, "\n[... %zu bytes are left out ...]\n",
                        tail - head);
    memcpy(copy + head + mark, text + tail, len - tail + 1);
    return copy;
}

int
jobq_work_ok_without_result(jobq_work *work, const char *why, jobq_error *err)
{
    struct jobq__buf *out = &work->worker->outbox;
    size_t before = out->len;
    int rc = check_open(work, "jobq_work_ok_without_result", err);
    if (rc)
        return rc;
    char *line = cut(why ? why : "no reason given", ERROR_MAX);
    if (!line)
        out->failed = true;
    else
        jobq__frame_put_ok_without_result(out, work->frame.id, line);
    free(line);
    return close_answer(work, before, "jobq_work_ok_without_result", err);
}

static int
check_delay(jobq_work *work, const char *name, int64_t delay_ms, int64_t least,
            jobq_error *err)
{
    jobq_error why;
    if (delay_ms >= least && delay_ms <= DELAY_MAX_MS)
        return JOBQ_OK;
    jobq__error(&why, JOBQ_EINVAL, "%s must be %s0 to %lld, got %lld", name,
                least < 0 ? "-1 or " : "", (long long)DELAY_MAX_MS, (long long)delay_ms);
    return refuse(work, err, &why);
}

int
jobq_work_error(jobq_work *work, const char *error, const char *detail,
                int64_t retry_in_ms, jobq_error *err)
{
    struct jobq__buf *out = &work->worker->outbox;
    size_t before = out->len;
    int rc = check_open(work, "jobq_work_error", err);
    if (!rc)
        rc = check_delay(work, "retry_in_ms", retry_in_ms, -1, err);
    if (rc)
        return rc;
    char *line = cut(error ? error : "no reason given", ERROR_MAX);
    char *trace = detail ? cut_middle(detail, DETAIL_MAX) : NULL;
    if (!line || (detail && !trace))
        out->failed = true;
    else
        jobq__frame_put_error(out, work->frame.id, line, trace, retry_in_ms);
    free(trace);
    free(line);
    return close_answer(work, before, "jobq_work_error", err);
}

int
jobq_work_snooze(jobq_work *work, int64_t in_ms, jobq_error *err)
{
    size_t before = work->worker->outbox.len;
    int rc = check_open(work, "jobq_work_snooze", err);
    if (!rc)
        rc = check_delay(work, "in_ms", in_ms, 0, err);
    if (rc)
        return rc;
    jobq__frame_put_snooze(&work->worker->outbox, work->frame.id, in_ms);
    return close_answer(work, before, "jobq_work_snooze", err);
}

/* discard and cancel: a frame with an optional one-line reason. */
static int
end_with_reason(jobq_work *work, const char *answer,
                void (*put)(struct jobq__buf *, int64_t, const char *),
                const char *reason, jobq_error *err)
{
    struct jobq__buf *out = &work->worker->outbox;
    size_t before = out->len;
    int rc = check_open(work, answer, err);
    if (rc)
        return rc;
    char *line = reason ? cut(reason, ERROR_MAX) : NULL;
    if (reason && !line)
        out->failed = true;
    else
        put(out, work->frame.id, line);
    free(line);
    return close_answer(work, before, answer, err);
}

int
jobq_work_discard(jobq_work *work, const char *reason, jobq_error *err)
{
    return end_with_reason(work, "jobq_work_discard", jobq__frame_put_discard, reason,
                           err);
}

int
jobq_work_cancel(jobq_work *work, const char *reason, jobq_error *err)
{
    return end_with_reason(work, "jobq_work_cancel", jobq__frame_put_cancelled, reason,
                           err);
}

/* ---- While it runs ---- */

static uint64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int
jobq_work_progress(jobq_work *work, double done, const char *note, jobq_error *err)
{
    int rc = check_open(work, "jobq_work_progress", err);
    if (rc)
        return rc;
    if (!(done >= 0 && done <= 1))
        return jobq__error(err, JOBQ_EINVAL, "done must be 0 to 1, got %g", done);
    uint64_t now = now_ns();
    if (!work->worker->in_test && work->progress_ns &&
        now - work->progress_ns < PROGRESS_MS * UINT64_C(1000000))
        return JOBQ_OK;
    char *line = note ? cut(note, ERROR_MAX) : NULL;
    if (note && !line)
        return jobq__error(err, JOBQ_ENOMEM, "jobq_work_progress: out of memory");
    jobq__frame_put_progress(&work->worker->outbox, work->frame.id, done, line);
    free(line);
    work->progress_ns = now;
    return jobq__worker_flush(work->worker, err);
}

static int
known_stop(const jobq_work *work)
{
    const struct jobq__worker *worker = work->worker;
    if (worker->inbox.closed || jobq__worker_terminated())
        return JOBQ_STOP_NOW;
    if (jobq__worker_is_cancelled(worker, work->frame.id))
        return JOBQ_STOP_CANCEL;
    return worker->draining ? JOBQ_STOP_DRAIN : JOBQ_STOP_NO;
}

int
jobq_work_should_stop(jobq_work *work)
{
    struct jobq__worker *worker = work->worker;
    if (worker->in_test)
        return worker->stop_in_test;
    if (jobq__worker_check_owner(worker, NULL) != 0)
        return known_stop(work); /* to read would take from the worker what is its own */
    size_t before = worker->inbox.end;
    /* An error here is met again, and reported, by the loop when the handler returns. */
    int rc = jobq__worker_read(worker, NULL);
    if (worker->keeps && worker->inbox.end != before)
        jobq__worker_wake(); /* there may be nothing more to be read */
    return rc != 0 ? JOBQ_STOP_NOW : known_stop(work);
}
