/* session.c: a worker's connection to jobqd: the socket and what waits to be written to
 * it, SIGTERM, the ids that jobqd has cancelled, and whose process this is. Knows no job.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libjobq/error.h"
#include "libjobq/worker.h"

enum { CANCELLED_MAX = 4096 };

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
    return jobq__error(
        err, JOBQ_ESTATE,
        "worker: process %d was forked by a handler of worker %d, and only the worker "
        "itself may answer jobqd: end a forked process with _exit",
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
    if (worker->n_cancelled == CANCELLED_MAX) {
        memmove(worker->cancelled, worker->cancelled + 1,
                (CANCELLED_MAX - 1) * sizeof *worker->cancelled);
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

int
jobq__session_wait(struct jobq__worker *worker, jobq_error *err)
{
    struct pollfd fds[] = {{.fd = worker->inbox.fd, .events = POLLIN},
                           {.fd = wake_pipe[0], .events = POLLIN}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR)
        return jobq__error(err, JOBQ_EIO, "worker: poll: %s", strerror(errno));
    return JOBQ_OK;
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

/* ---- Begin and end ---- */

int
jobq__session_begin(struct jobq__worker *worker, jobq_error *err)
{
    if (atomic_flag_test_and_set(&running))
        return jobq__error(err, JOBQ_ESTATE,
                           "worker: another worker is already running in this process");
    worker->running = true;
    terminated = 0;
    owner = getpid();
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

int
jobq__session_open(struct jobq__worker *worker, int fd, jobq_error *err)
{
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return jobq__error(err, JOBQ_EIO, "worker: cannot start: %s", strerror(errno));
    jobq__inbox_init(&worker->inbox, fd, worker->max_frame);
    return open_wake_pipe(err);
}

void
jobq__session_catch_sigterm(struct jobq__worker *worker)
{
    struct sigaction catch = {.sa_handler = on_sigterm};
    if (sigaction(SIGTERM, NULL, &worker->old_sigterm) == 0 &&
        worker->old_sigterm.sa_handler == SIG_DFL)
        worker->caught = sigaction(SIGTERM, &catch, NULL) == 0;
}

int
jobq__session_leave_forkserver(jobq_error *err)
{
    owner = getpid();
    terminated = 0;
    close_wake_pipe();
    return open_wake_pipe(err);
}

void
jobq__worker_end(struct jobq__worker *worker)
{
    if (!worker->running)
        return;
    if (worker->caught)
        sigaction(SIGTERM, &worker->old_sigterm, NULL);
    close_wake_pipe();
    if (worker->wait_fd > 0)
        close(worker->wait_fd);
    free(worker->cancelled);
    jobq__buf_clear(&worker->outbox);
    jobq__inbox_clear(&worker->inbox);
    if (jobq__worker_check_owner(worker, NULL) == 0)
        atomic_flag_clear(&running); /* else it would be a second one on the socket */
}
