/* notifier.c: see notifier.h. */
#include "jobqd/db/notifier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/db/pgconn.h"

enum { PROBE_MS = 60 * 1000, SILENT_AFTER_MS = 10 * 1000 };

struct notifier {
    struct notifier_options options;
    struct pgconn *conn;
    uv_timer_t probe;               /* runs while the connection listens */
    int open_parts;                 /* connection and timer */
    void (*on_closed)(void *owner); /* NULL: it is open */
};

/* ---- the probe ---- */

static void
on_answer(void *data, const struct pgconn_outcome *outcome)
{
    struct notifier *notifier = data;
    if (outcome->code == JOBQ_ECONN && outcome->sent && !notifier->on_closed)
        log_warning("database",
                    "lost the listening connection, and possibly notifications: %s",
                    outcome->error.message);
}

static void
on_probe(uv_timer_t *timer)
{
    struct notifier *notifier = timer->data;
    const struct pgconn_statement question = {.sql = "SELECT 1"};
    if (!pgconn_works(notifier->conn))
        pgconn_batch(notifier->conn, &question, 1, on_answer, notifier);
}

/* ---- the connection ---- */

static void
on_ready(void *owner)
{
    struct notifier *notifier = owner;
    bool pooled = pgconn_pooled(notifier->conn);
    if (pooled)
        log_info("database", "connected through a pooler, which may lose notifications: "
                             "polling the queues instead");
    else
        uv_timer_start(&notifier->probe, on_probe, (uint64_t)notifier->options.probe_ms,
                       (uint64_t)notifier->options.probe_ms);
    notifier->options.on_listening(notifier->options.owner, !pooled);
}

static void
on_lost(void *owner, const jobq_error *why)
{
    struct notifier *notifier = owner;
    (void)why; /* the control connection says it, or the probe */
    uv_timer_stop(&notifier->probe);
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
    if (options->probe_ms == 0)
        notifier->options.probe_ms = PROBE_MS;
    char listen[128];
    snprintf(listen, sizeof listen, "LISTEN \"%s\"", options->channel);
    struct pgconn_options conn = {
        .conninfo = options->conninfo,
        .name = "listen",
        .setup = listen,
        .dead_after_ms = SILENT_AFTER_MS,
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
    uv_timer_init(loop, &notifier->probe); /* cannot fail */
    notifier->probe.data = notifier;
    notifier->open_parts = 2;
    *out = notifier;
    return 0;
}

static void
closed_one(struct notifier *notifier)
{
    if (--notifier->open_parts > 0)
        return;
    void (*on_closed)(void *) = notifier->on_closed;
    void *above = notifier->options.owner;
    free(notifier);
    on_closed(above);
}

static void
on_conn_closed(void *owner)
{
    closed_one(owner);
}

static void
on_probe_closed(uv_handle_t *timer)
{
    closed_one(timer->data);
}

void
notifier_close(struct notifier *notifier, void (*on_closed)(void *owner))
{
    notifier->on_closed = on_closed;
    uv_close((uv_handle_t *)&notifier->probe, on_probe_closed);
    pgconn_close(notifier->conn, false, on_conn_closed);
}
