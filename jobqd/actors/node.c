/* node.c: see node.h. */
#include "jobqd/actors/node.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/base/hostid.h"
#include "jobqd/proc/guard.h"
#include "jobqd/pure/failure_detector.h"
#include "libjobq/duration.h"

enum { LEASE_LOOK_MS = 1000, RIVAL_LOOK_MS = 250 };

struct node {
    struct node_options options;
    enum node_state state;
    int64_t id;
    int64_t deadline_ns; /* CLOCK_BOOTTIME: the lease's end as far as we know it */
    int64_t sent_ns;     /* when the renewal or registration under way was sent */
    bool beating;        /* a renewal is under way */
    bool reachable;      /* the control connection is up */
    bool forbidden;      /* to register */
    struct failure_detector rival; /* NODE_WAITING: the other node of our name */
    uv_timer_t beat;               /* the next renewal, or the next try */
    uv_timer_t lease;              /* the end of the lease */
    char host[160];
    int handles;
};

static void find(struct node *node);
static void on_beat(uv_timer_t *timer);

static void
set_state(struct node *node, enum node_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        NODE_STATES(X)
#undef X
    };
    assert(node->state != NODE_GONE);
    if (node->state == state)
        return;
    node->state = state;
    log_debug("node", "%s waits for %s", node->options.name, meanings[state]);
}

static void
try_again_in(struct node *node, int64_t ms)
{
    uv_timer_start(&node->beat, on_beat, (uint64_t)ms, 0);
}

/* ---- the lease ---- */

static int64_t
margin_ms(const struct node *node)
{
    return node->options.lease_ms / 10;
}

static void
lose(struct node *node, const char *why)
{
    set_state(node, NODE_LOST);
    uv_timer_stop(&node->beat);
    uv_timer_stop(&node->lease);
    log_error(
        "node",
        "%s must stop its jobs: %s; killing its workers; other nodes will run the jobs",
        node->options.name, why);
    node->options.on_lost(node->options.owner, why);
}

static void
on_lease(uv_timer_t *timer)
{
    struct node *node = timer->data;
    if ((node->state != NODE_LIVE && node->state != NODE_LEAVING) ||
        node->options.unfenced)
        return;
    int64_t left_ms =
        (node->deadline_ns - clock_boottime_ns()) / 1000000 - margin_ms(node);
    if (left_ms > 0) {
        /* The timer's clock stands still while the machine sleeps: it is not trusted for
         * longer than a moment. */
        if (left_ms > LEASE_LOOK_MS)
            left_ms = LEASE_LOOK_MS;
        uv_timer_start(&node->lease, on_lease, (uint64_t)left_ms, 0);
        return;
    }
    if (node->state == NODE_LIVE)
        lose(node, "the lease could not be renewed in time");
}

static void
renewed(struct node *node)
{
    node->deadline_ns = node->sent_ns + node->options.lease_ms * 1000000;
    if (!node->options.unfenced)
        guard_set_deadline(guard_deadline_ns(node->deadline_ns, node->options.lease_ms));
    on_lease(&node->lease);
}

static void
on_renewed(void *data, const struct store_answer *answer)
{
    struct node *node = data;
    node->beating = false;
    if (node->state != NODE_LIVE)
        return;
    if (answer->code < 0) {
        if (answer->code != JOBQ_ECONN)
            log_warning("node", "%s could not renew its lease: %s", node->options.name,
                        answer->error->message);
        try_again_in(node, node->options.lease_ms / 20);
        return;
    }
    if (answer->rows == 0) {
        lose(node, "another node declared this node dead");
        return;
    }
    renewed(node);
    try_again_in(node, node->options.lease_ms / 3);
}

static void
renew(struct node *node)
{
    if (node->beating || !node->reachable)
        return;
    struct jobq__buf queues = {0};
    node->options.describe(node->options.owner, &queues);
    const char *json = jobq__buf_cstr(&queues);
    node->sent_ns = clock_boottime_ns();
    node->beating =
        json && store_heartbeat(node->options.store, node->id, node->options.lease_ms,
                                json, on_renewed, node) == 0;
    jobq__buf_clear(&queues);
    if (!node->beating)
        try_again_in(node, node->options.lease_ms / 20);
}

