/* worker.c: the worker's loop: frames in, handlers, answers out; its start and end. The
 * socket is session.c's, the job under way work.c's.
 *
 * When are answers written? Each before the next handler starts. To gather them would
 * save a system call a job, but what is gathered is lost in a crash: jobs that were done
 * would run again, and the daemon, which charges a crash to the first job without an
 * answer, would charge the wrong one. What is not followed by a handler (unknown kinds,
 * cancelled jobs) goes out with the next write.
 */
#include "libjobq/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "libjobq/error.h"
#include "libjobq/forkserver.h"

enum { KIND_MAX = 128 };
#define MAX_FRAME_MIN ((size_t)1024)
#define MAX_FRAME_MAX ((size_t)64 * 1024 * 1024)

/* ---- Jobs ---- */

const jobq_worker_kind *
jobq__worker_find_kind(const jobq_worker_kind *kinds, size_t n, struct jobq__span kind)
{
    const jobq_worker_kind *any = NULL;
    for (size_t i = 0; i < n; i++) {
        const jobq_worker_kind *row = &kinds[i];
        if (!row->kind)
            any = row;
        else if (strlen(row->kind) == kind.len &&
                 memcmp(row->kind, kind.at, kind.len) == 0)
            return row;
    }
    return any;
}

/* The frame's texts as C strings. Each is followed by a byte of its line that has been
 * parsed already: a quote, a comma or the closing brace. */
static void
terminate(struct jobq__span span, char *line)
{
    if (span.at)
        line[(size_t)(span.at - line) + span.len] = '\0';
}

static int
answer_unhandled(jobq_work *work, jobq_error *err)
{
    struct jobq__buf text = {0};
    jobq__buf_adds(&text, "no handler for kind ");
    jobq__buf_add_json_string(&text, work->frame.kind.at, work->frame.kind.len);
    jobq__buf_adds(&text, "; this worker handles ");
    for (size_t i = 0; i < work->worker->n_kinds; i++) {
        if (i > 0)
            jobq__buf_adds(&text, ", ");
        jobq__buf_adds(&text, work->worker->kinds[i].kind);
    }
    const char *message = jobq__buf_cstr(&text);
    int rc = message ? jobq_work_error(work, message, NULL, -1, err)
                     : jobq__error(err, JOBQ_ENOMEM, "worker: out of memory");
    jobq__buf_clear(&text);
    return rc;
}

/* The database holds what we do not read: args that nest deeper than 128 levels. No
 * attempt will be luckier, and the worker is not to blame. */
static int
answer_unreadable(jobq_work *work, const jobq_error *fault, jobq_error *err)
{
    jobq__worker_forget_cancelled(work->worker, work->frame.id);
    return jobq__worker_terminated() ? jobq_work_snooze(work, 0, err)
                                     : jobq_work_discard(work, fault->message, err);
}

/* The handler has done its work: what it did is not done again because of what it
 * returned. */
static int
answer_result_refused(jobq_work *work, jobq_error *err)
{
    char why[sizeof work->refused.message + 64];
    snprintf(why, sizeof why, "the result was left out: %s", work->refused.message);
    return jobq_work_ok_without_result(work, why, err);
}

/* jobq_worker_take's caller runs the jobs. */
static bool
worker_takes(const struct jobq__worker *worker)
{
    return worker->taken != NULL;
}

static int
run_handler(jobq_work *work, const jobq_worker_kind *row, jobq_error *err)
{
    int rc = jobq__worker_flush(work->worker, err);
    if (rc)
        return rc;
    if (worker_takes(work->worker))
        return jobq_work_keep(work, work->worker->taken, err);
    if (!row->handler)
        return jobq_work_error(
            work, "its kind has no handler, which only jobq_worker_take allows", NULL, -1,
            err);
    int said = row->handler(work, row->data);
    rc = jobq__worker_check_owner(work->worker, err);
    if (rc || work->answered || work->was_kept)
        return rc;
    if (work->result_refused)
        return answer_result_refused(work, err);
    if (work->refused.code)
        return jobq_work_error(work, work->refused.message, NULL, -1, err);
    if (said == 0)
        return jobq_work_ok(work, NULL, err);
    char text[64];
    snprintf(text, sizeof text, "the handler returned %d without an answer", said);
    return jobq_work_error(work, text, NULL, -1, err);
}

