/* daemon.c: puts the actors together, and takes them apart again in the right order. It
 * decides what an event of one means for the others; it does none of the work.
 *
 *     embedded database (if any) -> store, notifier -> node -> leader, stager, lifeline,
 * pruner, steward, cron, crontab -> producers
 *
 * The way down: producers drain, the node says goodbye, the connections close, the
 * embedded database stops.
 */
#include "jobqd/daemon/daemon.h"

#include <assert.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#include "jobqd/actors/canceller.h"
#include "jobqd/actors/releaser.h"
#include "jobqd/actors/cron.h"
#include "jobqd/actors/crontab.h"
#include "jobqd/actors/leader.h"
#include "jobqd/actors/lifeline.h"
#include "jobqd/actors/hooks.h"
#include "jobqd/actors/node.h"
#include "jobqd/actors/pruner.h"
#include "jobqd/actors/reporter.h"
#include "jobqd/actors/stager.h"
#include "jobqd/actors/steward.h"
#include "jobqd/daemon/daemon_private.h"
#include "jobqd/cli/migrate.h"
#include "jobqd/cli/trust.h"
#include "jobqd/embedded/postgres.h"
#include "jobqd/daemon/reload.h"
#include "jobqd/io/successor.h"
#include "jobqd/base/conninfo.h"
#include "jobqd/base/folder.h"
#include "jobqd/base/log.h"
#include "jobqd/base/refusal.h"
#include "jobqd/io/children.h"
#include "jobqd/io/guard.h"
#include "jobqd/io/loopwatch.h"
#include "jobqd/service/notifier.h"
#include "jobqd/service/store.h"
#include "libjobq/duration.h"

enum {
    SESSION_RETRY_MS = 1000,
    STILL_MS = 500,            /* the loop; or a tenth of a lease: worth a warning */
    SAME_ABSENCE_MS = 1000,    /* between two reasons of it that are told */
    PATIENCE_MS = 15000,       /* after the grace, for the last answers to be confirmed */
    LITTLE_PATIENCE_MS = 2000, /* likewise, after a second signal */
};

static void open_session(struct daemon *d);
static void reload(struct daemon *d);
static void go_on_stopping(struct daemon *d);

/* Seams: tests do not wait for a minute. */
static int64_t
period_ms(const char *variable)
{
    const char *text = getenv(variable);
    return text ? strtoll(text, NULL, 10) : 0;
}

const char *
daemon_state_meaning(enum daemon_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        DAEMON_STATES(X)
#undef X
    };
    return meanings[state];
}

static bool
is_ending(const struct daemon *d)
{
    return d->state >= DAEMON_DRAINING;
}

static void
set_state(struct daemon *d, enum daemon_state state)
{
    assert(state > d->state || d->state == DAEMON_DATABASE);
    d->state = state;
    log_debug("jobqd", "waits for %s", daemon_state_meaning(state));
    if (is_ending(d))
        systemd_stopping(d->systemd);
    systemd_update(d->systemd);
}

/* After a lost lease: every worker is gone, so the node may come back under a new id,
 * with new workers. */
static void
come_back(struct daemon *d)
{
    if (queues_come_back(&d->queues) < 0) /* let it crash: nothing is held */
        log_fatal("jobqd", "no memory to start the queues again");
    node_clean(d->node);
    if (d->reload_owed)
        reload(d);
}

static void
on_all_stopped(void *owner)
{
    struct daemon *d = owner;
    if (is_ending(d))
        go_on_stopping(d);
    else
        come_back(d);
}

static void
poke_all(void *owner)
{
    struct daemon *d = owner;
    queues_poke(&d->queues, NULL);
}

/* ---- notifications ---- */

static void
on_queue(void *owner, const char *queue)
{
    struct daemon *d = owner;
    queues_poke(&d->queues, queue);
}

static void
on_stage(void *owner)
{
    struct daemon *d = owner;
    stager_poke(d->stager);
}

static void
on_leader_free(void *owner)
{
    struct daemon *d = owner;
    leader_poke(d->leader);
}

static void
on_cancel_asked(void *owner)
{
    struct daemon *d = owner;
    canceller_poke(d->canceller);
}

static void
on_queues_set(void *owner)
{
    struct daemon *d = owner;
    steward_poke(d->steward);
}

static void
on_cron_set(void *owner)
{
    struct daemon *d = owner;
    cron_actor_poke(d->cron);
}