/* ---- registration ---- */

static bool
failed(struct node *node, const struct store_answer *answer, const char *what)
{
    if (answer->code == 0)
        return false;
    if (answer->code != JOBQ_ECONN)
        log_warning("node", "%s: %s: %s", node->options.name, what,
                    answer->error->message);
    set_state(node, NODE_AWAY);
    try_again_in(node, 1000);
    if (strcmp(answer->error->sqlstate, "42501") == 0)
        node->options.on_denied(node->options.owner, answer->error->message);
    return true;
}

static void
on_registered(void *data, const struct store_answer *answer)
{
    struct node *node = data;
    if (node->state != NODE_REGISTERING || failed(node, answer, "could not register"))
        return;
    if (answer->rows == 0) {
        find(node);
        return;
    }
    node->id = answer->id;
    set_state(node, NODE_LIVE);
    renewed(node);
    try_again_in(node, 0); /* the first renewal shows the state of the queues */
    log_info("node", "%s is registered as node %lld, lease %s", node->options.name,
             (long long)node->id, jobq__duration_show(node->options.lease_ms).text);
    node->options.on_live(node->options.owner, node->id);
}

static void
enter(struct node *node)
{
    set_state(node, NODE_REGISTERING);
    int pid = (int)getpid();
    node->sent_ns = clock_boottime_ns();
    if (store_node_insert(node->options.store, node->options.name, node->host, pid,
                          hostid_own_start(), node->options.lease_ms, on_registered,
                          node) < 0) {
        set_state(node, NODE_AWAY);
        try_again_in(node, 1000);
    }
}

static void
on_reaped(void *data, const struct store_answer *answer)
{
    struct node *node = data;
    if (node->state != NODE_REAPING ||
        failed(node, answer, "could not remove its dead predecessor"))
        return;
    long long again = answer->again, ended = answer->ended;
    long long left = answer->remaining;
    node->options.on_stories(node->options.owner, answer->stories);
    if (again + ended + left > 0)
        log_warning("node",
                    "%s took back %lld %s from a dead node of the same name; jobs "
                    "discarded: %lld",
                    node->options.name, again, again == 1 ? "job" : "jobs", ended);
    else if (answer->removed > 0)
        log_info("node", "%s replaces a dead node of the same name, which held no jobs",
                 node->options.name);
    if (left > 0)
        log_warning(
            "node",
            "%s: %lld job%s of its dead predecessor could not be given back yet: %s",
            node->options.name, left, left == 1 ? "" : "s",
            answer->note ? answer->note : "");
    enter(node);
}

/* Ends the node of our name: whatever its lease says, or (sight) if it has not renewed
 * since. */
static void
reap(struct node *node, int64_t id, const struct sight *sight)
{
    failure_detector_clear(&node->rival);
    set_state(node, NODE_REAPING);
    if (store_reap(node->options.store, sight ? 0 : id, sight, sight != NULL, on_reaped,
                   node) < 0) {
        set_state(node, NODE_AWAY);
        try_again_in(node, 1000);
    }
}

static void
refuse_name(struct node *node, const struct store_answer *answer)
{
    char why[400];
    snprintf(why, sizeof why,
             "the name %s is in use by a running node (pid %lld, host %s): give this "
             "node another name with node = NAME in [jobqd]",
             node->options.name, (long long)answer->pid, answer->host);
    node->options.on_refused(node->options.owner, why);
}

/* Another row has our name and its process is not known to be dead: it has as long as its
 * lease, by our clock. One that renews its lease while we wait lives, and two nodes
 * cannot have one name. */