static int
do_job(jobq_work *work, char *line, jobq_error *err)
{
    struct jobq__worker *worker = work->worker;
    /* SIGTERM: what has not begun goes back, uncounted. */
    if (jobq__worker_terminated() && !worker->in_test)
        return jobq_work_snooze(work, 0, err);
    if (jobq__worker_is_cancelled(worker, work->frame.id))
        return jobq_work_cancel(work, "cancelled before it began", err);
    const jobq_worker_kind *row =
        jobq__worker_find_kind(worker->kinds, worker->n_kinds, work->frame.kind);
    if (!row)
        return answer_unhandled(work, err);
    if (!work->frame.meta.at)
        work->frame.meta = (struct jobq__span){"{}", 2};
    else
        terminate(work->frame.meta, line);
    terminate(work->frame.args, line);
    terminate(work->frame.kind, line);
    terminate(work->frame.queue, line);
    return run_handler(work, row, err);
}

static int
on_job(jobq_work *work, jobq_error *err)
{
    int rc = do_job(work, work->line, err);
    if (!work->was_kept)
        jobq__worker_forget_cancelled(work->worker, work->frame.id);
    return rc;
}

/* Noted when it came in. Its turn is now, so the job lay before it, and has ended, or is
 * kept. */
static int
on_cancel(jobq_work *work, jobq_error *err)
{
    (void)err;
    if (!jobq__worker_find_kept(work->worker, work->frame.id))
        jobq__worker_forget_cancelled(work->worker, work->frame.id);
    return JOBQ_OK;
}

static int
on_stop(jobq_work *work, jobq_error *err)
{
    (void)err;
    work->worker->stop = true;
    return JOBQ_OK;
}

static int (*const on_frame[JOBQ__N_FRAMES])(jobq_work *work, jobq_error *err) = {
    [JOBQ__FRAME_JOB] = on_job,
    [JOBQ__FRAME_CANCEL] = on_cancel,
    [JOBQ__FRAME_STOP] = on_stop};

int
jobq__worker_line(struct jobq__worker *worker, char *line, size_t len, jobq_error *err)
{
    jobq_work work = {.worker = worker};
    jobq_error fault;
    int rc = jobq__frame_parse(line, len, &work.frame, &fault);
    if (rc && work.frame.id)
        return answer_unreadable(&work, &fault, err);
    if (rc) {
        if (err)
            *err = fault;
        return rc;
    }
    work.line = line;
    work.line_len = len;
    if (on_frame[work.frame.type])
        return on_frame[work.frame.type](&work, err);
    return jobq__error(err, JOBQ_EPROTO,
                       "worker: jobqd sent a frame that a worker does not take: %.*s",
                       len > 60 ? 60 : (int)len, line);
}

/* No whole line is left: gets more, or finds that nothing more will come. */
static int
get_more(struct jobq__worker *worker, jobq_error *err)
{
    int rc = jobq__worker_flush(worker, err);
    worker->stop = worker->refusing && worker->inbox.closed;
    if (!rc && !worker->refusing)
        rc = jobq__session_wait(worker, err);
    if (!rc && !worker->stop)
        rc = jobq__worker_read(worker, err);
    return rc;
}

static int
loop(struct jobq__worker *worker, jobq_error *err)
{
    while (!worker->stop) {
        char *line;
        size_t len;
        int rc = JOBQ_OK;
        jobq__worker_refuse_more(worker);
        /* The daemon gave its jobs to others when it went: what still waits here is
         * theirs. */
        if (worker->inbox.closed && !worker->refusing)
            return jobq__worker_gone(err);
        if (jobq__inbox_line(&worker->inbox, &line, &len))
            rc = jobq__worker_line(worker, line, len, err);
        else
            rc = get_more(worker, err);
        if (rc)
            return rc;
    }
    return jobq__worker_flush(worker, err);
}

/* ---- Start and end ---- */

