/* daemon_actors.c: the housekeeping actors of a node, a row each: how one is made, and
 * what the daemon's events mean for it. A new actor is a row of DAEMON_ACTORS
 * (daemon_private.h), and its functions and its row here.
 */
#include "jobqd/daemon/daemon_private.h"

#include "jobqd/actors/canceller.h"
#include "jobqd/actors/cron.h"
#include "jobqd/actors/cron_declarer.h"
#include "jobqd/actors/failures.h"
#include "jobqd/actors/hooks.h"
#include "jobqd/actors/leader.h"
#include "jobqd/actors/lifeline.h"
#include "jobqd/actors/pruner.h"
#include "jobqd/actors/releaser.h"
#include "jobqd/actors/progress_writer.h"
#include "jobqd/actors/stager.h"
#include "jobqd/actors/settings_watcher.h"
#include "jobqd/base/seams.h"
#include "jobqd/db/store.h"

/* In the order in which they are made; they are closed in the reverse order. */
struct actor {
    int (*make)(struct daemon *d);
    /* The node is registered, under that id. fresh: for the first time in this process,
     * and not taken over from the one before. */
    void (*live)(struct daemon *d, int64_t node, bool fresh);
    /* This node is the leader from now on, or no longer. */
    void (*lead)(struct daemon *d, bool leads);
    /* There may be something to do. */
    void (*poke)(struct daemon *d);
    /* The node does not live any more, or leaves. */
    void (*stop)(struct daemon *d);
    /* Frees it, once the store has closed. */
    void (*close)(struct daemon *d);
};

/* Functions of a row that only pass on the call. */
#define LIVE(type, member)                                                               \
    static void live_##member(struct daemon *d, int64_t node, bool fresh)                \
    {                                                                                    \
        (void)node;                                                                      \
        (void)fresh;                                                                     \
        type##_start(d->member);                                                         \
    }
#define LIVE_AS(type, member)                                                            \
    static void live_##member(struct daemon *d, int64_t node, bool fresh)                \
    {                                                                                    \
        (void)fresh;                                                                     \
        type##_start(d->member, node);                                                   \
    }
#define LEAD(type, member)                                                               \
    static void lead_##member(struct daemon *d, bool leads)                              \
    {                                                                                    \
        if (leads)                                                                       \
            type##_start(d->member);                                                     \
        else                                                                             \
            type##_stop(d->member);                                                      \
    }
#define PASS(verb, type, member)                                                         \
    static void verb##_##member(struct daemon *d)                                        \
    {                                                                                    \
        type##_##verb(d->member);                                                        \
    }

static void
poke_queues(void *owner)
{
    struct daemon *d = owner;
    queues_poke(&d->queues, NULL);
}

/* ---- leader ---- */

static void
on_lead(void *owner, bool leads)
{
    daemon_actors_lead(owner, leads);
}

static int
make_leader(struct daemon *d)
{
    return leader_new(&d->leader,
                      &(struct leader_options){.loop = &d->loop,
                                               .store = d->store,
                                               .lease_ms = d->config->lease_ms,
                                               .always = seam_is_set(SEAM_LEADS),
                                               .on_change = on_lead,
                                               .owner = d});
}

LIVE_AS(leader, leader)
PASS(poke, leader, leader)
PASS(stop, leader, leader)

static void
close_leader(struct daemon *d)
{
    leader_close(d->leader);
    d->leader = NULL;
}

/* ---- hooks ---- */

static int
make_hooks(struct daemon *d)
{
    int rc = hooks_new(&d->hooks, &(struct hooks_options){.loop = &d->loop,
                                                          .store = d->store,
                                                          .node = d->booted->node});
    return rc < 0 ? rc : hooks_configure(d->hooks, d->config);
}

LIVE(hooks, hooks)
PASS(stop, hooks, hooks)

static void
close_hooks(struct daemon *d)
{
    hooks_close(d->hooks, d->at_once);
}

/* ---- failures ---- */

