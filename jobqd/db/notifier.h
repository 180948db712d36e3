/* notifier.h: hears what the database says on our channel (NOTIFY), on a connection of
 * its own. Only hints: all works without, by polling; behind a transaction-mode pooler
 * LISTEN is silently lost, and nothing is heard.
 *
 * Nothing goes over the connection while there is nothing to hear, and what stands
 * between may drop it without a word (a proxy that was restarted, an address translation
 * that has forgotten it, which TCP's keepalives do not find where they end at the proxy).
 * So a question goes over it now and then, and without an answer it is built anew.
 *
 * Payloads: "queue NAME" (jobs came for an idle queue), "stage" (something is due soon),
 * "leader" (the lead is free), "cancel" (a running job was cancelled), "queues" (somebody
 * has paused, resumed or scaled one).
 */
#ifndef JOBQD_NOTIFIER_H
#define JOBQD_NOTIFIER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct notifier;

struct notifier_options {
    const char *conninfo;
    const char *channel; /* the schema's name: a legal identifier */
    int64_t probe_ms;    /* how often the connection is asked whether it is alive; 0: once
                            a minute */
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
