/* jobq/testing.h: for an application's tests. Run a handler directly, drain a queue in
 * the test's process, and check which jobs were enqueued. You need no jobqd, and none
 * should run on the same schema.
 *
 *     PQexec(conn, "BEGIN");
 *     sign_up(conn, "ada@example.org");            // the code under test
 *
 *     jobq_testing_match match = JOBQ_TESTING_MATCH_INIT;
 *     match.kind = "mail";
 *     match.args = "{\"to\": \"ada@example.org\"}"; // among others
 *     assert(jobq_testing_assert_enqueued(conn, &match, &err) == 0);
 *
 *     jobq_testing_drain_options drain = JOBQ_TESTING_DRAIN_OPTIONS_INIT;
 *     jobq_testing_drained done;
 *     drain.kinds = kinds;                          // the worker's own table
 *     drain.n_kinds = n_kinds;
 *     assert(jobq_testing_drain(conn, &drain, &done, &err) == 0 && done.completed == 1);
 *     PQexec(conn, "ROLLBACK");                     // the database is as it was
 *
 * A handler runs in the calling thread: a crash or an endless loop, which costs its job
 * one attempt in production, takes the test down. Timeouts, limits and everything else
 * that jobqd does to processes are not in effect.
 *
 * The connection, transactions and schema: as in job.h.
 */
#ifndef JOBQ_TESTING_H
#define JOBQ_TESTING_H

#include <stddef.h>
#include <stdint.h>

#include <jobq/error.h>
#include <jobq/export.h>
#include <jobq/job.h>
#include <jobq/worker.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- One handler, without a database ---- */

typedef struct jobq_testing_run_options {
    size_t size; /* sizeof(jobq_testing_run_options); the INIT macro sets it */
    const jobq_worker_kind *kinds; /* as in jobq_worker_options */
    size_t n_kinds;
    int64_t id;  /* the job's; 0: 1 */
    int attempt; /* 1 to 1000; 0: 1 */
    int stop;    /* what jobq_work_should_stop says: one of enum jobq_stop */
} jobq_testing_run_options;

#define JOBQ_TESTING_RUN_OPTIONS_INIT                                                    \
    {                                                                                    \
        sizeof(jobq_testing_run_options), NULL, 0, 0, 0, 0                               \
    }

enum jobq_testing_answer {
    JOBQ_TESTING_OK = 0,
    JOBQ_TESTING_ERROR = 1,
    JOBQ_TESTING_SNOOZE = 2,
    JOBQ_TESTING_DISCARD = 3,
    JOBQ_TESTING_CANCEL = 4
};

typedef struct jobq_testing_progress {
    double done;      /* 0 to 1 */
    const char *note; /* NULL: none */
} jobq_testing_progress;

/* A handler's answer, checked and cut as in a worker. */
typedef struct jobq_testing_outcome {
    int answer;         /* one of enum jobq_testing_answer */
    const char *result; /* OK: JSON text; NULL: none */
    const char *error;  /* ERROR: what failed. DISCARD, CANCEL: the reason. OK: why there
                           is no result. NULL: none */
    const char *detail; /* ERROR: a trace; NULL: none */
    /* SNOOZE; ERROR: the handler's own delay, -1: its queue's back-off */
    int64_t delay_ms;
    const jobq_testing_progress *progress; /* n_progress, every report */
    size_t n_progress;
} jobq_testing_outcome;

/* Runs the handler of job->kind. It gets a real jobq_work with the job's args and meta as
 * written here. queue, timeout_ms and max_attempts are the job's or the defaults; other
 * members are ignored.
 *
 * Errors: JOBQ_EINVAL: options, the job, or no handler for its kind. A handler's own
 * failure is its outcome, an ERROR, as in a worker.
 * Ownership: free *out with jobq_testing_outcome_free. Thread: any. */
JOBQ_API int jobq_testing_run(const jobq_testing_run_options *options,
                              const jobq_job *job, jobq_testing_outcome **out,
                              jobq_error *err);
JOBQ_API void
jobq_testing_outcome_free(jobq_testing_outcome *outcome); /* NULL: harmless */

/* ---- A queue ---- */

