/* daemon_private.h: what the files of the daemon share. Not for anybody else.
 *
 * daemon.c: the way up, the way down, and what an event of one actor means for the
 * others; daemon_upgrade.c: how it is left to another program, and taken over from one;
 * daemon_systemd.c: what the service manager is told.
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
#include "jobqd/daemon/signals.h"
#include "jobqd/daemon/systemd.h"
#include "jobqd/daemon/upgrade.h"
#include "jobqd/base/config.h"
#include "jobqd/base/handover.h"

/* X(enumerator, what we are waiting for) */
#define DAEMON_STATES(X)                                                                 \
    X(DAEMON_DATABASE, "the embedded database to come up")                               \
    X(DAEMON_RUNNING, "events")                                                          \
    X(DAEMON_DRAINING, "running jobs to end")                                            \
    X(DAEMON_LEAVING, "the node's goodbye")                                              \
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
    struct leader *leader;
    struct stager *stager;
    struct lifeline *lifeline;
    struct pruner *pruner;
    struct canceller *canceller;
    struct releaser *releaser;
    struct reporter *reporter;
    struct failures *failures;
    struct hooks *hooks;
    struct cron_actor *cron;
    struct crontab *crontab;
    struct steward *steward;
    struct queues queues;
    size_t n_connections; /* store and notifier, as long as they are open */
    const char *conninfo;
    bool work_up;      /* the work connection is ready */
    int64_t asked_for; /* the node that a work session is being opened for; 0: none is */
    bool announced;    /* "ready" was logged */
    bool lived;        /* this node has been registered, by us or the program before us */
    bool at_once;      /* a second signal has come: nothing is waited for */
    bool house_up;     /* likewise, the house connection */
    struct absence database_down; /* of the control connection */
    struct absence work_down;     /* of the work connection alone */
    struct absence house_down;    /* likewise, of the house connection */
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

/* ---- daemon.c ---- */

const char *daemon_state_meaning(enum daemon_state state);
int daemon_start_guard(struct daemon *d, jobq_error *err);

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
/* For struct crontab_options. */
void daemon_on_crons_told(void *owner, const char *fault);

/* ---- daemon_upgrade.c ---- */

extern const struct upgrade_events daemon_upgrade_events;
/* SIGUSR2. */
void daemon_on_upgrade_signal(struct daemon *d);
void daemon_on_all_frozen(void *owner);
/* Tells the database how the last upgrade ended, if it has not heard of it. */
void daemon_tell_upgrade(struct daemon *d);

/* What the program before this one has left for us, if it has: into d->past. */
int daemon_open_past(struct daemon *d, jobq_error *err);
/* Its record of the embedded database; NULL: there is none. */
const struct handover_entry *daemon_past_embedded(const struct daemon *d);
/* With everything there but the guard: takes its workers and its lease over. */
int daemon_take_over(struct daemon *d, jobq_error *err);

#endif
