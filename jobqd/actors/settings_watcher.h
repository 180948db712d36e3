/* settings_watcher.h: the actor that reads what operators have set for this node's queues
 * (jobq.pause, jobq.scale): twice a second, and at once when a notification says that
 * something has changed. What a setting means for a queue is its owner's business, who
 * also keeps the last known ones while the database is away.
 */
#ifndef JOBQD_SETTINGS_WATCHER_H
#define JOBQD_SETTINGS_WATCHER_H

#include <stddef.h>
#include <uv.h>

#include "jobqd/db/store.h"

struct settings_watcher;

struct settings_watcher_options {
    uv_loop_t *loop;
    struct store *store;
    const char *node; /* its name */
    /* The queues' names, an array that is for free() in strings that are lent; they are
     * asked for from now on. NULL: no memory. */
    const char **(*queues)(void *owner, size_t *n);
    void (*on_settings)(void *owner, const struct store_list *settings);
    void *owner;
};

int settings_watcher_new(struct settings_watcher **out,
                         const struct settings_watcher_options *options);
void settings_watcher_start(struct settings_watcher *watcher); /* the node lives */
/* There may be something new. What is under way already does not count. */
void settings_watcher_poke(struct settings_watcher *watcher);
void settings_watcher_stop(struct settings_watcher *watcher);
void settings_watcher_close(
    struct settings_watcher *watcher); /* frees it, once the store has closed */

#endif
