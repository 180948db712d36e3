/* notifier.c: see notifier.h. */
#include "jobqd/service/notifier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/io/pgconn.h"

struct notifier {
    struct notifier_options options;
    struct pgconn *conn;
    void (*on_closed)(void *owner);
};

static void
on_ready(void *owner)
{
    struct notifier *notifier = owner;
    bool pooled = pgconn_pooled(notifier->conn);
    if (pooled)
        log_info(
            "database",
            "a pooler stands between: notifications may be lost, so queues are polled");
    notifier->options.on_listening(notifier->options.owner, !pooled);
}

static void
on_lost(void *owner, const jobq_error *why)
{
    struct notifier *notifier = owner;
    (void)why; /* the control connection says it */
    notifier->options.on_listening(notifier->options.owner, false);
}

static void
on_notify(void *owner, const char *channel, const char *payload)
{
    struct notifier *notifier = owner;
    const struct notifier_options *o = &notifier->options;
    static const char queue[] = "queue ";
    if (strcmp(channel, o->channel) != 0)
        return;
    if (strncmp(payload, queue, sizeof queue - 1) == 0)
        o->on_queue(o->owner, payload + sizeof queue - 1);
    else if (strcmp(payload, "stage") == 0)
        o->on_stage(o->owner);
    else if (strcmp(payload, "leader") == 0)
        o->on_leader(o->owner);
    else if (strcmp(payload, "cancel") == 0)
        o->on_cancel(o->owner);
    else if (strcmp(payload, "cron") == 0)
        o->on_cron(o->owner);
    else if (strcmp(payload, "queues") == 0)
        o->on_queues(o->owner);
}

int
notifier_new(struct notifier **out, uv_loop_t *loop,
             const struct notifier_options *options)
{
    struct notifier *notifier = calloc(1, sizeof *notifier);
    if (!notifier)
        return JOBQ_ENOMEM;
    notifier->options = *options;
    char listen[128];
    snprintf(listen, sizeof listen, "LISTEN \"%s\"", options->channel);
    struct pgconn_options conn = {
        .conninfo = options->conninfo,
        .name = "listen",
        .setup = listen,
        .on_ready = on_ready,
        .on_lost = on_lost,
        .on_notify = on_notify,
        .owner = notifier,
    };
    int rc = pgconn_new(&notifier->conn, loop, &conn);
    if (rc < 0) {
        free(notifier);
        return rc;
    }
    *out = notifier;
    return 0;
}

static void
on_conn_closed(void *owner)
{
    struct notifier *notifier = owner;
    void (*on_closed)(void *) = notifier->on_closed;
    void *above = notifier->options.owner;
    free(notifier);
    on_closed(above);
}

void
notifier_close(struct notifier *notifier, void (*on_closed)(void *owner))
{
    notifier->on_closed = on_closed;
    pgconn_close(notifier->conn, false, on_conn_closed);
}
