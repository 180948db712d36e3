/* worker.h: one worker process's life, from its fork to its last handle's close.
 *
 * The state machine of a process that we expect to lose. It holds the jobs that it was
 * given, in the order in which they were given. It runs as many at a time as its hello
 * has said, one unless it says more; the oldest of them is the head. They are the only
 * ones that a crash is charged to; a deadline ends the process for the job that is late,
 * and those that run beside it go back uncounted. Knows its own process alone: how many
 * there are, which one gets a job, and when another takes its place is the supervisor's
 * business.
 *
 * Verdicts are never given from inside worker_give, worker_flush, worker_stop or
 * worker_kill.
 */
#ifndef JOBQD_WORKER_H
#define JOBQD_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/config/config.h"
#include "jobqd/proc/channel.h"
#include "jobqd/proc/output.h"
#include "jobqd/proc/spawn.h"
#include "jobqd/proc/turns.h"
#include "jobqd/pure/job.h"
#include "jobqd/pure/list.h"
#include "jobqd/pure/outcome.h"
#include "jobqd/pool/boots.h"
#include "jobqd/pool/launch.h"
#include "jobqd/pool/forkserver.h"
#include "jobqd/pool/watch.h"

/* X(enumerator, what we are waiting for). A program that is executed begins as
 * WORKER_BOOTING, an exec program as WORKER_BUSY. */
#define WORKER_STATES(X)                                                                 \
    X(WORKER_UNFORKED, "its forkserver to fork it")                                      \
    X(WORKER_BOOTING, "its hello")                                                       \
    X(WORKER_IDLE, "a job")                                                              \
    X(WORKER_BUSY, "an answer")                                                          \
    X(WORKER_STOPPING, "its last answers and its exit")                                  \
    X(WORKER_CANCELLING, "its answers for the jobs that it was asked to stop")           \
    X(WORKER_LEAVING, "its exit: it closed its socket")                                  \
    X(WORKER_TERMINATING, "its exit after SIGTERM")                                      \
    X(WORKER_KILLING, "its exit after SIGKILL")                                          \
    X(WORKER_ENDED, "its handles to close")

enum worker_state {
#define X(name, meaning) name,
    WORKER_STATES(X)
#undef X
};

#define WORKER_NOWHERE SIZE_MAX

enum worker_wanted {
    WANTED_UP,
    WANTED_RETIRED, /* finish all that it holds, then go: another takes its place */
    WANTED_STOPPED, /* finish the job that it runs, then go */
    WANTED_GONE     /* at once */
};

/* X(enumerator, why the worker is to be replaced, for the log) */
#define WORKER_DUE(X)                                                                    \
    X(DUE_NOT, "")                                                                       \
    X(DUE_JOBS, "it has reached max_jobs")                                               \
    X(DUE_AGE, "it has reached max_age")                                                 \
    X(DUE_MEMORY, "it has grown beyond max_memory")                                      \
    X(DUE_CONFIG, "it runs the old configuration")

enum worker_due {
#define X(name, reason) name,
    WORKER_DUE(X)
#undef X
};

/* What workers that were started alike share. Outlives them. */
struct worker_program {
    uv_loop_t *loop;
    const struct queue_config *queue;
    size_t max_frame;
    struct launch_plan plan;
    struct watch *watch;
    char *chunk; /* IO_CHUNK bytes to read through */

    /* The workerset's. */
    size_t users;     /* workers, its forkserver, and the pool itself */
    int failed_boots; /* since the last hello */

    /* The forkservers's. */
    struct forkserver *forkserver; /* what workers are forked from (preload) */
    struct list nursed;            /* among those with a forkserver */
};

struct worker;

struct worker_events {
    /* Said hello: takes jobs from now on. */
    void (*on_ready)(void *owner, struct worker *worker);
    /* Takes no more jobs, for now or for ever. What it was given but not sent is on
     * worker->unsent: the owner's to take, by worker_take_unsent. Comes from inside
     * worker_stop and worker_kill too. */
    void (*on_withdrawn)(void *owner, struct worker *worker);
    /* The job has left the worker. verdict is lent for the call. */
    void (*on_verdict)(void *owner, struct worker *worker, struct job *job,
                       const struct verdict *verdict);
    /* It has ended a job, or is idle, and uses more than the queue's max_memory. Once in
     * its life. Comes from inside a read or a measurement. */
    void (*on_over_memory)(void *owner, struct worker *worker);
    /* The job says how far it is: done is 0 to 1, note UTF-8 or NULL, lent for the call.
     */
    void (*on_progress)(void *owner, struct worker *worker, const struct job *job,
                        double done, const char *note);
    /* n answers have come together, for which the worker took elapsed_ns; 0: that is not
     * known. */
    void (*on_answers)(void *owner, struct worker *worker, size_t n, uint64_t elapsed_ns);
    /* The process is gone and reaped, what it ran judged. What jobs it leaves behind, not
     * to blame for anything and in order, the owner must take off worker->sent in this
     * call. */
    void (*on_end)(void *owner, struct worker *worker, const struct outcome *outcome);
    /* Nothing refers to the worker any more: worker_free. */
    void (*on_gone)(void *owner, struct worker *worker);
};

/* What has to outlive an upgrade in place is named in worker_handover.c, too. */
struct worker {
    enum worker_state state; /* changed by set_state alone */
    enum worker_wanted wanted;
    enum intent intent;
    char name[160];    /* "QUEUE/wN" */
    char subject[192]; /* for the log: "worker QUEUE/wN pid P" */
    struct worker_program *program;
    const struct worker_events *events;
    void *owner;