int
jobq__worker_check_kinds(const jobq_worker_kind *kinds, size_t n, bool without_handlers,
                         jobq_error *err)
{
    if (n == 0 || !kinds)
        return jobq__error(err, JOBQ_EINVAL, "worker: kinds must have at least one row");
    for (size_t i = 0; i < n; i++) {
        const jobq_worker_kind *row = &kinds[i];
        size_t len = row->kind ? strnlen(row->kind, KIND_MAX + 1) : 1;
        if (len == 0 || len > KIND_MAX)
            return jobq__error(err, JOBQ_EINVAL,
                               "worker: kinds[%zu].kind must be 1 to 128 bytes, got %s",
                               i, len ? "more" : "0");
        if (!row->handler && !without_handlers)
            return jobq__error(err, JOBQ_EINVAL, "worker: kinds[%zu].handler is NULL", i);
        for (size_t j = 0; j < i; j++) {
            const char *other = kinds[j].kind;
            if (row->kind == other ||
                (row->kind && other && strcmp(row->kind, other) == 0))
                return jobq__error(err, JOBQ_EINVAL,
                                   "worker: kinds[%zu] and kinds[%zu] are both %s", j, i,
                                   other ? other : "for every other kind");
        }
    }
    return JOBQ_OK;
}

/* A whole number in an environment variable; false if it is anything else. */
static bool
env_number(const char *name, long long most, long long *out)
{
    const char *text = getenv(name);
    if (!text || text[0] < '0' || text[0] > '9' || strlen(text) > 9)
        return false;
    char *end;
    *out = strtoll(text, &end, 10);
    return *end == '\0' && *out <= most;
}

static int
choose_fd(const jobq_worker_options *options, int *fd, jobq_error *err)
{
    long long number = options->fd;
    struct stat info;
    if (options->fd < 0 && !env_number("JOBQ_FD", INT32_MAX, &number)) {
        const char *text = getenv("JOBQ_FD");
        if (!text)
            return jobq__error(err, JOBQ_EINVAL,
                               "worker: JOBQ_FD is not set: this program is a worker, "
                               "which jobqd must start (command = … in a [queue …])");
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: JOBQ_FD must be the number of a socket, got \"%s\"",
                           text);
    }
    if (fstat((int)number, &info) != 0 || !S_ISSOCK(info.st_mode))
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: JOBQ_FD: %lld is not an open socket", number);
    *fd = (int)number;
    return JOBQ_OK;
}

static int
choose_max_frame(const jobq_worker_options *options, size_t *max_frame, jobq_error *err)
{
    long long number;
    *max_frame = JOBQ__MAX_FRAME_DEFAULT;
    if (options->max_frame)
        *max_frame = options->max_frame;
    else if (env_number("JOBQ_MAX_FRAME", INT32_MAX, &number))
        *max_frame = (size_t)number;
    else if (getenv("JOBQ_MAX_FRAME"))
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: JOBQ_MAX_FRAME must be a number of bytes, got \"%s\"",
                           getenv("JOBQ_MAX_FRAME"));
    if (*max_frame < MAX_FRAME_MIN || *max_frame > MAX_FRAME_MAX)
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: max_frame must be %zu to %zu, got %zu", MAX_FRAME_MIN,
                           MAX_FRAME_MAX, *max_frame);
    return JOBQ_OK;
}

/* A program that was built with an older header has a shorter struct: the members that it
 * lacks are zero. */
static int
take_options(jobq_worker_options *out, const jobq_worker_options *given, jobq_error *err)
{
    static const size_t sizes[] = {offsetof(jobq_worker_options, preload),
                                   offsetof(jobq_worker_options, concurrency),
                                   sizeof *out};
    for (size_t i = 0; given && i < sizeof sizes / sizeof sizes[0]; i++) {
        if (given->size != sizes[i])
            continue;
        *out = (jobq_worker_options){0};
        memcpy(out, given, sizes[i]);
        return JOBQ_OK;
    }
    return jobq__error(
        err, JOBQ_EINVAL,
        "worker: options.size must be %zu: start from JOBQ_WORKER_OPTIONS_INIT",
        sizeof *out);
}

