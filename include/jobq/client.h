/* jobq/client.h: a small client that owns its connection, for programs that have none of
 * their own to lend. Each call is a transaction of its own; a connection found broken is
 * made anew before a call, and a serialization failure or deadlock is tried again. To
 * enqueue inside a transaction of your own, use job.h on your connection.
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
    const char *schema; /* for all calls whose job names none; NULL: "jobq" */
} jobq_client_options;

#define JOBQ_CLIENT_OPTIONS_INIT                                                         \
    {                                                                                    \
        sizeof(jobq_client_options), NULL, NULL                                          \
    }

/* Connects (blocking). Errors: JOBQ_ECONN: the message is libpq's; JOBQ_EINVAL;
 * JOBQ_ENOMEM. Ownership: options are copied; *out is the caller's, jobq_client_close. */
JOBQ_API int jobq_client_open(const jobq_client_options *options, jobq_client **out,
                              jobq_error *err);
JOBQ_API void jobq_client_close(jobq_client *client); /* NULL is harmless */

/* The connection, for use between calls. Ownership: lent until jobq_client_close. */
JOBQ_API struct pg_conn *jobq_client_conn(jobq_client *client);

/* Makes the connection anew if it was lost, as each call below does first: for what goes
 * by jobq_client_conn, such as the functions of bulk.h, queue.h and cron.h. Within a
 * transaction that was begun there nothing is made anew. JOBQ_ECONN: it is lost, and
 * there is no new one; the message is libpq's. */
JOBQ_API int jobq_client_reconnect(jobq_client *client, jobq_error *err);

/* As the functions of job.h. JOBQ_ECONN: it is unknown whether the call took place; it is
 * not repeated. */
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
/* As jobq_job_wait; goes on when the connection is lost, until the time is over: then it is
 * JOBQ_ECONN if the database is away or does not answer, 1.5 seconds late at most (but a
 * look-up of its host's name by libpq may take longer). With a time, connect_timeout of
 * the connection string does not count. */
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
