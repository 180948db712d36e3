/* daemon.c: puts the actors together: the way up.
 *
 *     embedded database (if any) -> store, notifier -> node -> the other actors
 *     (daemon_actors.c) -> producers
 *
 * The way down is daemon_stop.c's. The daemon decides what an event of one actor means
 * for the others (daemon_events.c); it does none of the work.
 */
#include "jobqd/daemon/daemon.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#include "jobqd/actors/failures.h"
#include "jobqd/actors/node.h"
#include "jobqd/actors/progress_writer.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/base/seams.h"
#include "jobqd/cli/trust.h"
#include "jobqd/daemon/daemon_private.h"
#include "jobqd/db/migrate.h"
#include "jobqd/db/notifier.h"
#include "jobqd/db/store.h"
#include "jobqd/embedded/postgres.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/guard.h"
#include "jobqd/upgrade/exec_handoff.h"

/* The loop; or a tenth of a lease: worth a warning. */
enum { STILL_MS = 500 };

static void
on_stories(void *owner, const char *stories)
{
    struct daemon *d = owner;
    failures_note_stories(d->failures, stories);
}

static int
new_node(struct daemon *d)
{
    return node_new(&d->node,
                    &(struct node_options){.loop = &d->loop,
                                           .store = d->store,
                                           .name = d->booted->node,
                                           .schema = d->booted->schema,
                                           .schema_version = migrate_latest(),
                                           .lease_ms = d->booted->lease_ms,
                                           .unfenced = seam_is_set(SEAM_UNFENCED),
                                           .on_live = daemon_on_live,
                                           .on_lost = daemon_on_lost,
                                           .on_refused = daemon_on_refused,
                                           .on_denied = daemon_on_denied,
                                           .on_stories = on_stories,
                                           .on_gone = daemon_on_gone,
                                           .describe = daemon_describe,
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
        .keeps_dead = seam_is_set(SEAM_OVERDUE_MS),
        .on_control_ready = daemon_on_control_ready,
        .on_control_lost = daemon_on_control_lost,
        .on_work_ready = daemon_on_work_ready,
        .on_work_lost = daemon_on_work_lost,
        .on_maintenance_ready = daemon_on_maintenance_ready,
        .on_maintenance_lost = daemon_on_maintenance_lost,
        .owner = d,
    };
    int rc = store_new(&d->store, &d->loop, &store, err);
    d->n_connections = 1;
    if (rc < 0 || !c->notify)
        return rc;
    struct notifier_options notifier = {
        .conninfo = d->conninfo,
        .channel = c->schema,
        .probe_ms = seam_number(SEAM_PROBE_MS),
        .on_queue = daemon_on_queue,
        .on_stage = daemon_on_stage,
        .on_leader = daemon_on_leader_free,
        .on_cancel = daemon_on_cancel_asked,
        .on_queues = daemon_on_queues_set,
        .on_cron = daemon_on_cron_set,
        .on_listening = daemon_on_listening,
        .owner = d,
    };
    d->n_connections = 2;
    return notifier_new(&d->notifier, &d->loop, &notifier);
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
        rc = daemon_actors_make(d);
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
        daemon_stop_embedded(d);
        return;
    }
    if (start(d, uri, &err) < 0) /* no memory while starting: nothing is held yet */
        log_fatal("jobqd", "could not start: %s", err.message);
    daemon_set_state(d, DAEMON_RUNNING);
    if (d->reload_owed)
        daemon_reload(d);
}

static void
on_embedded_down(void *owner, const char *why)
{
    (void)owner;
    log_warning("postgres", "exited unexpectedly: %s; restarting it", why);
}

static void
on_embedded_failed(void *owner, const jobq_error *error)
{
    struct daemon *d = owner;
    if (d->state == DAEMON_DATABASE) {
        log_error("postgres", "%s", error->message);
        d->exit_code = EX_UNAVAILABLE;
        daemon_stop_embedded(d);
        return;
    }
    if (d->state == DAEMON_RUNNING)
        daemon_refuse(d, EX_UNAVAILABLE, error->message);
}

static int
start_embedded(struct daemon *d, jobq_error *err)
{
    static const struct embedded_events events = {
        .on_ready = on_embedded_ready,
        .on_down = on_embedded_down,
        .on_failed = on_embedded_failed,
        .on_stopped = daemon_on_embedded_stopped,
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
        systemd_new(&d->systemd, &systemd) < 0 || reaper_watch(&d->loop) < 0)
        return JOBQ_ENOMEM;
    return signals_open(&d->signals, &d->loop, daemon_on_signal, d);
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
    if (seam_is_set(SEAM_UNFENCED) || seam_is_set(SEAM_UNSAFE_BASE))
        log_error("jobqd",
                  "JOBQ_TEST_UNFENCED or JOBQ_TEST_UNSAFE_BASE is set: the protection "
                  "against losing jobs and running them twice is off; for tests only");
    if (seam_is_set(SEAM_LEADS))
        log_error("jobqd", "JOBQ_TEST_LEADS is set: this node believes that it is the "
                           "leader; for tests only");
    struct guard_process self;
    if (!guard_read_process(getpid(), &self))
        log_warning(
            "jobqd",
            "/proc is not mounted: a process that leaves its worker's group is not "
            "killed with it, limits on memory and CPU time cannot be enforced, and jobqd "
            "upgrade is refused; mount it (mount -t proc proc /proc)");
}

static void
on_progress(void *owner, const struct job *job, double done, const char *note)
{
    struct daemon *d = owner;
    progress_writer_note(d->progress_writer, job->id, job->attempt, done, note);
}

int
cmd_run(struct config *config, const struct cli *cli)
{
    if (upgrade_is_rehearsal())
        return upgrade_rehearse(config);
    /* A node without queues is of use: it runs the embedded database, and can lead. */
    if (config->n_queues == 0)
        log_warning("jobqd", "the configuration has no [queue NAME] section: "
                             "this node runs no jobs, but can be the leader");
    log_set_node(config->node);
    daemon_enter_folder();       /* of a program that takes another's place */
    prctl(PR_SET_NAME, "jobqd"); /* whatever its file is called: cmd_upgrade.c looks */
    give_back_large_blocks();
    static struct daemon d; /* a start that fails leaves it to the process's end */
    d = (struct daemon){
        .cli = cli, .booted = config, .config = config, .state = DAEMON_RUNNING};
    jobq_error err = {0};
    queues_init(&d.queues, &d.loop, daemon_on_all_stopped, &d);
    d.queues.on_all_frozen = daemon_on_all_frozen;
    d.queues.on_progress = on_progress;
    if (uv_loop_init(&d.loop) < 0 || new_handles(&d) < 0) {
        log_error("jobqd", "could not start: out of memory or file descriptors");
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
        exec_handoff_explain(err.message);
        guard_close(d.guard);
        return config->embedded ? EX_UNAVAILABLE : EX_OSERR;
    }
    config_ref(config);
    uv_run(&d.loop, UV_RUN_DEFAULT);
    config_free(d.config);
    if (uv_loop_close(&d.loop) != 0)
        log_error("jobqd", "bug: event-loop handles left open at exit");
    log_info("jobqd", "ended");
    return d.exit_code;
}
