/* jobq/job.h: enqueue, look up, cancel and retry jobs on the caller's own libpq
 * connection.
 *
 * Inside a transaction of the caller's (PQTRANS_INTRANS) everything here happens in it: a
 * job commits or vanishes with it. On an idle connection each call is a transaction of
 * its own. Refused with JOBQ_ESTATE: a failed transaction, a connection with a query
 * under way, pipeline mode, a client_encoding other than UTF8. No prepared statements and
 * no session state are used, so a transaction-mode pooler may stand between.
 *
 * Thread: one thread at a time for each connection, as with libpq itself; the functions
 * share nothing.
 *
 * schema, in all calls: the schema that `jobqd migrate up` made; NULL means "jobq".
 * [a-z_][a-z0-9_]{0,62}.
 */
#ifndef JOBQ_JOB_H
#define JOBQ_JOB_H

#include <stddef.h>
#include <stdint.h>

#include <jobq/error.h>
#include <jobq/export.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pg_conn; /* libpq's PGconn */

/* What must be the same for a job to be the same. */
enum jobq_unique_field {
    JOBQ_UNIQUE_KIND = 1,
    JOBQ_UNIQUE_QUEUE = 2,
    JOBQ_UNIQUE_ARGS = 4,
    JOBQ_UNIQUE_META = 8
};

/* States in which another job is in the way of a new one. */
enum jobq_unique_state {
    JOBQ_UNIQUE_SCHEDULED = 1,
    JOBQ_UNIQUE_AVAILABLE = 2,
    JOBQ_UNIQUE_EXECUTING = 4,
    JOBQ_UNIQUE_RETRYABLE = 8,
    JOBQ_UNIQUE_SUSPENDED = 16,
    JOBQ_UNIQUE_COMPLETED = 32,
    JOBQ_UNIQUE_CANCELLED = 64,
    JOBQ_UNIQUE_DISCARDED = 128,
    JOBQ_UNIQUE_LIVE = 31 /* the first five */
};

#define JOBQ_FOREVER 0 /* as a period: for as long as the other job is known */

/* When a job is unique: the last one that was enqueued with this key, if it is in one of
 * these states and young enough, is in the way of a new one. Start from JOBQ_UNIQUE_INIT.
 */
typedef struct jobq_unique {
    size_t size;             /* sizeof(jobq_unique); JOBQ_UNIQUE_INIT sets it */
    unsigned fields;         /* of enum jobq_unique_field; 0: kind, queue and args */
    unsigned states;         /* of enum jobq_unique_state; 0: all but cancelled and
                                discarded */
    int64_t period_s;        /* seconds since the other was inserted; JOBQ_FOREVER */
    const char *const *keys; /* n_keys: of args (and of meta, if it is among the fields)
                                only these top-level members count; none: all of it */
    size_t n_keys;
} jobq_unique;

#define JOBQ_UNIQUE_INIT                                                                 \
    {                                                                                    \
        sizeof(jobq_unique), 0, 0, JOBQ_FOREVER, NULL, 0                                 \
    }

/* What happens where a job is there already, by unique_key or unique_by. A job that has
 * neither may say it, too: nothing is in its way. */
enum jobq_on_conflict {
    JOBQ_ON_CONFLICT_IGNORE = 0, /* nothing: its id is the answer */
    /* it gets the values of the members that `replace` names */
    JOBQ_ON_CONFLICT_REPLACE = 1,
    JOBQ_ON_CONFLICT_RAISE = 2 /* JOBQ_ECONFLICT; the message names it */
};

/* A job to enqueue. Start from JOBQ_JOB_INIT and set what differs. Nothing is kept: the
 * strings are the caller's. */
