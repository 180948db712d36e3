/* jobq/cron.h: periodic jobs, on the caller's own libpq connection: see job.h for what
 * that means for transactions and threads.
 *
 * A cron is a row of the database, whoever made it: this, SQL (jobq.cron_set), or a
 * [cron NAME] section of jobqd's configuration. While a jobqd runs, each of its slots
 * becomes one job, with {"cron": NAME, "cron_at": TIME} in its meta. A change counts
 * within a second of its commit.
 */
#ifndef JOBQ_CRON_H
#define JOBQ_CRON_H

#include <stddef.h>
#include <stdint.h>

#include <jobq/error.h>
#include <jobq/export.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pg_conn; /* libpq's PGconn */

/* A cron. Start from JOBQ_CRON_INIT and set what differs. Nothing is kept: the strings
 * are the caller's. */
typedef struct jobq_cron {
    size_t size;          /* sizeof(jobq_cron); JOBQ_CRON_INIT sets it */
    const char *schema;   /* NULL: "jobq" */
    const char *name;     /* 1 to 128 bytes; required */
    const char *schedule; /* five fields, @hourly and its kin, @every 90s, @reboot;
                             required */
    const char *timezone; /* such as "Europe/Stockholm"; NULL: "UTC" */
    const char *missed;   /* of slots that nobody was there for: "skip" (none more than a
                             minute late), "once" (the newest) or "all"; NULL: "once" */
    const char *kind;     /* of its jobs, as in jobq_job, as all below; required */
    const char *args;     /* a JSON object as text; NULL: {} */
    const char *meta;     /* a JSON object as text; NULL: {} */
    const char *queue;    /* NULL: "default" */
    int priority;         /* 0 (first) to 9 */
    int max_attempts;     /* 1 to 1000; 0: the queue's */
    int timeout_ms;       /* > 0; 0: the queue's */
    const char *const *tags; /* n_tags strings */
    size_t n_tags;
} jobq_cron;

#define JOBQ_CRON_INIT                                                                   \
    {                                                                                    \
        sizeof(jobq_cron), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0,   \
            0, NULL, 0                                                                   \
    }

/* Adds a cron, or makes the one of that name so; one that is paused stays so.
 *
 * Errors: JOBQ_EINVAL names the member and what is allowed (nothing was sent, or the
 * database refused it: then a transaction of the caller's is aborted), also for a
 * schedule that never comes; JOBQ_ESTATE; JOBQ_ESCHEMA; JOBQ_ECONN. Transaction: the
 * caller's, else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_cron_set(struct pg_conn *conn, const jobq_cron *cron, jobq_error *err);

/* Nothing is enqueued for it any more, until it is resumed.
 *
 * changed  receives 1, or 0 when it was so before; may be NULL
 * Errors: JOBQ_ENOTFOUND: there is no such cron; as jobq_cron_set. Transaction: the
 * caller's, else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_cron_pause(struct pg_conn *conn, const char *schema, const char *name,
                             int *changed, jobq_error *err);

/* It goes on with the next slot from now: what came meanwhile is not missed. Otherwise as
 * jobq_cron_pause. */
JOBQ_API int jobq_cron_resume(struct pg_conn *conn, const char *schema, const char *name,
                              int *changed, jobq_error *err);

/* Deletes it; its jobs stay. One that jobqd's configuration has comes back with the next
 * start of a node that has it. Otherwise as jobq_cron_pause. */
JOBQ_API int jobq_cron_delete(struct pg_conn *conn, const char *schema, const char *name,
                              jobq_error *err);

/* Enqueues its job now, beside its schedule, paused or not.
 *
 * id  receives the job's; may be NULL
 * Otherwise as jobq_cron_pause. */
JOBQ_API int jobq_cron_run(struct pg_conn *conn, const char *schema, const char *name,
                           int64_t *id, jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
