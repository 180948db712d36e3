/* jobq/worker.h: the worker side. A worker is a program that jobqd starts (`command =
 * …`); it gives jobq_worker_run a table of handlers, and is fed jobs until it is told to
 * stop.
 *
 *     static int
 *     resize(jobq_work *work, void *data)
 *     {
 *         const char *args = jobq_work_args(work);      // JSON text
 *         …
 *         return jobq_work_ok(work, "{\"width\": 640}", NULL);
 *     }
 *
 *     int
 *     main(void)
 *     {
 *         jobq_worker_kind kinds[] = {{"resize", resize, NULL}};
 *         jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
 *         jobq_error err;
 *         options.kinds = kinds;
 *         options.n_kinds = 1;
 *         if (jobq_worker_run(&options, &err) != 0) {
 *             fprintf(stderr, "%s\n", err.message);
 *             return 1;
 *         }
 *         return 0;
 *     }
 *
 * One job runs at a time, in the thread that called jobq_worker_run; a program with an
 * event loop may run many (jobq_worker_open). The worker is a process of its own: a
 * handler may crash, leak or hang, and costs its own job one attempt. stdout and stderr
 * are the worker's log (jobq_worker_run makes stdout line buffered); stdin is /dev/null.
 */
#ifndef JOBQ_WORKER_H
#define JOBQ_WORKER_H

#include <stddef.h>
#include <stdint.h>

#include <jobq/error.h>
#include <jobq/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The job under way: lent to its handler, gone when the handler returns, unless it was
 * kept (jobq_work_keep). */
typedef struct jobq_work jobq_work;

/* Does one job. Answers with one of jobq_work_ok, _error, _snooze, _discard or _cancel;
 * the answer is sent when the handler returns. Without an answer, 0 means ok without a
 * result and anything else an error. After an answer the return value does not matter. */
typedef int (*jobq_handler)(jobq_work *work, void *data);

typedef struct jobq_worker_kind {
    const char *kind; /* 1 to 128 bytes; NULL: every kind that has no row of its own */
    jobq_handler handler;
    void *data; /* handed to the handler */
} jobq_worker_kind;

typedef struct jobq_worker_options {
    size_t size; /* sizeof(jobq_worker_options); JOBQ_WORKER_OPTIONS_INIT sets it */
    const jobq_worker_kind *kinds;
    size_t n_kinds;
    int fd;           /* the connected socket; -1: the number in JOBQ_FD */
    size_t max_frame; /* bytes a line, as jobqd's max_frame; 0: the number in
                         JOBQ_MAX_FRAME, else 4 MiB */
    /* Both may be NULL; 0 means well, anything else ends jobq_worker_run. See "Preload".
     */
    int (*preload)(void *data); /* loads what all workers share */
    int (*on_fork)(void *data); /* makes one process ready for jobs */
    void *hook_data;            /* handed to all hooks */
    /* For jobq_worker_open. */
    int concurrency; /* how many jobs are kept at a time, 1 to 1000; 0: 1 */
    /* A kept job should stop: jobq_work_should_stop says how soon. Called once for each,
     * from jobq_worker_step; may answer it. NULL: nobody is told. */
    void (*on_stop)(jobq_work *work, void *data);
} jobq_worker_options;

#define JOBQ_WORKER_OPTIONS_INIT                                                         \
    {                                                                                    \
        sizeof(jobq_worker_options), NULL, 0, -1, 0, NULL, NULL, NULL, 0, NULL           \
    }

/* Says hello to jobqd, runs the handlers of the jobs that it sends, and returns when
 * there is nothing more to do: 0 after jobqd's request to stop (all jobs received are
 * answered) or after SIGTERM (the running job is answered, those not begun are given
 * back).
 *
 * An answer reaches the socket before the next handler starts, so that a crash is charged
 * to the job that caused it.
 *
 * SIGTERM is caught while this runs, unless the program has a handler of its own for it.
 * The socket is closed on exec, so that programs started by handlers do not hold it.
 *
 * Preload: a queue with `preload = true` starts this program once, as a template. There
 * jobq_worker_run calls preload, then forks a worker whenever jobqd asks for one: a
 * crashed worker is back in milliseconds, and the pages that preload (or main, before
 * this call) has filled are shared between the workers until one writes to them. It
 * returns in each worker, as above, and in the template when that is told to go, with 0.
 * on_fork is called in each worker before its hello: open there what must not be shared
 * (connections, files that are written to), and seed random numbers. Without preload =
 * true both are called as well, one after the other, so that a program need not know. A
 * template had better have no threads: as with any fork, the worker has the calling one
 * alone, and a lock that another one held stays locked.
 *
 * JOBQ_EINVAL: options, or the environment: not started by jobqd; or a hook's failure.
 * JOBQ_EIO: jobqd is gone; exit. JOBQ_EPROTO: what jobqd sent is no frame of protocol 1.
 *
 * Fork: a process that a handler forks has a copy of the worker and its socket, and is
 * none: there every answer, progress and jobq_worker_run's next step are refused with
 * JOBQ_ESTATE, and jobq_work_should_stop says what was known at the fork. End it with
 * _exit, or exec a program.
 *
 * Thread: one call at a time in a process (JOBQ_ESTATE). */
JOBQ_API int jobq_worker_run(const jobq_worker_options *options, jobq_error *err);

/* ---- Many jobs at a time, in a program that has an event loop ----
 *
 * A handler that starts something and returns before it has ended keeps its job
 * (jobq_work_keep), and answers when it has. jobqd is told how many jobs the worker keeps
 * at a time, gives it as many, and counts each one's timeout from when it was given. What
 * they share is the process: a crash, or its end for a job that does not stop, is the end
 * of all that it runs. */