typedef struct jobq_testing_drain_options {
    size_t size;        /* sizeof(jobq_testing_drain_options); the INIT macro sets it */
    const char *schema; /* NULL: "jobq" */
    const char *queue;  /* NULL: "default" */
    const jobq_worker_kind *kinds; /* as in jobq_worker_options */
    size_t n_kinds;
    int with_scheduled; /* 1: also jobs scheduled for later; INIT: 0 */
    int recursive;      /* 1: also jobs that handlers enqueue; INIT: 1 */
    size_t limit;       /* the most jobs to run; 0: 1000, and more is an error */
} jobq_testing_drain_options;

#define JOBQ_TESTING_DRAIN_OPTIONS_INIT                                                  \
    {                                                                                    \
        sizeof(jobq_testing_drain_options), NULL, NULL, NULL, 0, 0, 1, 0                 \
    }

/* How many jobs ended in each way. */
typedef struct jobq_testing_drained {
    int completed;
    int retryable; /* failed, and will be tried again */
    int discarded; /* failed for the last time, or discarded by the handler */
    int snoozed;
    int cancelled;
    int refused; /* finished by another session before the handler answered */
} jobq_testing_drained;

/* Runs the queue's jobs one by one, in jobqd's order (priority, then position), and
 * settles each by jobqd's rules: attempts, default backoff, errors, results, history. A
 * job whose kind has no handler fails as `unhandled`. A drain tries each job once: a
 * failed job waits for the next drain. It ignores a pause of the queue, and skips jobs
 * whose expires_at has passed.
 *
 * Handlers may use conn. In the caller's transaction everything happens inside it, and a
 * failed handler is rolled back to a savepoint. A handler that answers ok after its last
 * statement failed has failed. A handler that ends the transaction ends the drain
 * (JOBQ_ESTATE). On an idle connection each job is committed when it is claimed and when
 * it is settled; if a handler leaves a transaction open, it is rolled back, and the job
 * fails.
 *
 * out  may be NULL; also filled in when the drain fails, with what was done until then
 * Errors: JOBQ_EINVAL; JOBQ_ESTATE: as above, and if limit is 0 and 1000 jobs have run
 * (perhaps a job enqueues itself); as jobq_enqueue. */
JOBQ_API int jobq_testing_drain(struct pg_conn *conn,
                                const jobq_testing_drain_options *options,
                                jobq_testing_drained *out, jobq_error *err);

/* ---- What was enqueued ---- */

/* The conditions for a job. A member that is not set matches every job. */
typedef struct jobq_testing_match {
    size_t size;        /* sizeof(jobq_testing_match); JOBQ_TESTING_MATCH_INIT sets it */
    const char *schema; /* NULL: "jobq" */
    const char *kind;
    const char *queue;
    const char *args; /* a JSON object that the job's args contain (as jsonb's @>) */
    const char *meta; /* the same for its meta */
    const char *const *tags; /* n_tags strings, all among the job's tags */
    size_t n_tags;
    int priority;      /* 0 to 9; INIT: -1, any */
    const char *state; /* one state, live or ended; NULL: those in which a job waits to
                          run (available, scheduled, retryable, suspended) */
    int64_t scheduled_after_us;  /* not before this time, microseconds since 1970-01-01
                                    UTC;  0: any */
    int64_t scheduled_before_us; /* before this time */
} jobq_testing_match;

#define JOBQ_TESTING_MATCH_INIT                                                          \
    {                                                                                    \
        sizeof(jobq_testing_match), NULL, NULL, NULL, NULL, NULL, NULL, 0, -1, NULL, 0,  \
            0                                                                            \
    }

/* Counts the jobs that match. Errors: as jobq_enqueue. */
JOBQ_API int jobq_testing_count(struct pg_conn *conn, const jobq_testing_match *match,
                                int64_t *out, jobq_error *err);

/* Returns 0 if a job matches, JOBQ_ENOTFOUND if none does: the message names the
 * conditions and the jobs that come nearest. Other errors: as jobq_enqueue. */
JOBQ_API int jobq_testing_assert_enqueued(struct pg_conn *conn,
                                          const jobq_testing_match *match,
                                          jobq_error *err);

/* Returns 0 if no job matches, JOBQ_ESTATE if one does: the message names it. Other
 * errors: as jobq_enqueue. */
JOBQ_API int jobq_testing_refute_enqueued(struct pg_conn *conn,
                                          const jobq_testing_match *match,
                                          jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
