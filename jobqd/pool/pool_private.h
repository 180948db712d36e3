/* pool_private.h: what the files of a pool share. Not for anybody else.
 *
 * From the bottom: program.c: what a worker is started with; pace.c: when something may
 * be done; dispatch.c: which worker gets which job; forkservers.c: the forkservers that workers
 * are forked from; workerset.c: which processes there are, against which there should be;
 * pool.c: its public face, and what workers say. Beside it pool_handover.c: how the
 * workers are left to another program.
 */
#ifndef JOBQD_POOL_PRIVATE_H
#define JOBQD_POOL_PRIVATE_H

#include "jobqd/pure/intensity.h"
#include "jobqd/pure/mailbox.h"
#include "jobqd/pure/outcome.h"
#include "jobqd/pool/pool.h"
#include "jobqd/pool/worker.h"

/* X(enumerator, what we are waiting for) */
#define POOL_STATES(X)                                                                   \
    X(POOL_OPEN, "jobs")                                                                 \
    X(POOL_DRAINING, "the workers to finish their jobs")                                 \
    X(POOL_KILLING, "the killed workers to exit")                                        \
    X(POOL_CLOSING, "its handles to close")                                              \
    X(POOL_STOPPED, "pool_free")

enum pool_state {
#define X(name, meaning) name,
    POOL_STATES(X)
#undef X
};

/* A place for one process. */
struct slot {
    int number;
    struct worker *worker;   /* NULL: empty */
    struct output_rate rate; /* belongs to the place, not to the process: see output.h */
    bool replaces;           /* its last process ended badly */
    uint64_t gap_ns;         /* when that was seen; 0: it did not */
};

struct pool {
    enum pool_state state;
    char subject[160]; /* for the log: "queue NAME" */
    const struct pool_events *events;
    void *owner;
    /* pool.c's, for those below it. */
    uv_idle_cb on_turn;
    uv_timer_cb on_timer;
    const struct worker_events *worker_events;
    char *chunk;         /* IO_CHUNK bytes, for all workers to read through */
    struct watch *watch; /* what the workers use; NULL once they are gone */

    /* The workerset's: see workerset.c. */
    struct worker_program *program; /* the newest: what is to run */
    struct worker_program
        *last_good;      /* the last one of which a worker said hello, or NULL */
    int n_wanted;        /* workers, or programs that run at once */
    struct slot **slots; /* as many as were ever needed at once */
    int n_slots;
    int n_filled;         /* slots with a process */
    int n_lives;          /* workers whose memory is still in use, also after their slot
                             was given on */
    int n_cordoned;       /* workers that are to go once they have no job */
    struct worker *surge; /* a replacement that boots, or stands by; takes no jobs yet */
    bool needs_reconcile; /* something has happened that workerset_step should look at */
    bool rolling;         /* workers of an older program are left, or were */
    struct intensity replacing; /* how long to wait after a surge worker that failed */
    struct list nursed;         /* programs that have a forkserver: see forkservers.c */

    struct list waiting; /* jobs without a worker */
    size_t n_waiting;
    struct list by_load[MAILBOX_MAX + 1]; /* workers that take jobs, by how many */
    size_t n_by_load[MAILBOX_MAX + 1];
    size_t lowest;     /* no worker holds fewer jobs */
    struct list dirty; /* workers with something to write */
    struct mailbox mailbox;
    size_t concurrency; /* how many jobs a worker runs at a time */

    struct intensity intensity;
    char trouble[OUTCOME_TEXT]; /* how the last process ended that ended badly */
    uint32_t random;
    bool room_changed; /* on_room is owed */
    bool frozen;       /* see pool_freeze */
    bool holds;        /* see pool_hold_answers */
    bool gives_back;   /* pool_give_back was called, and return_unsent is owed */
    bool cancels;      /* some job here was cancelled, and pass_on_cancels is owed */
    uint64_t restarts;
    uint64_t crashes;

    bool counts_as_exec;      /* among the pools that start exec programs */
    struct boots_asker boots; /* some workers wait until others have booted */
    struct turn start_turn;   /* processes wait to be started */
    bool may_start;           /* its turn has come: one may be */
    uv_idle_t turn_soon;      /* runs `turn` before the loop waits again */
    uv_timer_t timer;         /* POOL_OPEN: the workerset's; POOL_DRAINING: the grace's */
    int n_handles;
};

/* MAX_SLOTS: more than concurrency and a surge worker may ever need. */
enum { MAX_SLOTS = 10000 };

/* ---- program.c ---- */

