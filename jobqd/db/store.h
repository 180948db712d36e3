/* store.h: what jobqd asks of the database, as typed requests. The one place of the
 * daemon that knows SQL.
 *
 * Three connections: `work` carries the queues' cycles; `control` the lease, the lead and
 * the idle marks, so that a lease is never renewed behind a long cycle; `maintenance` the
 * stager, lifeline and pruner, whose statements may read a large table through. Callbacks
 * receive decoded values, never a PGresult, and are never made from inside the request.
 * Every request completes exactly once; code is 0, JOBQ_ECONN (unknown whether it was
 * done) or JOBQ_EDB.
 */
#ifndef JOBQD_STORE_H
#define JOBQD_STORE_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/pure/ageing.h"
#include "jobqd/pure/progress_buffer.h"
#include "jobqd/pure/cursor.h"
#include "jobqd/pure/job.h"
#include "jobqd/pure/failure_detector.h"

struct store;

enum { STORE_MAX_CLAIM = 1024, STORE_MAX_SETTLE = 1024, STORE_MAX_FETCH = 64 };

struct store_options {
    const char *conninfo;
    const char *schema;
    int64_t dead_after_ms; /* a request without an answer for so long: the connection is
                              rebuilt */
    bool keeps_dead;       /* test seam: see pgconn.h */
    void (*on_control_ready)(void *owner);
    void (*on_control_lost)(void *owner, const jobq_error *why);
    void (*on_work_ready)(void *owner); /* before the first cycle: store_session */
    void (*on_work_lost)(void *owner, const jobq_error *why);
    void (*on_maintenance_ready)(
        void *owner); /* its coming and going changes nothing: its
                                            requests fail, and are made again */
    void (*on_maintenance_lost)(void *owner, const jobq_error *why);
    void *owner;
};

int store_new(struct store **out, uv_loop_t *loop, const struct store_options *options,
              jobq_error *err);
/* flush: wait until what was asked has been answered, as long as the connections live.
 * Frees itself. */
void store_close(struct store *store, bool flush, void (*on_closed)(void *owner));
/* The work connection is dropped and made anew; what was under way on it fails. */
void store_reset_work(struct store *store);
bool store_pooled(
    const struct store *store); /* a pooler stands between: LISTEN is of no use */

/* The work connection has something under way. */
bool store_works(const struct store *store);
/* The longest of its connections' pgconn_overdue_ms: 0, but for a fault of ours. */
int64_t store_overdue_ms(const struct store *store);

/* X(enumerator, settle.sql's word) */
#define SETTLEMENTS(X)                                                                   \
    X(SETTLE_COMPLETED, "completed")                                                     \
    X(SETTLE_FAILED, "failed")                                                           \
    X(SETTLE_CRASHED, "crashed")                                                         \
    X(SETTLE_DISCARDED, "discarded")                                                     \
    X(SETTLE_CANCELLED, "cancelled")                                                     \
    X(SETTLE_SNOOZED, "snoozed")                                                         \
    X(SETTLE_RELEASED, "released")

enum settlement_kind {
#define X(name, word) name,
    SETTLEMENTS(X)
#undef X
};

/* An attempt that ended otherwise than by a plain ok. Strings are lent for store_cycle.
 */
struct settlement {
    int64_t id;
    int32_t attempt;
    enum settlement_kind kind;
    int64_t delay_ms;
    /* JSON object for jobs.errors (attempt and time are added), or NULL */
    const char *entry;
    const char *result; /* JSON, or NULL */
    int64_t run_us;     /* -1: not measured, as the next two */
    int64_t cpu_us;
    int64_t max_rss_kb;
};

/* What became of an attempt that was to be settled. X(enumerator, the SQL functions'
 * word)
 */
#define FATES(X)                                                                         \
    X(FATE_ACCEPTED, "accepted") /* recorded */                                          \
    X(FATE_REFUSED, "refused")   /* it had ended already, or is not this node's */       \
    X(FATE_LOCKED, "locked")     /* another session has locked it: try again later */    \
    X(FATE_STRIPPED,                                                                     \
      "stripped")            /* recorded without its result or its error's details */    \
    X(FATE_PARKED, "parked") /* refused; suspended, and the leader tries again */        \
    X(FATE_STUCK, "stuck")   /* refused, and it stays as it is: try again later */

enum fate {
#define X(name, word) name,
    FATES(X)
#undef X
};