static void
on_listening(void *owner, bool listening)
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
        log_warning("database", "could not open a work session, again in %s: %s",
                    jobq__duration_show(SESSION_RETRY_MS).text, answer->error->message);
        uv_timer_start(&d->session, on_session_timer, SESSION_RETRY_MS, 0);
        return;
    }
    if (answer->values[0] == 0)
        return; /* declared dead: the next renewal tells */
    if (answer->values[1] > 0)
        log_warning("node", "%lld claims whose answer was lost were given back",
                    (long long)answer->values[1]);
    releaser_take(d->releaser, node_id(d->node), answer->text, answer->values[2]);
    queues_attach(&d->queues, node_id(d->node), answer->values[0]);
    steward_poke(d->steward);
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

/* It has never been reached by this process, or the one before it. */
static bool
is_starting(const struct daemon *d)
{
    return !d->lived && !d->past;
}

/* What becomes of jobs meanwhile. */
static const char *
goes_on(const struct daemon *d)
{
    return node_state(d->node) == NODE_LIVE ? "running jobs go on"
                                            : "no job is run, trying again";
}

/* A connection is lost, or could not be made again. The second reason is often the one to
 * act upon (the session was ended; now there are too many, or the password is wrong), so
 * each new one is said, but not one a try. */
static void
tell_away(struct daemon *d, struct absence *absence, const char *what,
          const jobq_error *why)
{
    uint64_t now = uv_now(&d->loop);
    absence->newest = *why;
    if (!absence->told) {
        log_warning("database", "%s, %s: %s", what, goes_on(d), why->message);
        absence->since_ms = now;
    } else if (now - absence->told_at_ms >= SAME_ABSENCE_MS &&
               strcmp(absence->why.message, why->message) != 0) {
        log_warning("database", "%s still: %s", what, why->message);
    } else {
        return;
    }
    absence->told = true;
    absence->told_at_ms = now;
    absence->why = *why;
}

/* After 1, 5 and 15 minutes, then every 15. */
static uint64_t
next_tell_ms(const struct daemon *d)
{
    static const uint64_t minutes[] = {1, 5, 15};
    int64_t given_ms = period_ms("JOBQ_TEST_AWAY_MS");
    uint64_t minute_ms = given_ms > 0 ? (uint64_t)given_ms : 60 * 1000;
    uint64_t lasted_ms = uv_now(&d->loop) - d->database_down.since_ms;
    for (size_t i = 0; i < sizeof minutes / sizeof minutes[0]; i++) {
        if (lasted_ms < minutes[i] * minute_ms)
            return minutes[i] * minute_ms - lasted_ms;
    }
    return 15 * minute_ms - lasted_ms % (15 * minute_ms);
}

static void
on_still_away(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    if (d->state != DAEMON_RUNNING || !d->database_down.told)
        return;
    uint64_t lasted_ms = uv_now(&d->loop) - d->database_down.since_ms;
    int64_t shown_ms = (int64_t)lasted_ms;
    if (shown_ms > 1000)
        shown_ms -= shown_ms % (shown_ms > 60 * 1000 ? 60 * 1000 : 1000);
    log_error("database", "%s for %s, %s: %s", is_starting(d) ? "not reached" : "away",
              jobq__duration_show(shown_ms).text, goes_on(d),
              d->database_down.newest.message);
    uv_timer_start(timer, on_still_away, next_tell_ms(d), 0);
}

/* That the database is away is said by the control connection. But another one alone may
 * find no way back, as when there are too many clients. */
static void
tell_alone_away(struct daemon *d, struct absence *absence, const char *what,
                const jobq_error *why)
{
    if (!d->database_down.told && node_state(d->node) == NODE_LIVE)
        tell_away(d, absence, what, why);
}

static void
tell_back(struct absence *absence, const char *what)
{
    if (absence->told)
        log_info("database", "%s", what);
    absence->told = false;
}

static void
on_work_ready(void *owner)
{
    struct daemon *d = owner;
    d->work_up = true;
    tell_back(&d->work_down, "the work connection is back");
    open_session(d);
}

static void
on_work_lost(void *owner, const jobq_error *why)
{
    struct daemon *d = owner;
    if (!d->work_up)
        tell_alone_away(d, &d->work_down, "the work connection is away", why);
    d->work_up = false;
    queues_detach(&d->queues);
}

static void
on_house_ready(void *owner)
{
    struct daemon *d = owner;
    d->house_up = true;
    tell_back(&d->house_down, "the house connection is back");
    leader_set_able(d->leader, true);
    crontab_tell(d->crontab);
    hooks_tell(d->hooks);
}

