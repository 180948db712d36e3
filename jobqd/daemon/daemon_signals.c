/* daemon_signals.c: what each signal means. */
#include "jobqd/daemon/daemon_private.h"

#include <signal.h>
#include <string.h>

#include "jobqd/actors/leader.h"
#include "jobqd/actors/node.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/embedded/postgres.h"
#include "libjobq/duration.h"

static void
stop_at_once(struct daemon *d)
{
    log_info("jobqd", "stopping now: killing running jobs and returning them to "
                      "their queues");
    d->at_once = true;
    daemon_drain(d, 0);
}

static void
on_stop_signal(struct daemon *d, bool at_once)
{
    switch (d->state) {
    case DAEMON_DATABASE:
        log_info("jobqd", "stopping");
        d->at_once = at_once;
        daemon_stop_embedded(d);
        break;
    case DAEMON_RUNNING:
        if (at_once) {
            stop_at_once(d);
            break;
        }
        log_info("jobqd",
                 "draining: waiting up to %s for running jobs; signal again to stop now",
                 jobq__duration_show(d->config->shutdown_grace_ms).text);
        daemon_drain(d, d->config->shutdown_grace_ms);
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
            log_info("jobqd", "stopping the embedded database now: its next start "
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
    daemon_describe(d, &text);
    const char *json = jobq__buf_cstr(&text);
    log_info("jobqd", "node %lld, waits for %s, leader %s, queues %s",
             d->node ? (long long)node_id(d->node) : 0, daemon_state_meaning(d->state),
             d->leader && leader_leads(d->leader) ? "yes" : "no", json ? json : "?");
    jobq__buf_clear(&text);
}

void
daemon_on_signal(void *owner, int number)
{
    struct daemon *d = owner;
    loop_is_at("handling a signal", sigabbrev_np(number));
    switch (number) {
    case SIGTERM:
    case SIGINT:
    case SIGQUIT:
        upgrade_abort(d->upgrade, "a stop was requested meanwhile");
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
        daemon_reload(d);
        break;
    case SIGTTIN:
        queues_resize(&d->queues, 1);
        break;
    case SIGTTOU:
        queues_resize(&d->queues, -1);
        break;
    }
}
