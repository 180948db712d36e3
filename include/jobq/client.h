/* jobq/client.h: a small client that owns its connection, for programs that have no
 * connection to lend. Each call runs in its own transaction. The client reconnects before
 * a call if its connection is broken, and retries a call after a serialization failure or
 * a deadlock. To enqueue inside your own transaction, use job.h on your connection.
 *
 * Thread: one at a time for each client.
 */
#ifndef JOBQ_CLIENT_H
#define JOBQ_CLIENT_H

#include <jobq/error.h>
#include <jobq/export.h>
#include <jobq/job.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct jobq_client jobq_client;

typedef struct jobq_client_options {
    size_t size; /* sizeof(jobq_client_options); JOBQ_CLIENT_OPTIONS_INIT sets it */
    /* libpq connection string or URI; NULL: libpq's PG* environment */
    const char *database;
    const char *schema; /* default for calls whose job names none; NULL: "jobq" */
} jobq_client_options;

#define JOBQ_CLIENT_OPTIONS_INIT                                                         \
    {                                                                                    \
        sizeof(jobq_client_options), NULL, NULL                                          \
    }

/* Connects; blocks until it has. Errors: JOBQ_ECONN: the message is libpq's; JOBQ_EINVAL;
 * JOBQ_ENOMEM. Ownership: options are copied; free *out with jobq_client_close. */
JOBQ_API int jobq_client_open(const jobq_client_options *options, jobq_client **out,
                              jobq_error *err);
JOBQ_API void jobq_client_close(jobq_client *client); /* NULL is harmless */

/* The client's connection, for use between calls. Ownership: the client's; valid until
 * jobq_client_close. */
JOBQ_API struct pg_conn *jobq_client_conn(jobq_client *client);

/* Reconnects if the connection is lost. The calls below do this first; call it yourself
 * before you use jobq_client_conn with the functions of bulk.h, queue.h and cron.h. It
 * does not reconnect inside a transaction that you began on that connection. Errors:
 * JOBQ_ECONN: the connection is lost and a new one failed; the message is libpq's. */
JOBQ_API int jobq_client_reconnect(jobq_client *client, jobq_error *err);

/* Like the functions of job.h. JOBQ_ECONN means that the call may or may not have taken
 * effect; the client does not repeat it. */
JOBQ_API int jobq_client_enqueue(jobq_client *client, const jobq_job *job, int64_t *id,
                                 jobq_error *err);
JOBQ_API int jobq_client_enqueue_many(jobq_client *client, const jobq_job *jobs, size_t n,
                                      int64_t *ids, jobq_error *err);
JOBQ_API int jobq_client_try_enqueue(jobq_client *client, const jobq_job *job,
                                     jobq_enqueued *out, jobq_error *err);
JOBQ_API int jobq_client_try_enqueue_many(jobq_client *client, const jobq_job *jobs,
                                          size_t n, jobq_enqueued *out, jobq_error *err);
JOBQ_API int jobq_client_job_get(jobq_client *client, int64_t id, jobq_job_info **out,
                                 jobq_error *err);
/* Like jobq_job_wait, but reconnects and keeps waiting when the connection is lost. If
 * the database is away or does not answer when timeout_ms expires, the call fails with
 * JOBQ_ECONN, at most 1.5 seconds late (libpq's look-up of a host name may take longer).
 * With a timeout, the connection string's connect_timeout is ignored. */
JOBQ_API int jobq_client_wait(jobq_client *client, int64_t id, int64_t timeout_ms,
                              jobq_job_info **out, jobq_error *err);
JOBQ_API int jobq_client_cancel(jobq_client *client, int64_t id, int *done,
                                jobq_error *err);
JOBQ_API int jobq_client_retry(jobq_client *client, int64_t id, int *done,
                               jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
