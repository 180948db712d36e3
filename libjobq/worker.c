/* worker.c: the worker's loop: frames in, handlers, answers out. Knows the protocol and
 * the socket; the job under way is work.c's.
 *
 * When are answers written? Each before the next handler starts. To gather them would
 * save a system call a job, but what is gathered is lost in a crash: jobs that were done
 * would run again, and the daemon, which charges a crash to the first job without an
 * answer, would charge the wrong one. What is not followed by a handler (unknown kinds,
 * cancelled jobs) goes out with the next write.
 */
#include "libjobq/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libjobq/error.h"
#include "libjobq/template.h"

enum { NAME_MOST = 128, CANCELLED_MOST = 4096 };
#define MAX_FRAME_LEAST ((size_t)1024)
#define MAX_FRAME_MOST ((size_t)64 * 1024 * 1024)

/* SIGTERM belongs to the process, so its flag and the pipe that wakes the loop do too. */
static volatile sig_atomic_t terminated;
static int wake_pipe[2] = {-1, -1};
static atomic_flag running = ATOMIC_FLAG_INIT;
static volatile pid_t owner; /* the process whose worker that is */

/* A child that a handler has forked has our signal handler, and a SIGTERM of its own. */
static void
on_sigterm(int number)
{
    int saved = errno;
    if (getpid() != owner) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    terminated = 1;
    /* A full pipe wakes the loop as well. */
    ssize_t n = write(wake_pipe[1], "", 1);
    (void)n;
    errno = saved;
}

int
jobq__worker_check_owner(const struct jobq__worker *worker, jobq_error *err)
{
    pid_t pid = getpid();
    if (worker->in_test || pid == owner)
        return JOBQ_OK;
    return jobq__error(err, JOBQ_ESTATE,
                       "worker: process %d was forked by a handler of worker %d, and "
                       "only that one answers jobqd: end a forked process with _exit",
                       (int)pid, (int)owner);
}

bool
jobq__worker_terminated(void)
{
    return terminated != 0;
}

void
jobq__worker_wake(void)
{
    ssize_t n = write(wake_pipe[1], "", 1);
    (void)n;
}

void
jobq__worker_woken(void)
{
    char bytes[64];
    while (read(wake_pipe[0], bytes, sizeof bytes) > 0) {
    }
}

int
jobq__worker_wake_fd(void)
{
    return wake_pipe[0];
}

/* ---- Cancelled jobs ---- */

bool
jobq__worker_is_cancelled(const struct jobq__worker *worker, int64_t id)
{
    for (size_t i = 0; i < worker->n_cancelled; i++)
        if (worker->cancelled[i] == id)
            return true;
    return false;
}

/* The daemon cancels only what it has given us and we have not answered, so the list
 * stays as short as the mailbox; the bound is against a peer gone wrong. */
static int
note_cancelled(struct jobq__worker *worker, int64_t id, jobq_error *err)
{
    if (jobq__worker_is_cancelled(worker, id))
        return JOBQ_OK;
    if (worker->n_cancelled == CANCELLED_MOST) {
        memmove(worker->cancelled, worker->cancelled + 1,
                (CANCELLED_MOST - 1) * sizeof *worker->cancelled);
        worker->n_cancelled--;
    }
    if (worker->n_cancelled == worker->cap_cancelled) {
        size_t cap = worker->cap_cancelled ? worker->cap_cancelled * 2 : 16;
        int64_t *more = realloc(worker->cancelled, cap * sizeof *more);
        if (!more)
            return jobq__error(err, JOBQ_ENOMEM, "worker: out of memory");
        worker->cancelled = more;
        worker->cap_cancelled = cap;
    }
    worker->cancelled[worker->n_cancelled++] = id;
    return JOBQ_OK;
}

void
jobq__worker_forget_cancelled(struct jobq__worker *worker, int64_t id)
{
    for (size_t i = 0; i < worker->n_cancelled; i++)
        if (worker->cancelled[i] == id)
            worker->cancelled[i--] = worker->cancelled[--worker->n_cancelled];
}

/* ---- The socket ---- */

int
jobq__worker_gone(jobq_error *err)
{
    return jobq__error(err, JOBQ_EIO, "worker: jobqd is gone: it closed the socket");
}

int
jobq__worker_flush(struct jobq__worker *worker, jobq_error *err)
{
    struct jobq__buf *out = &worker->outbox;
    size_t sent = 0;
    int rc = jobq__worker_check_owner(worker, err);
    if (rc)
        return rc;
    if (out->failed)
        return jobq__error(err, JOBQ_ENOMEM, "worker: out of memory for an answer");
    if (worker->in_test)
        return JOBQ_OK;
    while (sent < out->len) {
        ssize_t n =
            send(worker->inbox.fd, out->data + sent, out->len - sent, MSG_NOSIGNAL);
        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            /* Only on a socket that was made non-blocking. The daemon always reads. */
            struct pollfd wait = {.fd = worker->inbox.fd, .events = POLLOUT};
            if (poll(&wait, 1, -1) < 0 && errno != EINTR)
                return jobq__error(err, JOBQ_EIO, "worker: poll: %s", strerror(errno));
        } else if (errno == EPIPE || errno == ECONNRESET) {
            worker->inbox.closed = true;
            return jobq__worker_gone(err);
        } else if (errno != EINTR) {
            return jobq__error(err, JOBQ_EIO, "worker: cannot write to jobqd: %s",
                               strerror(errno));
        }
    }
    jobq__buf_reset(out);
    return JOBQ_OK;
}