static void
on_house_lost(void *owner, const jobq_error *why)
{
    struct daemon *d = owner;
    if (!d->house_up)
        tell_alone_away(d, &d->house_down,
                        "the house connection is away, due jobs may wait", why);
    d->house_up = false;
    leader_set_able(d->leader, false);
}

static void refuse(struct daemon *d, int exit_code, const char *why);

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
        refuse(d, EX_UNAVAILABLE, answer->error->message);
    else
        refuse(d, EX_CONFIG, answer->text);
}

static void
on_control_ready(void *owner)
{
    struct daemon *d = owner;
    tell_back(&d->database_down, is_starting(d) ? "reached" : "back again");
    uv_timer_stop(&d->still_away);
    systemd_update(d->systemd);
    /* Ahead of all that the node asks: until its first answer it reads only catalogs. */
    if (store_foreign(d->store, on_foreign, d) < 0) {
        refuse(d, EX_OSERR, "no memory to ask whose the schema is");
        return;
    }
    node_control_ready(d->node);
    steward_poke(d->steward);
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
        refuse(d, remedy->exit_code, text);
        return true;
    }
    return false;
}

static void
on_control_lost(void *owner, const jobq_error *why)
{
    struct daemon *d = owner;
    if (ends_start(d, why))
        return;
    tell_away(d, &d->database_down, is_starting(d) ? "cannot be reached yet" : "away",
              why);
    if (!uv_is_active((uv_handle_t *)&d->still_away))
        uv_timer_start(&d->still_away, on_still_away, next_tell_ms(d), 0);
    systemd_update(d->systemd);
    node_control_lost(d->node);
}

static void
on_live(void *owner, int64_t id)
{
    struct daemon *d = owner;
    lifeline_start(d->lifeline);
    leader_start(d->leader, id);
    canceller_start(d->canceller, id);
    reporter_start(d->reporter, id);
    steward_start(d->steward);
    daemon_rollout_live(d);
    crontab_start(d->crontab, id, !d->lived);
    hooks_start(d->hooks);
    d->lived = true;
    open_session(d);
    daemon_tell_upgrade(d);
}

static void
stop_housekeeping(struct daemon *d)
{
    leader_stop(d->leader);
    canceller_stop(d->canceller);
    releaser_stop(d->releaser);
    reporter_stop(d->reporter);
    steward_stop(d->steward);
    crontab_stop(d->crontab);
    hooks_stop(d->hooks);
    cron_actor_stop(d->cron);
    stager_stop(d->stager);
    lifeline_stop(d->lifeline);
    pruner_stop(d->pruner);
}

/* Gives up the jobs. What is under way on the work connection is not waited for: it may
 * be dead without a word. */
static void
abandon_all(struct daemon *d)
{
    queues_abandon(&d->queues);
    store_reset_work(d->store);
}

static void
on_lost(void *owner, const char *why)
{
    struct daemon *d = owner;
    upgrade_abort(d->upgrade, why);
    stop_housekeeping(d);
    abandon_all(d);
    if (d->queues.n_slots == 0)
        come_back(d);
}

static void
on_lead(void *owner, bool leads)
{
    struct daemon *d = owner;
    if (!leads) {
        stager_stop(d->stager);
        cron_actor_stop(d->cron);
        lifeline_lead(d->lifeline, false);
        pruner_stop(d->pruner);
        return;
    }
    stager_start(d->stager);
    cron_actor_start(d->cron);
    lifeline_lead(d->lifeline, true);
    pruner_start(d->pruner);
}

static bool
holds_jobs(void *owner)
{
    struct daemon *d = owner;
    return queues_held(&d->queues) > 0;
}

static void
on_cancels(void *owner, const struct store_cancel *cancels, size_t n)
{
    struct daemon *d = owner;
    queues_cancel(&d->queues, cancels, n);
}

static const char **
list_queues(void *owner, size_t *n)
{
    struct daemon *d = owner;
    return queues_ask_settings(&d->queues, n);
}

static void
on_settings(void *owner, const struct store_settings_result *result)
{
    struct daemon *d = owner;
    queues_take_settings(&d->queues, result);
}

static void
on_progress(void *owner, const struct job *job, double done, const char *note)
{
    struct daemon *d = owner;
    reporter_note(d->reporter, job->id, job->attempt, done, note);
}

static void
describe(void *owner, struct jobq__buf *out)
{
    struct daemon *d = owner;
    queues_describe(&d->queues, out);
    queues_tell_slow(&d->queues, d->booted->lease_ms / 3);
}

