/* jobq/bulk.h: cancel, retry and delete many jobs at once, on the caller's own libpq
 * connection. See job.h for the connection, its transaction, schema and threads.
 *
 * A filter is a JSON object; its members are ANDed:
 *
 *     all               true: every job; required if there is no other condition
 *     ids               an array of job ids
 *     state             a state, or an array of states
 *     queue, kind       a text, or an array of texts
 *     tags              an array of texts: the job has all of them
 *     key               a text
 *     args, meta        an object that the job's contains (jsonb's @>)
 *     priority          0 to 9, or an array of such numbers
 *     inserted_before, inserted_after, scheduled_before, scheduled_after,
 *     finished_before, finished_after      a time as text; no live job is finished
 *     limit             the most jobs to act on, those with the smallest ids
 *
 * An empty filter is refused. JOBQ_EINVAL names the member and what is allowed.
 *
 * Each call is all or nothing. It waits for jobs that another session has locked, up to
 * lock_timeout, or 10 s if that is not set. Then it fails with JOBQ_EDB and sqlstate
 * 55P03 and has changed nothing.
 *
 * n, in all calls: receives the number of jobs; may be NULL.
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

/* Cancels live jobs: waiting ones at once, running ones by asking them to stop. Both are
 * counted. Errors: as jobq_enqueue. Transaction: the caller's, else its own. Thread: one
 * at a time for each connection, as for all functions here. */
JOBQ_API int jobq_job_cancel_many(struct pg_conn *conn, const char *schema,
                                  const char *filter, int64_t *n, jobq_error *err);

/* Runs finished or scheduled jobs again, now. It skips, and does not count, jobs that are
 * available, suspended or running, jobs that have used all 1000 attempts, and jobs whose
 * unique key a live job holds. Errors: as jobq_enqueue. */
JOBQ_API int jobq_job_retry_many(struct pg_conn *conn, const char *schema,
                                 const char *filter, int64_t *n, jobq_error *err);

/* Deletes jobs, live and finished. It asks running jobs to stop, and counts them; they
 * are deleted when they end, however they end. Errors: as jobq_enqueue. */
JOBQ_API int jobq_job_delete_many(struct pg_conn *conn, const char *schema,
                                  const char *filter, int64_t *n, jobq_error *err);

/* Deletes one job. *done (may be NULL) receives 1 if it is deleted, 0 if it is running:
 * it is asked to stop then, and deleted when it ends. Errors: JOBQ_ENOTFOUND; as
 * jobq_enqueue. */
JOBQ_API int jobq_job_delete(struct pg_conn *conn, const char *schema, int64_t id,
                             int *done, jobq_error *err);

/* Deletes a user's data: every job, live or finished, whose args contain the object
 * `args`, as jobq_job_delete_many does. {} is refused. kind, queue: only jobs of this
 * kind or queue; NULL: any. It reads every job unless args has an index. Errors: as
 * jobq_enqueue. */
JOBQ_API int jobq_job_purge(struct pg_conn *conn, const char *schema, const char *args,
                            const char *kind, const char *queue, int64_t *n,
                            jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
