/* pool.h: the supervised workers of one queue. Give it jobs, it gives back verdicts.
 *
 * The pool starts `wanted` worker processes, one-for-one: each that ends is classified
 * (pure/outcome.h) and replaced at once, unless more than max_restarts ended badly within
 * max_seconds: then the pool backs off (exponential, capped, jittered), and no other pool
 * is touched. It knows jobs and processes, never Postgres.
 *
 * The promise: each job given comes back exactly once, through on_verdict, whatever
 * happens to the processes. A crash is charged to the job at the head of that worker's
 * mailbox alone; the rest come back as RELEASED or are given to another worker by the
 * pool itself. No callback is made from inside pool_give, pool_stop or pool_kill:
 * verdicts arrive from the event loop.
 */
#ifndef JOBQD_POOL_H
#define JOBQD_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/config/config.h"
#include "jobqd/upgrade/handover.h"
#include "jobqd/pure/job.h"
#include "libjobq/buf.h"

struct cJSON;
struct pool; /* private to the files of pool/ */

struct pool_events {
    /* The job has left the pool and is the owner's again (unlinked). verdict is lent for
     * the call. */
    void (*on_verdict)(void *owner, struct job *job, const struct verdict *verdict);
    /* The job says how far it is: done is 0 to 1, note UTF-8 or NULL, lent for the call.
     * May be NULL. */
    void (*on_progress)(void *owner, const struct job *job, double done,
                        const char *note);
    /* pool_room may have grown: a worker said hello, or jobs were answered. Called once
     * after a batch of verdicts, not once a job. */
    void (*on_room)(void *owner);
    /* pool_stop or pool_kill is complete: no process of this pool is left, every job has
     * come back. */
    void (*on_stopped)(void *owner);
};

struct pool_status {
    int wanted;  /* configured workers */
    int booting; /* forked, no hello yet */
    int ready;   /* said hello (exec: idle slots) */
    int busy;    /* hold at least one job */
    int stopping;
    int surge;         /* replacements that boot or stand by, not counted above */
    int outdated;      /* processes that were started before the last pool_configure */
    int outdated_idle; /* of these: without a job */
    int missing;       /* workers that are wanted and have not said hello (exec: 0) */
    bool unproven; /* workers are wanted, and none of the newest program has said hello */
    int failed_boots;  /* of the newest program, since its last hello */
    uint64_t restarts; /* processes started in place of one that ended badly */
    uint64_t crashes;
    bool backing_off;
    int64_t backoff_ms_left;
    /* How the last process ended that ended badly, while none is started for it, or none
     * of the newest program comes up; else "". Lent until the loop goes on. */
    const char *trouble;
};

/* Starts the workers. The pool holds the queue's configuration; events outlive the pool.
 * Returns 0 or a negative JOBQ_E…
 * (memory). A program that cannot be executed is not an error here: it is a boot failure,
 * and backs off. */
int pool_new(struct pool **out, uv_loop_t *loop, const struct queue_config *queue,
             size_t max_frame, const struct pool_events *events, void *owner);

/* How many more jobs the pool takes at this moment: free places in the mailboxes of the
 * workers that are up (an adaptive mailbox is as deep as keeps a worker busy for some 20
 * ms, 1 … 64, and deeper by as many jobs as the worker runs beside the first), less what
 * waits unassigned. For exec programs: as many as can be started soon, with all other
 * queues that start some; at least one. A job that waits for its process would be charged
 * an attempt if this node was lost. */
size_t pool_room(const struct pool *pool);
/* Whether nothing is started for now, after too many bad ends. What is given to it during
 * such a pause, and no worker has room for, comes back as RELEASED: another node may do
 * it sooner. */
bool pool_is_backing_off(const struct pool *pool);
/* The same, or no workers are wanted. */
bool pool_nobody_comes(const struct pool *pool);
/* Jobs wait here for their programs to be started: more would not begin sooner. */
bool pool_starts_late(const struct pool *pool);
/* How many more jobs would be begun at once, by workers that could run more. */
size_t pool_idle(const struct pool *pool);

/* From now on the queue is as this says: its size at once, everything else for each
 * process that is started. Workers that are there are replaced one by one: the
 * replacement says hello first, then a worker without a job is told to go. Also when
 * nothing has changed: a program may be another one by now. A back-off ends. Returns 0,
 * or JOBQ_ENOMEM: it is as it was. Nothing for a pool that stops. */
int pool_configure(struct pool *pool, const struct queue_config *queue, size_t max_frame);

/* n workers from now on, until the next pool_configure. Those that are too many finish
 * what they hold. */
void pool_resize(struct pool *pool, int n);

/* Hands a job over; the pool's until on_verdict. More than pool_room is allowed (they
 * wait in the pool). Frames to one worker are gathered and written once a loop turn. */
void pool_give(struct pool *pool, struct job *job);

/* What no worker has been sent comes back as RELEASED. */
void pool_give_back(struct pool *pool);

/* Somebody has cancelled the job, which the pool holds: one that has not begun comes back
 * as RELEASED; a running one is told to stop, and ended as if its deadline had passed.
 * Its verdict says how it ended. */
void pool_cancel(struct pool *pool, struct job *job);

/* on: what workers answer is not read, so it waits in their sockets, and they wait once
 * those are full: for an owner that has more verdicts than it can get rid of. Everything
 * else goes on: output, hellos, deadlines, crashes, exec programs. What a worker had
 * answered before its end counts as ever, so some verdicts still come. A job whose answer
 * may lie unread is not late meanwhile. Off at first, and lost in an upgrade in place.
 * May be called from inside on_verdict. */
void pool_hold_answers(struct pool *pool, bool on);

/* Graceful: nothing new is started, jobs that have not begun come back as RELEASED at
 * once; each worker is told to stop and finishes the job that it runs; after grace_ms
 * what is left is stopped as pool_kill does. May be called again with a smaller grace. */
void pool_stop(struct pool *pool, int64_t grace_ms);

/* At once: SIGKILL to every worker's process group. Running jobs come back as RELEASED
 * too. */
void pool_kill(struct pool *pool);

void pool_status(const struct pool *pool, struct pool_status *out);
/* Adds to the JSON object the kinds that a worker of the last program that came up
 * handles; nothing where it takes every kind, none has said hello, or that would be more
 * than 16 KiB: it goes with each heartbeat. */
void pool_add_kinds(const struct pool *pool, struct cJSON *object);

/* For an upgrade in place; see worker_handover.h. pool_can_freeze: it is open, and of a
 * queue that a reload has changed between exec and command no process from before is
 * left. pool_freeze: what no worker has been sent comes back as RELEASED, from the loop;
 * the workers are left alone, whatever they say or do. While it lasts no other function
 * that changes the pool may be called, but pool_put, once pool_is_still. */
bool pool_can_freeze(const struct pool *pool);
void pool_freeze(struct pool *pool);
void pool_thaw(struct pool *pool);
/* It holds nothing but what workers were sent. */
bool pool_is_still(const struct pool *pool);
/* Adds to the record that was begun, and appends those of the workers. */
void pool_put(const struct pool *pool, struct handover *handover);
/* Right after pool_new: reads what pool_put added to *entry, and takes over the workers
 * of the records behind it; *entry is the first record that is not theirs, or NULL,
 * afterwards. Each of their jobs is told to on_job. The pool is frozen then. */
int pool_adopt(struct pool *pool, const struct handover_reader *reader,
               const struct handover_entry **entry,
               void (*on_job)(void *owner, struct job *job), jobq_error *err);

/* Only after on_stopped. */
void pool_free(struct pool *pool);

#endif