/* Cancel and stop concern what is under way or waits further ahead, so they are noted as
 * they come in, not when their turn comes. */
static int
note_controls(struct jobq__worker *worker, jobq_error *err)
{
    static const char job[] = "{\"t\":\"job\",";
    const char *line;
    size_t len;
    while (jobq__inbox_peek(&worker->inbox, &line, &len)) {
        enum jobq__frame_type type;
        int64_t id;
        if (len > sizeof job && memcmp(line, job, sizeof job - 1) == 0)
            continue; /* as the daemon writes it: most lines by far */
        int rc = jobq__frame_peek(line, len, &type, &id, err);
        if (!rc && type == JOBQ__FRAME_STOP)
            worker->draining = true;
        else if (!rc && type == JOBQ__FRAME_CANCEL)
            rc = note_cancelled(worker, id, err);
        if (rc)
            return rc;
    }
    return JOBQ_OK;
}

int
jobq__worker_read(struct jobq__worker *worker, jobq_error *err)
{
    size_t got;
    int rc = jobq__worker_check_owner(worker, err);
    if (!rc)
        rc = jobq__inbox_read(&worker->inbox, &got, err);
    return rc || got == 0 ? rc : note_controls(worker, err);
}

/* Waits until the daemon has something to say, or SIGTERM comes. */
static int
wait_for_input(struct jobq__worker *worker, jobq_error *err)
{
    struct pollfd fds[] = {{.fd = worker->inbox.fd, .events = POLLIN},
                           {.fd = wake_pipe[0], .events = POLLIN}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR)
        return jobq__error(err, JOBQ_EIO, "worker: poll: %s", strerror(errno));
    return JOBQ_OK;
}

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
    return terminated ? jobq_work_snooze(work, 0, err)
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
        return jobq_work_error(work,
                               "its kind has no handler: only jobq_worker_take "
                               "does without one",
                               NULL, -1, err);
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
    if (terminated && !worker->in_test)
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
    switch (work.frame.type) {
    case JOBQ__FRAME_JOB:
        work.line = line;
        work.line_len = len;
        rc = do_job(&work, line, err);
        if (!work.was_kept)
            jobq__worker_forget_cancelled(worker, work.frame.id);
        return rc;
    case JOBQ__FRAME_CANCEL:
        /* Noted when it came in. Its turn is now, so the job lay before it, and has
         * ended, or is kept. */
        if (!jobq__worker_find_kept(worker, work.frame.id))
            jobq__worker_forget_cancelled(worker, work.frame.id);
        return JOBQ_OK;
    case JOBQ__FRAME_STOP:
        worker->stop = true;
        return JOBQ_OK;
    case JOBQ__FRAME_HELLO:
    case JOBQ__FRAME_OK:
    case JOBQ__FRAME_ERROR:
    case JOBQ__FRAME_SNOOZE:
    case JOBQ__FRAME_DISCARD:
    case JOBQ__FRAME_PROGRESS:
    case JOBQ__FRAME_FORK:
    case JOBQ__FRAME_FORKED:
    case JOBQ__FRAME_START:
        break;
    }
    return jobq__error(err, JOBQ_EPROTO,
                       "worker: jobqd sent a frame that is not for workers: %.*s",
                       len > 60 ? 60 : (int)len, line);
}

/* After SIGTERM every job that reaches us is given back. A job that the daemon sent while
 * we exited would be charged with a crash: so first we shut our end, which makes its
 * writes fail, and then read what was on its way until there is no more. */
void
jobq__worker_refuse_more(struct jobq__worker *worker)
{
    if (!terminated || worker->refusing || worker->inbox.closed ||
        jobq__worker_check_owner(worker, NULL) != 0)
        return;
    worker->refusing = true;
    shutdown(worker->inbox.fd, SHUT_RD);
}