static int
make_failures(struct daemon *d)
{
    return failures_new(&d->failures,
                        &(struct failures_options){.loop = &d->loop, .hooks = d->hooks});
}

PASS(close, failures, failures)

/* ---- stager ---- */

static int
make_stager(struct daemon *d)
{
    return stager_new(&d->stager, &(struct stager_options){.loop = &d->loop,
                                                           .store = d->store,
                                                           .failures = d->failures,
                                                           .on_staged = poke_queues,
                                                           .owner = d});
}

LEAD(stager, stager)
PASS(poke, stager, stager)
PASS(stop, stager, stager)
PASS(close, stager, stager)

/* ---- lifeline ---- */

static int
make_lifeline(struct daemon *d)
{
    return lifeline_new(&d->lifeline,
                        &(struct lifeline_options){.loop = &d->loop,
                                                   .store = d->store,
                                                   .failures = d->failures,
                                                   .lease_ms = d->config->lease_ms,
                                                   .on_rescued = poke_queues,
                                                   .owner = d});
}

LIVE(lifeline, lifeline)

static void
lead_lifeline(struct daemon *d, bool leads)
{
    lifeline_lead(d->lifeline, leads);
}

PASS(stop, lifeline, lifeline)
PASS(close, lifeline, lifeline)

/* ---- pruner ---- */

static int
make_pruner(struct daemon *d)
{
    return pruner_new(&d->pruner,
                      &(struct pruner_options){.loop = &d->loop,
                                               .store = d->store,
                                               .config = d->config,
                                               .round_ms = seam_number(SEAM_PRUNE_MS)});
}

LEAD(pruner, pruner)
PASS(stop, pruner, pruner)
PASS(close, pruner, pruner)

/* ---- canceller ---- */

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

static int
make_canceller(struct daemon *d)
{
    return canceller_new(&d->canceller,
                         &(struct canceller_options){.loop = &d->loop,
                                                     .store = d->store,
                                                     .holds_jobs = holds_jobs,
                                                     .on_cancels = on_cancels,
                                                     .owner = d});
}

LIVE_AS(canceller, canceller)
PASS(poke, canceller, canceller)
PASS(stop, canceller, canceller)
PASS(close, canceller, canceller)

/* ---- releaser ---- */

static int
make_releaser(struct daemon *d)
{
    return releaser_new(&d->releaser, &d->loop, d->store);
}

PASS(stop, releaser, releaser)
PASS(close, releaser, releaser)

/* ---- progress_writer ---- */

static int
make_progress_writer(struct daemon *d)
{
    return progress_writer_new(
        &d->progress_writer,
        &(struct progress_writer_options){.loop = &d->loop, .store = d->store});
}

LIVE_AS(progress_writer, progress_writer)
PASS(stop, progress_writer, progress_writer)
PASS(close, progress_writer, progress_writer)

/* ---- settings_watcher ---- */

static const char **
list_queues(void *owner, size_t *n)
{
    struct daemon *d = owner;
    return queues_ask_settings(&d->queues, n);
}

static void
on_settings(void *owner, const struct store_list *result)
{
    struct daemon *d = owner;
    queues_take_settings(&d->queues, result);
}

static int
make_settings_watcher(struct daemon *d)
{
    return settings_watcher_new(&d->settings_watcher, &(struct settings_watcher_options){
                                                          .loop = &d->loop,
                                                          .store = d->store,
                                                          .node = d->booted->node,
                                                          .queues = list_queues,
                                                          .on_settings = on_settings,
                                                          .owner = d});
}

LIVE(settings_watcher, settings_watcher)
PASS(poke, settings_watcher, settings_watcher)
PASS(stop, settings_watcher, settings_watcher)
PASS(close, settings_watcher, settings_watcher)

/* ---- cron ---- */

static int
make_cron(struct daemon *d)
{
    return cron_actor_new(&d->cron, &(struct cron_actor_options){.loop = &d->loop,
                                                                 .store = d->store,
                                                                 .on_fired = poke_queues,
                                                                 .owner = d});
}