/* *out is the caller's, until worker_program_unref. Returns 0, or a negative JOBQ_E…,
 * which is logged. */
int worker_program_new(struct worker_program **out, struct pool *pool, uv_loop_t *loop,
                       const struct queue_config *queue, size_t max_frame);
struct worker_program *worker_program_ref(struct worker_program *program);
/* The last one frees it. NULL is accepted. */
void worker_program_unref(struct worker_program *program);

/* ---- pace.c ---- */

/* The pool's next turn comes before the loop waits again. */
void pool_ask_for_turn(struct pool *pool);
/* Whether a process may be started now. If not, the pool's next turn is when one may. */
bool pool_may_start(struct pool *pool);
uint32_t pool_random(struct pool *pool);
bool pool_is_exec(const struct pool *pool);
/* How long nothing is started, after too many bad ends; 0: things are. */
int64_t pool_pause_left_ms(const struct pool *pool);
void pool_note_bad_end(struct pool *pool);

/* ---- dispatch.c ---- */

/* Puts the worker where it belongs now among those that take jobs: nowhere, if it takes
 * none. */
void pool_place(struct pool *pool, struct worker *worker);
void pool_unplace(struct pool *pool, struct worker *worker);
void pool_note_concurrency(struct pool *pool, const struct worker *worker);
/* How many jobs a worker holds that runs `concurrency` of them at a time: the mailbox
 * counts one of those, and the jobs that wait behind it. */
size_t dispatch_depth(const struct pool *pool, size_t concurrency);
/* The worker has something to write. */
void dispatch_make_dirty(struct pool *pool, struct worker *worker);
void dispatch_hand_back(struct pool *pool, struct job *job,
                        const struct verdict *verdict);
/* A verdict on a job that no process has seen. */
void dispatch_refuse(struct pool *pool, struct job *job, enum verdict_kind kind,
                     const char *error);
/* The first job of the line; NULL: none waits. */
struct job *dispatch_pop_waiting(struct pool *pool);
void pool_release_waiting(struct pool *pool);
/* Puts jobs in front of the line, in their order: they were claimed before those that
 * wait. */
void dispatch_wait_again(struct pool *pool, struct list *jobs);
/* Takes what the worker was given and has not been sent: others may have it. */
void pool_take_back(struct pool *pool, struct worker *worker);
/* Requests to cancel reach the jobs where they are by now. */
void dispatch_cancels(struct pool *pool);
/* Gives waiting jobs to workers with room. */
void dispatch_to_workers(struct pool *pool);
/* Writes to the workers what dispatch_make_dirty noted. */
void dispatch_flush(struct pool *pool);
/* Gives back all jobs that no worker has been sent. */
void dispatch_return_unsent(struct pool *pool);

/* ---- workerset.c ---- */

/* What workers are to be started with from now on; those of an older one are replaced,
 * one by one. Returns 0, or a negative JOBQ_E… (logged): nothing has changed. */
int workerset_set_program(struct pool *pool, uv_loop_t *loop,
                          const struct queue_config *queue, size_t max_frame);
void workerset_clear(struct pool *pool);
/* Starts an exec program for that job. Returns 0, or a negative JOBQ_E…: the job is still
 * the caller's. */
int workerset_start_exec(struct pool *pool, struct job *job);

/* What has happened to a worker. */
void workerset_hello(struct pool *pool, struct worker *worker);
void workerset_answered(struct pool *pool, struct worker *worker);
void workerset_ended(struct pool *pool, struct worker *worker,
                     const struct outcome *outcome);
void workerset_gone(struct pool *pool, struct worker *worker);

/* The worker is to be replaced for that reason, when its replacement is up. */
void workerset_replace(struct pool *pool, struct worker *worker, enum worker_due due);

/* The place of that number; NULL: no memory for it. */
struct slot *workerset_slot(struct pool *pool, int number);
/* A worker that was taken over is the pool's now, in that place. */
void workerset_adopt(struct pool *pool, struct slot *slot, struct worker *worker);

/* Compares the processes that there are with those that should be, and moves a step
 * closer. Sets the timer for when it wants to look again. */
void workerset_step(struct pool *pool);

/* ---- forkservers.c ---- */

/* Starts the forkservers that are needed, lets go those that are not. */
void forkservers_step(struct pool *pool);
/* All of them are killed, until the next forkservers_step: a daemon that leaves its workers
 * to another program leaves no forkservers. */
void forkservers_put_away(struct pool *pool);
bool forkservers_is_away(const struct pool *pool);
/* The pool stops: all of them go, or are killed. */
void forkservers_close(struct pool *pool, bool kill);

#endif