/* ---- the way down ---- */

/* The lease may be renewed while the work connection does not come back. */
static void
on_patience(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    if (d->state != DAEMON_DRAINING)
        return;
    log_warning("jobqd", "stops without the database's word on how its last jobs ended: "
                         "they are run again");
    abandon_all(d);
}

static void
begin_drain(struct daemon *d, int64_t grace_ms)
{
    int64_t more_ms = grace_ms > 0 ? PATIENCE_MS : LITTLE_PATIENCE_MS;
    upgrade_abort(d->upgrade, "this jobqd stops"); /* what stands still would not end */
    if (more_ms > d->booted->lease_ms)
        more_ms = d->booted->lease_ms;
    if (d->state == DAEMON_RUNNING)
        set_state(d, DAEMON_DRAINING);
    uv_timer_start(&d->patience, on_patience, (uint64_t)(grace_ms + more_ms), 0);
    queues_drain(&d->queues, grace_ms);
    if (queues_stopped(&d->queues))
        go_on_stopping(d);
}

static void
on_embedded_stopped(void *owner)
{
    struct daemon *d = owner;
    embedded_free(d->embedded);
    d->embedded = NULL;
    set_state(d, DAEMON_DONE);
    signals_close(&d->signals);
    loopwatch_close();
    children_unwatch();
    guard_close(d->guard);
    uv_close((uv_handle_t *)&d->session, NULL);
    uv_close((uv_handle_t *)&d->still_away, NULL);
    uv_close((uv_handle_t *)&d->patience, NULL);
    uv_close((uv_handle_t *)&d->rollout.timer, NULL);
    upgrade_close(d->upgrade);
    systemd_close(d->systemd);
}

static void
stop_embedded(struct daemon *d)
{
    set_state(d, DAEMON_STOPPING);
    if (d->embedded)
        embedded_stop(d->embedded, d->at_once);
    else
        on_embedded_stopped(d);
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
    leader_close(d->leader);
    d->leader = NULL;
    stager_close(d->stager);
    lifeline_close(d->lifeline);
    pruner_close(d->pruner);
    canceller_close(d->canceller);
    releaser_close(d->releaser);
    reporter_close(d->reporter);
    failures_close(d->failures);
    hooks_close(d->hooks, d->at_once);
    steward_close(d->steward);
    cron_actor_close(d->cron);
    crontab_close(d->crontab);
    stop_embedded(d);
}

static void
on_gone(void *owner)
{
    struct daemon *d = owner;
    set_state(d, DAEMON_CLOSING);
    if (d->notifier)
        notifier_close(d->notifier, on_connection_closed);
    store_close(d->store, false, on_connection_closed);
}

static void
go_on_stopping(struct daemon *d)
{
    if (d->state != DAEMON_DRAINING)
        return;
    set_state(d, DAEMON_LEAVING);
    stop_housekeeping(d);
    node_leave(d->node);
}

static void
refuse(struct daemon *d, int exit_code, const char *why)
{
    log_error("jobqd", "%s", why);
    d->exit_code = exit_code;
    begin_drain(d, 0);
}

/* At the start it ends jobqd, so that whoever starts it is told; later it is a state. */
static void
on_denied(void *owner, const char *why)
{
    struct daemon *d = owner;
    char text[700];
    if (d->lived || d->state != DAEMON_RUNNING)
        return;
    snprintf(text, sizeof text,
             "%.500s: its role lacks rights; as the schema's owner: jobqd migrate grant, "
             "then GRANT jobq_daemon TO the role",
             why);
    refuse(d, EX_NOPERM, text);
}

static void
on_refused(void *owner, const char *why)
{
    /* All of it may pass: it is no fault of the configuration. */
    refuse(owner, EX_UNAVAILABLE, why);
}

/* ---- signals ---- */

static void
stop_at_once(struct daemon *d)
{
    log_info("jobqd", "stops at once: running jobs are killed and released");
    d->at_once = true;
    begin_drain(d, 0);
}

