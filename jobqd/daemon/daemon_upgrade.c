/* daemon_upgrade.c: the upgrade in place, as far as it is the daemon's: what is left to
 * the other program, and how that is taken over. See upgrade.h. */
#include "jobqd/daemon/daemon_private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/actors/node.h"
#include "jobqd/actors/failures.h"
#include "jobqd/actors/hooks.h"
#include "jobqd/embedded/postgres.h"
#include "jobqd/upgrade/exec_handoff.h"
#include "jobqd/base/log.h"
#include "jobqd/base/seams.h"
#include "jobqd/base/self.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/guard.h"
#include "jobqd/proc/spawn.h"
#include "jobqd/db/store.h"
#include "libjobq/error.h"

enum { LATE_S = 3 };

/* ---- how it ended ---- */

static void
on_upgrade_told(void *data, const struct store_answer *answer)
{
    struct daemon *d = data;
    d->upgrade_untold =
        answer->code == JOBQ_ECONN; /* then on_control_ready comes again */
}

void
daemon_tell_upgrade(struct daemon *d)
{
    const char *error = d->upgrade_error[0] ? d->upgrade_error : NULL;
    if (d->upgrade_untold && d->node && node_state(d->node) == NODE_LIVE)
        store_upgraded(d->store, node_id(d->node), JOBQ_VERSION, error, on_upgrade_told,
                       d);
}

/* ---- leaving ---- */

static int
write_handover(void *owner, struct handover *handover, bool rehearsal, jobq_error *err)
{
    const struct daemon *d = owner;
    const struct config *c = d->config;
    handover_record(handover, "jobqd");
    handover_put_text(handover, "version", JOBQ_VERSION);
    handover_put_text(handover, "node", c->node);
    handover_put_text(handover, "schema", c->schema);
    handover_put_text(handover, "embedded", c->embedded ? c->embedded : "");
    handover_put_text(handover, "conninfo", d->conninfo);
    handover_put_int(handover, "lease_ms", d->booted->lease_ms);
    handover_put_int(handover, "held_back", d->queues.held_back);
    handover_put_int(handover, "files_before", spawn_files_before());
    handover_put_int(handover, "guard_pid", guard_pid(d->guard));
    handover_put_int(handover, "node_id", node_id(d->node));
    handover_put_int(handover, "node_deadline_ns", node_deadline_ns(d->node));
    queues_put(&d->queues, handover);
    if (!rehearsal) {
        failures_leave(d->failures);
        hooks_leave(d->hooks);
    }
    return d->embedded && !rehearsal ? embedded_put(d->embedded, handover, err) : 0;
}

static void
on_upgrade_freeze(void *owner)
{
    struct daemon *d = owner;
    char why[300];
    if (!queues_can_freeze(&d->queues, why, sizeof why)) /* of late */
        upgrade_abort(d->upgrade, why);
    else if (d->queues.n_slots == 0)
        upgrade_frozen(d->upgrade);
    else
        queues_freeze(&d->queues);
}

void
daemon_on_all_frozen(void *owner)
{
    struct daemon *d = owner;
    if (node_state(d->node) == NODE_LIVE)
        upgrade_frozen(d->upgrade);
    else
        upgrade_abort(d->upgrade, "the node is not registered");
}

static void
on_upgrade_thaw(void *owner)
{
    struct daemon *d = owner;
    queues_thaw(&d->queues);
}

/* Whoever asked for it looks for that in the database. */
static void
on_upgrade_failed(void *owner, const char *why)
{
    struct daemon *d = owner;
    snprintf(d->upgrade_error, sizeof d->upgrade_error, "%s", why);
    d->upgrade_untold = true;
    daemon_tell_upgrade(d);
}

const struct upgrade_events daemon_upgrade_events = {
    .write = write_handover,
    .freeze = on_upgrade_freeze,
    .thaw = on_upgrade_thaw,
    .on_failed = on_upgrade_failed,
};

static bool
can_begin(const struct daemon *d, char *why, size_t size)
{
    if (d->state == DAEMON_RUNNING && node_state(d->node) == NODE_LIVE)
        return queues_can_freeze(&d->queues, why, size);
    snprintf(why, size, "this jobqd is waiting for %s",
             d->state == DAEMON_RUNNING ? "its node to be registered"
                                        : daemon_state_meaning(d->state));
    return false;
}

