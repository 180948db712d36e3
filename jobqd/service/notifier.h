/* notifier.h: hears what the database says on our channel (NOTIFY), on a connection of
 * its own. Only hints: all works without, by polling; behind a transaction-mode pooler
 * LISTEN is silently lost, and nothing is heard.
 *
 * Payloads: "queue NAME" (jobs came for an idle queue), "stage" (something is due soon),
 * "leader" (the lead is free), "cancel" (a running job was cancelled), "queues" (somebody
 * has paused, resumed or scaled one).
 */
#ifndef JOBQD_NOTIFIER_H
#define JOBQD_NOTIFIER_H

#include <stdbool.h>
#include <uv.h>

struct notifier;

struct notifier_options {
    const char *conninfo;
    const char *channel; /* the schema's name: a legal identifier */
    void (*on_queue)(void *owner, const char *queue);
    void (*on_stage)(void *owner);
    void (*on_leader)(void *owner);
    void (*on_cancel)(void *owner);
    void (*on_queues)(void *owner);
    void (*on_cron)(void *owner);
    void (*on_listening)(void *owner,
                         bool listening); /* heard from now on; not heard any more */
    void *owner;
};

int notifier_new(struct notifier **out, uv_loop_t *loop,
                 const struct notifier_options *options);
void notifier_close(struct notifier *notifier,
                    void (*on_closed)(void *owner)); /* frees itself */

#endif