struct store_fate {
    int64_t id;
    enum fate fate;
    /* what the database said, or who holds the lock; NULL: nothing */
    const char *message;
    const char *became; /* of one that was recorded: the job's state */
    int64_t due_ms;     /* when it is tried again, ms since 1970; 0: it is not */
    bool hooks;         /* it is a hook's: its end calls none */
};

/* A job that the database does not let us claim. */
struct store_refusal {
    int64_t id;
    const char *kind;
    const char *message;
    bool fresh; /* it was not known before */
};

/* The parts of a cycle, in the order in which they are sent. */
enum store_part {
    STORE_NOTE,
    STORE_ACK,
    STORE_SETTLE,
    STORE_LOOK,
    STORE_CLAIM,
    STORE_PARTS, /* how many; of a failure: the commit's */
};

enum { STORE_MAX_APART = 50, STORE_MAX_CLAIM_APART = 256 };

/* One round trip for one queue: note, acks, settlements, look, claim; each part optional;
 * one transaction. */
struct store_cycle {
    const char *queue;
    int64_t node;
    int64_t session;
    bool keep; /* completed jobs go to the history */
    int max_crashes;
    bool note;
    int64_t noted; /* the position noted last */
    size_t n_acks; /* plain completions */
    const int64_t *ack_ids;
    const int32_t *ack_attempts;
    size_t n_settlements;
    const struct settlement *settlements;
    bool settle_apart; /* each settlement by itself, at most STORE_MAX_APART */
    bool look;
    const int64_t *bases; /* CURSOR_PRIORITIES of them */
    size_t claim;     /* at most so many jobs; rounded down to a prepared size; 0: none */
    bool claim_apart; /* passes over jobs that the database refuses; at most
                         STORE_MAX_CLAIM_APART, without args and meta */
    const int64_t *cursors; /* CURSOR_PRIORITIES of them */
    size_t n_segments; /* 0: every line from its cursor on, in the order of priority; */
    const struct segment *segments; /* else these, in their order */
};

struct store_claimed {
    struct job *job; /* the callback's from now on: free with free(). Without its args and
                        meta if they are large: store_fetch */
    int64_t position;
    int priority;
    int rank; /* the priority, or the number of its segment: what came first goes first */
};

struct store_cycle_result {
    int code;
    bool sent; /* with JOBQ_ECONN: false when it is certain that nothing was done */
    const jobq_error *error;
    enum store_part failed; /* with JOBQ_EDB: the part that the database refused */
    bool noted;
    int64_t note_position, note_upto, note_oldest;
    size_t acked;   /* of n_acks; fewer: the rest was not this node's any more */
    size_t n_fates; /* one for each settlement */
    const struct store_fate *fates; /* by id */
    bool looked;
    int64_t first[CURSOR_PRIORITIES];
    size_t claim_limit; /* the size that was asked for */
    size_t n_claimed;
    const struct store_claimed *claimed;
    size_t n_refusals; /* of a claim apart */
    const struct store_refusal *refusals;
};

typedef void (*store_cycle_done)(void *data, const struct store_cycle_result *result);
/* Returns 0, or JOBQ_ENOMEM (then done is not called). Everything that cycle points to is
 * copied. */
int store_cycle(struct store *store, const struct store_cycle *cycle,
                store_cycle_done done, void *data);

/* ids: in any order, lent for the callback. */
struct store_held_result {
    int code;
    const jobq_error *error;
    size_t n;
    const int64_t *ids;
};

typedef void (*store_held_done)(void *data, const struct store_held_result *result);
/* Which of these attempts the node still holds. On the work connection; n: at most
 * STORE_MAX_SETTLE. Returns as store_cycle does. */
int store_held(struct store *store, int64_t node, const int64_t *ids,
               const int32_t *attempts, size_t n, store_held_done done, void *data);

/* The texts of a claimed job, lent for the callback; NULL: they are larger than a frame.
 * bytes: how large they are together, at least. */
struct store_fetched {
    int64_t id;
    const char *args, *meta;
    size_t args_len, meta_len;
    size_t bytes;
};

/* In the order of the ids asked for. A job before the last one that is not among them is
 * not this node's any more; n 0: none is. */
struct store_fetch_result {
    int code;
    const jobq_error *error;
    size_t n;
    const struct store_fetched *fetched;
};

typedef void (*store_fetch_done)(void *data, const struct store_fetch_result *result);
/* Fetches the large args and meta of claimed jobs, on the work connection: one, and more
 * until `bytes` are reached; not those that no frame of max_frame takes. n: 1 …
 * STORE_MAX_FETCH. Returns as store_cycle does. */
