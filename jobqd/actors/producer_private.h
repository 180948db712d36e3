/* producer_private.h: what the files of a producer share. No other file includes it.
 *
 * From the bottom:
 *   producer_jobs.c     the jobs in memory, and the way each of them ends
 *   producer_tell.c     what the log says about single jobs
 *   producer_holders.c  which session holds the lock that we wait for
 *   producer_retry.c    what the database refused: when to send it again, in which parts
 *   producer_doubts.c   acks that the database did not accept
 *   producer_mark.c     whether inserters notify us
 *   producer_ages.c     how long jobs have been waiting
 *   producer_room.c     how many jobs the workers and the memory have room for
 *   producer_fetch.c    large arguments, fetched after the claim
 *   producer_cycle.c    one round trip: what it sends, and what we learn from its answer
 *   producer_step.c     looks at all of this and does the next thing
 *   producer_upgrade.c  the hand-over to another program
 *   producer.c          the public face
 *
 * An answer from the database arrives in a low file, which records it and then calls
 * p->step. No file calls one that is further down in this list.
 */
#ifndef JOBQD_PRODUCER_PRIVATE_H
#define JOBQD_PRODUCER_PRIVATE_H

#include "jobqd/actors/outbox.h"
#include "jobqd/actors/producer.h"
#include "jobqd/pure/ageing.h"
#include "jobqd/pure/cursor.h"
#include "jobqd/pure/list.h"
#include "jobqd/pure/outcome.h"
#include "jobqd/pure/claim_pacer.h"

enum {
    /* Claimed jobs that no worker has room for: how often to look whether the pool still
     * starts workers. While it does not, they go back after this time. */
    PRODUCER_HELD_FOR_MS = 500
};

/* What is known about the queue's line of available jobs. */
enum line {
    LINE_UNKNOWN, /* there may be some: claim to see */
    LINE_MORE,    /* the last claim came back full, or a look found something */
    LINE_SHORT,   /* the last claim came back short: a look will tell */
    LINE_EMPTY    /* a look found nothing: poll, and wait to be woken */
};

/* Whether we know how long the jobs from before our start have waited. */
enum ages { AGES_UNKNOWN, AGES_ASKED, AGES_KNOWN };

/* ---- the idle mark ---- */

/* Whether inserters notify us for this queue (jobq._idle). */
enum mark_state { MARK_OFF, MARK_SETTING, MARK_ON, MARK_CLEARING };

/* A row in jobq._idle, which tells inserters that this node waits for jobs of the queue.
 * It knows neither jobs nor cycles. */
struct producer_mark {
    enum mark_state state;
    bool doubtful;         /* MARK_ON, but the row may be gone: to be set again */
    bool listening;        /* notifications are heard; otherwise a mark is of no use */
    uint64_t not_until_ns; /* the database refused it: not set before then */
    struct store *store;
    /* The answer has come; `state` is MARK_ON or MARK_OFF. failed: it is not known
     * whether the row is there, which counts as a doubtful MARK_ON. */
    void (*on_answer)(void *owner, bool failed);
    void *owner;
};

/* ---- the producer ---- */

/* The arguments that are being fetched. */
struct producer_fetch {
    int64_t asked[STORE_MAX_FETCH]; /* ids of their jobs */
    size_t n;                       /* 0: none are */
    bool singly;                    /* the database refused a fetch of several */
};

/* The session that holds the lock that we wait for. */
struct producer_holders {
    bool asked;      /* the request is under way */
    uint64_t ask_ns; /* not asked before then */
    char text[160];  /* who it was */
    uint64_t told_ns;
};

/* When, and in which parts, something is sent after a failure. */
struct producer_retry {
    uint64_t at_ns; /* nothing is sent before then */
    int64_t wait_ms;
    int passing;             /* failures in a row that were about the server */
    uint64_t split_until_ns; /* until then, cycles have either answers or a claim … */
    bool answers_last;       /* … and the last one had answers */
    uint64_t claim_at_ns;    /* no claim before then: the last one met a lock or was
                             refused */
    int64_t claim_wait_ms;
    int claims_locked; /* claims in a row that met a lock */
    /* What the database said of the last claim that it refused, until it is logged. */
    char claim_refusal[sizeof((jobq_error *)0)->message];
    uint64_t apart_until_ns; /* until then, jobs are claimed one by one, and those that
                                the database refuses are passed over */
};

