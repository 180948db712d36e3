/* daemon_private.h: what the files of the daemon share. Not for anybody else.
 *
 * From the bottom: daemon_state.c, absence.c; daemon_actors.c: the table of actors;
 * daemon_stop.c: the way down; daemon_rollout.c, daemon_reload.c; daemon_upgrade.c: how
 * it is left to another program, and taken over from one; daemon_systemd.c: what the
 * service manager is told; daemon_events.c, daemon_signals.c: what happens; daemon.c: the
 * way up.
 */
#ifndef JOBQD_DAEMON_PRIVATE_H
#define JOBQD_DAEMON_PRIVATE_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/cli/cli.h"
#include "jobqd/daemon/queues.h"
#include "jobqd/proc/signals.h"
#include "jobqd/daemon/systemd.h"
#include "jobqd/upgrade/upgrade.h"
#include "jobqd/config/config.h"
#include "jobqd/upgrade/handover.h"

/* X(enumerator, what we are waiting for) */
#define DAEMON_STATES(X)                                                                 \
    X(DAEMON_DATABASE, "the embedded database to start")                                 \
    X(DAEMON_RUNNING, "events")                                                          \
    X(DAEMON_DRAINING, "running jobs to end")                                            \
    X(DAEMON_LEAVING, "the node to deregister")                                          \
    X(DAEMON_CLOSING, "connections to close")                                            \
    X(DAEMON_STOPPING, "the embedded database to stop")                                  \
    X(DAEMON_DONE, "nothing")

enum daemon_state {
#define X(name, meaning) name,
    DAEMON_STATES(X)
#undef X
};

/* A connection's being away, as far as it was said in the log. */
struct absence {
    bool told;
    uint64_t told_at_ms;
    uint64_t since_ms;
    jobq_error why;    /* as it was told last */
    jobq_error newest; /* of the last try */
};

enum rollout_state {
    ROLLOUT_NONE, /* no reload yet */
    ROLLOUT_BEGUN,
    ROLLOUT_FAILED,
    ROLLOUT_DONE,
    ROLLOUT_REFUSED /* its configuration: the old one is in force */
};

/* How far the last reload is. */
struct rollout {
    enum rollout_state state;
    size_t leaving;  /* ROLLOUT_DONE: processes from before that run a job */
    char error[800]; /* "": there is none */
    char crons[800]; /* which of them the database refuses; "": none */
    bool untold;     /* the database is to hear of it */
    bool unnoted;    /* likewise, of crons and the file */
    bool telling;    /* it is being told */
    uint64_t begun_ms;
    uint64_t tell_again_ms; /* it has refused to hear: not before */
    uv_timer_t timer;
};

/* X(enumerator, type, member): the housekeeping actors, a row each in daemon_actors.c. */
#define DAEMON_ACTORS(X)                                                                 \
    X(ACTOR_LEADER, leader, leader)                                                      \
    X(ACTOR_HOOKS, hooks, hooks)                                                         \
    X(ACTOR_FAILURES, failures, failures)                                                \
    X(ACTOR_STAGER, stager, stager)                                                      \
    X(ACTOR_LIFELINE, lifeline, lifeline)                                                \
    X(ACTOR_PRUNER, pruner, pruner)                                                      \
    X(ACTOR_CANCELLER, canceller, canceller)                                             \
    X(ACTOR_RELEASER, releaser, releaser)                                                \
    X(ACTOR_PROGRESS_WRITER, progress_writer, progress_writer)                           \
    X(ACTOR_SETTINGS_WATCHER, settings_watcher, settings_watcher)                        \
    X(ACTOR_CRON, cron_actor, cron)                                                      \
    X(ACTOR_CRON_DECLARER, cron_declarer, cron_declarer)

enum daemon_actor {
#define X(enumerator, type, member) enumerator,
    DAEMON_ACTORS(X)
#undef X
};

struct daemon {
    const struct cli *cli;
    const struct config *booted; /* what it was started with: the database, its name … */
    struct config *config;       /* what is in force now of the rest; held */
    bool reload_owed;            /* HUP came when nothing could be made of it */
    enum daemon_state state;
    int exit_code;
    uv_loop_t loop;
    struct signals signals;
    struct systemd *systemd;
    struct guard *guard;
    struct embedded *embedded;
    struct store *store;
    struct notifier *notifier;
    struct node *node;
#define X(enumerator, type, member) struct type *member;
    DAEMON_ACTORS(X)
#undef X
    struct queues queues;
    size_t n_connections; /* store and notifier, as long as they are open */
    const char *conninfo;
    bool work_up;      /* the work connection is ready */
    int64_t asked_for; /* the node that a work session is being opened for; 0: none is */
    bool announced;    /* "ready" was logged */
    bool lived;        /* this node has been registered, by us or the program before us */
    bool at_once;      /* a second signal has come: nothing is waited for */
    bool maintenance_up;             /* likewise, the maintenance connection */
    struct absence database_down;    /* of the control connection */
    struct absence work_down;        /* of the work connection alone */
    struct absence maintenance_down; /* likewise, of the maintenance connection */
    struct upgrade *upgrade;
    struct handover_reader
        *past;               /* what the program before this one left; NULL: nothing */
    bool upgrade_untold;     /* the database is to hear how an upgrade ended … */
    char upgrade_error[600]; /* … namely so; "": it took place */
    struct rollout rollout;
    uv_timer_t still_away; /* to say again that the database is away */
    uv_timer_t session;    /* the next try to open a work session */
    uv_timer_t patience;   /* how long a drain may last, with what the database owes us */
};