static int
choose_concurrency(struct jobq__worker *worker, bool keeps, jobq_error *err)
{
    int given = worker->options.concurrency;
    if (given < 0 || given > JOBQ__CONCURRENCY_MAX)
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: concurrency must be 1 to %d, or 0 for 1, got %d",
                           JOBQ__CONCURRENCY_MAX, given);
    if (!keeps && given > 1)
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: jobq_worker_run runs one job at a time, but "
                           "concurrency is %d: use jobq_worker_open for more",
                           given);
    worker->keeps = keeps;
    worker->concurrency = given > 1 ? given : 1;
    return JOBQ_OK;
}

static int
worker_open(struct jobq__worker *worker, const jobq_worker_options *options,
            jobq_error *err)
{
    int fd = -1;
    worker->kinds = options->kinds;
    worker->n_kinds = options->n_kinds;
    int rc =
        jobq__worker_check_kinds(options->kinds, options->n_kinds, worker->keeps, err);
    if (!rc)
        rc = choose_max_frame(options, &worker->max_frame, err);
    if (!rc)
        rc = choose_fd(options, &fd, err);
    if (rc)
        return rc;
    return jobq__session_open(worker, fd, err);
}

static int
say_hello(struct jobq__worker *worker, jobq_error *err)
{
    const char **names = calloc(worker->n_kinds, sizeof *names);
    bool any = false;
    if (!names)
        return jobq__error(err, JOBQ_ENOMEM, "worker: out of memory");
    for (size_t i = 0; i < worker->n_kinds; i++) {
        names[i] = worker->kinds[i].kind;
        any |= !names[i];
    }
    jobq__frame_put_hello(&worker->outbox, any ? NULL : names, worker->n_kinds,
                          worker->concurrency);
    free(names);
    return jobq__worker_flush(worker, err);
}

static int
call_hook(int (*hook)(void *data), void *data, const char *name, jobq_error *err)
{
    int said = hook ? hook(data) : 0;
    if (said == 0)
        return JOBQ_OK;
    return jobq__error(err, JOBQ_EINVAL, "worker: %s returned %d", name, said);
}

/* What comes before the hello. *is_worker is false in a forkserver that has ended: then
 * there is nothing more to do. */
static int
make_ready(struct jobq__worker *worker, const jobq_worker_options *options,
           bool *is_worker, jobq_error *err)
{
    *is_worker = true;
    int rc = call_hook(options->preload, options->hook_data, "preload", err);
    if (!rc && jobq__forkserver_is_wanted()) {
        rc = jobq__forkserver_run(worker->inbox.fd, jobq__worker_wake_fd(), is_worker,
                                  err);
        if (!rc && *is_worker)
            rc = jobq__session_leave_forkserver(err);
    }
    if (rc || !*is_worker)
        return rc;
    return call_hook(options->on_fork, options->hook_data, "on_fork", err);
}

int
jobq__worker_start(struct jobq__worker *worker, const jobq_worker_options *given,
                   bool keeps, bool *is_worker, jobq_error *err)
{
    *is_worker = true;
    if (jobq__session_begin(worker, err) != 0)
        return JOBQ_ESTATE;
    /* A pipe is fully buffered: a job's words would come when others are at work, or, if
     * it crashes, never. */
    fflush(stdout);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int rc = take_options(&worker->options, given, err);
    if (!rc)
        rc = choose_concurrency(worker, keeps, err);
    if (!rc)
        rc = worker_open(worker, &worker->options, err);
    if (!rc)
        jobq__session_catch_sigterm(worker);
    if (!rc)
        rc = make_ready(worker, &worker->options, is_worker, err);
    if (!rc && *is_worker)
        rc = say_hello(worker, err);
    return rc;
}

int
jobq_worker_run(const jobq_worker_options *options, jobq_error *err)
{
    struct jobq__worker worker = {.inbox.fd = -1};
    bool is_worker;
    int rc = jobq__worker_start(&worker, options, false, &is_worker, err);
    if (!rc && is_worker)
        rc = loop(&worker, err);
    jobq__worker_end(&worker);
    return rc;
}