typedef struct jobq_job {
    size_t size;        /* sizeof(jobq_job); JOBQ_JOB_INIT sets it */
    const char *schema; /* NULL: "jobq" */
    const char *kind;   /* the handler's name, 1 to 128 bytes; required */
    const char *args;   /* a JSON object as text; NULL: {} */
    const char *meta;   /* a JSON object as text; NULL: {} */
    const char *queue;  /* 1 to 128 bytes; NULL: "default" */
    int priority;       /* 0 (first) to 9 */
    int max_attempts;   /* 1 to 1000; 0: the queue's, else 20 */
    int timeout_ms;     /* the job's deadline in milliseconds, > 0; 0: its queue's */
    int64_t delay_ms;   /* not before so many milliseconds from now, by the database's
                           clock; >= 0 */
    int64_t scheduled_at_us; /* or: not before this time, microseconds since 1970-01-01
                                UTC; 0: not set */
    const char *key; /* the application's own grouping, 1 to 512 bytes; NULL: none */
    /* no second live job with this key, 1 to 512 bytes; NULL: none */
    const char *unique_key;
    const char *const *tags; /* n_tags strings */
    size_t n_tags;
    int64_t expires_at_us; /* cancelled if it has not begun by this time, microseconds
                              since 1970-01-01 UTC, after its scheduled_at_us; 0: never */
    int64_t expires_in_ms; /* or: if it has not begun so many milliseconds from now, by
                              the database's clock, more than its delay_ms; 0: not set */
    const jobq_unique *unique_by; /* NULL: not; excludes unique_key */
    int on_conflict;              /* one of enum jobq_on_conflict */
    const char *replace; /* with JOBQ_ON_CONFLICT_REPLACE: JSON, a list of members for all
                            states that wait, ["args"], or lists by state,
                            {"scheduled": ["scheduled_at"], "executing": ["args"]} */
} jobq_job;

#define JOBQ_JOB_INIT                                                                    \
    {                                                                                    \
        sizeof(jobq_job), NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL, NULL, NULL, \
            0, 0, 0, NULL, JOBQ_ON_CONFLICT_IGNORE, NULL                                 \
    }

/* Enqueues one job. Where a job is there already, by unique_key or unique_by, on_conflict
 * says what happens, and *id is that job's.
 *
 * conn  the connection; see above     job  what to enqueue
 * id    receives the job's id; may be NULL
 * Errors: JOBQ_EINVAL names the member and what is allowed (nothing was sent, or the
 * database refused it: then a transaction of the caller's is aborted); JOBQ_ECONFLICT
 * (likewise); JOBQ_ESTATE; JOBQ_ESCHEMA: no jobq in this database; JOBQ_ECONN.
 * Transaction: the caller's, else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_enqueue(struct pg_conn *conn, const jobq_job *job, int64_t *id,
                          jobq_error *err);

/* Enqueues n jobs (all of one schema), in few round trips and all or nothing, also
 * outside a transaction. The line is in the order of the array.
 *
 * ids  receives n ids in the order of jobs; may be NULL. A job that is there already (as
 * an earlier one of the array, perhaps) gets that one's id. Errors: as
 * jobq_enqueue; the message names the element, jobs[3].priority. Transaction: the
 * caller's, else one of its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_enqueue_many(struct pg_conn *conn, const jobq_job *jobs, size_t n,
                               int64_t *ids, jobq_error *err);

/* What came of a job. */
enum jobq_conflict {
    JOBQ_INSERTED = 0, /* it is new */
    JOBQ_IGNORED = 1,  /* it was there, and is as it was */
    JOBQ_REPLACED = 2  /* it was there, and has the new one's members */
};

typedef struct jobq_enqueued {
    int64_t id;   /* of the new job, or of the one that was there */
    int conflict; /* one of enum jobq_conflict */
} jobq_enqueued;

/* As jobq_enqueue and jobq_enqueue_many, and tell what came of it. out: one, or n in the
 * order of jobs; may be NULL. */
JOBQ_API int jobq_job_try_enqueue(struct pg_conn *conn, const jobq_job *job,
                                  jobq_enqueued *out, jobq_error *err);
JOBQ_API int jobq_job_try_enqueue_many(struct pg_conn *conn, const jobq_job *jobs,
                                       size_t n, jobq_enqueued *out, jobq_error *err);

/* A job as the database has it, live or finished. Times are microseconds since 1970-01-01
 * UTC; 0: not set. */