/* How much was logged about single jobs. */
struct producer_tells {
    uint64_t refused_ns; /* when refused answers were last logged */
    uint64_t window_ns;  /* the current window's start */
    unsigned in_window;  /* jobs locked or refused in it, logged or not */
};

struct producer {
    struct producer_options options;
    char subject[160]; /* for the log: "queue NAME" */
    enum producer_state state;
    int64_t node;
    int64_t session;
    bool attached;
    unsigned holds; /* of enum producer_hold; 0: may claim */
    bool leaves;    /* producer_leave: the idle mark is still to be cleared */
    uint32_t random;
    uv_timer_t timer; /* producer_step.c */
    /* producer_step, for the files below producer_step.c. It never frees the producer. */
    void (*step)(struct producer *p);
    struct producer_stats stats;

    struct pool *pool; /* NULL once it has stopped and was freed */
    bool pool_stopped;

    /* Jobs. */
    struct list ready; /* claimed, not handed over */
    size_t n_ready;
    uint64_t held_ns; /* since when they have waited for a pool that starts no workers;
                         0: not so */
    struct list all;  /* every job in memory, by `held` */
    size_t n_all;
    size_t bytes;       /* of their args and meta */
    struct list unsaid; /* ended when there was no memory to record it: released later */
    struct outbox outbox;
    bool heavy; /* the outbox holds too much: workers' answers are left unread */

    /* The cycle. */
    bool in_flight;    /* one is under way … */
    uint64_t sent_ns;  /* … since then */
    bool told_slow;    /* it was logged that this one takes long */
    bool claimed_last; /* the newest cycle has a claim … */
    bool apart_last;   /* … of jobs one by one */
    uint64_t noted_ns;
    uint64_t whole_look_ns;
    struct cursor cursor;
    int64_t sent_cursors[CURSOR_PRIORITIES];
    struct claim_pacer pacer;
    enum line line;

    struct ageing ageing;
    enum ages ages;
    struct producer_mark mark;
    struct producer_fetch fetch;
    struct producer_retry retry;
    struct producer_holders holders;
    bool doubts_asked; /* producer_doubts.c: a request is under way */
    struct producer_tells tells;
};

/* ---- producer_jobs.c ---- */

/* The verdict on a job that goes back to the queue without having begun. */
extern const struct verdict producer_released;

/* Frees a job, which is in no list but `all`. */
void producer_forget_job(struct producer *p, struct job *job);
/* Frees all jobs of the list. */
void producer_drop_jobs(struct producer *p, struct list *list);
/* The job ended like this: records it in the outbox and frees the job. Without memory
 * for that, the job waits in `unsaid`. */
void producer_settle(struct producer *p, struct job *job, const struct verdict *verdict);
/* Gives back all claimed jobs that no worker has been given. */
void producer_release_ready(struct producer *p);
/* Gives back the jobs in `unsaid`, as far as there is memory. */
void producer_release_unsaid(struct producer *p);
/* Holds the workers' answers back while the outbox has too much, and takes them again
 * afterwards. To be called when the outbox has grown or shrunk. */
void producer_weigh_outbox(struct producer *p);
/* The outbox has answers to be sent now. */
bool producer_answers_due(const struct producer *p, uint64_t now_ns);
/* The next job for a worker; only while n_ready > 0. */
struct job *producer_first_ready(const struct producer *p);

/* ---- producer_tell.c ---- */

/* An outbox_tell: logs what the database did with an attempt's end. */
bool producer_tell_fate(void *owner, const struct settled *s,
                        const struct store_fate *fate, bool first);
