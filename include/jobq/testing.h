/* jobq/testing.h: for the tests of an application: run a handler here and now, drain a
 * queue in the test's own process, and look whether a job was enqueued. No jobqd is
 * needed, and none should run on the same schema.
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
 * A handler runs in the calling thread: what would cost its job one attempt in
 * production, a crash or an endless loop, takes the test with it. Deadlines, limits and
 * what else jobqd does with processes are not tried.
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

/* What a handler said, after the same checks and cuts as in a worker. */
typedef struct jobq_testing_outcome {
    int answer;         /* one of enum jobq_testing_answer */
    const char *result; /* OK: JSON text; NULL: none */
    const char *error;  /* ERROR: what failed. DISCARD, CANCEL: the reason. OK: why the
                           result was left out. NULL: none */
    const char *detail; /* ERROR: a trace; NULL: none */
    /* SNOOZE; ERROR: the handler's own delay, -1: its queue's back-off */
    int64_t delay_ms;
    const jobq_testing_progress *progress; /* n_progress reports, each one that it made */
    size_t n_progress;
} jobq_testing_outcome;

/* Runs the handler of job->kind. It gets a real jobq_work, with the job's args and meta
 * as they are written here; queue, timeout_ms and max_attempts are the job's or the
 * defaults, and nothing else of the job is looked at.
 *
 * Errors: JOBQ_EINVAL: options, the job, or no handler for its kind. What a handler does
 * wrong is its outcome, an ERROR, as in a worker.
 * Ownership: *out is the caller's, jobq_testing_outcome_free. Thread: any. */
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
    int with_scheduled; /* 1: jobs that wait for their time, too; INIT: 0 */
    int recursive;      /* 1: jobs that handlers enqueue, too; INIT: 1 */
    size_t limit; /* at most so many jobs; 0: 1000, and it is an error when more wait */
} jobq_testing_drain_options;

#define JOBQ_TESTING_DRAIN_OPTIONS_INIT                                                  \
    {                                                                                    \
        sizeof(jobq_testing_drain_options), NULL, NULL, NULL, 0, 0, 1, 0                 \
    }

/* What became of the jobs, one count each. */
typedef struct jobq_testing_drained {
    int completed;
    int retryable; /* failed, and will be tried again */
    int discarded; /* failed for the last time, or by the handler's word */
    int snoozed;
    int cancelled;
    int refused; /* the job was ended by somebody else before its handler answered */
} jobq_testing_drained;

/* Runs the queue's jobs one by one, as jobqd would take them (priority, then position),
 * and settles each by jobqd's rules: attempts, back-off (that of a queue without a
 * backoff of its own), errors, results, history. A kind without a handler fails as
 * `unhandled`. Each job is tried once in a drain: one that failed waits for the next. A
 * pause of the queue does not count; a job whose expires_at has passed is left alone.
 *
 * Handlers may use conn. In a transaction of the caller's all of this happens in it, and
 * what a handler did wrong is undone back to a savepoint: a handler that says ok, but
 * whose last statement failed, has failed; one that ends the transaction ends the drain
 * (JOBQ_ESTATE). On an idle connection each job is committed as it is claimed, and as it
 * is settled; a transaction that a handler leaves open is rolled back, and the job fails.
 *
 * out  may be NULL; filled in also when the drain ended early, with what was done
 * Errors: JOBQ_EINVAL; JOBQ_ESTATE: as above, and when limit was 0 and 1000 jobs have run
 * (one that enqueues itself, perhaps); as jobq_enqueue. */
JOBQ_API int jobq_testing_drain(struct pg_conn *conn,
                                const jobq_testing_drain_options *options,
                                jobq_testing_drained *out, jobq_error *err);

/* ---- What was enqueued ---- */

/* What a job must be like; what is not set matches every job. */
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

/* How many jobs match. Errors: as jobq_enqueue. */
JOBQ_API int jobq_testing_count(struct pg_conn *conn, const jobq_testing_match *match,
                                int64_t *out, jobq_error *err);

/* 0 when a job matches. JOBQ_ENOTFOUND when none does: the message says what was looked
 * for, and which jobs come nearest. Errors: as jobq_enqueue. */
JOBQ_API int jobq_testing_assert_enqueued(struct pg_conn *conn,
                                          const jobq_testing_match *match,
                                          jobq_error *err);

/* 0 when no job matches. JOBQ_ESTATE when one does: the message names it. Errors: as
 * jobq_enqueue. */
JOBQ_API int jobq_testing_refute_enqueued(struct pg_conn *conn,
                                          const jobq_testing_match *match,
                                          jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