static void
on_stop_signal(struct daemon *d, bool at_once)
{
    switch (d->state) {
    case DAEMON_DATABASE:
        log_info("jobqd", "stops");
        d->at_once = at_once;
        stop_embedded(d);
        break;
    case DAEMON_RUNNING:
        if (at_once) {
            stop_at_once(d);
            break;
        }
        log_info(
            "jobqd",
            "draining: waiting up to %.3g s for running jobs; signal again to stop now",
            (double)d->config->shutdown_grace_ms / 1000);
        begin_drain(d, d->config->shutdown_grace_ms);
        break;
    case DAEMON_DRAINING:
        stop_at_once(d);
        break;
    case DAEMON_LEAVING:
    case DAEMON_CLOSING:
        d->at_once = true;
        break;
    case DAEMON_STOPPING:
        if (d->embedded) {
            log_info("jobqd", "stops the embedded database at once: its next start "
                              "recovers it from its log");
            embedded_stop(d->embedded, true);
        }
        break;
    case DAEMON_DONE:
        break;
    }
}

static void
hold(struct daemon *d, bool paused)
{
    if (d->queues.held_back == paused)
        return;
    log_info("jobqd", paused ? "claims no more jobs until SIGCONT" : "claims jobs again");
    queues_hold(&d->queues, paused);
    systemd_update(d->systemd);
}

static void
dump(struct daemon *d)
{
    struct jobq__buf text = {0};
    describe(d, &text);
    const char *json = jobq__buf_cstr(&text);
    log_info("jobqd", "node %lld, waits for %s, leader %s, queues %s",
             d->node ? (long long)node_id(d->node) : 0, daemon_state_meaning(d->state),
             d->leader && leader_leads(d->leader) ? "yes" : "no", json ? json : "?");
    jobq__buf_clear(&text);
}

/* The configuration is in force from here on. */
static void
take_config(struct daemon *d, struct config *fresh)
{
    struct config *old = d->config;
    log_setup(&fresh->log);
    reload_log_changes(d->booted, old, fresh);
    d->config = fresh;
    queues_configure(&d->queues, fresh);
    steward_poke(d->steward); /* what is new claims nothing before */
    pruner_configure(d->pruner, fresh);
    if (hooks_configure(d->hooks, fresh) < 0)
        log_error("hooks", "no memory for the configuration's hooks");
    if (crontab_configure(d->crontab, fresh) < 0)
        log_error("cron", "no memory to tell of the configuration's crons");
    config_free(old); /* it lives on while a worker works by it */
}

/* Where programs begin that have no working_directory: what is found now under the name
 * of the folder that we were started in. */
static void
enter_folder(void)
{
    if (!folder_enter())
        log_warning("jobqd",
                    "the folder that it was started in%s%s%s is gone: programs without "
                    "working_directory start in /",
                    *folder_name() ? ", " : "", folder_name(), *folder_name() ? "," : "");
}

static void
reload(struct daemon *d)
{
    struct config *fresh = NULL;
    jobq_error err = {0};
    if (is_ending(d)) {
        log_info("jobqd", "stops: the configuration is not read again");
        return;
    }
    if (upgrade_state(d->upgrade) == UPGRADE_FREEZING)
        upgrade_abort(d->upgrade, "told to reload meanwhile");
    d->reload_owed = d->state == DAEMON_DATABASE || d->queues.state != QUEUES_SERVING;
    systemd_reloading(d->systemd);
    if (d->reload_owed)
        return;
    if (reload_read(&fresh, d->cli, &err) < 0) {
        log_error("jobqd",
                  "the configuration was read again and is refused, the old one "
                  "stays in force: %s",
                  err.message);
        daemon_rollout_refused(d, err.message);
        systemd_ready(d->systemd);
        return;
    }
    enter_folder();
    trust_look(fresh, trust_log, NULL);
    take_config(d, fresh);
    log_info("jobqd",
             "the configuration was read again and is in force: %zu queue%s, "
             "whose workers are replaced one by one",
             fresh->n_queues, fresh->n_queues == 1 ? "" : "s");
    daemon_rollout_begin(d);
    systemd_ready(d->systemd);
}

static void
on_signal(void *owner, int number)
{
    struct daemon *d = owner;
    loop_is_at("heeding signal", sigabbrev_np(number));
    switch (number) {
    case SIGTERM:
    case SIGINT:
    case SIGQUIT:
        upgrade_abort(d->upgrade, "told to stop meanwhile");
        on_stop_signal(d, number == SIGQUIT);
        break;
    case SIGTSTP:
        hold(d, true);
        break;
    case SIGCONT:
        hold(d, false);
        break;
    case SIGUSR1:
        dump(d);
        break;
    case SIGUSR2:
        daemon_on_upgrade_signal(d);
        break;
    case SIGHUP:
        reload(d);
        break;
    case SIGTTIN:
        queues_resize(&d->queues, 1);
        break;
    case SIGTTOU:
        queues_resize(&d->queues, -1);
        break;
    }
}

