/* steward.h: the actor that reads what operators have set for this node's queues
 * (jobq.pause, jobq.scale): twice a second, and at once when a notification says that
 * something has changed. What a setting means for a queue is its owner's business, who
 * also keeps the last known ones while the database is away.
 */
#ifndef JOBQD_STEWARD_H
#define JOBQD_STEWARD_H

#include <stddef.h>
#include <uv.h>

#include "jobqd/db/store.h"

struct steward;

struct steward_options {
    uv_loop_t *loop;
    struct store *store;
    const char *node; /* its name */
    /* The queues' names, an array that is for free() in strings that are lent; they are
     * asked for from now on. NULL: no memory. */
    const char **(*queues)(void *owner, size_t *n);
    void (*on_settings)(void *owner, const struct store_settings_result *result);
    void *owner;
};

int steward_new(struct steward **out, const struct steward_options *options);
void steward_start(struct steward *steward); /* the node lives */
/* There may be something new. What is under way already does not count. */
void steward_poke(struct steward *steward);
void steward_stop(struct steward *steward);
void steward_close(struct steward *steward); /* frees it, once the store has closed */

#endif