static void
wait_for_rival(struct node *node, const struct store_answer *answer)
{
    int64_t now_ns = clock_boottime_ns();
    const struct sight seen = {
        .id = answer->id, .mark = answer->mark, .lease_ms = answer->lease_ms};
    const struct sight *before = node->rival.n > 0 ? node->rival.sights : NULL;
    struct sight dead;
    if (before && before->id == seen.id && before->mark != seen.mark) {
        refuse_name(node, answer);
        return;
    }
    if (!before || before->id != seen.id)
        log_warning("node",
                    "%s: a node with this name (pid %lld, host %s) may still be alive: "
                    "waiting for its lease of %s to expire",
                    node->options.name, (long long)answer->pid, answer->host,
                    jobq__duration_show(seen.lease_ms).text);
    set_state(node, NODE_WAITING);
    if (failure_detector_look(&node->rival, &seen, 1, now_ns) < 0) {
        log_error("node", "out of memory: cannot watch the node with the same name");
    } else if (failure_detector_dead(&node->rival, now_ns, 100, &dead, 1) > 0) {
        reap(node, 0, &dead);
        return;
    }
    try_again_in(node, RIVAL_LOOK_MS);
}

/* A row that we have made ourselves: its answer was lost, or its lease. Nothing of ours
 * runs while we look, so there is nothing to wait for. */
static bool
is_own(const struct node *node, const struct store_answer *answer)
{
    int pid = (int)getpid();
    return strcmp(answer->host, node->host) == 0 && node->host[0] != '\0' &&
           answer->pid == pid && answer->pid_start == hostid_own_start();
}

static void
on_found(void *data, const struct store_answer *answer)
{
    struct node *node = data;
    if (node->state != NODE_FINDING ||
        failed(node, answer, "could not check whether its name is free"))
        return;
    if (answer->rows == 0)
        enter(node);
    else if (is_own(node, answer) || hostid_fate(answer->host, (int)answer->pid,
                                                 answer->pid_start) == HOSTID_ENDED)
        reap(node, answer->id, NULL);
    else
        wait_for_rival(node, answer);
}

static void
find(struct node *node)
{
    set_state(node, NODE_FINDING);
    if (store_node_find(node->options.store, node->options.name, on_found, node) < 0) {
        set_state(node, NODE_AWAY);
        try_again_in(node, 1000);
    }
}

static void
refuse_schema(struct node *node, const char *what, const char *remedy)
{
    char why[300];
    snprintf(why, sizeof why, "schema %s %s, this jobqd needs version %d: %s",
             node->options.schema, what, node->options.schema_version, remedy);
    node->options.on_refused(node->options.owner, why);
}

/* Only behind a pooler, where a session cannot be set up. */
static void
refuse_isolation(struct node *node)
{
    node->options.on_refused(
        node->options.owner,
        "the default transaction isolation is not read committed, and jobqd cannot "
        "change it behind a pooler: run ALTER ROLE ... SET default_transaction_isolation "
        "= 'read committed' for jobqd's role");
}

static void
refuse_encoding(struct node *node)
{
    node->options.on_refused(node->options.owner,
                             "the database's encoding is not UTF8, so a job with "
                             "characters that it lacks fails, or its end cannot be "
                             "recorded: move jobq to a database whose encoding is UTF8");
}

static void
on_version(void *data, const struct store_answer *answer)
{
    struct node *node = data;
    if (node->state != NODE_CHECKING)
        return;
    if (failed(node, answer, "could not read the schema's version"))
        return;
    if (answer->version == STORE_NO_SCHEMA) {
        refuse_schema(node, "is missing in this database", "run `jobqd migrate up`");
        return;
    }
    if (answer->version == STORE_NO_VERSION) {
        refuse_schema(node, "has no function version()", "run `jobqd migrate up`");
        return;
    }
    if (answer->version == STORE_UNRELEASED) {
        refuse_schema(node, "was made by a jobq from before its first release",
                      "run `jobqd migrate status` to see what to do");
        return;
    }
    if (answer->version != node->options.schema_version) {
        char what[64];
        snprintf(what, sizeof what, "has version %lld", (long long)answer->version);
        refuse_schema(node, what,
                      answer->version < node->options.schema_version
                          ? "run `jobqd migrate up`"
                          : "install a newer jobqd, or run `jobqd migrate down` with the "
                            "jobqd that made it");
        return;
    }
    if (!answer->is_read_committed) {
        refuse_isolation(node);
        return;
    }
    if (!answer->is_utf8) {
        refuse_encoding(node);
        return;
    }
    find(node);
}