/* Logs the jobs that the database refused to let be claimed. */
void producer_tell_refusals(struct producer *p, const struct store_cycle_result *result);
/* Counts answers that the database did not accept, and logs the sum once a minute. */
void producer_note_refused(struct producer *p, size_t refused);

/* ---- producer_holders.c ---- */

/* Asks who holds the lock that is in our way, to log it: once a second at most. */
void producer_ask_holders(struct producer *p, uint64_t now_ns);

/* ---- producer_retry.c ---- */

/* The node is attached, for the first time or again: forgets all waits. */
void producer_retry_reset(struct producer *p);
/* Sends nothing for a while, longer after each failure in a row, and logs it. what: what
 * the database refused. */
void producer_back_off(struct producer *p, const char *what, const jobq_error *why);
/* There was no memory: sends nothing for 100 ms, and logs it. what: "for …", "to …". */
void producer_no_memory(struct producer *p, const char *what);
/* Whether an error with that SQLSTATE is more likely about the server or another
 * transaction than about a row of ours. */
bool producer_is_passing(const char *sqlstate);
/* The cycle failed: puts its answers back into the outbox, and decides when and in which
 * parts they are sent again. */
void producer_cycle_failed(struct producer *p, const struct store_cycle_result *result);
/* The cycle succeeded. Call it before outbox_confirmed. */
void producer_cycle_succeeded(struct producer *p);
/* A claim of jobs one by one came back: the database refused that many of them. */
void producer_refusals_known(struct producer *p, size_t n_refusals);
/* Decides what goes into the next cycle: answers and a claim together, or, after a
 * refusal, one of them. Returns 0 or JOBQ_ENOMEM. */
int producer_take_turn(struct producer *p, struct store_cycle *cycle, uint64_t now_ns);

/* ---- producer_doubts.c ---- */

/* Some acks of the last cycle were not accepted: asks which of these attempts still run,
 * as far as the database knows. Call it before outbox_confirmed. */
void producer_ask_doubts(struct producer *p);

/* ---- producer_mark.c ---- */

/* Sets the mark, if it is off or doubtful, and notifications are heard. */
void producer_mark_set(struct producer_mark *mark, const char *queue, int64_t node);
/* Clears the mark, if it is on. Returns whether it was. */
bool producer_mark_clear(struct producer_mark *mark, const char *queue, int64_t node);
/* A request is under way. */
bool producer_mark_is_asked(const struct producer_mark *mark);

/* ---- producer_ages.c ---- */

/* The queue's configuration has changed; perhaps its ageing, too. */
void producer_ages_configure(struct producer *p);

/* ---- producer_room.c ---- */

/* Hands jobs over to workers with room, in order, as far as their arguments are here. */
void producer_hand_over(struct producer *p);
/* The jobs in memory are as large as they may be, and no worker has less to do than it
 * could. */
bool producer_is_full(const struct producer *p);
/* Gives back jobs that the workers have no room for while the pool starts none. */
void producer_release_held(struct producer *p);
/* How many jobs to claim now. */
size_t producer_want(const struct producer *p);

/* ---- producer_fetch.c ---- */

/* Fetches the arguments of the next jobs in line if they are missing, a worker has room,
 * and no fetch is under way. */
void producer_fetch_large(struct producer *p);

/* ---- producer_cycle.c ---- */

/* Sends a cycle: answers, a look, and a claim of that many jobs. poll: no claim, only a
 * look, so that an idle queue costs the database no write. */
void producer_send_cycle(struct producer *p, size_t claim, bool poll);

/* ---- producer_step.c ---- */

/* Prepares the timer, and the callbacks by which lower files report. */
void producer_step_init(struct producer *p, uv_loop_t *loop);
/* Asserts that the move is legal, and logs it. */
void producer_set_state(struct producer *p, enum producer_state state);
/* Looks at the producer's state and does the next thing. */
void producer_step(struct producer *p);
/* Runs producer_step soon, from the loop: for entry points that must not call back. */
void producer_step_soon(struct producer *p);

#endif
