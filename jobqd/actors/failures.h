/* failures.h: the actor that tells of attempts that failed and of jobs that were
 * discarded or expired, once the database has recorded it: a line in the log for each,
 * and a count where many are alike (pure/repeats.h). The
 * hooks (hooks.h) hear of each of them.
 */
#ifndef JOBQD_FAILURES_H
#define JOBQD_FAILURES_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct failures;
struct hooks;

/* One of them. All texts are lent for the call. */
struct failure {
    int64_t job;
    const char *kind;
    const char *queue;
    int attempt; /* 0: it never started */
    int max_attempts;
    const char *state;   /* the job's now: retryable, available, discarded, cancelled */
    int64_t retry_at_ms; /* when it is tried again, ms since 1970; 0: at once, or not */
    const char *error_kind;
    const char *error;
    int slot; /* the worker's number in its queue, from 1; 0: no worker had it */
    long pid;
    bool hooks;        /* a hook's job: nothing but the log hears of it */
    const char *entry; /* for hooks, as the next two: the error's record, as JSON */
    const char *args;  /* NULL: not known, or large */
    const char *meta;
};

struct failures_options {
    uv_loop_t *loop;
    struct hooks *hooks;
};

int failures_new(struct failures **out, const struct failures_options *options);
void failures_note(struct failures *failures, const struct failure *failure);
/* A JSON array of them, as _story in migrations/schema/settle.sql makes them; NULL or
 * empty: none. */
void failures_note_stories(struct failures *failures, const char *json);
/* Tells what was counted so far: another program is about to take our place. */
void failures_leave(struct failures *failures);
void failures_close(struct failures *failures); /* tells what was counted; frees it */

#endif
