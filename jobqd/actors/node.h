/* node.h: the actor that is this jobqd in the eyes of the cluster: its row in jobq.nodes
 * and the lease on its jobs.
 *
 * The lease is renewed every third of it. It is counted from before the renewal was sent,
 * on a clock that also runs while the machine sleeps; a tenth before it ends without a
 * renewal the node declares itself lost, and its owner kills the workers: the database
 * gives their jobs to others only when the lease has run out. The guard (proc/guard.h) is
 * told of each renewal, and kills them when we do not, a little later.
 *
 * It does not claim, kill or know queues: it says when the node lives and when it is
 * lost.
 */
#ifndef JOBQD_NODE_H
#define JOBQD_NODE_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/db/store.h"
#include "libjobq/buf.h"

struct node;

/* X(enumerator, what we are waiting for) */
#define NODE_STATES(X)                                                                   \
    X(NODE_AWAY, "the control connection")                                               \
    X(NODE_CHECKING, "the schema's version")                                             \
    X(NODE_FINDING, "the answer to whether its name is free")                            \
    X(NODE_WAITING, "the lease of another node with its name to expire")                 \
    X(NODE_REAPING, "the jobs of its dead predecessor to be given back")                 \
    X(NODE_REGISTERING, "the node's row")                                                \
    X(NODE_LIVE, "the next renewal")                                                     \
    X(NODE_LOST, "all workers to be killed")                                             \
    X(NODE_LEAVING, "the database to confirm that it deregistered")                      \
    X(NODE_GONE, "nothing")

enum node_state {
#define X(name, meaning) name,
    NODE_STATES(X)
#undef X
};

struct node_options {
    uv_loop_t *loop;
    struct store *store;
    const char *name; /* outlives the node, as schema */
    const char *schema;
    int schema_version; /* the one that this program knows */
    int64_t lease_ms;
    bool unfenced; /* a test's: the lease's end is not looked at */
    /* Registered, with a new id. Not called again when only the connection was away. */
    void (*on_live)(void *owner, int64_t id);
    /* The lease is lost, or the lifeline has declared the node dead: kill the workers,
     * forget the jobs, then call node_clean. */
    void (*on_lost)(void *owner, const char *why);
    /* It makes no sense to go on: the schema's version, or a live node of this name. */
    void (*on_refused)(void *owner, const char *why);
    /* The database has refused, for want of rights; the node tries again. */
    void (*on_denied)(void *owner, const char *why);
    void (*on_gone)(void *owner); /* after node_leave */
    /* What is to be told of the jobs of its dead predecessor: see
     * failures_note_stories. */
    void (*on_stories)(void *owner, const char *stories);
    /* Appends the state of the queues as a JSON object: shown by `jobqd queues`. */
    void (*describe)(void *owner, struct jobq__buf *out);
    void *owner;
};

int node_new(struct node **out, const struct node_options *options);
/* Right after node_new: it is this node already, with the lease that the program before
 * this one had. on_live does not follow. deadline_ns: CLOCK_BOOTTIME. */
void node_adopt(struct node *node, int64_t id, int64_t deadline_ns);
int64_t node_deadline_ns(const struct node *node); /* likewise; of a living node */
void node_control_ready(struct node *node); /* the control connection is up (again) */
void node_control_lost(struct node *node);
void node_forbid(struct node *node); /* it never registers (again); before node_leave */
void node_clean(struct node *node);  /* after on_lost: no worker is left */
void node_leave(struct node *node);  /* everything is settled: says goodbye; on_gone
                                        follows, from the loop */
void node_close(struct node *node);  /* frees it, once the store has closed */
enum node_state node_state(const struct node *node);
int64_t node_id(const struct node *node); /* 0 while not registered */

#endif
