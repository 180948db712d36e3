/* jobq/bulk.h: cancel, retry and delete many jobs at once, on the caller's own libpq
 * connection: what job.h says of the connection, its transaction, schema and threads
 * holds here too.
 *
 * A filter is a JSON object; its members are ANDed:
 *
 *     all               true: every job; needed where there is no other condition
 *     ids               an array of job ids
 *     state             a state, or an array of states
 *     queue, kind       a text, or an array of texts
 *     tags              an array of texts: all of them
 *     key               a text
 *     args, meta        an object that the job's contains (jsonb's @>)
 *     priority          0 to 9, or an array of such numbers
 *     inserted_before, inserted_after, scheduled_before, scheduled_after,
 *     finished_before, finished_after      a time as text; no live job is finished
 *     limit             at most so many jobs, those with the smallest ids
 *
 * An empty filter is refused. JOBQ_EINVAL names the member and what is allowed.
 *
 * Each call is all or nothing. A job that another session has locked is waited for, for
 * lock_timeout, or 10 s where that is not set: then the error is JOBQ_EDB with the
 * sqlstate 55P03, and nothing was changed.
 *
 * n, in all calls: receives how many jobs were acted upon; may be NULL.
 */
#ifndef JOBQ_BULK_H
#define JOBQ_BULK_H

#include <jobq/error.h>
#include <jobq/export.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pg_conn; /* libpq's PGconn */

/* Cancels live jobs. Those that wait end as `cancelled` at once; those that run are asked
 * to stop, and counted. Errors: as jobq_enqueue. Transaction: the caller's, else its own.
 * Thread: one at a time for each connection, as all of these. */
JOBQ_API int jobq_job_cancel_many(struct pg_conn *conn, const char *schema,
                                  const char *filter, int64_t *n, jobq_error *err);

/* Makes jobs available that have ended or wait for their time. Left as they are, and not
 * counted: jobs that are available, suspended or run, that have used all 1000 attempts,
 * or whose unique key a live job holds. Errors: as jobq_enqueue. */
JOBQ_API int jobq_job_retry_many(struct pg_conn *conn, const char *schema,
                                 const char *filter, int64_t *n, jobq_error *err);

/* Deletes jobs, live and ended. Those that run are told to stop, and counted; they leave
 * no trace either, however they end. Errors: as jobq_enqueue. */
JOBQ_API int jobq_job_delete_many(struct pg_conn *conn, const char *schema,
                                  const char *filter, int64_t *n, jobq_error *err);

/* Deletes one job. *done (may be NULL): 1 when it is gone, 0 when it runs: then it is
 * told to stop, and leaves no trace when it has ended. Errors: JOBQ_ENOTFOUND; as
 * jobq_enqueue. */
JOBQ_API int jobq_job_delete(struct pg_conn *conn, const char *schema, int64_t id,
                             int *done, jobq_error *err);

/* Deletes a user's data: every job, live or ended, whose args contain the object `args`,
 * as jobq_job_delete_many does. {} is refused. kind, queue: of these alone; NULL: of any.
 * Reads all jobs through, unless somebody has made an index on args. Errors: as
 * jobq_enqueue. */
JOBQ_API int jobq_job_purge(struct pg_conn *conn, const char *schema, const char *args,
                            const char *kind, const char *queue, int64_t *n,
                            jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
