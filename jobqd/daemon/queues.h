/* queues.h: the queues that this node serves: one producer each, and what holds for all
 * of them (the session, whether claims are held back). The daemon speaks to its producers
 * through here alone.
 *
 * A reload may add queues and remove some. One that was removed drains beside the others,
 * and is forgotten when it is done; if its name comes back meanwhile, both are there.
 */
#ifndef JOBQD_QUEUES_H
#define JOBQD_QUEUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/config/config.h"
#include "jobqd/upgrade/handover.h"
#include "jobqd/db/store.h"
#include "libjobq/buf.h"

struct slot;

/* X(enumerator, what we are waiting for) */
#define QUEUES_STATES(X)                                                                 \
    X(QUEUES_SERVING, "events")                                                          \
    X(QUEUES_ABANDONED, "the killed workers to exit, and queues_come_back")              \
    X(QUEUES_DRAINING, "running jobs to end")

enum queues_state {
#define X(name, meaning) name,
    QUEUES_STATES(X)
#undef X
};

struct queues {
    enum queues_state state;
    uv_loop_t *loop;
    struct store *store;         /* NULL before queues_start */
    struct failures *failures;   /* likewise */
    const struct config *config; /* the newest; lent */
    int64_t node, session;       /* session 0: none is open */
    struct slot **slots;         /* one a queue; see queues_private.h */
    size_t n_slots;
    bool listening; /* notifications are heard */
    bool held_back; /* TSTP */
    /* Every producer has stopped, after queues_drain or queues_abandon. */
    void (*on_all_stopped)(void *owner);
    /* A job that runs says how far it is; see struct pool_events. */
    void (*on_progress)(void *owner, const struct job *job, double done,
                        const char *note);
    /* Every producer stands still, after queues_freeze. */
    void (*on_all_frozen)(void *owner);
    void *owner;
};

void queues_init(struct queues *queues, uv_loop_t *loop,
                 void (*on_all_stopped)(void *owner), void *owner);
/* Starts a producer for each queue of the configuration. Returns 0 or JOBQ_ENOMEM: those
 * that were started are there. */
int queues_start(struct queues *queues, struct store *store, struct failures *failures,
                 const struct config *config);

/* The configuration from now on, while QUEUES_SERVING: new queues are started, those that
 * it does not have drain, by their grace, the others get what it says of them. Each
 * change is logged. A queue for which there is no memory stays as it was, and the log
 * says so. */
void queues_configure(struct queues *queues, const struct config *config);
/* So many workers more or less a queue, at least one, until the next queues_configure or
 * word of jobq.scale. */
void queues_resize(struct queues *queues, int by);
/* What jobq.pause and jobq.scale say, which wins over the configuration. Nothing is
 * claimed for a queue before its settings were read, since queues_attach or since it
 * came: queues_ask_settings goes with each request for them. It returns the queues'
 * names, for free() and lent, or NULL: no memory. */
const char **queues_ask_settings(struct queues *queues, size_t *n);
void queues_take_settings(struct queues *queues, const struct store_list *result);
/* Only when all have stopped. */
void queues_clear(struct queues *queues);

bool queues_stopped(const struct queues *queues);

/* To each producer: see producer.h. */
void queues_attach(struct queues *queues, int64_t node, int64_t session);
void queues_detach(struct queues *queues);
void queues_listening(struct queues *queues, bool listening);
void queues_hold(struct queues *queues, bool held_back);
/* grace_ms bounds each queue's own. */
void queues_drain(struct queues *queues, int64_t grace_ms);
void queues_abandon(struct queues *queues);
/* name: that queue's alone; NULL: all. */
void queues_poke(struct queues *queues, const char *name);

/* jobq.cancel was called for these attempts: see producer_cancel. */
void queues_cancel(struct queues *queues, const struct store_cancel *cancels, size_t n);

/* After queues_abandon, when all have stopped: new producers, with new workers. Returns 0
 * or JOBQ_ENOMEM. */
int queues_come_back(struct queues *queues);

/* The ids of all jobs that are held here; ids has room for queues_held of them. Returns
 * how many. */
size_t queues_held(const struct queues *queues);
size_t queues_held_ids(const struct queues *queues, int64_t *ids);

/* For an upgrade in place: see producer.h. It can while none is being removed or given
 * up, nor changed between exec and command; else *why, of size bytes, says what is not
 * over yet. queues_adopt goes with the records of the queues that are served here, and
 * refuses one of a queue that is not. */
bool queues_can_freeze(const struct queues *queues, char *why, size_t size);
void queues_freeze(struct queues *queues);
void queues_thaw(struct queues *queues);
void queues_put(const struct queues *queues, struct handover *handover);
int queues_adopt(struct queues *queues, const struct handover_reader *reader,
                 jobq_error *err);

/* The oldest cycle that is under way, of any queue; 0: none is. */
int64_t queues_cycle_ms(const struct queues *queues);

/* All queues in figures. */
struct queues_sum {
    int wanted, busy; /* workers */
    size_t held;      /* jobs */
    size_t backing_off;
};
void queues_sum(const struct queues *queues, struct queues_sum *out);

/* How far the last queues_configure is with the workers. */
struct queues_rollout {
    size_t coming;      /* queues of which not all new workers are up that could be */
    size_t leaving;     /* processes from before that run a job, their last one */
    const char *failed; /* the first queue whose new workers do not come up, lent until
                           the loop goes on; or NULL */
    char trouble[600];  /* why */
};
void queues_rollout(const struct queues *queues, struct queues_rollout *out);

/* Appends the state of all queues, one JSON object. */
void queues_describe(const struct queues *queues, struct jobq__buf *out);
/* Logs which queue's cycle has been under way for longer than that. */
void queues_tell_slow(const struct queues *queues, int64_t limit_ms);

#endif
