/* jobq/cron.h: periodic jobs, on the caller's own libpq connection. See job.h for
 * transactions and threads.
 *
 * A cron is a row in the database. These functions write it, or SQL (jobq.cron_set), or a
 * [cron NAME] section of jobqd's configuration. While a jobqd is running, each time that
 * the schedule names becomes one job, with {"cron": NAME, "cron_at": TIME} in its meta. A
 * change takes effect within a second of its commit.
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

/* A cron. Start from JOBQ_CRON_INIT and set what differs. The library copies what it
 * needs; the strings stay yours. */
typedef struct jobq_cron {
    size_t size;          /* sizeof(jobq_cron); JOBQ_CRON_INIT sets it */
    const char *schema;   /* NULL: "jobq" */
    const char *name;     /* 1 to 128 bytes; required */
    const char *schedule; /* five fields, @hourly and its kin, @every 90s, @reboot;
                             required */
    const char *timezone; /* such as "Europe/Stockholm"; NULL: "UTC" */
    const char *missed;   /* runs missed while no node was up: "skip" (those over a minute
                             late), "once" (run the latest) or "all"; NULL: "once" */
    const char *kind;     /* of its jobs, as in jobq_job, like all below; required */
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

/* Adds a cron, or changes the one with that name. A paused cron stays paused.
 *
 * Errors: JOBQ_EINVAL: the message names the member and what is allowed; also for a
 * schedule that never fires. If the database found it, the caller's transaction is
 * aborted. JOBQ_ESTATE; JOBQ_ESCHEMA; JOBQ_ECONN. Transaction: the caller's, else its
 * own. Thread: one at a time for each connection. */
JOBQ_API int jobq_cron_set(struct pg_conn *conn, const jobq_cron *cron, jobq_error *err);

/* Pauses a cron: it enqueues no jobs until it is resumed.
 *
 * changed  receives 1, or 0 if it was paused already; may be NULL
 * Errors: JOBQ_ENOTFOUND: no cron has that name; as jobq_cron_set. Transaction: the
 * caller's, else its own. Thread: one at a time for each connection. */
JOBQ_API int jobq_cron_pause(struct pg_conn *conn, const char *schema, const char *name,
                             int *changed, jobq_error *err);

/* Resumes a cron from its next scheduled time. Times that passed while it was paused do
 * not count as missed. Otherwise like jobq_cron_pause. */
JOBQ_API int jobq_cron_resume(struct pg_conn *conn, const char *schema, const char *name,
                              int *changed, jobq_error *err);

/* Deletes a cron; its jobs stay. A cron that is in jobqd's configuration comes back when
 * a node with that configuration starts. Otherwise like jobq_cron_pause. */
JOBQ_API int jobq_cron_delete(struct pg_conn *conn, const char *schema, const char *name,
                              jobq_error *err);

/* Enqueues a cron's job now, outside its schedule, even if the cron is paused.
 *
 * id  receives the job's id; may be NULL
 * Otherwise like jobq_cron_pause. */
JOBQ_API int jobq_cron_run(struct pg_conn *conn, const char *schema, const char *name,
                           int64_t *id, jobq_error *err);

#ifdef __cplusplus
}
#endif

#endif