    struct forkserver_request fork_handoff; /* UNFORKED */
    struct boot boot;                       /* until its hello */
    uint64_t begun_ns;                      /* when it was wanted */
    uint64_t gap_ns; /* when its place became empty by a bad end; 0: it did not */
    struct child child;
    int sent_signal;
    bool said_hello;
    char **kinds; /* sorted; NULL: takes every kind */
    size_t n_kinds;

    size_t concurrency; /* how many jobs it runs at a time, as its hello has said */
    bool held;          /* its answers are not read: see worker_hold */
    bool told_of_order; /* the log has said that it answers jobs before their turn */

    struct list running; /* begun, as far as we know, oldest first: the head */
    struct list sent;    /* behind them, in the same order */
    struct list unsent;  /* given, but not yet put into the channel's buffer */
    size_t n_running;
    size_t n_jobs; /* on all three lists */
    size_t n_late; /* of the running, those that were told to stop: late_ns */
    uint64_t answered;
    size_t batch;           /* answers in the read that is being handled */
    uint64_t batch_ns;      /* its time */
    uint64_t batch_from_ns; /* since when the worker worked for it */
    char complaint[256];    /* how it broke the protocol, or "" */

    /* Limits and use. A job is known by when it started: started_ns. What processor time
     * a job uses is not known where several run at a time. */
    struct watched watched;
    bool is_large;         /* used more than max_memory when last measured */
    bool over_memory;      /* on_over_memory was called */
    uint64_t exceeded_ns;  /* too much was used, whatever of, by what had started by then;
                              0: it was not */
    int64_t exceeded_kb;   /* memory, if that was it */
    uint64_t cpu_from_ns;  /* the job for which the group's processor time is counted, */
    int64_t cpu_from_us;   /* from this on */
    uint64_t marked_ns;    /* the job that was the head when these were noted: */
    int64_t marked_cpu_us; /* the process's own processor time */
    int64_t end_cpu_us;    /* of the head, from its mark to the end; -1: not known */
    int64_t peak_kb;       /* memory of the whole group; -1: was not measured */
    int64_t seen_peak_kb;  /* the process's own, when it was looked at; -1: never */
    bool hit_limit;        /* the kernel ended it at max_memory_hard */

    uint64_t entered_ns; /* when the state was entered */
    uint64_t quiet_ns;   /* when it last held no job */
    uint64_t armed_ns;   /* for when the timer is set; 0: it is not */

    uv_timer_t timer;
    uv_poll_t exit_poll;    /* on the pidfd */
    struct turn end_turn;   /* its end was seen, and is to be taken */
    struct turn kill_turn;  /* KILLING: to be sent SIGKILL */
    struct channel channel; /* an exec program's is closed from the start */
    struct output_rate *rate;
    struct output output;
    uint64_t heard; /* what it had printed when it last said something, or was idle */
    int exit_tries; /* the process has ended, but so often its end could not be taken */
    int n_handles;  /* not yet closed */

    /* The supervisor's. */
    int slot;
    struct list place; /* among the workers of the same load */
    size_t placed_at;  /* that load, or WORKER_NOWHERE */
    struct list dirty; /* among those with something to write */
    bool cordoned;     /* gets no more jobs: it is to go once it has none */
    enum worker_due due;
    uint64_t most_jobs;  /* due when it has answered so many; 0: never */
    uint64_t expires_ns; /* due then (clock_ns); 0: never */
};

/* Starts a process, or asks the program's forkserver for one. job: what an exec program is
 * for (the worker's from now on); NULL in command mode. Returns 0 or a negative JOBQ_E…:
 * then there is no worker, and the job is still the caller's. */
int worker_new(struct worker **out, struct worker_program *program, int slot,
               struct output_rate *rate, struct job *job,
               const struct worker_events *events, void *owner, jobq_error *err);
void worker_free(struct worker *worker);

/* Whether it may be given a job. */
bool worker_takes_jobs(const struct worker *worker);
/* Whether its program lists that kind. */
bool worker_handles(const struct worker *worker, const char *kind);

/* Hands a job over, at now_ns (clock_ns). Its frame goes out with the next worker_flush.
 */
void worker_give(struct worker *worker, struct job *job, uint64_t now_ns);
void worker_flush(struct worker *worker);

/* When its head became the head (clock_ns). It must hold a job. */
uint64_t worker_busy_since(const struct worker *worker);

/* Moves the jobs that were given but not sent to the end of `to`. */
void worker_take_unsent(struct worker *worker, struct list *to);

/* Acts for those of its jobs that are JOB_CANCEL_ASKED: the head is told to stop, and
 * ended as one that is past its deadline; one behind it is asked back. What was not sent
 * yet goes to the end of `unsent`. */
void worker_cancel(struct worker *worker, struct list *unsent);

/* on: what it says after its hello is not read. See pool_hold_answers. */
void worker_hold(struct worker *worker, bool on);

/* Tells it to finish the job that it runs and go. What it was sent but has not begun is
 * asked back. */
void worker_stop(struct worker *worker);
/* Tells it to finish all that it holds and go. */
void worker_retire(struct worker *worker);
/* SIGKILL to its process group, as soon as its turn comes (proc/turns.h). */
void worker_kill(struct worker *worker);

const char *worker_state_meaning(enum worker_state state);

#endif
