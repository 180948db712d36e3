/* daemon_reload.c: the configuration is read again, and put in force. */
#include "jobqd/daemon/daemon_private.h"

#include "jobqd/actors/cron_declarer.h"
#include "jobqd/actors/hooks.h"
#include "jobqd/actors/pruner.h"
#include "jobqd/base/folder.h"
#include "jobqd/base/log.h"
#include "jobqd/cli/trust.h"
#include "jobqd/daemon/reload.h"

/* The configuration is in force from here on. */
static void
take_config(struct daemon *d, struct config *fresh)
{
    struct config *old = d->config;
    log_setup(&fresh->log);
    reload_log_changes(d->booted, old, fresh);
    d->config = fresh;
    queues_configure(&d->queues, fresh);
    daemon_actors_poke(d, ACTOR_SETTINGS_WATCHER); /* what is new claims nothing before */
    pruner_configure(d->pruner, fresh);
    if (hooks_configure(d->hooks, fresh) < 0)
        log_error("hooks", "no memory for the configuration's hooks");
    if (cron_declarer_configure(d->cron_declarer, fresh) < 0)
        log_error("cron", "no memory to declare the configuration's crons");
    config_free(old); /* it lives on while a worker works by it */
}

/* Where programs begin that have no working_directory: what is found now under the name
 * of the folder that we were started in. */
void
daemon_enter_folder(void)
{
    if (!folder_enter())
        log_warning("jobqd",
                    "the folder that jobqd was started in%s%s%s is gone: programs "
                    "without working_directory start in /",
                    *folder_name() ? ", " : "", folder_name(), *folder_name() ? "," : "");
}

void
daemon_reload(struct daemon *d)
{
    struct config *fresh = NULL;
    jobq_error err = {0};
    if (daemon_is_ending(d)) {
        log_info("jobqd", "stopping: the configuration is not reloaded");
        return;
    }
    if (upgrade_state(d->upgrade) == UPGRADE_FREEZING)
        upgrade_abort(d->upgrade, "a reload was requested meanwhile");
    d->reload_owed = d->state == DAEMON_DATABASE || d->queues.state != QUEUES_SERVING;
    systemd_reloading(d->systemd);
    if (d->reload_owed)
        return;
    if (reload_read(&fresh, d->cli, &err) < 0) {
        log_error("jobqd", "configuration not reloaded; the old one stays in force: %s",
                  err.message);
        daemon_rollout_refused(d, err.message);
        systemd_ready(d->systemd);
        return;
    }
    daemon_enter_folder();
    trust_look(fresh, trust_log, NULL);
    take_config(d, fresh);
    log_info("jobqd",
             "configuration reloaded: %zu queue%s; replacing workers one at a time",
             fresh->n_queues, fresh->n_queues == 1 ? "" : "s");
    daemon_rollout_begin(d);
    systemd_ready(d->systemd);
}