LEAD(cron_actor, cron)
PASS(poke, cron_actor, cron)
PASS(stop, cron_actor, cron)
PASS(close, cron_actor, cron)

/* ---- cron_declarer ---- */

static int
make_cron_declarer(struct daemon *d)
{
    int rc =
        cron_declarer_new(&d->cron_declarer,
                          &(struct cron_declarer_options){.loop = &d->loop,
                                                          .store = d->store,
                                                          .node = d->booted->node,
                                                          .on_told = daemon_on_crons_told,
                                                          .owner = d});
    return rc < 0 ? rc : cron_declarer_configure(d->cron_declarer, d->config);
}

static void
live_cron_declarer(struct daemon *d, int64_t node, bool fresh)
{
    cron_declarer_start(d->cron_declarer, node, fresh);
}

PASS(stop, cron_declarer, cron_declarer)
PASS(close, cron_declarer, cron_declarer)

/* ---- the table ---- */

static const struct actor actors[] = {
    [ACTOR_LEADER] = {make_leader, live_leader, NULL, poke_leader, stop_leader,
                      close_leader},
    [ACTOR_HOOKS] = {make_hooks, live_hooks, NULL, NULL, stop_hooks, close_hooks},
    [ACTOR_FAILURES] = {make_failures, NULL, NULL, NULL, NULL, close_failures},
    [ACTOR_STAGER] = {make_stager, NULL, lead_stager, poke_stager, stop_stager,
                      close_stager},
    [ACTOR_LIFELINE] = {make_lifeline, live_lifeline, lead_lifeline, NULL, stop_lifeline,
                        close_lifeline},
    [ACTOR_PRUNER] = {make_pruner, NULL, lead_pruner, NULL, stop_pruner, close_pruner},
    [ACTOR_CANCELLER] = {make_canceller, live_canceller, NULL, poke_canceller,
                         stop_canceller, close_canceller},
    [ACTOR_RELEASER] = {make_releaser, NULL, NULL, NULL, stop_releaser, close_releaser},
    [ACTOR_PROGRESS_WRITER] = {make_progress_writer, live_progress_writer, NULL, NULL,
                               stop_progress_writer, close_progress_writer},
    [ACTOR_SETTINGS_WATCHER] = {make_settings_watcher, live_settings_watcher, NULL,
                                poke_settings_watcher, stop_settings_watcher,
                                close_settings_watcher},
    [ACTOR_CRON] = {make_cron, NULL, lead_cron, poke_cron, stop_cron, close_cron},
    [ACTOR_CRON_DECLARER] = {make_cron_declarer, live_cron_declarer, NULL, NULL,
                             stop_cron_declarer, close_cron_declarer},
};

enum { N_ACTORS = sizeof actors / sizeof actors[0] };

int
daemon_actors_make(struct daemon *d)
{
    int rc = 0;
    for (size_t i = 0; i < N_ACTORS && rc == 0; i++)
        rc = actors[i].make(d);
    return rc;
}

void
daemon_actors_live(struct daemon *d, int64_t node, bool fresh)
{
    for (size_t i = 0; i < N_ACTORS; i++) {
        if (actors[i].live)
            actors[i].live(d, node, fresh);
    }
}

void
daemon_actors_lead(struct daemon *d, bool leads)
{
    for (size_t i = 0; i < N_ACTORS; i++) {
        if (actors[i].lead)
            actors[i].lead(d, leads);
    }
}

void
daemon_actors_poke(struct daemon *d, enum daemon_actor actor)
{
    actors[actor].poke(d);
}

void
daemon_actors_stop(struct daemon *d)
{
    for (size_t i = 0; i < N_ACTORS; i++) {
        if (actors[i].stop)
            actors[i].stop(d);
    }
}

void
daemon_actors_close(struct daemon *d)
{
    for (size_t i = N_ACTORS; i > 0; i--)
        actors[i - 1].close(d);
}
