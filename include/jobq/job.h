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
    int max_attempts;   /* 1 to 1000; 0: 20 */
    int timeout_ms;     /* the job's deadline in milliseconds, > 0; 0: its queue's */
    int64_t delay_ms;   /* not before so many milliseconds from now, by the database's
                           clock; >= 0 */
    int64_t scheduled_at_us; /* or: not before this time, microseconds since 1970-01-01
                                UTC; 0: not set */
    const char *key; /* the application's own grouping, 1 to 512 bytes; NULL: none */
    const char
        *unique_key; /* no second live job with this key, 1 to 512 bytes; NULL: none */
    const char *const *tags; /* n_tags strings */
    size_t n_tags;
} jobq_job;

#define JOBQ_JOB_INIT                                                                    \
    {                                                                                    \
        sizeof(jobq_job), NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL, NULL, NULL, \
            0                                                                            \
    }

/* Enqueues one job. With a unique_key that a live job has, nothing is inserted and *id is
 * that job's.
 *
 * conn  the connection; see above     job  what to enqueue
 * id    receives the job's id; may be NULL
 * Errors: JOBQ_EINVAL names the member and what is allowed (nothing was sent, or the
 * database refused it: then a transaction of the caller's is aborted); JOBQ_ESTATE;
 * JOBQ_ESCHEMA: no jobq in this database; JOBQ_ECONN. Transaction: the caller's, else its
 * own. Thread: one at a time for each connection. */
JOBQ_API int jobq_enqueue(struct pg_conn *conn, const jobq_job *job, int64_t *id,
                          jobq_error *err);

/* Enqueues n jobs (all of one schema), in few round trips and all or nothing, also
 * outside a transaction. The line is in the order of the array.
 *
 * ids  receives n ids in the order of jobs; may be NULL. A job with a unique_key that a
 * live job has (or an earlier one of the array) gets that one's id. Errors: as
 * jobq_enqueue; the message names the element, jobs[3].priority. Transaction: the
 * caller's, else one of its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_enqueue_many(struct pg_conn *conn, const jobq_job *jobs, size_t n,
                               int64_t *ids, jobq_error *err);

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
} jobq_job_info;

/* Looks a job up. Errors: JOBQ_ENOTFOUND; as jobq_enqueue.
 * Ownership: *out is the caller's; jobq_job_info_free. */
JOBQ_API int jobq_job_get(struct pg_conn *conn, const char *schema, int64_t id,
                          jobq_job_info **out, jobq_error *err);
JOBQ_API void jobq_job_info_free(jobq_job_info *info); /* NULL is harmless */

/* Cancels a job. One that waits ends as `cancelled` at once. One that runs is told to
 * stop, and killed if it does not; it ends as `cancelled` soon, or as `completed` if it
 * is done before. *done (may be NULL): 1 when it has ended by this call, 0 when it runs
 * or had ended before. Errors: JOBQ_ENOTFOUND; as jobq_enqueue. */
JOBQ_API int jobq_cancel(struct pg_conn *conn, const char *schema, int64_t id, int *done,
                         jobq_error *err);

/* Makes an ended or waiting job available again, with at least one attempt left, and
 * counts the workers that it crashes (max_crashes) anew. *done
 * (may be NULL): 1 when it was, 0 when it is available or runs. Errors: JOBQ_ENOTFOUND;
 * as jobq_enqueue. */
JOBQ_API int jobq_retry(struct pg_conn *conn, const char *schema, int64_t id, int *done,
                        jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