typedef struct jobq_job_info {
    int64_t id;
    const char *state; /* "scheduled", "available", "executing", "retryable", "suspended",
                          "completed", "cancelled", "discarded" */
    const char *queue;
    const char *kind;
    const char *args;       /* JSON text, numbers byte for byte */
    const char *meta;       /* JSON text */
    const char *errors;     /* JSON array, an entry for each failed attempt */
    const char *result;     /* JSON text; NULL: none */
    const char *key;        /* NULL: none */
    const char *unique_key; /* NULL: none */
    int priority;
    int attempt;
    int max_attempts;
    int timeout_ms; /* 0: its queue's */
    int64_t inserted_at_us;
    int64_t scheduled_at_us;
    int64_t attempted_at_us;
    int64_t finished_at_us;
    int64_t expires_at_us;
    double progress; /* what the attempt that runs has said last, 0 to 1; -1: nothing */
    const char *progress_note; /* NULL: none */
} jobq_job_info;

/* Looks a job up. Errors: JOBQ_ENOTFOUND; as jobq_enqueue.
 * Ownership: *out is the caller's; jobq_job_info_free. */
JOBQ_API int jobq_job_get(struct pg_conn *conn, const char *schema, int64_t id,
                          jobq_job_info **out, jobq_error *err);
JOBQ_API void jobq_job_info_free(jobq_job_info *info); /* NULL is harmless */

/* Waits until the job has ended (completed, cancelled or discarded), and looks it up. It
 * looks again and again, a millisecond after the call, then more and more rarely, down to
 * ten times a second. Signals do not end it.
 *
 * timeout_ms  how long at most; 0: one look; -1: for ever
 * Errors: JOBQ_ETIMEOUT: it has not ended by then. JOBQ_ECONN, among others: the database
 * has not answered a look within the time and 1.5 seconds more; the connection is broken
 * off then (PQstatus says so), for nothing but PQreset or PQfinish. JOBQ_ENOTFOUND: no
 * job has that id, or it has left no trace: it completed in a queue with `keep = none`,
 * or was deleted. JOBQ_ESTATE: the connection is in a transaction: what was enqueued in
 * it would not run. Otherwise as jobq_enqueue. Ownership: *out is the caller's;
 * jobq_job_info_free. */
JOBQ_API int jobq_job_wait(struct pg_conn *conn, const char *schema, int64_t id,
                           int64_t timeout_ms, jobq_job_info **out, jobq_error *err);

/* Cancels a job. One that waits ends as `cancelled` at once. One that runs is told to
 * stop, and killed if it does not; it ends as `cancelled` soon, or as `completed` if it
 * is done before. *done (may be NULL): 1 when it has ended by this call, 0 when it runs
 * or had ended before. Errors: JOBQ_ENOTFOUND; as jobq_enqueue. */
JOBQ_API int jobq_job_cancel(struct pg_conn *conn, const char *schema, int64_t id,
                             int *done, jobq_error *err);

/* Completes a running job in the caller's transaction: for a handler whose own writes
 * shall be there if and only if the job is completed. Called last, before the commit; the
 * handler then returns as ever, and jobqd finds the job done. If the transaction rolls
 * back, the job runs on, and its attempt ends as the handler says. The role needs
 * jobq_worker.
 *
 * id, attempt  of the run: jobq_work_id, jobq_work_attempt
 * result       JSON to keep with the job, as with jobq_work_ok; NULL: none
 * Errors: JOBQ_ESTATE: the job does not run this attempt: roll back, since another
 * worker may have it. JOBQ_ENOTFOUND: no job has that id. JOBQ_EINVAL: attempt, or a
 * result that is no JSON or too large. Otherwise as jobq_enqueue. */
JOBQ_API int jobq_job_complete(struct pg_conn *conn, const char *schema, int64_t id,
                               int attempt, const char *result, jobq_error *err);

/* Makes an ended or waiting job available again, with at least one attempt left, and
 * counts the workers that it crashes (max_crashes) anew. *done
 * (may be NULL): 1 when it was, 0 when it is available or runs. Errors: JOBQ_ENOTFOUND;
 * as jobq_enqueue. */
JOBQ_API int jobq_job_retry(struct pg_conn *conn, const char *schema, int64_t id,
                            int *done, jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
