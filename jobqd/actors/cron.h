/* cron.h: the actor that has the jobs of crons enqueued when their slots come. Only the
 * leader does it, to spare the other nodes the asking: that each slot is
 * enqueued once is the database's doing (cron_fire), as is the clock.
 *
 * It sleeps until the next slot, which it asks for each time, and at most a second: a
 * cron that is added or changed is announced by a notification (cron_poke).
 *
 * Each minute it has the database look after crons whose nodes are gone (cron_sweep). */
#ifndef JOBQD_ACTORS_CRON_H
#define JOBQD_ACTORS_CRON_H

#include <uv.h>

#include "jobqd/db/store.h"

struct cron_actor;

struct cron_actor_options {
    uv_loop_t *loop;
    struct store *store;
    void (*on_fired)(void *owner); /* jobs of some queue became available */
    void *owner;
};

int cron_actor_new(struct cron_actor **out, const struct cron_actor_options *options);
void cron_actor_start(struct cron_actor *cron);
void cron_actor_stop(struct cron_actor *cron);
void cron_actor_poke(struct cron_actor *cron);  /* something may come soon */
void cron_actor_close(struct cron_actor *cron); /* frees it, once the store has closed */

#endif
