/* daemon_events.c: what the connections and the node tell, and what it means for the
 * others. */
#include "jobqd/daemon/daemon_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "jobqd/actors/cron_declarer.h"
#include "jobqd/actors/hooks.h"
#include "jobqd/actors/leader.h"
#include "jobqd/actors/node.h"
#include "jobqd/actors/releaser.h"
#include "jobqd/base/log.h"
#include "jobqd/base/refusal.h"
#include "jobqd/config/conninfo.h"
#include "jobqd/db/store.h"
#include "libjobq/duration.h"

enum { SESSION_RETRY_MS = 1000 };

static void open_session(struct daemon *d);

/* ---- notifications ---- */

void
daemon_on_queue(void *owner, const char *queue)
{
    struct daemon *d = owner;
    queues_poke(&d->queues, queue);
}

void
daemon_on_stage(void *owner)
{
    struct daemon *d = owner;
    daemon_actors_poke(d, ACTOR_STAGER);
}

void
daemon_on_leader_free(void *owner)
{
    struct daemon *d = owner;
    daemon_actors_poke(d, ACTOR_LEADER);
}

void
daemon_on_cancel_asked(void *owner)
{
    struct daemon *d = owner;
    daemon_actors_poke(d, ACTOR_CANCELLER);
}

void
daemon_on_queues_set(void *owner)
{
    struct daemon *d = owner;
    daemon_actors_poke(d, ACTOR_SETTINGS_WATCHER);
}

void
daemon_on_cron_set(void *owner)
{
    struct daemon *d = owner;
    daemon_actors_poke(d, ACTOR_CRON);
}

void
daemon_on_listening(void *owner, bool listening)
{
    struct daemon *d = owner;
    queues_listening(&d->queues, listening);
}

/* ---- the node and its work session ---- */

static void
announce(struct daemon *d)
{
    if (d->announced)
        return;
    d->announced = true;
    struct jobq__buf shown = {0};
    conninfo_redact(&shown, d->conninfo);
    const char *text = jobq__buf_cstr(&shown);
    log_info("jobqd", "%s serves %zu queue%s, ready database=%s", d->booted->node,
             d->queues.n_slots, d->queues.n_slots == 1 ? "" : "s",
             text && *text ? text : "(libpq's defaults)");
    jobq__buf_clear(&shown);
    systemd_ready(d->systemd);
}

static void
on_session_timer(uv_timer_t *timer)
{
    open_session(timer->data);
}

static void
on_session(void *data, const struct store_answer *answer)
{
    struct daemon *d = data;
    int64_t node = d->asked_for;
    d->asked_for = 0;
    if (answer->code == JOBQ_ECONN)
        return; /* on_work_ready comes again */
    if (node != node_id(d->node)) {
        open_session(d); /* the lease was lost meanwhile: this is the old node's */
        return;
    }
    if (answer->code < 0) {
        log_warning("database", "could not open a work session; retrying in %s: %s",
                    jobq__duration_show(SESSION_RETRY_MS).text, answer->error->message);
        uv_timer_start(&d->session, on_session_timer, SESSION_RETRY_MS, 0);
        return;
    }
    if (answer->session == 0)
        return; /* declared dead: the next renewal tells */
    if (answer->released > 0)
        log_warning("node", "gave back %lld claims whose answer was lost",
                    (long long)answer->released);
    releaser_take(d->releaser, node_id(d->node), answer->claims, answer->remaining);
    queues_attach(&d->queues, node_id(d->node), answer->session);
    daemon_actors_poke(d, ACTOR_SETTINGS_WATCHER);
    announce(d);
}

static void
open_session(struct daemon *d)
{
    if (!d->work_up || d->asked_for || node_state(d->node) != NODE_LIVE)
        return;
    int64_t *held = malloc((queues_held(&d->queues) + 1) * sizeof *held);
    size_t n = held ? queues_held_ids(&d->queues, held) : 0;
    bool asked =
        held && store_session(d->store, node_id(d->node), held, n, on_session, d) == 0;
    free(held);
    if (asked) {
        d->asked_for = node_id(d->node);
        return;
    }
    log_error("database", "no memory to open a work session");
    uv_timer_start(&d->session, on_session_timer, SESSION_RETRY_MS, 0);
}