/* ---- daemon_state.c ---- */

const char *daemon_state_meaning(enum daemon_state state);
void daemon_set_state(struct daemon *d, enum daemon_state state);
bool daemon_is_ending(const struct daemon *d);
/* For the node's row, and SIGUSR1: the queues as JSON. owner: the daemon. */
void daemon_describe(void *owner, struct jobq__buf *out);

/* ---- absence.c ---- */

/* The database has never been reached by this process, or the one before it. */
bool daemon_is_starting(const struct daemon *d);
/* A connection is lost, or could not be made again. The second reason is often the one to
 * act upon (the session was ended; now there are too many, or the password is wrong), so
 * each new one is said, but not one a try. */
void absence_tell(struct daemon *d, struct absence *absence, const char *what,
                  const jobq_error *why);
/* The same for another connection than the control connection, if that is up. */
void absence_tell_alone(struct daemon *d, struct absence *absence, const char *what,
                        const jobq_error *why);
void absence_end(struct absence *absence, const char *what);
/* The database's absence is said again, while it lasts. */
void absence_arm(struct daemon *d);

/* ---- daemon_actors.c ---- */

/* All of them; fails only for want of memory. */
int daemon_actors_make(struct daemon *d);
void daemon_actors_live(struct daemon *d, int64_t node, bool fresh);
void daemon_actors_lead(struct daemon *d, bool leads);
/* One that can be poked. */
void daemon_actors_poke(struct daemon *d, enum daemon_actor actor);
void daemon_actors_stop(struct daemon *d);
void daemon_actors_close(struct daemon *d);

/* ---- daemon_stop.c ---- */

/* Gives up the jobs. What is under way on the work connection is not waited for: it may
 * be dead without a word. */
void daemon_abandon(struct daemon *d);
void daemon_drain(struct daemon *d, int64_t grace_ms);
/* The queues have stopped: the node leaves. */
void daemon_go_on_stopping(struct daemon *d);
/* Ends with that exit code, and says why. */
void daemon_refuse(struct daemon *d, int exit_code, const char *why);
void daemon_stop_embedded(struct daemon *d);
void daemon_on_embedded_stopped(void *owner);
/* The node's events. */
void daemon_on_gone(void *owner);
void daemon_on_denied(void *owner, const char *why);
void daemon_on_refused(void *owner, const char *why);

/* ---- daemon_reload.c ---- */

/* Where programs begin that have no working_directory: what is found now under the name
 * of the folder that we were started in. */
void daemon_enter_folder(void);
/* SIGHUP. */
void daemon_reload(struct daemon *d);

/* ---- daemon_events.c ---- */

void daemon_on_queue(void *owner, const char *queue);
void daemon_on_stage(void *owner);
void daemon_on_leader_free(void *owner);
void daemon_on_cancel_asked(void *owner);
void daemon_on_queues_set(void *owner);
void daemon_on_cron_set(void *owner);
void daemon_on_listening(void *owner, bool listening);
void daemon_on_work_ready(void *owner);
void daemon_on_work_lost(void *owner, const jobq_error *why);
void daemon_on_maintenance_ready(void *owner);
void daemon_on_maintenance_lost(void *owner, const jobq_error *why);
void daemon_on_control_ready(void *owner);
void daemon_on_control_lost(void *owner, const jobq_error *why);
void daemon_on_live(void *owner, int64_t id);
void daemon_on_lost(void *owner, const char *why);
void daemon_on_all_stopped(void *owner);

/* ---- daemon_signals.c ---- */

void daemon_on_signal(void *owner, int number);

/* ---- daemon_systemd.c ---- */

/* For struct systemd_options. */
bool daemon_stuck(void *owner, char *why, size_t size);
void daemon_describe_to_systemd(void *owner, struct jobq__buf *out);

/* ---- daemon_rollout.c ---- */

/* The configuration was read again, and is in force; or is refused. */
void daemon_rollout_begin(struct daemon *d);
void daemon_rollout_refused(struct daemon *d, const char *why);
/* The node has a new row. */
void daemon_rollout_live(struct daemon *d);
/* For struct cron_declarer_options. */
void daemon_on_crons_told(void *owner, const char *fault);

/* ---- daemon_upgrade.c ---- */

extern const struct upgrade_events daemon_upgrade_events;
/* SIGUSR2. */
void daemon_on_upgrade_signal(struct daemon *d);
void daemon_on_all_frozen(void *owner);
/* Tells the database how the last upgrade ended, if it has not heard of it. */
void daemon_tell_upgrade(struct daemon *d);

int daemon_start_guard(struct daemon *d, jobq_error *err);
/* What the program before this one has left for us, if it has: into d->past. */
int daemon_open_past(struct daemon *d, jobq_error *err);
/* Its record of the embedded database; NULL: there is none. */
const struct handover_entry *daemon_past_embedded(const struct daemon *d);
/* With everything there but the guard: takes its workers and its lease over. */
int daemon_take_over(struct daemon *d, jobq_error *err);

#endif