/* ---- the way up ---- */

/* Seams: the proof that two nodes never run a job at once must fail with the first; two
 * leaders do no harm. */
static bool
is_unfenced(void)
{
    return getenv("JOBQ_TEST_UNFENCED") != NULL;
}

static bool
always_leads(void)
{
    return getenv("JOBQ_TEST_LEADS") != NULL;
}

static int
new_housekeeping(struct daemon *d)
{
    const struct config *c = d->config;
    int rc = leader_new(&d->leader, &(struct leader_options){.loop = &d->loop,
                                                             .store = d->store,
                                                             .lease_ms = c->lease_ms,
                                                             .always = always_leads(),
                                                             .on_change = on_lead,
                                                             .owner = d});
    if (rc == 0)
        rc = hooks_new(&d->hooks, &(struct hooks_options){.loop = &d->loop,
                                                          .store = d->store,
                                                          .node = d->booted->node});
    if (rc == 0)
        rc = hooks_configure(d->hooks, d->config);
    if (rc == 0)
        rc = failures_new(&d->failures, &(struct failures_options){.loop = &d->loop,
                                                                   .hooks = d->hooks});
    if (rc == 0)
        rc = stager_new(&d->stager, &(struct stager_options){.loop = &d->loop,
                                                             .store = d->store,
                                                             .failures = d->failures,
                                                             .on_staged = poke_all,
                                                             .owner = d});
    if (rc == 0)
        rc =
            lifeline_new(&d->lifeline, &(struct lifeline_options){.loop = &d->loop,
                                                                  .store = d->store,
                                                                  .failures = d->failures,
                                                                  .lease_ms = c->lease_ms,
                                                                  .on_rescued = poke_all,
                                                                  .owner = d});
    if (rc == 0)
        rc = pruner_new(&d->pruner, &(struct pruner_options){
                                        .loop = &d->loop,
                                        .store = d->store,
                                        .config = c,
                                        .round_ms = period_ms("JOBQ_TEST_PRUNE_MS")});
    if (rc == 0)
        rc = canceller_new(&d->canceller,
                           &(struct canceller_options){.loop = &d->loop,
                                                       .store = d->store,
                                                       .holds_jobs = holds_jobs,
                                                       .on_cancels = on_cancels,
                                                       .owner = d});
    if (rc == 0)
        rc = releaser_new(&d->releaser, &d->loop, d->store);
    if (rc == 0)
        rc = reporter_new(&d->reporter, &(struct reporter_options){.loop = &d->loop,
                                                                   .store = d->store});
    if (rc == 0)
        rc =
            steward_new(&d->steward, &(struct steward_options){.loop = &d->loop,
                                                               .store = d->store,
                                                               .node = d->booted->node,
                                                               .queues = list_queues,
                                                               .on_settings = on_settings,
                                                               .owner = d});
    return rc;
}

static int
new_crons(struct daemon *d)
{
    int rc = cron_actor_new(&d->cron, &(struct cron_actor_options){.loop = &d->loop,
                                                                   .store = d->store,
                                                                   .on_fired = poke_all,
                                                                   .owner = d});
    if (rc == 0)
        rc = crontab_new(&d->crontab,
                         &(struct crontab_options){.loop = &d->loop,
                                                   .store = d->store,
                                                   .node = d->booted->node,
                                                   .on_told = daemon_on_crons_told,
                                                   .owner = d});
    return rc < 0 ? rc : crontab_configure(d->crontab, d->config);
}

static void
on_stories(void *owner, const char *stories)
{
    struct daemon *d = owner;
    failures_note_stories(d->failures, stories);
}

static int
new_node(struct daemon *d)
{
    return node_new(&d->node, &(struct node_options){.loop = &d->loop,
                                                     .store = d->store,
                                                     .name = d->booted->node,
                                                     .schema = d->booted->schema,
                                                     .schema_version = migrate_latest(),
                                                     .lease_ms = d->booted->lease_ms,
                                                     .unfenced = is_unfenced(),
                                                     .on_live = on_live,
                                                     .on_lost = on_lost,
                                                     .on_refused = on_refused,
                                                     .on_denied = on_denied,
                                                     .on_stories = on_stories,
                                                     .on_gone = on_gone,
                                                     .describe = describe,
                                                     .owner = d});
}

