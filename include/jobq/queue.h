/* jobq/queue.h: pause, resume and scale queues, on the caller's own libpq connection: see
 * job.h for what that means for transactions and threads.
 *
 * What is set here is a row in the database: it outlives restarts of every program, and a
 * node that is away finds it when it comes back. Nodes go by it within a second of the
 * commit. The queue need not be served by any node yet.
 */
#ifndef JOBQ_QUEUE_H
#define JOBQ_QUEUE_H

#include <jobq/error.h>
#include <jobq/export.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pg_conn; /* libpq's PGconn */

enum {
    JOBQ_WORKERS_CONFIGURED = -1
}; /* jobq_queue_scale: as many as the configuration says */

/* No node claims jobs of the queue any more, or that node alone; those that run go on,
 * and what was claimed and not begun goes back uncounted.
 *
 * schema  NULL: "jobq"    queue  1 to 128 bytes
 * node    its name; NULL: all nodes, also those that come later
 * changed receives 1, or 0 when it was so before; may be NULL
 * Errors: JOBQ_EINVAL; JOBQ_ESTATE; JOBQ_ESCHEMA; JOBQ_ECONN. Transaction: the caller's,
 * else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_queue_pause(struct pg_conn *conn, const char *schema, const char *queue,
                              const char *node, int *changed, jobq_error *err);

/* Lifts the pauses of the queue. node NULL: all of them, those of single nodes too; else
 * that node's own alone, which is refused with JOBQ_ESTATE while the queue is paused on
 * all. Otherwise as jobq_queue_pause. */
JOBQ_API int jobq_queue_resume(struct pg_conn *conn, const char *schema,
                               const char *queue, const char *node, int *changed,
                               jobq_error *err);

/* n workers on each node that serves the queue, or on that node, whatever their
 * configuration says: 0 (jobs wait) to 1000, or JOBQ_WORKERS_CONFIGURED, which without a
 * node undoes what was said of single nodes too. What was said of a single node wins over
 * what was said of all. Workers that are too many finish what they hold. Otherwise as
 * jobq_queue_pause. */
JOBQ_API int jobq_queue_scale(struct pg_conn *conn, const char *schema, const char *queue,
                              int n, const char *node, int *changed, jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