int store_fetch(struct store *store, int64_t node, const int64_t *ids, size_t n,
                size_t bytes, size_t max_frame, store_fetch_done done, void *data);

/* The numbers and texts of the rare requests' answers, each by its column's name in
 * jobqd/sql. */
/* clang-format off */
#define ANSWER_NUMBERS(X) \
    X(id) X(pid) X(pid_start) X(mark) X(lease_ms) X(version) X(is_read_committed) X(is_utf8) \
    X(session) X(released) X(remaining) X(removed) X(again) X(ended) X(strays) X(cancelled) \
    X(staged) X(next_ms) X(expired) X(fired) X(queues_changed) X(queues_locked) \
    X(crons_changed) X(crons_locked) X(created) X(more) X(pruned) X(after)
#define ANSWER_TEXTS(X) \
    X(host) X(claims) X(holders) X(reason) X(stories) X(note) X(names) X(fault) X(found) X(remedy)
/* clang-format on */

/* The outcome of the rare requests: rows is how many came back or were changed, the rest
 * the first row of each statement. A boolean is 0 or 1; what is NULL, or does not come
 * with this answer, is 0 or NULL. Texts are lent. */
struct store_answer {
    int code;
    const jobq_error *error;
    size_t rows;
#define X(name) int64_t name;
    ANSWER_NUMBERS(X)
#undef X
#define X(name) const char *name;
    ANSWER_TEXTS(X)
#undef X
};
typedef void (*store_done)(void *data, const struct store_answer *answer);

struct store_cancel {
    int64_t id;
    int32_t attempt;
};

/* What was set with jobq.pause and jobq.scale. */
struct store_setting {
    const char *queue;
    bool paused;
    int workers;      /* -1: as the configuration says */
    int64_t position; /* how far positions have been given out */
};

/* An answer of many rows. Which of the lists it is, says the request; all is lent. */
struct store_list {
    int code;
    const jobq_error *error;
    size_t n;
    union {
        void *items;
        const struct sight *nodes;
        const struct ageing_head *heads;
        const struct store_cancel *cancels;
        const struct store_setting *settings;
    };
};
typedef void (*store_list_done)(void *data, const struct store_list *list);

/* On the work connection: a new session for the node, then the release of what it holds
 * without knowing. session, 0: the node is not registered any more; released:
 * how many jobs; remaining: how many are locked or cannot be changed; claims: these, for
 * store_release. held: ids, copied. */
int store_session(struct store *store, int64_t node, const int64_t *held, size_t n_held,
                  store_done done, void *data);
/* Releases what store_session left, as far as that is possible now. released, remaining,
 * claims. On the maintenance connection. */
int store_release(struct store *store, int64_t node, const char *left, store_done done,
                  void *data);
/* Who holds a lock that the node's statements wait for; holders: empty when there is none.
 * On the maintenance connection. */
int store_lock_holders(struct store *store, int64_t node, store_done done, void *data);

/* On the control and maintenance connections, each a transaction of its own: */
/* version: the schema's, or what it is instead of one; is_read_committed; is_utf8 */
enum {
    STORE_UNRELEASED = -1, /* of a jobq from before the first release */
    STORE_NO_VERSION = -2, /* the schema has no function version() */
    STORE_NO_SCHEMA = -3
};
int store_version(struct store *store, store_done done, void *data);
/* rows 0: the schema is not another's; reason: why it is, and what to do */
int store_foreign(struct store *store, store_done done, void *data);
/* id, pid, pid_start, mark, lease_ms, host */
int store_node_find(struct store *store, const char *name, store_done done, void *data);
/* rows 0: the name is taken; id */
int store_node_insert(struct store *store, const char *name, const char *host, int pid,
                      int64_t pid_start, int64_t lease_ms, store_done done, void *data);
/* rows 0: declared dead */
int store_heartbeat(struct store *store, int64_t node, int64_t lease_ms,
                    const char *queues_json, store_done done, void *data);
/* Notes how an upgrade in place ended. error NULL: version runs now. */
int store_upgraded(struct store *store, int64_t node, const char *version,
                   const char *error, store_done done, void *data);
