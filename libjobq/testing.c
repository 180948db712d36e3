/* testing.c: a handler run here and now. The job goes through the worker's code as a line
 * from jobqd would, and the answer is read from the line that would go back: so a test
 * sees what jobqd would see. */
#include "libjobq/testing.h"

#include <stdlib.h>
#include <string.h>

#include "libjobq/error.h"
#include "libjobq/job.h"
#include "libjobq/worker.h"

enum { DEFAULT_MAX_ATTEMPTS = 20, MAX_ATTEMPTS = 1000 };

/* What the caller holds, and the texts that it points to. */
struct outcome {
    jobq_testing_outcome said; /* first: the caller's pointer is ours */
    struct jobq__buf frames;
    jobq_testing_progress *progress;
};

/* ---- The answer ---- */

/* The byte behind a span was read when its line was parsed: a quote, a comma, a brace. */
static const char *
text_of(struct jobq__span span)
{
    if (!span.at)
        return NULL;
    char *text = (char *)(uintptr_t)span.at;
    text[span.len] = '\0';
    return text;
}

static int
add_progress(struct outcome *outcome, const struct jobq__frame *frame)
{
    size_t n = outcome->said.n_progress;
    jobq_testing_progress *more =
        realloc(outcome->progress, (n + 1) * sizeof *outcome->progress);
    if (!more)
        return JOBQ_ENOMEM;
    more[n] = (jobq_testing_progress){frame->done, text_of(frame->note)};
    outcome->said.progress = outcome->progress = more;
    outcome->said.n_progress = n + 1;
    return 0;
}

static void
take_answer(jobq_testing_outcome *said, enum jobq_testing_answer answer,
            struct jobq__span error, int64_t delay_ms)
{
    said->answer = (int)answer;
    said->error = text_of(error);
    said->delay_ms = delay_ms;
}

static int
take_frame(struct outcome *outcome, const struct jobq__frame *frame)
{
    static const enum jobq_testing_answer answers[JOBQ__N_FRAMES] = {
        [JOBQ__FRAME_OK] = JOBQ_TESTING_OK,
        [JOBQ__FRAME_ERROR] = JOBQ_TESTING_ERROR,
        [JOBQ__FRAME_SNOOZE] = JOBQ_TESTING_SNOOZE,
        [JOBQ__FRAME_DISCARD] = JOBQ_TESTING_DISCARD,
        [JOBQ__FRAME_CANCEL] = JOBQ_TESTING_CANCEL};
    jobq_testing_outcome *said = &outcome->said;
    if (frame->type == JOBQ__FRAME_PROGRESS)
        return add_progress(outcome, frame);
    if (!jobq__frame_is(frame->type, JOBQ__IS_ANSWER))
        return JOBQ_EPROTO;
    /* The members that a type does not have are absent. */
    take_answer(said, answers[frame->type],
                frame->error.at ? frame->error : frame->reason, frame->delay_ms);
    said->result = text_of(frame->result);
    said->detail = text_of(frame->detail);
    return 0;
}

static int
read_outcome(struct outcome *outcome, jobq_error *err)
{
    char *at = outcome->frames.data, *end = at + outcome->frames.len;
    while (at < end) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        struct jobq__frame frame;
        if (!newline)
            return jobq__error(err, JOBQ_EPROTO, "testing: an incomplete answer");
        int rc = jobq__frame_parse(at, (size_t)(newline - at), &frame, err);
        if (rc == 0 && (rc = take_frame(outcome, &frame)) != 0)
            jobq__error(err, rc, "testing: out of memory");
        if (rc != 0)
            return rc;
        at = newline + 1;
    }
    return 0;
}

void
jobq_testing_outcome_free(jobq_testing_outcome *said)
{
    struct outcome *outcome = (struct outcome *)said;
    if (!outcome)
        return;
    free(outcome->progress);
    jobq__buf_clear(&outcome->frames);
    free(outcome);
}

/* ---- The run ---- */

