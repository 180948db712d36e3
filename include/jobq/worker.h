/* jobq/worker.h: the worker side. A worker is a program that jobqd starts
 * (`command = …`). It gives jobq_worker_run a table of handlers, and runs the jobs that
 * jobqd sends until jobqd asks it to stop.
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
 * event loop can run many (jobq_worker_open). The worker is its own process: a handler
 * that crashes, leaks or hangs costs its own job one attempt and nothing else. stdout and
 * stderr are the worker's log (jobq_worker_run makes stdout line buffered); stdin is
 * /dev/null.
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

/* The running job. Valid until its handler returns, unless the handler keeps it
 * (jobq_work_keep). */
typedef struct jobq_work jobq_work;

/* Runs one job. It answers with one of jobq_work_ok, _error, _snooze, _discard or
 * _cancel; the answer is sent when the handler returns. If it gives no answer, returning
 * 0 means ok without a result, and any other value means an error. After an answer the
 * return value is ignored. */
typedef int (*jobq_handler)(jobq_work *work, void *data);

typedef struct jobq_worker_kind {
    const char *kind; /* 1 to 128 bytes; NULL: every kind without its own row */
    jobq_handler handler;
    void *data; /* passed to the handler */
} jobq_worker_kind;

typedef struct jobq_worker_options {
    size_t size; /* sizeof(jobq_worker_options); JOBQ_WORKER_OPTIONS_INIT sets it */
    const jobq_worker_kind *kinds;
    size_t n_kinds;
    int fd;           /* the connected socket; -1: the number in JOBQ_FD */
    size_t max_frame; /* bytes a line, as jobqd's max_frame; 0: the number in
                         JOBQ_MAX_FRAME, else 4 MiB */
    /* Both may be NULL. They return 0 for success; any other value ends jobq_worker_run.
     * See "Preload". */
    int (*preload)(void *data); /* loads what all workers share */
    int (*on_fork)(void *data); /* prepares one process for jobs */
    void *hook_data;            /* passed to all hooks */
    /* For jobq_worker_open. */
    int concurrency; /* how many jobs it keeps at a time, 1 to 1000; 0: 1 */
    /* A kept job should stop; jobq_work_should_stop says how soon. jobq_worker_step calls
     * it once for each job; it may answer the job. NULL: no call. */
    void (*on_stop)(jobq_work *work, void *data);
} jobq_worker_options;

#define JOBQ_WORKER_OPTIONS_INIT                                                         \
    {                                                                                    \
        sizeof(jobq_worker_options), NULL, 0, -1, 0, NULL, NULL, NULL, 0, NULL           \
    }

/* Says hello to jobqd and runs handlers for the jobs that jobqd sends. Returns 0 after
 * jobqd asks it to stop (it has answered all jobs that it received), or after SIGTERM (it
 * has answered the running job and given back the jobs that it had not started).
 *
 * An answer reaches the socket before the next handler starts, so that a crash counts
 * against the job that caused it.
 *
 * It catches SIGTERM while it runs, unless the program has its own handler for it. The
 * socket is closed on exec, so that programs that handlers start do not hold it.
 *
 * Preload: a queue with `preload = true` starts this program once, as a forkserver. There
 * jobq_worker_run calls preload, and then forks a worker whenever jobqd asks for one. A
 * crashed worker is back in milliseconds, and the workers share the pages that preload
 * (or main, before this call) has filled, until one of them writes to a page. It returns
 * in each worker, as above, and returns 0 in the forkserver when jobqd ends it. on_fork is
 * called in each worker before its hello: open there what must not be shared
 * (connections, files that are written to), and seed random numbers. Without
 * `preload = true` both are called as well, one after the other, so a program works
 * either way. Start no threads in a forkserver: after a fork the worker has only the
 * calling thread, and a lock that another thread held stays locked.
 *
 * Errors: JOBQ_EINVAL: options; the environment, if jobqd did not start the program; or a
 * failed hook. JOBQ_EIO: jobqd is gone; exit. JOBQ_EPROTO: jobqd sent something that is
 * not a frame of protocol 1.
 *
 * Fork: a process that a handler forks has a copy of the worker and its socket, but is
 * not a worker. There every answer, progress and jobq_worker_run's next step fail with
 * JOBQ_ESTATE, and jobq_work_should_stop says what was known at the fork. End it with
 * _exit, or exec a program.
 *
 * Thread: one call at a time in a process (JOBQ_ESTATE). */
JOBQ_API int jobq_worker_run(const jobq_worker_options *options, jobq_error *err);

/* ---- Many jobs at a time, in a program that has an event loop ----
 *
 * A handler that starts something and returns before that has finished keeps its job
 * (jobq_work_keep) and answers it later. The worker tells jobqd how many jobs it keeps at
 * a time; jobqd sends that many, and starts each job's timeout when it sends the job. The
 * jobs share the process: if it crashes, or jobqd kills it for a job that does not stop,
 * all of them end. */

typedef struct jobq__worker jobq_worker;

/* Like jobq_worker_run up to the hello, with the same errors. Ownership: free *worker
 * with jobq_worker_close. *worker is NULL, with JOBQ_OK, in a forkserver that has ended:
 * exit then. options and what they point to must outlive the worker. Thread: one worker
 * in a process (JOBQ_ESTATE); one thread at a time for the worker and its jobs. */