/* What a node tells of its configuration (node_reloaded in jobqd/sql/node.sql). */
struct store_reload {
    const char *state; /* begun, done, failed or refused; NULL: as it was noted */
    int64_t leaving;   /* processes from before that run a job */
    const char *error; /* JSON strings; NULL: none */
    const char *file;  /* which it reads */
    const char *crons; /* what the database refuses of them */
};

int store_reloaded(struct store *store, int64_t node, const struct store_reload *reload,
                   store_done done, void *data);
/* nodes: every node (jobqd/sql/watch.sql) */
int store_watch(struct store *store, store_list_done done, void *data);
/* Ends the nodes that still have the mark of their sight, and `also` (0: none) whatever
 * its mark. removed: nodes; again, ended: jobs; remaining: jobs whose rows are locked or
 * cannot be changed; note: the first node's name, or what keeps the first job; stories.
 * n: at most STORE_MAX_REAP. */
enum { STORE_MAX_REAP = 100 };
int store_reap(struct store *store, int64_t also, const struct sight *dead, size_t n,
               store_done done, void *data);
/* cancelled: jobs that were cancelled now, since their attempt had ended when the request
 * for it came */
int store_cancel_again(struct store *store, store_done done, void *data);
/* strays: nodes without a row that hold jobs; from now on they have one, with a lease
 * of lease_ms */
int store_strays(struct store *store, int64_t lease_ms, store_done done, void *data);

/* cancels: the attempts on this node that jobq.cancel was called for, ordered by id and
 * attempt. The same ones come again until they have ended. */
int store_cancels(struct store *store, int64_t node, store_list_done done, void *data);

/* settings of this node's queues; node: its name. A queue that was asked for and is
 * missing is not known for now. */
int store_settings(struct store *store, const char *node, const char *const *queues,
                   size_t n, store_list_done done, void *data);

/* heads: each priority's first waiting job, in the order of positions */
int store_ages(struct store *store, const char *queue, store_list_done done, void *data);
/* Writes down how far these attempts say they are, those that still run. with_text: their
 * notes' texts, too. On the control connection. */
int store_progress(struct store *store, int64_t node,
                   const struct progress_buffer_note *notes, size_t n, bool with_text,
                   store_done done, void *data);

int store_goodbye(struct store *store, int64_t node, store_done done, void *data);
int store_idle(struct store *store, const char *queue, int64_t node, bool idle,
               store_done done, void *data);
/* rows 1: we lead */
int store_lead(struct store *store, int64_t node, int64_t lease_ms, store_done done,
               void *data);
/* Stages what is due. staged; next_ms: until the next is due, -1: none */
int store_stage(struct store *store, store_done done, void *data);
/* Ends what expired in the last expired_ms; -1: whenever. expired: how many it found; stories */
int store_expire(struct store *store, int64_t expired_ms, store_done done, void *data);
/* fired: jobs of crons that were enqueued; next_ms: until the next comes, 0: at once, -1:
 * none does */
int store_cron_fire(struct store *store, store_done done, void *data);
/* Crons of nodes that are gone for good. removed: how many; names: which */
int store_cron_sweep(struct store *store, store_done done, void *data);
/* hooks: as hooks_declare has it. queues_changed: how many have another one now */
int store_hooks_declare(struct store *store, const char *node, const char *hooks,
                        store_done done, void *data);
/* What the configuration of the node called name says of its queues' max_attempts and of
 * crons, as one JSON object each, and that the node has come up; fresh: its process has
 * just started. queues_changed, queues_locked, crons_changed, crons_locked; fired:
 * @reboot jobs that were enqueued, remaining: those that are locked; fault: what was
 * refused */
int store_declare_cron(struct store *store, int64_t node, const char *name, bool fresh,
                       const char *queues, const char *sections, store_done done,
                       void *data);
/* History partitions: creates those of the coming days; drops one that is out of its time
 * (more 1: more is left to drop; -1: something is locked). */
int store_partitions_create(struct store *store, store_done done, void *data);
int store_partitions_drop(struct store *store, int64_t keep_completed_ms,
                          int64_t keep_failed_ms, store_done done, void *data);
/* Keys of unique jobs that are gone, a batch: pruned: how many; after: where to go on,
 * 0: that was the end. */
int store_prune_uniques(struct store *store, int64_t after, store_done done, void *data);
/* Deletes some of what is to go sooner than its day: more 1: more is left. -1: it
 * goes with its day. */
int store_prune(struct store *store, int64_t keep_cancelled_ms, int64_t keep_discarded_ms,
                int pages, store_done done, void *data);

#endif
