/* jobq/job.h: enqueue, look up, cancel and retry jobs on the caller's own libpq
 * connection.
 *
 * Inside the caller's transaction (PQTRANS_INTRANS) each call takes part in it: a job
 * commits or rolls back with it. On an idle connection each call is its own transaction.
 * Calls fail with JOBQ_ESTATE on a connection whose transaction has failed, that is
 * running a query, that is in pipeline mode, or whose client_encoding is not UTF8. They
 * use no prepared statements and no session state, so they work through a
 * transaction-mode pooler.
 *
 * Thread: one thread at a time for each connection, as with libpq itself. The functions
 * share no state.
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

/* The fields that are compared. */
enum jobq_unique_field {
    JOBQ_UNIQUE_KIND = 1,
    JOBQ_UNIQUE_QUEUE = 2,
    JOBQ_UNIQUE_ARGS = 4,
    JOBQ_UNIQUE_META = 8
};

/* The states in which another job counts as a duplicate. */
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

#define JOBQ_FOREVER 0 /* as a period: as long as the database has the other job */

/* When a job is unique. A new job conflicts with the last one that has the same values in
 * these fields, if that one is in one of these states and within the period. Start from
 * JOBQ_UNIQUE_INIT. */
typedef struct jobq_unique {
    size_t size;             /* sizeof(jobq_unique); JOBQ_UNIQUE_INIT sets it */
    unsigned fields;         /* of enum jobq_unique_field; 0: kind, queue and args */
    unsigned states;         /* of enum jobq_unique_state; 0: all but cancelled and
                                discarded */
    int64_t period_s;        /* seconds since the other was inserted; JOBQ_FOREVER */
    const char *const *keys; /* n_keys: compare only these top-level members of args (and
                                of meta, if it is among the fields); none: all */
    size_t n_keys;
} jobq_unique;

#define JOBQ_UNIQUE_INIT                                                                 \
    {                                                                                    \
        sizeof(jobq_unique), 0, 0, JOBQ_FOREVER, NULL, 0                                 \
    }

/* What to do if a conflicting job exists, by unique_key or unique_by. Without either it
 * has no effect. */
enum jobq_on_conflict {
    JOBQ_ON_CONFLICT_IGNORE = 0, /* enqueue nothing and return its id */
    /* change it: it gets the new values of the members that `replace` names */
    JOBQ_ON_CONFLICT_REPLACE = 1,
    JOBQ_ON_CONFLICT_RAISE = 2 /* fail with JOBQ_ECONFLICT; the message names the job */
};

/* A job to enqueue. Start from JOBQ_JOB_INIT and set what differs. The library keeps no
 * pointer to it; the strings stay yours. */
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
    int64_t delay_ms;   /* run after this delay in milliseconds, by the database's clock;
                           >= 0 */
    int64_t scheduled_at_us; /* or: run at this time, microseconds since 1970-01-01 UTC;
                                0: not set */
    const char *key; /* the application's own grouping, 1 to 512 bytes; NULL: none */
    /* no second live job with this key, 1 to 512 bytes; NULL: none */
    const char *unique_key;
    const char *const *tags; /* n_tags strings */
    size_t n_tags;
    int64_t expires_at_us; /* cancel it if it has not started by this time, microseconds
                              since 1970-01-01 UTC, after scheduled_at_us; 0: never */
    int64_t expires_in_ms; /* or: if it has not started within this many milliseconds, by
                              the database's clock, more than delay_ms; 0: not set */
    const jobq_unique *unique_by; /* NULL: not unique; excludes unique_key */
    int on_conflict;              /* one of enum jobq_on_conflict */
    const char *replace; /* with JOBQ_ON_CONFLICT_REPLACE: JSON, a list of members for all
                            waiting states, ["args"], or lists by state,
                            {"scheduled": ["scheduled_at"], "executing": ["args"]} */
} jobq_job;

#define JOBQ_JOB_INIT                                                                    \
    {                                                                                    \
        sizeof(jobq_job), NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL, NULL, NULL, \
            0, 0, 0, NULL, JOBQ_ON_CONFLICT_IGNORE, NULL                                 \
    }