static void
check(struct node *node)
{
    if (node->forbidden)
        return;
    set_state(node, NODE_CHECKING);
    if (store_version(node->options.store, on_version, node) < 0) {
        set_state(node, NODE_AWAY);
        try_again_in(node, 1000);
    }
}

/* ---- leaving ---- */

static void
gone(struct node *node)
{
    guard_set_deadline(0);
    set_state(node, NODE_GONE);
    uv_timer_stop(&node->beat);
    uv_timer_stop(&node->lease);
    node->options.on_gone(node->options.owner);
}

static void
on_goodbye(void *data, const struct store_answer *answer)
{
    struct node *node = data;
    if (answer->code < 0)
        log_warning("node", "%s could not deregister; its lease will expire: %s",
                    node->options.name, answer->error->message);
    gone(node);
}

static void
leave(struct node *node)
{
    if (node->id == 0 || !node->reachable ||
        store_goodbye(node->options.store, node->id, on_goodbye, node) < 0)
        gone(node);
}

static void
on_beat(uv_timer_t *timer)
{
    struct node *node = timer->data;
    switch (node->state) {
    case NODE_AWAY:
        if (node->reachable)
            check(node);
        break;
    case NODE_WAITING:
        find(node);
        break;
    case NODE_LIVE:
        renew(node);
        break;
    case NODE_LEAVING:
        leave(node);
        break;
    case NODE_CHECKING:
    case NODE_FINDING:
    case NODE_REAPING:
    case NODE_REGISTERING:
    case NODE_LOST:
    case NODE_GONE:
        break;
    }
}

/* ---- the public face ---- */

int
node_new(struct node **out, const struct node_options *options)
{
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return JOBQ_ENOMEM;
    node->options = *options;
    hostid_read(node->host, sizeof node->host);
    uv_timer_init(options->loop, &node->beat);
    uv_timer_init(options->loop, &node->lease);
    node->beat.data = node;
    node->lease.data = node;
    node->handles = 2;
    *out = node;
    return 0;
}

void
node_adopt(struct node *node, int64_t id, int64_t deadline_ns)
{
    assert(node->state == NODE_AWAY && node->id == 0);
    node->id = id;
    node->deadline_ns = deadline_ns;
    if (!node->options.unfenced)
        guard_set_deadline(guard_deadline_ns(deadline_ns, node->options.lease_ms));
    set_state(node, NODE_LIVE);
    /* From the loop: a lease that has ended meanwhile is lost when all is taken over. */
    uv_timer_start(&node->lease, on_lease, 0, 0);
}

int64_t
node_deadline_ns(const struct node *node)
{
    return node->deadline_ns;
}

void
node_control_ready(struct node *node)
{
    node->reachable = true;
    if (node->state == NODE_AWAY)
        check(node);
    else if (node->state == NODE_LIVE)
        renew(node);
}

void
node_forbid(struct node *node)
{
    node->forbidden = true;
    if (node->state == NODE_CHECKING) /* what it has asked is not heard */
        set_state(node, NODE_AWAY);
}

void
node_control_lost(struct node *node)
{
    node->reachable = false;
}

void
node_clean(struct node *node)
{
    if (node->state != NODE_LOST)
        return;
    guard_set_deadline(0);
    node->id = 0;
    failure_detector_clear(&node->rival);
    set_state(node, NODE_AWAY);
    try_again_in(node, 0);
}

void
node_leave(struct node *node)
{
    if (node->state == NODE_GONE)
        return;
    if (node->state == NODE_LOST)
        node->id = 0; /* its row is the lifeline's: without it, nobody would give its jobs
                         back */
    set_state(node, NODE_LEAVING);
    try_again_in(node, 0);
}

static void
on_closed(uv_handle_t *handle)
{
    struct node *node = handle->data;
    if (--node->handles > 0)
        return;
    failure_detector_clear(&node->rival);
    free(node);
}

void
node_close(struct node *node)
{
    uv_close((uv_handle_t *)&node->beat, on_closed);
    uv_close((uv_handle_t *)&node->lease, on_closed);
}

enum node_state
node_state(const struct node *node)
{
    return node->state;
}

int64_t
node_id(const struct node *node)
{
    return node->id;
}
