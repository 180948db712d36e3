/* daemon_stop.c: the way down: producers drain, the node says goodbye, the connections
 * close, the embedded database stops. */
#include "jobqd/daemon/daemon_private.h"

#include <stdio.h>
#include <sysexits.h>

#include "jobqd/actors/node.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/db/notifier.h"
#include "jobqd/db/store.h"
#include "jobqd/embedded/postgres.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/guard.h"

enum {
    PATIENCE_MS = 15000,       /* after the grace, for the last answers to be confirmed */
    LITTLE_PATIENCE_MS = 2000, /* the same, after a second signal */
};

/* Gives up the jobs. What is under way on the work connection is not waited for: it may
 * be dead without a word. */
void
daemon_abandon(struct daemon *d)
{
    queues_abandon(&d->queues);
    store_reset_work(d->store);
}

void
daemon_on_embedded_stopped(void *owner)
{
    struct daemon *d = owner;
    embedded_free(d->embedded);
    d->embedded = NULL;
    daemon_set_state(d, DAEMON_DONE);
    signals_close(&d->signals);
    loopwatch_close();
    reaper_unwatch();
    guard_close(d->guard);
    uv_close((uv_handle_t *)&d->session, NULL);
    uv_close((uv_handle_t *)&d->still_away, NULL);
    uv_close((uv_handle_t *)&d->patience, NULL);
    uv_close((uv_handle_t *)&d->rollout.timer, NULL);
    upgrade_close(d->upgrade);
    systemd_close(d->systemd);
}

void
daemon_stop_embedded(struct daemon *d)
{
    daemon_set_state(d, DAEMON_STOPPING);
    if (d->embedded)
        embedded_stop(d->embedded, d->at_once);
    else
        daemon_on_embedded_stopped(d);
}

static void
on_connection_closed(void *owner)
{
    struct daemon *d = owner;
    if (--d->n_connections > 0)
        return;
    queues_clear(&d->queues);
    node_close(d->node);
    d->node = NULL;
    daemon_actors_close(d);
    daemon_stop_embedded(d);
}

void
daemon_on_gone(void *owner)
{
    struct daemon *d = owner;
    daemon_set_state(d, DAEMON_CLOSING);
    if (d->notifier)
        notifier_close(d->notifier, on_connection_closed);
    store_close(d->store, false, on_connection_closed);
}

void
daemon_go_on_stopping(struct daemon *d)
{
    if (d->state != DAEMON_DRAINING)
        return;
    daemon_set_state(d, DAEMON_LEAVING);
    daemon_actors_stop(d);
    node_leave(d->node);
}

/* The lease may be renewed while the work connection does not come back. */
static void
on_patience(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    if (d->state != DAEMON_DRAINING)
        return;
    log_warning("jobqd", "shutting down before the database confirmed the last "
                         "results; those jobs will run again");
    daemon_abandon(d);
}

void
daemon_drain(struct daemon *d, int64_t grace_ms)
{
    int64_t more_ms = grace_ms > 0 ? PATIENCE_MS : LITTLE_PATIENCE_MS;
    /* What stands still for an upgrade would not end. */
    upgrade_abort(d->upgrade, "this jobqd is stopping");
    if (more_ms > d->booted->lease_ms)
        more_ms = d->booted->lease_ms;
    if (d->state == DAEMON_RUNNING)
        daemon_set_state(d, DAEMON_DRAINING);
    uv_timer_start(&d->patience, on_patience, (uint64_t)(grace_ms + more_ms), 0);
    queues_drain(&d->queues, grace_ms);
    if (queues_stopped(&d->queues))
        daemon_go_on_stopping(d);
}

void
daemon_refuse(struct daemon *d, int exit_code, const char *why)
{
    log_error("jobqd", "%s", why);
    d->exit_code = exit_code;
    daemon_drain(d, 0);
}

/* At the start it ends jobqd, so that whoever starts it is told; later it is a state. */
void
daemon_on_denied(void *owner, const char *why)
{
    struct daemon *d = owner;
    char text[700];
    if (d->lived || d->state != DAEMON_RUNNING)
        return;
    snprintf(text, sizeof text,
             "%.500s: its role lacks privileges; as the schema's owner run jobqd migrate "
             "grant, then GRANT jobq_daemon TO the role",
             why);
    daemon_refuse(d, EX_NOPERM, text);
}

void
daemon_on_refused(void *owner, const char *why)
{
    /* All of it may pass: it is no fault of the configuration. */
    daemon_refuse(owner, EX_UNAVAILABLE, why);
}