static int
new_connections(struct daemon *d, jobq_error *err)
{
    const struct config *c = d->config;
    struct store_options store = {
        .conninfo = d->conninfo,
        .schema = c->schema,
        /* A database that hangs must be found out well before the lease ends. */
        .dead_after_ms = c->lease_ms / 3,
        .keeps_dead = getenv("JOBQ_TEST_OVERDUE_MS") != NULL,
        .on_control_ready = on_control_ready,
        .on_control_lost = on_control_lost,
        .on_work_ready = on_work_ready,
        .on_work_lost = on_work_lost,
        .on_house_ready = on_house_ready,
        .on_house_lost = on_house_lost,
        .owner = d,
    };
    int rc = store_new(&d->store, &d->loop, &store, err);
    d->n_connections = 1;
    if (rc < 0 || !c->notify)
        return rc;
    struct notifier_options notifier = {
        .conninfo = d->conninfo,
        .channel = c->schema,
        .probe_ms = period_ms("JOBQ_TEST_PROBE_MS"),
        .on_queue = on_queue,
        .on_stage = on_stage,
        .on_leader = on_leader_free,
        .on_cancel = on_cancel_asked,
        .on_queues = on_queues_set,
        .on_cron = on_cron_set,
        .on_listening = on_listening,
        .owner = d,
    };
    d->n_connections = 2;
    return notifier_new(&d->notifier, &d->loop, &notifier);
}

int
daemon_start_guard(struct daemon *d, jobq_error *err)
{
    const struct guard_options options = {.loop = &d->loop,
                                          .lease_ms = d->booted->lease_ms,
                                          .respawn = d->booted->respawn,
                                          .log = d->booted->log};
    return guard_new(&d->guard, &options, err);
}

/* Everything that needs a database, which need not be up yet. Fails only for want of
 * memory. */
static int
start(struct daemon *d, const char *conninfo, jobq_error *err)
{
    d->conninfo = conninfo;
    int rc = new_connections(d, err);
    if (rc == 0)
        rc = new_node(d);
    if (rc == 0)
        rc = new_housekeeping(d);
    if (rc == 0)
        rc = new_crons(d);
    if (rc == 0)
        rc = queues_start(&d->queues, d->store, d->failures, d->config);
    if (rc == 0 && d->past)
        rc = daemon_take_over(d, err);
    return rc;
}

/* The embedded database is ours alone, so its schema follows the program. */
static void
on_embedded_ready(void *owner, const char *uri)
{
    struct daemon *d = owner;
    if (d->state != DAEMON_DATABASE)
        return; /* it came back after a crash: the connections find it */
    jobq_error err = {0};
    if (migrate_up(uri, d->booted->schema, &err) < 0) {
        log_error("jobqd", "the embedded database could not be migrated: %s",
                  err.message);
        d->exit_code = EX_SOFTWARE;
        stop_embedded(d);
        return;
    }
    if (start(d, uri, &err) < 0) /* no memory while starting: nothing is held yet */
        log_fatal("jobqd", "could not start: %s", err.message);
    set_state(d, DAEMON_RUNNING);
    if (d->reload_owed)
        reload(d);
}

static void
on_embedded_down(void *owner, const char *why)
{
    (void)owner;
    log_warning("postgres", "went down and is started again: %s", why);
}

static void
on_embedded_failed(void *owner, const jobq_error *error)
{
    struct daemon *d = owner;
    if (d->state == DAEMON_DATABASE) {
        log_error("postgres", "%s", error->message);
        d->exit_code = EX_UNAVAILABLE;
        stop_embedded(d);
        return;
    }
    if (d->state == DAEMON_RUNNING)
        refuse(d, EX_UNAVAILABLE, error->message);
}

static int
start_embedded(struct daemon *d, jobq_error *err)
{
    static const struct embedded_events events = {
        .on_ready = on_embedded_ready,
        .on_down = on_embedded_down,
        .on_failed = on_embedded_failed,
        .on_stopped = on_embedded_stopped,
    };
    struct embedded_options options = {.dir = d->booted->embedded,
                                       .past = daemon_past_embedded(d)};
    if (!options.past)
        d->state = DAEMON_DATABASE;
    int rc = embedded_new(&d->embedded, &d->loop, &options, &events, d, err);
    if (rc < 0 || !options.past)
        return rc;
    /* It is up already; that it goes on being so is found out on the way. */
    const char *uri = embedded_connection_uri(d->embedded);
    rc = migrate_up(uri, d->booted->schema, err);
    return rc < 0 ? rc : start(d, uri, err);
}

