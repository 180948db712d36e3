/* producer.h: the actor that keeps one queue's workers fed: claims, hands over,
 * acknowledges.
 *
 * One cycle is under way at a time: what was gathered while the last one was out (acks,
 * settlements) and the next claim go together. No timer drives a busy queue; an idle one
 * is woken by a notification, and by polls that slow down to poll_interval, which alone
 * would do.
 *
 * It owns the queue's pool, cursor and outbox. It does not know leases: the node tells it
 * when it may claim (producer_attach), when the work connection is away
 * (producer_detach), and when all is lost (producer_abandon).
 */
#ifndef JOBQD_PRODUCER_H
#define JOBQD_PRODUCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/actors/failures.h"
#include "jobqd/config/config.h"
#include "jobqd/upgrade/handover.h"
#include "jobqd/pool/pool.h"
#include "jobqd/db/store.h"

struct cJSON;
struct producer;

/* X(enumerator, what we are waiting for) */
#define PRODUCER_STATES(X)                                                               \
    X(PRODUCER_DETACHED, "a registered node and a work connection")                      \
    X(PRODUCER_CLAIMING, "jobs, answers and room")                                       \
    X(PRODUCER_FREEZING, "the last answers to be confirmed before it freezes")           \
    X(PRODUCER_FROZEN, "another program to take over, or the order to continue")         \
    X(PRODUCER_DRAINING, "running jobs to finish and their acks to be confirmed")        \
    X(PRODUCER_ABANDONING,                                                               \
      "killed workers to exit; their jobs no longer belong to this node")                \
    X(PRODUCER_STOPPED, "nothing")

enum producer_state {
#define X(name, meaning) name,
    PRODUCER_STATES(X)
#undef X
};

/* Why a producer claims nothing new, as bits: each is set and lifted by itself. */
enum producer_hold {
    PRODUCER_HOLD_SIGNAL = 1, /* TSTP, until CONT */
    PRODUCER_HOLD_PAUSED = 2, /* jobq.pause, until jobq.resume */
    PRODUCER_HOLD_UNREAD = 4  /* until it is known whether it is paused */
};

struct producer_options {
    uv_loop_t *loop;
    struct store *store;
    const struct queue_config *queue; /* held by the producer */
    size_t max_frame;
    int64_t poll_interval_ms;
    bool unsafe_base; /* test seam: see cursor.h */
    bool lost_cycle;  /* test seam: no cycle is answered, as if we had forgotten it */
    /* The workers are gone and nothing waits to be confirmed (after producer_drain), or
     * the workers are gone (after producer_abandon). */
    void (*on_stopped)(void *owner);
    void (*on_frozen)(void *owner); /* after producer_freeze */
    /* A job that runs says how far it is; see struct pool_events. */
    struct failures *failures; /* told of attempts that failed */
    void (*on_progress)(void *owner, const struct job *job, double done,
                        const char *note);
    void *owner;
};

/* Counters since the start, for the log, jobqd queues and tests. */
struct producer_stats {
    uint64_t claimed;
    uint64_t acked;
    uint64_t refused; /* acks that the database no longer wanted from this node */
    size_t held;      /* claimed and not yet confirmed */
};

/* Starts the workers; claims nothing before producer_attach. */
int producer_new(struct producer **out, const struct producer_options *options);
void producer_free(struct producer *producer); /* only when stopped */

/* The node is registered and its work session is open: claims begin, what is in the
 * outbox is sent. */
void producer_attach(struct producer *producer, int64_t node, int64_t session);
/* The work connection is away: running jobs go on, their acks are kept. */
void producer_detach(struct producer *producer);
/* Some job may be there for this queue. Cheap; safe in any state. */
void producer_poke(struct producer *producer);
/* Whether notifications are heard: only then is an idle mark of use. Off until told. */
void producer_listening(struct producer *producer, bool listening);
/* The queue's configuration from now on, and that of the other options; see
 * pool_configure. Returns 0 or JOBQ_ENOMEM: all is as it was. */
int producer_configure(struct producer *producer, const struct queue_config *queue,
                       size_t max_frame, int64_t poll_interval_ms);
/* n workers, until the next producer_configure. */
void producer_resize(struct producer *producer, int n);
/* on: claims nothing new for that reason; running jobs go on. A pause also gives back at
 * once what no worker has been sent. It goes on when no reason is left. */
void producer_hold(struct producer *producer, enum producer_hold why, bool on);
/* How far positions are given out now: for `ageing`, twice a second or so. */
void producer_note_position(struct producer *producer, int64_t position);
/* jobq.cancel was called for these attempts, ordered by id and attempt. Those that are
 * held here end, as cancelled unless they complete first. Cheap when it was told before.
 */
void producer_cancel(struct producer *producer, const struct store_cancel *cancels,
                     size_t n);
/* Graceful end: gives back what has not begun, lets the rest finish for grace_ms;
 * on_stopped when all is confirmed. May be called again with a smaller grace. */
void producer_drain(struct producer *producer, int64_t grace_ms);
/* The same for a queue that this node serves no longer, while it goes on: inserters do
 * not wake it for that queue any more. */
void producer_leave(struct producer *producer, int64_t grace_ms);
/* The lease is lost: kills the workers, forgets jobs and acks (the lifeline gives them to
 * others); on_stopped. */
void producer_abandon(struct producer *producer);

/* Stands still, for an upgrade in place: claims nothing, gives back what no worker has
 * been sent, and leaves the workers alone: what they say stays unread. on_frozen
 * (options) when all that was said before is confirmed; never, while the database is
 * away. Then producer_put may follow, and nothing else but producer_thaw: that is allowed
 * at any time. producer_can_freeze: it goes on, and its workers are of one mode (see
 * pool_can_freeze). */
bool producer_can_freeze(const struct producer *producer);
void producer_freeze(struct producer *producer);
void producer_thaw(struct producer *producer);
/* Appends a record "queue", and those of its workers. scaled: the workers that
 * jobq.scale has set, -1: none; resized: so many more than that, or than the
 * configuration says. */
void producer_put(const struct producer *producer, int scaled, int resized,
                  struct handover *handover);
/* Right after producer_new: takes the workers of the record *entry over, a "queue";
 * *entry is the first record that is not its own, or NULL, afterwards. */
int producer_adopt(struct producer *producer, const struct handover_reader *reader,
                   const struct handover_entry **entry, jobq_error *err);

/* For how long a cycle has been under way; 0: none is. */
int64_t producer_cycle_ms(const struct producer *producer);
/* Logs, once a cycle, that it has been under way for longer than that. */
void producer_tell_slow(struct producer *producer, int64_t limit_ms);

enum producer_state producer_state(const struct producer *producer);
const char *producer_queue(const struct producer *producer);
void producer_stats(const struct producer *producer, struct producer_stats *out);
void producer_pool_status(const struct producer *producer, struct pool_status *out);
void producer_add_kinds(const struct producer *producer, struct cJSON *object);

/* The ids of all jobs that this producer holds, waiting, running or unconfirmed; ids has
 * room for producer_held. */
size_t producer_held(const struct producer *producer);
size_t producer_held_ids(const struct producer *producer, int64_t *ids);

#endif