int
jobq__testing_run(const jobq_worker_kind *kinds, size_t n_kinds, int stop,
                  const struct jobq__frame *job, jobq_testing_outcome **out,
                  jobq_error *err)
{
    struct jobq__worker worker = {.kinds = kinds,
                                  .n_kinds = n_kinds,
                                  .max_frame = JOBQ__MAX_FRAME_DEFAULT,
                                  .inbox.fd = -1,
                                  .in_test = true,
                                  .stop_in_test = stop};
    struct jobq__buf line = {0};
    struct outcome *outcome = calloc(1, sizeof *outcome);
    jobq__frame_put_job(&line, job);
    int rc = 0;
    if (!outcome || line.failed)
        rc = jobq__error(err, JOBQ_ENOMEM, "testing: out of memory");
    else
        rc = jobq__worker_line(&worker, line.data, line.len - 1, err);
    if (rc == 0) {
        outcome->frames = worker.outbox; /* its own from here on */
        worker.outbox = (struct jobq__buf){0};
        rc = read_outcome(outcome, err);
    }
    jobq__buf_clear(&line);
    jobq__buf_clear(&worker.outbox);
    free(worker.cancelled);
    if (rc == 0)
        *out = &outcome->said; /* the caller's */
    else
        jobq_testing_outcome_free(&outcome->said);
    return rc;
}

static struct jobq__span
span_or(const char *text, const char *otherwise)
{
    const char *at = text ? text : otherwise;
    return (struct jobq__span){at, strlen(at)};
}

static int
check_options(const jobq_testing_run_options *options, jobq_error *err)
{
    if (!options || options->size != sizeof *options)
        return jobq__error(
            err, JOBQ_EINVAL,
            "options.size must be %zu: start from JOBQ_TESTING_RUN_OPTIONS_INIT",
            sizeof *options);
    if (options->id < 0)
        return jobq__error(err, JOBQ_EINVAL, "options.id must be 0 or more, got %lld",
                           (long long)options->id);
    if (options->attempt < 0 || options->attempt > MAX_ATTEMPTS)
        return jobq__error(err, JOBQ_EINVAL,
                           "options.attempt must be 1 to %d, or 0 for 1, got %d",
                           MAX_ATTEMPTS, options->attempt);
    if (options->stop < JOBQ_STOP_NO || options->stop > JOBQ_STOP_NOW)
        return jobq__error(err, JOBQ_EINVAL,
                           "options.stop must be one of enum jobq_stop, 0 to %d, got %d",
                           JOBQ_STOP_NOW, options->stop);
    return jobq__worker_check_kinds(options->kinds, options->n_kinds, false, err);
}

int
jobq_testing_run(const jobq_testing_run_options *options, const jobq_job *job,
                 jobq_testing_outcome **out, jobq_error *err)
{
    if (!job || !out)
        return jobq__error(err, JOBQ_EINVAL, "%s must not be NULL", job ? "out" : "job");
    jobq_job taken;
    jobq__job_take(&taken, job);
    job = &taken;
    int rc = check_options(options, err);
    if (rc == 0)
        rc = jobq__job_check(job, "", err);
    if (rc != 0)
        return rc;
    struct jobq__frame frame = {.type = JOBQ__FRAME_JOB,
                                .id = options->id ? options->id : 1,
                                .attempt = options->attempt ? options->attempt : 1,
                                .max_attempts = job->max_attempts ? job->max_attempts
                                                                  : DEFAULT_MAX_ATTEMPTS,
                                .timeout_ms = job->timeout_ms,
                                .queue = span_or(job->queue, "default"),
                                .kind = span_or(job->kind, ""),
                                .args = span_or(job->args, "{}"),
                                .meta = span_or(job->meta, "{}")};
    if (!jobq__worker_find_kind(options->kinds, options->n_kinds, frame.kind))
        return jobq__error(err, JOBQ_EINVAL, "kinds has no handler for the kind \"%s\"",
                           job->kind);
    return jobq__testing_run(options->kinds, options->n_kinds, options->stop, &frame, out,
                             err);
}
