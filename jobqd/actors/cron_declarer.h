/* cron_declarer.h: the actor that tells the database of the crons in this node's configuration
 * and of its queues' max_attempts, and that the node has come up, for @reboot. On every
 * node: it tells when the node is registered, when its configuration was read again, and
 * when the connection is back. The database finds out what of it is new (cron_declare,
 * queue_declare), and whether the node is the first (cron_boot). */
#ifndef JOBQD_ACTORS_CRON_DECLARER_H
#define JOBQD_ACTORS_CRON_DECLARER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/config/config.h"
#include "jobqd/db/store.h"

struct cron_declarer;

struct cron_declarer_options {
    uv_loop_t *loop;
    struct store *store;
    const char *node; /* its name; outlives the actor */
    /* The database has heard the configuration. fault: which crons it refuses, and why;
     * NULL: none. */
    void (*on_told)(void *owner, const char *fault);
    void *owner;
};

int cron_declarer_new(struct cron_declarer **out,
                      const struct cron_declarer_options *options);
/* What it is to tell from now on; copied. JOBQ_ENOMEM: as before. */
int cron_declarer_configure(struct cron_declarer *declarer, const struct config *config);
/* The node lives under this id. fresh: for the first time in the life of its process,
 * which no other program has left to us. */
void cron_declarer_start(struct cron_declarer *declarer, int64_t node, bool fresh);
void cron_declarer_stop(struct cron_declarer *declarer);
/* Whether the database has answered what was configured last. Rows that another
 * transaction has locked are not waited for. */
bool cron_declarer_is_settled(const struct cron_declarer *declarer);
void cron_declarer_tell(struct cron_declarer *declarer); /* tells, if the node lives */
void cron_declarer_close(
    struct cron_declarer *declarer); /* frees it, once the store has closed */

#endif