JOBQ_API int jobq_worker_open(jobq_worker **worker, const jobq_worker_options *options,
                              jobq_error *err);

/* The descriptor to wait for: readable when jobq_worker_step has something to do. It
 * belongs to the worker. */
JOBQ_API int jobq_worker_fd(const jobq_worker *worker);

/* Does what can be done without waiting: reads, runs the handlers of jobs that it has
 * room for, calls on_stop. Returns 1 if more may come, 0 when the worker has ended as in
 * jobq_worker_run and keeps no job, or an error as there. */
JOBQ_API int jobq_worker_step(jobq_worker *worker, jobq_error *err);

/* For languages that do not want C to call their handlers. Like jobq_worker_step, but
 * stops at the first job that should run, keeps it, and returns it in *work instead of
 * calling its handler (which may be NULL in kinds). *work is NULL if there is no job:
 * wait for jobq_worker_fd then. Call it again after each job. */
JOBQ_API int jobq_worker_take(jobq_worker *worker, jobq_work **work, jobq_error *err);

/* Frees the worker and the jobs that it keeps; jobqd treats those as crashed. NULL is
 * harmless. */
JOBQ_API void jobq_worker_close(jobq_worker *worker);

/* For a handler that returns before its job has finished: makes a copy of the job that is
 * valid until you answer it. An answer that returns JOBQ_OK or JOBQ_EIO frees it. The
 * handler does not answer `work` itself; its return value is ignored. Errors:
 * JOBQ_ESTATE: under jobq_worker_run, which runs one job at a time, or if the job is
 * answered or kept already. JOBQ_ENOMEM. */
JOBQ_API int jobq_work_keep(jobq_work *work, jobq_work **kept, jobq_error *err);

/* ---- The job. Ownership: the worker's; valid until the handler returns. ---- */

JOBQ_API int64_t jobq_work_id(const jobq_work *work);
JOBQ_API int jobq_work_attempt(const jobq_work *work); /* 1 … */
JOBQ_API int jobq_work_max_attempts(const jobq_work *work);
JOBQ_API const char *jobq_work_queue(const jobq_work *work);
JOBQ_API const char *jobq_work_kind(const jobq_work *work);
/* JSON text, the bytes that the database holds; NUL-terminated. */
JOBQ_API const char *jobq_work_args(const jobq_work *work);
JOBQ_API size_t jobq_work_args_len(const jobq_work *work);
JOBQ_API const char *jobq_work_meta(const jobq_work *work); /* JSON text */
/* The attempt's timeout in milliseconds, from its start; 0: none. */
JOBQ_API int64_t jobq_work_timeout_ms(const jobq_work *work);

/* ---- The answer. One for each job: a second fails with JOBQ_ESTATE. ---- */

/* The job is completed. result: JSON text to keep with the job; NULL: none. Errors:
 * JOBQ_EINVAL: result is not JSON that jsonb can hold, or is longer than a frame. The job
 * is not answered then; if the handler gives no other answer, its work counts as done,
 * and the answer is jobq_work_ok_without_result, whatever the handler returns. */
JOBQ_API int jobq_work_ok(jobq_work *work, const char *result, jobq_error *err);

/* The job is completed, but its result cannot be kept. It does not run again and has no
 * result; its errors and jobqd's log have `why` (one line, cut at 4 KiB). */
JOBQ_API int jobq_work_ok_without_result(jobq_work *work, const char *why,
                                         jobq_error *err);

/* The attempt failed; the job is retried while it has attempts left. error: one line (cut
 * at 4 KiB). detail: a trace, or NULL (over 64 KiB the middle is cut out). retry_in_ms:
 * the delay before the retry, or -1 for the queue's backoff. */
JOBQ_API int jobq_work_error(jobq_work *work, const char *error, const char *detail,
                             int64_t retry_in_ms, jobq_error *err);

/* Runs the job again after in_ms milliseconds (0 or more). It does not count as an
 * attempt. */
JOBQ_API int jobq_work_snooze(jobq_work *work, int64_t in_ms, jobq_error *err);

/* The job failed for good and becomes `discarded`. reason: one line, or NULL. */
JOBQ_API int jobq_work_discard(jobq_work *work, const char *reason, jobq_error *err);

/* The job stopped, as asked or by itself, and becomes `cancelled`. reason: one line, or
 * NULL. */
JOBQ_API int jobq_work_cancel(jobq_work *work, const char *reason, jobq_error *err);

/* ---- While the job runs ---- */

/* Reports progress. done: 0 to 1; note: one line, or NULL. It is sent at most every 50
 * ms; calls in between are cheap and dropped. */
JOBQ_API int jobq_work_progress(jobq_work *work, double done, const char *note,
                                jobq_error *err);

enum jobq_stop {
    JOBQ_STOP_NO = 0,
    JOBQ_STOP_DRAIN = 1,  /* the worker ends after this job: finish it, or snooze it for
                            another worker if it takes long */
    JOBQ_STOP_CANCEL = 2, /* this job is cancelled or past its timeout: answer soon, or
                             the worker is killed */
    JOBQ_STOP_NOW = 3     /* SIGTERM, or jobqd is gone: return at once */
};

/* Returns whether the handler should stop, and how soon: one of enum jobq_stop. It costs
 * about a microsecond (a non-blocking read); call it often in a long handler. */
JOBQ_API int jobq_work_should_stop(jobq_work *work);

#ifdef __cplusplus
}
#endif

#endif