typedef struct jobq__worker jobq_worker;

/* As jobq_worker_run up to the hello, with the same errors. Ownership: *worker is the
 * caller's, to be closed; NULL with JOBQ_OK in a template that has ended (exit then).
 * options and what they refer to must outlive it. Thread: one worker in a process
 * (JOBQ_ESTATE); it and its jobs are for one thread at a time. */
JOBQ_API int jobq_worker_open(jobq_worker **worker, const jobq_worker_options *options,
                              jobq_error *err);

/* What to wait for: readable when jobq_worker_step has something to do. Lent. */
JOBQ_API int jobq_worker_fd(const jobq_worker *worker);

/* Does what there is to do, without waiting: reads, runs the handlers of jobs for which
 * there is room, tells kept ones to stop. 1: more may come; 0: it is over, as in
 * jobq_worker_run, and no job is kept; else an error, as there. */
JOBQ_API int jobq_worker_step(jobq_worker *worker, jobq_error *err);

/* For a language whose handlers had better not be called from C: as jobq_worker_step,
 * but up to the first job that is to run, which it keeps and hands out in place of
 * calling its handler (the kinds need none). *work is NULL when none has come: then wait
 * for jobq_worker_fd. Call it again after each job. */
JOBQ_API int jobq_worker_take(jobq_worker *worker, jobq_work **work, jobq_error *err);

/* Frees it, and the jobs that are kept: jobqd takes them for lost in a crash. NULL is
 * fine. */
JOBQ_API void jobq_worker_close(jobq_worker *worker);

/* For a handler that returns before its job has ended: a copy of the job that is valid
 * until it is answered. It is gone, and the memory freed, when an answer returns JOBQ_OK
 * or JOBQ_EIO. The handler returns 0 and does not answer `work` itself; its other values
 * are ignored. JOBQ_ESTATE: jobq_worker_run, which does one job at a time; the job is
 * answered or kept already. JOBQ_ENOMEM. */
JOBQ_API int jobq_work_keep(jobq_work *work, jobq_work **kept, jobq_error *err);

/* ---- What the job is. Ownership: lent until the handler returns. ---- */

JOBQ_API int64_t jobq_work_id(const jobq_work *work);
JOBQ_API int jobq_work_attempt(const jobq_work *work); /* 1 … */
JOBQ_API int jobq_work_max_attempts(const jobq_work *work);
JOBQ_API const char *jobq_work_queue(const jobq_work *work);
JOBQ_API const char *jobq_work_kind(const jobq_work *work);
/* JSON text, the bytes that the database holds; NUL-terminated. */
JOBQ_API const char *jobq_work_args(const jobq_work *work);
JOBQ_API size_t jobq_work_args_len(const jobq_work *work);
JOBQ_API const char *jobq_work_meta(const jobq_work *work); /* JSON text */
/* Milliseconds that the attempt may take from its start; 0: no limit. */
JOBQ_API int64_t jobq_work_timeout_ms(const jobq_work *work);

/* ---- How it ended. One answer a job: a second is refused with JOBQ_ESTATE. ---- */

/* Completed. result: JSON text, kept with the job; NULL: none. JOBQ_EINVAL when it is not
 * JSON that jsonb can hold, or longer than a frame may be: the job is not answered then.
 * A handler that gives no other answer has done its work nevertheless: the job is
 * answered with jobq_work_ok_without_result, whatever the handler returns.
 */
JOBQ_API int jobq_work_ok(jobq_work *work, const char *result, jobq_error *err);

/* Completed, but its result cannot be kept: the job is not run again, has no result, and
 * `why` (one line, cut at 4 KiB) stands in its errors and in jobqd's log. */
JOBQ_API int jobq_work_ok_without_result(jobq_work *work, const char *why,
                                         jobq_error *err);

/* Failed: retried while attempts are left. error: one line (cut at 4 KiB). detail: a
 * trace (of one longer than 64 KiB the middle is left out), or NULL. retry_in_ms: the
 * delay, or -1 for the queue's backoff.
 */
JOBQ_API int jobq_work_error(jobq_work *work, const char *error, const char *detail,
                             int64_t retry_in_ms, jobq_error *err);

/* Not yet: again in in_ms (0 or more). Not counted as an attempt. */
JOBQ_API int jobq_work_snooze(jobq_work *work, int64_t in_ms, jobq_error *err);

/* Never again: the job ends discarded. reason: one line, or NULL. */
JOBQ_API int jobq_work_discard(jobq_work *work, const char *reason, jobq_error *err);

/* Stopped, as asked or by itself: the job ends cancelled. reason: one line, or NULL. */
JOBQ_API int jobq_work_cancel(jobq_work *work, const char *reason, jobq_error *err);

/* ---- While it runs ---- */

/* How far it is: done from 0 to 1; note: one line, or NULL. Sent at most once in 50 ms:
 * more calls are cheap and dropped. */
JOBQ_API int jobq_work_progress(jobq_work *work, double done, const char *note,
                                jobq_error *err);

enum jobq_stop {
    JOBQ_STOP_NO = 0,
    JOBQ_STOP_DRAIN = 1, /* the worker is to end after this job: finish it, or if it takes
                            long, snooze it for another worker */
    JOBQ_STOP_CANCEL = 2, /* this job is cancelled or past its deadline: answer soon, or
                             be killed */
    JOBQ_STOP_NOW = 3     /* SIGTERM, or jobqd is gone: return at once */
};

/* Whether the handler should stop, and how soon; one of enum jobq_stop. Costs about a
 * microsecond (a read that does not wait): a long handler calls it often. */
JOBQ_API int jobq_work_should_stop(jobq_work *work);

#ifdef __cplusplus
}
#endif

#endif