/* Enqueues one job. If a conflicting job exists, by unique_key or unique_by, on_conflict
 * decides, and *id is that job's.
 *
 * conn  the connection; see above     job  what to enqueue
 * id    receives the job's id; may be NULL
 * Errors: JOBQ_EINVAL: the message names the member and what is allowed. If the database
 * found it, the caller's transaction is aborted, as with JOBQ_ECONFLICT. JOBQ_ESTATE;
 * JOBQ_ESCHEMA: this database has no jobq schema; JOBQ_ECONN.
 * Transaction: the caller's, else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_enqueue(struct pg_conn *conn, const jobq_job *job, int64_t *id,
                          jobq_error *err);

/* Enqueues n jobs of one schema in few round trips, all or none of them, even outside a
 * transaction. They are queued in the order of the array.
 *
 * ids  receives n ids in the order of jobs; may be NULL. For a job that conflicts with
 * another, perhaps an earlier one of the array, it receives that one's id.
 * Errors: as jobq_enqueue; the message names the element, jobs[3].priority. Transaction:
 * the caller's, else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_enqueue_many(struct pg_conn *conn, const jobq_job *jobs, size_t n,
                               int64_t *ids, jobq_error *err);

/* What enqueueing did. */
enum jobq_conflict {
    JOBQ_INSERTED = 0, /* inserted a new job */
    JOBQ_IGNORED = 1,  /* nothing: a conflicting job exists */
    JOBQ_REPLACED = 2  /* changed the conflicting job */
};

typedef struct jobq_enqueued {
    int64_t id;   /* of the new job, or of the conflicting one */
    int conflict; /* one of enum jobq_conflict */
} jobq_enqueued;

/* Like jobq_enqueue and jobq_enqueue_many, but also report what they did. out: one, or n
 * in the order of jobs; may be NULL. */
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
    double progress; /* last reported by the running attempt, 0 to 1; -1: none */
    const char *progress_note; /* NULL: none */
} jobq_job_info;

/* Looks up a job. Errors: JOBQ_ENOTFOUND; as jobq_enqueue.
 * Ownership: free *out with jobq_job_info_free. */
JOBQ_API int jobq_job_get(struct pg_conn *conn, const char *schema, int64_t id,
                          jobq_job_info **out, jobq_error *err);
JOBQ_API void jobq_job_info_free(jobq_job_info *info); /* NULL is harmless */

/* Waits until the job is finished (completed, cancelled or discarded), and looks it up.
 * It polls: first a millisecond after the call, then less and less often, down to ten
 * times a second. Signals do not interrupt it.
 *
 * timeout_ms  how long to wait at most; 0: poll once; -1: no limit
 * Errors: JOBQ_ETIMEOUT: the job was not finished in time. JOBQ_ECONN: also if the
 * database did not answer within timeout_ms plus 1.5 seconds; the connection is closed
 * then (see PQstatus), and only PQreset or PQfinish may follow. JOBQ_ENOTFOUND: no job
 * has that id, or it is gone: it completed in a queue with `keep = none`, or was deleted.
 * JOBQ_ESTATE: the connection is in a transaction, whose jobs cannot run before it
 * commits. Otherwise as jobq_enqueue. Ownership: free *out with jobq_job_info_free. */
JOBQ_API int jobq_job_wait(struct pg_conn *conn, const char *schema, int64_t id,
                           int64_t timeout_ms, jobq_job_info **out, jobq_error *err);

/* Cancels a job. A waiting job becomes `cancelled` at once. A running job is asked to
 * stop, and killed if it does not; it becomes `cancelled`, or `completed` if it finishes
 * first. *done (may be NULL) receives 1 if this call cancelled it, 0 if it is running or
 * was finished before. Errors: JOBQ_ENOTFOUND; as jobq_enqueue. */
JOBQ_API int jobq_job_cancel(struct pg_conn *conn, const char *schema, int64_t id,
                             int *done, jobq_error *err);

/* Completes a running job in the caller's transaction, so that the job is completed if
 * and only if the handler's own writes commit. Call it last, before the commit. The
 * handler then returns as usual, and jobqd finds the job completed. If the transaction
 * rolls back, the job keeps running, and its attempt ends as the handler says. The role
 * must be a member of jobq_worker.
 *
 * id, attempt  of the run: jobq_work_id, jobq_work_attempt
 * result       JSON to keep with the job, as with jobq_work_ok; NULL: none
 * Errors: JOBQ_ESTATE: the job is not running this attempt; roll back, because another
 * worker may be running it. JOBQ_ENOTFOUND: no job has that id. JOBQ_EINVAL: attempt, or
 * a result that is not JSON or is too large. Otherwise as jobq_enqueue. */
JOBQ_API int jobq_job_complete(struct pg_conn *conn, const char *schema, int64_t id,
                               int attempt, const char *result, jobq_error *err);

/* Runs a finished or waiting job again, now. It gets at least one more attempt, and its
 * count of crashes (max_crashes) starts again. *done (may be NULL) receives 1 if the job
 * is now available, 0 if it was available or running already. Errors: JOBQ_ENOTFOUND; as
 * jobq_enqueue. */
JOBQ_API int jobq_job_retry(struct pg_conn *conn, const char *schema, int64_t id,
                            int *done, jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
