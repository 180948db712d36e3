/* stager.h: the actor that makes due jobs available (scheduled and retryable ones whose
 * time has come), and ends those that have not begun by their expires_at.
 *
 * It sleeps until the next due time, which it asks for each time, and at most a poll
 * interval: a job that is inserted with a nearer time than that is announced by a
 * notification (stager_poke). */
#ifndef JOBQD_STAGER_H
#define JOBQD_STAGER_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/actors/failures.h"
#include "jobqd/db/store.h"

struct stager;

struct stager_options {
    uv_loop_t *loop;
    struct store *store;
    struct failures *failures;      /* told of what it recorded */
    void (*on_staged)(void *owner); /* jobs of some queue became available */
    void *owner;
};

int stager_new(struct stager **out, const struct stager_options *options);
void stager_start(struct stager *stager);
void stager_stop(struct stager *stager);
void stager_poke(struct stager *stager);  /* something may be due soon: look at once */
void stager_close(struct stager *stager); /* frees it, once the store has closed */

#endif
