/* worker.h (internal): what the files of a worker share. From the bottom: session.c: the
 * socket, SIGTERM, cancelled ids; async_jobs.c: jobs that outlive their handler; work.c: the
 * job under way; worker.c: lines, the loop, start; async.c: jobq_worker_open. */
#ifndef JOBQ__WORKER_H
#define JOBQ__WORKER_H

#include <jobq/worker.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/buf.h"
#include "libjobq/inbox.h"
#include "libjobq/wire.h"

struct jobq__worker {
    const jobq_worker_kind *kinds;
    size_t n_kinds;
    size_t max_frame;
    struct jobq__inbox inbox;
    struct jobq__buf outbox; /* answers not yet written */
    bool draining;      /* a stop frame was seen, maybe behind jobs that still wait */
    bool refusing;      /* after SIGTERM: the daemon can send no more */
    int64_t *cancelled; /* ids named by cancel frames, of jobs that have not ended */
    size_t n_cancelled;
    size_t cap_cancelled;
    bool stop; /* its turn has come: all that came before was begun */
    jobq_worker_options options;
    bool running; /* it is the process's worker */
    bool caught;  /* SIGTERM is ours, and was old_sigterm's */
    struct sigaction old_sigterm;

    bool keeps; /* jobq_worker_open; the rest is async.c's and async_jobs.c's */
    int concurrency;
    jobq_work *kept;
    int n_kept;
    jobq_work *
        *taken;   /* within jobq_worker_take: where a job goes, in place of a handler */
    int wait_fd;  /* an epoll of the socket and the pipe that wakes; 0: none yet */
    bool in_test; /* testing.c: there is no socket, answers stay in the outbox */
    int stop_in_test; /* what jobq_work_should_stop says then */
};

struct jobq_work {
    struct jobq__worker *worker;
    struct jobq__frame frame;
    bool answered;
    bool was_kept; /* in a handler: a copy is kept and will be answered */
    char *line;    /* what the frame's spans point into; a kept one's own */
    size_t line_len;
    bool is_kept;
    bool was_told;        /* on_stop was called */
    jobq_work *next;      /* among the kept ones */
    uint64_t progress_ns; /* when the last progress was sent, CLOCK_MONOTONIC; 0: never */
    jobq_error refused;   /* why the last answer was refused; code 0: none was */
    bool result_refused;  /* one of those was a result: the handler has done its work */
};

/* ---- session.c ---- */

/* The process's worker from now on, until jobq__worker_end; JOBQ_ESTATE: there is one. */
int jobq__session_begin(struct jobq__worker *worker, jobq_error *err);
int jobq__session_open(struct jobq__worker *worker, int fd, jobq_error *err);
/* If SIGTERM has its default action. */
void jobq__session_catch_sigterm(struct jobq__worker *worker);
/* In a worker that a forkserver has forked: a forkserver's SIGTERM is not its workers', each
 * has a flag and a pipe of its own. */
int jobq__session_leave_forkserver(jobq_error *err);
/* Waits until the daemon has something to say, or SIGTERM comes. */
int jobq__session_wait(struct jobq__worker *worker, jobq_error *err);
/* Harmless without jobq__session_begin. */
void jobq__worker_end(struct jobq__worker *worker);
int jobq__worker_gone(jobq_error *err);
/* After SIGTERM: what is on its way is read and given back, and then there is no more. */
void jobq__worker_refuse_more(struct jobq__worker *worker);
void jobq__worker_forget_cancelled(struct jobq__worker *worker, int64_t id);
/* The pipe that SIGTERM writes to, too. */
int jobq__worker_wake_fd(void);
void jobq__worker_wake(void);
void jobq__worker_woken(void);
/* Reads what is there without waiting, and notes cancel and stop frames. */
int jobq__worker_read(struct jobq__worker *worker, jobq_error *err);
/* Writes the outbox. JOBQ_EIO: the daemon is gone. */
int jobq__worker_flush(struct jobq__worker *worker, jobq_error *err);
bool jobq__worker_is_cancelled(const struct jobq__worker *worker, int64_t id);
/* JOBQ_ESTATE in a process that a handler has forked. It has the worker's memory and its
 * socket, and what it said would be taken for the worker's word. */
int jobq__worker_check_owner(const struct jobq__worker *worker, jobq_error *err);
/* SIGTERM came. */
bool jobq__worker_terminated(void);

/* ---- async_jobs.c ---- */

/* NULL: it is not kept. */
jobq_work *jobq__worker_find_kept(const struct jobq__worker *worker, int64_t id);
/* A kept job was answered: writes the answer, and frees the job. */
int jobq__work_release(jobq_work *work, jobq_error *err);

/* ---- worker.c ---- */

/* From the options to the hello; jobq__worker_end in any case. keeps: for
 * jobq_worker_open. */
int jobq__worker_start(struct jobq__worker *worker, const jobq_worker_options *given,
                       bool keeps, bool *is_worker, jobq_error *err);
/* without_handlers: a row may have none. */
int jobq__worker_check_kinds(const jobq_worker_kind *kinds, size_t n,
                             bool without_handlers, jobq_error *err);
/* The kind's row, or the row for every other kind; NULL: there is none. */
const jobq_worker_kind *jobq__worker_find_kind(const jobq_worker_kind *kinds, size_t n,
                                               struct jobq__span kind);
/* Does what one line from jobqd asks for; the answer to a job stands in the outbox. */
int jobq__worker_line(struct jobq__worker *worker, char *line, size_t len,
                      jobq_error *err);

#endif
