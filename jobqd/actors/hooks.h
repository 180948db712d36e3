/* hooks.h: the actor that runs the programs of on_failure and on_discard, and tells the
 * database which jobs on_discard_kind asks for (migrations/schema/hooks.sql).
 *
 * A program is run after the failure was recorded, by the node that recorded it, with the
 * story as JSON on its stdin. It is best effort, and never in a job's way: at most
 * HOOKS_AT_ONCE run at a time, HOOKS_WAITING stories wait (HOOKS_BYTES of them), the rest
 * is dropped, counted and logged. At the end of jobqd those that wait are still run, for
 * HOOKS_LAST_MS.
 */
#ifndef JOBQD_HOOKS_H
#define JOBQD_HOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/config/config.h"
#include "jobqd/db/store.h"

enum {
    HOOKS_AT_ONCE = 4,
    HOOKS_WAITING = 1000,
    HOOKS_BYTES = 16 * 1024 * 1024,
    HOOKS_LAST_MS = 10 * 1000
};

struct hooks;
struct failure; /* failures.h */

struct hooks_options {
    uv_loop_t *loop;
    struct store *store;
    const char *node; /* its name */
};

int hooks_new(struct hooks **out, const struct hooks_options *options);
/* The configuration from now on; held. JOBQ_ENOMEM: the one before goes on. */
int hooks_configure(struct hooks *hooks, struct config *config);
void hooks_start(struct hooks *hooks); /* the node lives: tells the database */
void hooks_stop(struct hooks *hooks);  /* it does not any more */
void hooks_tell(struct hooks *hooks);  /* the connection is there (again) */
/* Runs what is configured for it, sometime. */
void hooks_note(struct hooks *hooks, const struct failure *failure);
/* Tells what is lost if another program takes our place now. */
void hooks_leave(const struct hooks *hooks);
/* Runs what waits, then frees itself. at_once: drops it, and kills what runs. */
void hooks_close(struct hooks *hooks, bool at_once);

#endif