static int
new_handles(struct daemon *d)
{
    const struct systemd_options systemd = {.loop = &d->loop,
                                            .describe = daemon_describe_to_systemd,
                                            .stuck = daemon_stuck,
                                            .owner = d};
    int64_t still_ms = d->booted->lease_ms / 10;
    loopwatch_open(&d->loop, still_ms < STILL_MS ? still_ms : STILL_MS);
    uv_timer_init(&d->loop, &d->session);
    d->session.data = d;
    uv_timer_init(&d->loop, &d->still_away);
    d->still_away.data = d;
    uv_timer_init(&d->loop, &d->patience);
    d->patience.data = d;
    uv_timer_init(&d->loop, &d->rollout.timer);
    d->rollout.timer.data = d;
    if (upgrade_new(&d->upgrade, &d->loop, &daemon_upgrade_events, d) < 0 ||
        systemd_new(&d->systemd, &systemd) < 0 || children_watch(&d->loop) < 0)
        return JOBQ_ENOMEM;
    return signals_open(&d->signals, &d->loop, on_signal, d);
}

/* glibc raises its threshold with each large block that is freed: the next ones come from
 * the heap, which is not given back as long as anything lies above them. What is as large
 * as a frame is not worth that. */
static void
give_back_large_blocks(void)
{
    mallopt(M_MMAP_THRESHOLD, 256 * 1024);
}

/* What an operator has to know before anything goes wrong by it. */
static void
warn_of_surroundings(void)
{
    if (is_unfenced() || getenv("JOBQ_TEST_UNSAFE_BASE"))
        log_error("jobqd",
                  "JOBQ_TEST_UNFENCED or JOBQ_TEST_UNSAFE_BASE is set: what keeps "
                  "jobs from being lost or run twice is off, which is for tests");
    if (always_leads())
        log_error("jobqd", "JOBQ_TEST_LEADS is set: this node believes that it leads, "
                           "which is for tests");
    struct guard_process self;
    if (!guard_read_process(getpid(), &self))
        log_warning("jobqd",
                    "/proc is not mounted: a process that has left its worker's group is "
                    "not killed with it, no limit of memory or processor time can be "
                    "kept, and jobqd upgrade is refused; mount it (mount -t proc proc "
                    "/proc)");
}

int
cmd_run(struct config *config, const struct cli *cli)
{
    if (upgrade_is_rehearsal())
        return upgrade_rehearse(config);
    /* A node without queues is of use: it runs the embedded database, and keeps house. */
    if (config->n_queues == 0)
        log_warning("jobqd", "the configuration has no [queue NAME] section: runs no "
                             "jobs, only keeps house");
    log_set_node(config->node);
    enter_folder();              /* of a program that takes another's place */
    prctl(PR_SET_NAME, "jobqd"); /* whatever its file is called: cmd_upgrade.c looks */
    give_back_large_blocks();
    static struct daemon d; /* a start that fails leaves it to the process's end */
    d = (struct daemon){
        .cli = cli, .booted = config, .config = config, .state = DAEMON_RUNNING};
    jobq_error err = {0};
    queues_init(&d.queues, &d.loop, on_all_stopped, &d);
    d.queues.on_all_frozen = daemon_on_all_frozen;
    d.queues.on_progress = on_progress;
    if (uv_loop_init(&d.loop) < 0 || new_handles(&d) < 0) {
        log_error("jobqd", "no memory or descriptors to start with");
        return EX_OSERR;
    }
    log_info("jobqd", "%s starts, node %s, %zu %s", JOBQ_VERSION, config->node,
             config->n_queues, config->n_queues == 1 ? "queue" : "queues");
    warn_of_surroundings();
    trust_look(config, trust_log, NULL);
    int rc = daemon_open_past(&d, &err);
    if (rc == 0 && !d.past) {
        signals_release(); /* else when all is taken over */
        rc = daemon_start_guard(&d, &err);
    }
    if (rc == 0)
        rc = config->embedded ? start_embedded(&d, &err)
                              : start(&d, config->database ? config->database : "", &err);
    if (rc < 0) {
        log_error("jobqd", "could not start%s%s", *err.message ? ": " : "", err.message);
        successor_explain(err.message);
        guard_close(d.guard);
        return config->embedded ? EX_UNAVAILABLE : EX_OSERR;
    }
    config_hold(config);
    uv_run(&d.loop, UV_RUN_DEFAULT);
    config_free(d.config);
    if (uv_loop_close(&d.loop) != 0)
        log_error("jobqd", "handles were left open");
    log_info("jobqd", "ended");
    return d.exit_code;
}