/* No whole line is left: gets more, or finds that nothing more will come. */
static int
get_more(struct jobq__worker *worker, jobq_error *err)
{
    int rc = jobq__worker_flush(worker, err);
    worker->stop = worker->refusing && worker->inbox.closed;
    if (!rc && !worker->refusing)
        rc = wait_for_input(worker, err);
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
        return jobq__error(err, JOBQ_EINVAL, "worker: kinds must have one row or more");
    for (size_t i = 0; i < n; i++) {
        const jobq_worker_kind *row = &kinds[i];
        size_t len = row->kind ? strnlen(row->kind, NAME_MOST + 1) : 1;
        if (len == 0 || len > NAME_MOST)
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
            return jobq__error(
                err, JOBQ_EINVAL,
                "worker: JOBQ_FD is not set: this program is a worker, to be "
                "started by jobqd (command = … in a [queue …])");
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
    if (*max_frame < MAX_FRAME_LEAST || *max_frame > MAX_FRAME_MOST)
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: max_frame must be %zu to %zu, got %zu",
                           MAX_FRAME_LEAST, MAX_FRAME_MOST, *max_frame);
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
    return jobq__error(err, JOBQ_EINVAL,
                       "worker: options.size must be %zu: begin with "
                       "JOBQ_WORKER_OPTIONS_INIT",
                       sizeof *out);
}

static int
choose_concurrency(struct jobq__worker *worker, bool keeps, jobq_error *err)
{
    int given = worker->options.concurrency;
    if (given < 0 || given > JOBQ__CONCURRENCY_MOST)
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: concurrency must be 1 to %d, or 0 for 1, got %d",
                           JOBQ__CONCURRENCY_MOST, given);
    if (!keeps && given > 1)
        return jobq__error(err, JOBQ_EINVAL,
                           "worker: jobq_worker_run runs one job at a time, and "
                           "concurrency is %d: jobq_worker_open runs more",
                           given);
    worker->keeps = keeps;
    worker->concurrency = given > 1 ? given : 1;
    return JOBQ_OK;
}

static int
open_wake_pipe(jobq_error *err)
{
    if (pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) == 0)
        return JOBQ_OK;
    return jobq__error(err, JOBQ_EIO, "worker: cannot start: %s", strerror(errno));
}

static void
close_wake_pipe(void)
{
    for (int i = 0; i < 2; i++) {
        if (wake_pipe[i] >= 0)
            close(wake_pipe[i]);
        wake_pipe[i] = -1;
    }
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
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return jobq__error(err, JOBQ_EIO, "worker: cannot start: %s", strerror(errno));
    jobq__inbox_init(&worker->inbox, fd, worker->max_frame);
    return open_wake_pipe(err);
}

static void
worker_close(struct jobq__worker *worker)
{
    close_wake_pipe();
    if (worker->wait_fd > 0)
        close(worker->wait_fd);
    free(worker->cancelled);
    jobq__buf_clear(&worker->outbox);
    jobq__inbox_clear(&worker->inbox);
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
        any |= names[i] == NULL;
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

/* A template's SIGTERM is not its workers': each has a flag and a pipe of its own. */
static int
leave_template(jobq_error *err)
{
    terminated = 0;
    close_wake_pipe();
    return open_wake_pipe(err);
}

/* What comes before the hello. *is_worker is false in a template that has ended: then
 * there is nothing more to do. */
static int
make_ready(struct jobq__worker *worker, const jobq_worker_options *options,
           bool *is_worker, jobq_error *err)
{
    *is_worker = true;
    int rc = call_hook(options->preload, options->hook_data, "preload", err);
    if (!rc && jobq__template_is_wanted()) {
        rc = jobq__template_run(worker->inbox.fd, wake_pipe[0], is_worker, err);
        owner = getpid();
        if (!rc && *is_worker)
            rc = leave_template(err);
    }
    if (rc || !*is_worker)
        return rc;
    return call_hook(options->on_fork, options->hook_data, "on_fork", err);
}

int
jobq__worker_start(struct jobq__worker *worker, const jobq_worker_options *given,
                   bool keeps, bool *is_worker, jobq_error *err)
{
    struct sigaction catch = {.sa_handler = on_sigterm};
    *is_worker = true;
    if (atomic_flag_test_and_set(&running))
        return jobq__error(err, JOBQ_ESTATE,
                           "worker: one is running in this process already");
    worker->running = true;
    terminated = 0;
    owner = getpid();
    /* A pipe is fully buffered: a job's words would come when others are at work, or, if
     * it crashes, never. */
    fflush(stdout);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int rc = take_options(&worker->options, given, err);
    if (!rc)
        rc = choose_concurrency(worker, keeps, err);
    if (!rc)
        rc = worker_open(worker, &worker->options, err);
    if (!rc && sigaction(SIGTERM, NULL, &worker->old_sigterm) == 0 &&
        worker->old_sigterm.sa_handler == SIG_DFL)
        worker->caught = sigaction(SIGTERM, &catch, NULL) == 0;
    if (!rc)
        rc = make_ready(worker, &worker->options, is_worker, err);
    if (!rc && *is_worker)
        rc = say_hello(worker, err);
    return rc;
}

void
jobq__worker_end(struct jobq__worker *worker)
{
    if (!worker->running)
        return;
    if (worker->caught)
        sigaction(SIGTERM, &worker->old_sigterm, NULL);
    worker_close(worker);
    if (jobq__worker_check_owner(worker, NULL) == 0)
        atomic_flag_clear(&running); /* else it would be a second one on the socket */
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
