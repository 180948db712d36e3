/* jobq/queue.h: pause, resume and scale queues on the caller's own libpq connection. See
 * job.h for transactions and threads.
 *
 * These settings are rows in the database. They survive restarts, and a node that is down
 * applies them when it comes back. Running nodes apply a change within a second of its
 * commit. No node has to serve the queue yet.
 */
#ifndef JOBQ_QUEUE_H
#define JOBQ_QUEUE_H

#include <jobq/error.h>
#include <jobq/export.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pg_conn; /* libpq's PGconn */

/* For jobq_queue_scale: as many workers as the configuration says. */
enum { JOBQ_WORKERS_CONFIGURED = -1 };

/* Pauses the queue, on all nodes or on one: they stop claiming its jobs. Running jobs
 * continue. Jobs that were claimed but have not started go back to the queue, and the
 * claim does not count as an attempt.
 *
 * schema  NULL: "jobq"    queue  1 to 128 bytes
 * node    a node's name; NULL: all nodes, including those that start later
 * changed receives 1, or 0 if the queue was paused already; may be NULL
 * Errors: JOBQ_EINVAL; JOBQ_ESTATE; JOBQ_ESCHEMA; JOBQ_ECONN. Transaction: the caller's,
 * else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_queue_pause(struct pg_conn *conn, const char *schema, const char *queue,
                              const char *node, int *changed, jobq_error *err);

/* Resumes the queue. With node NULL it lifts every pause, including those of single
 * nodes; otherwise it lifts only that node's pause, and fails with JOBQ_ESTATE while the
 * queue is paused on all nodes. Parameters and errors as for jobq_queue_pause. */
JOBQ_API int jobq_queue_resume(struct pg_conn *conn, const char *schema,
                               const char *queue, const char *node, int *changed,
                               jobq_error *err);

/* Sets the number of workers for the queue, on all nodes that serve it or on one. It
 * overrides the configuration, and a number for one node overrides the number for all.
 * Surplus workers finish their jobs first. Otherwise like jobq_queue_pause.
 *
 * n  0 (jobs wait) to 1000; JOBQ_WORKERS_CONFIGURED: back to the configuration, and with
 *    node NULL also on nodes that have a number of their own */
JOBQ_API int jobq_queue_scale(struct pg_conn *conn, const char *schema, const char *queue,
                              int n, const char *node, int *changed, jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
