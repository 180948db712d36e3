/* async.c: many jobs at a time, in a program that has an event loop: jobq_worker_open and
 * its steps. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "libjobq/error.h"
#include "libjobq/worker.h"

static int
watch(struct jobq__worker *worker, jobq_error *err)
{
    int fds[] = {worker->inbox.fd, jobq__worker_wake_fd()};
    int wait_fd = epoll_create1(EPOLL_CLOEXEC);
    bool watched = wait_fd >= 0;
    for (size_t i = 0; i < 2 && watched; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        watched = epoll_ctl(wait_fd, EPOLL_CTL_ADD, fds[i], &event) == 0;
    }
    worker->wait_fd = wait_fd > 0 ? wait_fd : 0;
    if (watched)
        return JOBQ_OK;
    return jobq__error(err, JOBQ_EIO, "worker: cannot start: %s", strerror(errno));
}

int
jobq_worker_open(jobq_worker **out, const jobq_worker_options *options, jobq_error *err)
{
    bool is_worker = false;
    *out = NULL;
    struct jobq__worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return jobq__error(err, JOBQ_ENOMEM, "worker: out of memory");
    worker->inbox.fd = -1;
    int rc = jobq__worker_start(worker, options, true, &is_worker, err);
    if (!rc && is_worker)
        rc = watch(worker, err);
    if (rc || !is_worker) {
        jobq_worker_close(worker);
        return rc;
    }
    *out = worker;
    return JOBQ_OK;
}

int
jobq_worker_fd(const jobq_worker *worker)
{
    return worker->wait_fd;
}

/* Each is told once; telling it may answer it, or another one. */
static void
tell_stops(struct jobq__worker *worker)
{
    bool all = jobq__worker_terminated() || worker->inbox.closed;
    if (!worker->options.on_stop || (!all && worker->n_cancelled == 0))
        return;
    jobq_work *work = worker->kept;
    while (work) {
        if (!work->was_told &&
            (all || jobq__worker_is_cancelled(worker, work->frame.id))) {
            work->was_told = true;
            worker->options.on_stop(work, worker->options.hook_data);
            work = worker->kept;
        } else {
            work = work->next;
        }
    }
}

/* Does the lines that have come, while there is room for jobs; up to the first job where
 * jobq_worker_take wants one. */
static int
do_lines(struct jobq__worker *worker, jobq_error *err)
{
    char *line;
    size_t len;
    int rc = JOBQ_OK;
    while (!rc && !worker->stop && (!worker->taken || !*worker->taken) &&
           (worker->n_kept < worker->concurrency || jobq__worker_terminated()) &&
           jobq__inbox_line(&worker->inbox, &line, &len))
        rc = jobq__worker_line(worker, line, len, err);
    return rc;
}

int
jobq_worker_step(jobq_worker *worker, jobq_error *err)
{
    int rc = jobq__worker_check_owner(worker, err);
    if (rc)
        return rc;
    jobq__worker_woken();
    jobq__worker_refuse_more(worker);
    rc = jobq__worker_read(worker, err);
    if (rc)
        return rc;
    tell_stops(worker);
    if (worker->inbox.closed) /* its end stays readable */
        epoll_ctl(worker->wait_fd, EPOLL_CTL_DEL, worker->inbox.fd, NULL);
    /* The daemon gave its jobs to others when it went: what still waits here is theirs.
     */
    if (worker->inbox.closed && !worker->refusing)
        return jobq__worker_gone(err);
    rc = do_lines(worker, err);
    if (!rc)
        rc = jobq__worker_flush(worker, err);
    if (rc)
        return rc;
    bool over = worker->stop || (worker->refusing && worker->inbox.closed);
    return over && worker->n_kept == 0 ? 0 : 1;
}

int
jobq_worker_take(jobq_worker *worker, jobq_work **work, jobq_error *err)
{
    *work = NULL;
    int rc = jobq__worker_check_owner(worker, err);
    if (rc)
        return rc;
    worker->taken = work;
    /* What has come already costs no system call. */
    if (!worker->inbox.closed && !jobq__worker_terminated())
        rc = do_lines(worker, err);
    if (!rc)
        rc = *work ? 1 : jobq_worker_step(worker, err);
    worker->taken = NULL;
    return *work && rc >= 0 ? 1 : rc;
}

void
jobq_worker_close(jobq_worker *worker)
{
    if (!worker)
        return;
    jobq__worker_end(worker);
    while (worker->kept) {
        jobq_work *work = worker->kept;
        worker->kept = work->next;
        free(work);
    }
    free(worker);
}