void
daemon_on_work_ready(void *owner)
{
    struct daemon *d = owner;
    d->work_up = true;
    absence_end(&d->work_down, "the work connection is back");
    open_session(d);
}

void
daemon_on_work_lost(void *owner, const jobq_error *why)
{
    struct daemon *d = owner;
    if (!d->work_up)
        absence_tell_alone(d, &d->work_down, "without the work connection", why);
    d->work_up = false;
    queues_detach(&d->queues);
}

void
daemon_on_maintenance_ready(void *owner)
{
    struct daemon *d = owner;
    d->maintenance_up = true;
    absence_end(&d->maintenance_down, "the maintenance connection is back");
    leader_set_able(d->leader, true);
    cron_declarer_tell(d->cron_declarer);
    hooks_tell(d->hooks);
}

void
daemon_on_maintenance_lost(void *owner, const jobq_error *why)
{
    struct daemon *d = owner;
    if (!d->maintenance_up)
        absence_tell_alone(d, &d->maintenance_down,
                           "without the maintenance connection, due jobs may wait", why);
    d->maintenance_up = false;
    leader_set_able(d->leader, false);
}

static void
on_foreign(void *owner, const struct store_answer *answer)
{
    struct daemon *d = owner;
    if (d->state != DAEMON_RUNNING || answer->code == JOBQ_ECONN)
        return;
    if (answer->code == 0 && answer->rows == 0)
        return;
    node_forbid(d->node);
    if (answer->code != 0)
        daemon_refuse(d, EX_UNAVAILABLE, answer->error->message);
    else
        daemon_refuse(d, EX_CONFIG, answer->reason);
}

void
daemon_on_control_ready(void *owner)
{
    struct daemon *d = owner;
    absence_end(&d->database_down, daemon_is_starting(d) ? "reached" : "available again");
    uv_timer_stop(&d->still_away);
    systemd_update(d->systemd);
    /* Ahead of all that the node asks: until its first answer it reads only catalogs. */
    if (store_foreign(d->store, on_foreign, d) < 0) {
        daemon_refuse(d, EX_OSERR, "no memory to check who owns the schema");
        return;
    }
    node_control_ready(d->node);
    daemon_actors_poke(d, ACTOR_SETTINGS_WATCHER);
    daemon_tell_upgrade(d);
}

/* At the start, whoever starts jobqd is to be told. Returns whether it ends. */
static bool
ends_start(struct daemon *d, const jobq_error *why)
{
    char text[sizeof why->message + 200];
    if (d->lived || d->past || d->state != DAEMON_RUNNING)
        return false;
    const struct remedy *remedy = refusal_remedy(why->sqlstate);
    if (remedy) {
        snprintf(text, sizeof text, "cannot connect to the database: %s: %s",
                 why->message, remedy->text);
        daemon_refuse(d, remedy->exit_code, text);
        return true;
    }
    return false;
}

void
daemon_on_control_lost(void *owner, const jobq_error *why)
{
    struct daemon *d = owner;
    if (ends_start(d, why))
        return;
    absence_tell(d, &d->database_down,
                 daemon_is_starting(d) ? "not reachable" : "unavailable", why);
    absence_arm(d);
    systemd_update(d->systemd);
    node_control_lost(d->node);
}

void
daemon_on_live(void *owner, int64_t id)
{
    struct daemon *d = owner;
    daemon_actors_live(d, id, !d->lived);
    daemon_rollout_live(d);
    d->lived = true;
    open_session(d);
    daemon_tell_upgrade(d);
}

/* After a lost lease: every worker is gone, so the node may come back under a new id,
 * with new workers. */
static void
come_back(struct daemon *d)
{
    if (queues_come_back(&d->queues) < 0) /* let it crash: nothing is held */
        log_fatal("jobqd", "no memory to restart the queues");
    node_clean(d->node);
    if (d->reload_owed)
        daemon_reload(d);
}

void
daemon_on_lost(void *owner, const char *why)
{
    struct daemon *d = owner;
    upgrade_abort(d->upgrade, why);
    daemon_actors_stop(d);
    daemon_abandon(d);
    if (d->queues.n_slots == 0)
        come_back(d);
}

void
daemon_on_all_stopped(void *owner)
{
    struct daemon *d = owner;
    if (daemon_is_ending(d))
        daemon_go_on_stopping(d);
    else
        come_back(d);
}