void
daemon_on_upgrade_signal(struct daemon *d)
{
    char why[300], text[320];
    if (upgrade_state(d->upgrade) != UPGRADE_IDLE || can_begin(d, why, sizeof why)) {
        upgrade_begin(d->upgrade);
        return;
    }
    log_warning("upgrade", "refused for now: %s", why);
    snprintf(text, sizeof text, "refused for now: %s", why);
    on_upgrade_failed(d, text);
}

/* ---- taking over ---- */

int
daemon_open_past(struct daemon *d, jobq_error *err)
{
    int document;
    int64_t files;
    int rc = exec_handoff_document(&document, err);
    if (rc < 0 || document < 0)
        return rc;
    if (exec_handoff_failure())
        seam_forget(SEAM_HANDOVER_LACKS);
    rc = handover_open(&d->past, document, err);
    if (rc < 0)
        return rc;
    const struct handover_entry *past = handover_next(d->past, NULL);
    if (!past || !handover_is(past, "jobqd"))
        return jobq__error(err, JOBQ_EINVAL,
                           "the handover does not begin with jobqd's record");
    rc = handover_get_int(past, "files_before", -1, INT64_MAX, &files, err);
    if (rc == 0)
        spawn_inherit(files); /* before the first worker */
    reaper_inherit();
    return rc;
}

const struct handover_entry *
daemon_past_embedded(const struct daemon *d)
{
    const struct handover_entry *at = d->past ? handover_next(d->past, NULL) : NULL;
    while (at && !handover_is(at, "embedded"))
        at = handover_next(d->past, at);
    return at;
}

/* For tests: a program that rehearses well and does not come up. */
static int
fail_if_told(jobq_error *err)
{
    const char *how = exec_handoff_failure() ? NULL : seam_text(SEAM_TAKE_OVER);
    if (how && strcmp(how, "abort") == 0)
        abort();
    if (how && strcmp(how, "late") == 0) { /* up, but later than the lease allows */
        sleep(LATE_S);
        return 0;
    }
    if (how && strcmp(how, "segfault") == 0)
        raise(SIGSEGV);
    return how ? jobq__error(err, JOBQ_ESTATE, "told to fail") : 0;
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

int
daemon_take_over(struct daemon *d, jobq_error *err)
{
    const struct handover_entry *past = handover_next(d->past, NULL);
    int64_t id, deadline_ns, held_back, guard;
    const char *version;
    int rc = handover_get_bytes(past, "version", &version, NULL, err);
    if (rc == 0)
        rc = handover_get_int(past, "node_id", 1, INT64_MAX, &id, err);
    if (rc == 0)
        rc = handover_get_int(past, "node_deadline_ns", 0, INT64_MAX, &deadline_ns, err);
    if (rc == 0)
        rc = handover_get_int(past, "held_back", 0, 1, &held_back, err);
    if (rc == 0)
        rc = handover_get_int(past, "guard_pid", 0, INT32_MAX, &guard, err);
    /* Before the workers, which enter themselves into its table. The guard of the program
     * before this one goes only when all is taken over. */
    if (rc == 0)
        rc = daemon_start_guard(d, err);
    if (rc == 0)
        exec_handoff_takes_along(guard_pid(d->guard));
    if (rc == 0)
        rc = queues_adopt(&d->queues, d->past, err);
    if (rc == 0)
        rc = fail_if_told(err);
    if (rc < 0)
        return rc;
    queues_hold(&d->queues, held_back);
    node_adopt(d->node, id, deadline_ns);
    daemon_actors_live(d, id, false);
    d->lived = true;
    if (exec_handoff_failure())
        log_error("upgrade", "failed, jobqd %s keeps running: %s did not start: %s",
                  JOBQ_VERSION, self_path(), exec_handoff_failure());
    else
        log_info("upgrade", "jobqd %s took over from jobqd %s: %s was executed",
                 JOBQ_VERSION, version, self_path());
    if (exec_handoff_failure())
        snprintf(d->upgrade_error, sizeof d->upgrade_error, "%s", exec_handoff_failure());
    d->upgrade_untold = true;
    d->announced = true;
    systemd_ready(d->systemd); /* as it has been all along */
    exec_handoff_is_up();
    signals_release();
    if (guard > 0)
        guard_dismiss((pid_t)guard);
    queues_thaw(&d->queues);
    handover_close(d->past);
    d->past = NULL;
    return 0;
}
