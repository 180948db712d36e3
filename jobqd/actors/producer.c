/* producer.c: see producer.h. All it does is in step(): look at what is, do the next
 * thing. Callbacks record what happened and call step. */
#include "jobqd/actors/producer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/actors/outbox.h"
#include "jobqd/base/log.h"
#include "jobqd/pure/ageing.h"
#include "jobqd/pure/cursor.h"
#include "jobqd/pure/list.h"
#include "jobqd/pure/tempo.h"
#include "libjobq/duration.h"

/* What is known about the queue's line of available jobs. */
enum line {
    LINE_UNKNOWN, /* somebody said that there may be something: claim to see */
    LINE_MORE,    /* the last claim came back full, or a look found something */
    LINE_SHORT,   /* the last claim came back short: a look will tell */
    LINE_EMPTY    /* a look found nothing: poll, and wait to be woken */
};

/* Whether inserters notify us for this queue (jobq._idle). */
enum mark { MARK_OFF, MARK_SETTING, MARK_ON, MARK_CLEARING };

/* Since when the jobs wait that were there before us. */
enum ages { AGES_UNKNOWN, AGES_ASKED, AGES_KNOWN };

enum {
    NOTE_EVERY_MS = 50,
    WHOLE_LOOK_EVERY_MS = 60000, /* over the whole line of an idle queue */
    FULL_FOR_MS = 100,
    HELD_FOR_MS = 500, /* claimed jobs without room: is the pool still alive? During a
                          pause of the pool: they go back */
    RETRY_FIRST_MS = 100,
    RETRY_MOST_MS = 5000,
    /* Refusals in a row that seem to be about the server; then they may be about a row.
     */
    PASSING_MOST = 2,
    LOCK_RETRY_MS = 250,      /* a table, or our node's row, was locked */
    SPLIT_FOR_MS = 10 * 1000, /* after a refusal, answers and claims go each for itself */
    APART_FOR_MS = 60 * 1000, /* after a refused claim, jobs are claimed one by one */
    MARK_RETRY_MS = 1000,
    TELL_WINDOW_MS = 10 * 1000, /* of jobs that were locked or refused, this many are */
    TELL_MOST = 100,            /* named in the log */
    HOLDERS_EVERY_MS = 1000,    /* who holds a lock is asked … */
    HOLDERS_TELL_MS = 30 * 1000 /* … and said again, while it is the same */
};

struct producer {
    struct producer_options options;
    char subject[160]; /* for the log: "queue NAME" */
    enum producer_state state;
    int64_t node;
    int64_t session;
    bool attached;
    bool listening;    /* notifications are heard */
    unsigned holds;    /* of enum producer_hold; 0: may claim */
    bool leaves;       /* for good: its idle mark is still to be cleared */
    bool in_flight;    /* a cycle is under way … */
    uint64_t sent_ns;  /* … since then */
    struct pool *pool; /* NULL once it has stopped and was freed */
    bool pool_stopped;
    struct list ready; /* claimed, not handed over */
    size_t n_ready;
    uint64_t held_ns; /* some of them since then, while the pool backs off; 0: not so */
    struct list all;  /* every job in memory, by `held` */
    size_t n_all;
    size_t bytes;                   /* of their args and meta */
    int64_t asked[STORE_MAX_FETCH]; /* whose large args and meta are being fetched */
    size_t n_asked;                 /* 0: none are */
    bool fetch_singly;  /* the database refused to tell some of them together */
    struct list unsaid; /* ended when there was no memory to record it: released later */
    struct outbox outbox;
    bool heavy; /* it has more than enough of them: workers' answers are left unread */
    struct cursor cursor;
    int64_t sent_cursors[CURSOR_PRIORITIES];
    struct ageing ageing;
    enum ages ages;
    struct tempo tempo;
    enum line line;
    enum mark mark;
    bool mark_doubtful;  /* MARK_ON, but its row may be gone: to be set again */
    uint64_t mark_at_ns; /* the mark is not set before: the database refused it */
    uint64_t noted_ns;
    uint64_t whole_look_ns;
    uint64_t retry_at_ns; /* after a database error: nothing is sent before */
    int64_t retry_ms;
    int passing;             /* refusals in a row that were about the server */
    uint64_t split_until_ns; /* answers and claims in cycles of their own until then … */
    bool answers_last;       /* … and the last one was of answers */
    uint64_t claim_at_ns; /* no claim before: a lock was in its way, or it was refused */
    int64_t claim_retry_ms;
    int claims_locked;                                    /* in a row */
    char claim_refusal[sizeof((jobq_error *)0)->message]; /* what the database said of the
                                                             last claim that it refused */
    uint64_t apart_until_ns; /* claims pass over what the database refuses until then */
    bool told_slow;          /* that the cycle under way takes long was logged */
    bool claimed_last;       /* the last cycle had a claim … */
    bool apart_last;         /* … such a one */
    uint64_t holders_at_ns;  /* who holds the lock is not asked before */
    bool asked_holders;      /* it is being asked */
    char holders[160];       /* who it was */
    uint64_t holders_told_ns;
    bool asked_held; /* what became of acks that took no row away */
    uint32_t random;
    uv_timer_t timer;
    struct producer_stats stats;
    uint64_t refused_logged_ns;
    uint64_t tells_ns; /* TELL_WINDOW_MS, from then on */
    unsigned told_in_window;
};

static void step(struct producer *p);
static void on_timer(uv_timer_t *timer);
static void set_idle(struct producer *p, bool idle);

static void
set_state(struct producer *p, enum producer_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        PRODUCER_STATES(X)
#undef X
    };
    if (p->state == state)
        return;
    assert(p->state != PRODUCER_STOPPED);
    assert(p->state != PRODUCER_ABANDONING || state == PRODUCER_STOPPED);
    p->state = state;
    log_debug(p->options.queue ? p->subject : "queue", "waits for %s", meanings[state]);
}

/* Runs step soon, from the loop: for entry points that must not call back. */
static void
step_soon(struct producer *p)
{
    uv_timer_start(&p->timer, on_timer, 0, 0);
}

/* xorshift: jitter needs no better. */
static uint32_t
next_random(struct producer *p)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 17;
    p->random ^= p->random << 5;
    return p->random;
}

static void
forget_job(struct producer *p, struct job *job)
{
    list_remove(&job->held);
    p->n_all--;
    p->bytes -= job->args_len + job->meta_len;
    free(job);
}

/* ---- what the pool says ---- */

static void
settle(struct producer *p, struct job *job, const struct verdict *verdict)
{
    struct verdict cancelled;
    char text[VERDICT_TEXT];
    if (job->cancel != JOB_GOES_ON) {
        verdict_of_cancelled(verdict, &cancelled, text);
        verdict = &cancelled;
    }
    if (outbox_add(&p->outbox, p->options.queue, job, verdict, next_random(p)) == 0) {
        forget_job(p, job);
        return;
    }
    log_error(p->subject, "no memory to record how job %lld ended: it will be released",
              (long long)job->id);
    list_push(&p->unsaid, &job->link);
}

/* What is not written to the database as fast as it comes waits in the workers' sockets.
 */
static void
weigh_outbox(struct producer *p)
{
    bool heavy = outbox_is_heavy(&p->outbox, p->heavy);
    if (heavy == p->heavy || !p->pool)
        return;
    p->heavy = heavy;
    log_debug(p->subject,
              heavy ? "answers wait: %zu KiB are not confirmed"
                    : "answers are taken again: %zu KiB are not confirmed",
              p->outbox.bytes / 1024);
    pool_hold_answers(p->pool, heavy);
}

static void
on_verdict(void *owner, struct job *job, const struct verdict *verdict)
{
    struct producer *p = owner;
    if (p->state == PRODUCER_ABANDONING) {
        forget_job(p, job);
        return;
    }
    tempo_ended(&p->tempo, 1);
    settle(p, job, verdict);
    weigh_outbox(p);
}

static void
on_room(void *owner)
{
    step(owner);
}

static void
on_pool_stopped(void *owner)
{
    struct producer *p = owner;
    p->pool_stopped = true;
    step_soon(p);
}

static void
on_progress(void *owner, const struct job *job, double done, const char *note)
{
    struct producer *p = owner;
    p->options.on_progress(p->options.owner, job, done, note);
}

static const struct pool_events pool_events = {
    .on_verdict = on_verdict,
    .on_progress = on_progress,
    .on_room = on_room,
    .on_stopped = on_pool_stopped,
};

/* ---- jobs that never start ---- */

static const struct verdict released = {.kind = VERDICT_RELEASED,
                                        .delay_ms = -1,
                                        .exit_code = -1,
                                        .run_us = -1,
                                        .cpu_us = -1,
                                        .max_rss_kb = -1};

static void
release_ready(struct producer *p)
{
    struct list *link;
    while ((link = list_pop(&p->ready)) != NULL) {
        p->n_ready--;
        settle(p, list_entry(link, struct job, link), &released);
    }
}

static void
release_unsaid(struct producer *p)
{
    struct list again;
    list_init(&again);
    struct list *link;
    while ((link = list_pop(&p->unsaid)) != NULL)
        list_push(&again, link);
    while ((link = list_pop(&again)) != NULL)
        settle(p, list_entry(link, struct job, link), &released);
}

static void
drop_list(struct producer *p, struct list *list)
{
    struct list *link;
    while ((link = list_pop(list)) != NULL)
        forget_job(p, list_entry(link, struct job, link));
}

/* ---- the cycle ---- */

static struct job *
first_ready(const struct producer *p)
{
    return list_entry(p->ready.next, struct job, link);
}

static void
hand_over(struct producer *p)
{
    if (!p->pool)
        return;
    size_t room = pool_room(p->pool);
    while (p->n_ready > 0 && room > 0) {
        struct job *job = first_ready(p);
        if (!job->args)
            return; /* fetch_large has its turn */
        list_remove(&job->link);
        p->n_ready--;
        room--;
        pool_give(p->pool, job);
    }
}

/* The jobs in memory are as large as they may be, and no worker has less to do than it
 * could. */
static bool
is_full(const struct producer *p)
{
    return p->bytes >= TEMPO_AHEAD_BYTES && pool_idle(p->pool) == 0;
}

static bool
nobody_works(const struct producer *p)
{
    struct pool_status status;
    pool_status(p->pool, &status);
    return status.busy == 0;
}

/* While the pool backs off, or no workers are wanted, nobody comes to help those that are
 * left. What was claimed ahead and they have no room for goes back, for another node:
 * soon, for they may have short jobs as well as long ones; at once, if none has a job. */
static void
release_held(struct producer *p)
{
    uint64_t now = uv_hrtime();
    if (p->n_ready == 0 || !p->pool || !pool_nobody_comes(p->pool)) {
        p->held_ns = 0;
        return;
    }
    if (p->held_ns == 0)
        p->held_ns = now;
    bool long_held = now - p->held_ns >= (uint64_t)HELD_FOR_MS * 1000000u;
    if (pool_room(p->pool) == 0 && (long_held || nobody_works(p)))
        release_ready(p);
}

static size_t
want(const struct producer *p)
{
    if (p->state != PRODUCER_CLAIMING || p->holds != 0 || !p->pool)
        return 0;
    if (uv_hrtime() < p->claim_at_ns)
        return 0;
    size_t room = pool_room(p->pool);
    if (is_full(p))
        return 0;
    size_t n = tempo_want(&p->tempo, room, p->n_ready);
    if (pool_nobody_comes(p->pool) || pool_starts_late(p->pool)) { /* nothing ahead */
        size_t most = room > p->n_ready ? room - p->n_ready : 0;
        n = n < most ? n : most;
    }
    return n < STORE_MAX_CLAIM ? n : STORE_MAX_CLAIM;
}

static void
take_claimed(struct producer *p, const struct store_cycle_result *result)
{
    size_t bytes = 0;
    for (size_t i = 0; i < result->n_claimed; i++) {
        struct job *job = result->claimed[i].job;
        cursor_claimed(&p->cursor, p->sent_cursors, result->claimed[i].priority,
                       result->claimed[i].position);
        p->bytes += job->args_len + job->meta_len;
        bytes += job->args ? job->args_len + job->meta_len : p->tempo.mean_bytes;
        list_push(&p->all, &job->held);
        p->n_all++;
        list_push(&p->ready, &job->link);
        p->n_ready++;
    }
    p->stats.claimed += result->n_claimed;
    tempo_came_back(&p->tempo, uv_hrtime(), result->claim_limit, result->n_claimed, bytes,
                    result->looked);
}

static void
note_refused(struct producer *p, size_t refused)
{
    if (refused == 0)
        return;
    p->stats.refused += refused;
    uint64_t now = uv_hrtime();
    if (p->refused_logged_ns && now - p->refused_logged_ns < 60000000000u)
        return;
    p->refused_logged_ns = now;
    log_info(
        p->subject,
        "%llu answers so far were not accepted: those attempts had ended already (by "
        "jobq.complete in the handler's own transaction, or taken back from this node)",
        (unsigned long long)p->stats.refused);
}

static void
learn(struct producer *p, const struct store_cycle_result *result)
{
    if (result->noted)
        cursor_noted(&p->cursor, result->note_position, result->note_upto,
                     result->note_oldest);
    bool found = result->looked && cursor_looked(&p->cursor, result->first);
    bool behind = found && cursor_is_behind(&p->cursor, p->sent_cursors);
    take_claimed(p, result);
    if (found && p->line == LINE_EMPTY && p->mark == MARK_ON)
        p->mark_doubtful = true; /* nobody has woken us */
    if (result->n_claimed > 0) {
        p->line = result->n_claimed == result->claim_limit ? LINE_MORE : LINE_SHORT;
    } else if (result->n_refusals > 0) {
        p->line = LINE_MORE; /* good ones may stand behind the guilty ones */
    } else if (result->looked && !found) {
        p->line = LINE_EMPTY;
        tempo_empty(&p->tempo);
    } else if (found && (result->claim_limit == 0 || behind)) {
        p->line = LINE_MORE;
    } else if (result->claim_limit > 0) {
        if (found || p->line == LINE_MORE)
            tempo_locked(&p->tempo);
        p->line = LINE_SHORT;
    }
}

/* The next wait; it grows while nothing succeeds. */
static uint64_t
longer(int64_t *retry_ms)
{
    *retry_ms = *retry_ms ? *retry_ms * 2 : RETRY_FIRST_MS;
    if (*retry_ms > RETRY_MOST_MS)
        *retry_ms = RETRY_MOST_MS;
    return uv_hrtime() + (uint64_t)*retry_ms * 1000000u;
}

static void
back_off(struct producer *p, const char *what, const jobq_error *why)
{
    p->retry_at_ns = longer(&p->retry_ms);
    log_warning(p->subject, "the database refused %s, again in %s: %s", what,
                jobq__duration_show(p->retry_ms).text, why->message);
}

/* Answers are recorded meanwhile. */
static void
claim_later(struct producer *p, const jobq_error *why)
{
    p->claim_at_ns = longer(&p->claim_retry_ms);
    log_warning(p->subject,
                "the database refused to let jobs be claimed, again in %s: %s",
                jobq__duration_show(p->claim_retry_ms).text, why->message);
}

/* Of whom a lock is that is in our way: not asked on the work connection, which waits. */
static void
on_holders(void *data, const struct store_answer *answer)
{
    struct producer *p = data;
    p->asked_holders = false;
    const char *text = answer->code == 0 && answer->text ? answer->text : "";
    uint64_t now = uv_hrtime();
    bool same = strncmp(text, p->holders, sizeof p->holders - 1) == 0 &&
                now - p->holders_told_ns < HOLDERS_TELL_MS * UINT64_C(1000000);
    if (*text && !same) {
        log_warning(p->subject, "waiting for a lock: %s", text);
        snprintf(p->holders, sizeof p->holders, "%s", text);
        p->holders_told_ns = now;
    }
    step(p);
}

static void
ask_holders(struct producer *p, uint64_t now)
{
    if (p->asked_holders || now < p->holders_at_ns)
        return;
    p->holders_at_ns = now + HOLDERS_EVERY_MS * UINT64_C(1000000);
    p->asked_holders = store_lock_holders(p->options.store, p->node, on_holders, p) == 0;
}

/* Whether an error is more likely to be about the server or another transaction than
 * about a row of ours. The same cycle is sent again then; if that fails, too, each job is
 * tried by itself. */
static bool
is_passing(const char *state)
{
    static const char *const classes[] = {"25", "40", "53", "57014"};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strncmp(state, classes[i], strlen(classes[i])) == 0)
            return strcmp(state, "53200") != 0;
    return false;
}

/* The database refused the cycle for a reason that may lie in one of its rows. Nothing is
 * held against the others: they are all tried again, each for itself. */
static void
refused(struct producer *p, const struct store_cycle_result *result)
{
    uint64_t now = uv_hrtime();
    bool locked = strcmp(result->error->sqlstate, "55P03") == 0;
    bool was_apart = p->outbox.sent_apart && p->outbox.settled_sent.n > 0;
    bool answers = p->outbox.sent.n + p->outbox.settled_sent.n > 0;
    bool claims = result->failed == STORE_CLAIM ||
                  (result->failed == STORE_PARTS && p->claimed_last);
    bool reads = result->failed == STORE_NOTE || result->failed == STORE_LOOK;
    bool known = (claims && p->apart_last) || was_apart || reads;
    p->split_until_ns = now + SPLIT_FOR_MS * UINT64_C(1000000);
    if (result->failed == STORE_CLAIM || reads)
        outbox_returned(&p->outbox);
    else
        outbox_refused(&p->outbox);
    /* A lock in the way of one claim may be on a table; in the way of the next one, too,
     * it may be one that a trigger waits for, of one job. */
    if (claims)
        p->claims_locked = locked ? p->claims_locked + 1 : 0;
    if (claims && (!locked || p->claims_locked > 1))
        p->apart_until_ns = now + APART_FOR_MS * UINT64_C(1000000);
    if (claims && !locked)
        snprintf(p->claim_refusal, sizeof p->claim_refusal, "%s", result->error->message);
    if (locked) {
        ask_holders(p, now);
        p->claim_at_ns = now + LOCK_RETRY_MS * UINT64_C(1000000);
        if (known && (answers || reads))
            p->retry_at_ns = p->claim_at_ns;
        return;
    }
    if (known && claims) /* one by one was no help */
        claim_later(p, result->error);
    else if (known)
        back_off(p, "a cycle", result->error);
    else
        log_debug(p->subject, "a cycle was refused, its parts are tried one by one: %s",
                  result->error->message);
}

static void
cycle_failed(struct producer *p, const struct store_cycle_result *result)
{
    if (result->code == JOBQ_ECONN) {
        outbox_returned(&p->outbox);
        return; /* the node detaches us, and attaches us again with a new session */
    }
    if (result->code != JOBQ_EDB ||
        (is_passing(result->error->sqlstate) && ++p->passing < PASSING_MOST)) {
        outbox_returned(&p->outbox);
        back_off(p, "a cycle", result->error);
        return;
    }
    refused(p, result);
}

static void
on_held(void *data, const struct store_held_result *result)
{
    struct producer *p = data;
    p->asked_held = false;
    if (result->code == 0)
        outbox_doubt_ended(&p->outbox, result->ids, result->n);
    else
        outbox_doubt_returned(&p->outbox);
    step(p);
}

/* Right behind the cycle, so that the answer is there before the next one's. */
static void
ask_held(struct producer *p)
{
    if (p->asked_held)
        return;
    const struct outbox_acks *acks = &p->outbox.doubtful;
    outbox_doubt(&p->outbox);
    p->asked_held = store_held(p->options.store, p->node, acks->ids, acks->attempts,
                               acks->n, on_held, p) == 0;
    if (!p->asked_held)
        outbox_doubt_returned(&p->outbox);
}

static const char *
settlement_word(enum settlement_kind kind)
{
    static const char *const words[] = {
#define X(name, word) [name] = word,
        SETTLEMENTS(X)
#undef X
    };
    return words[kind];
}

/* A lock on a table, or a trigger, can concern thousands of jobs: some are named. */
static bool
may_tell(struct producer *p)
{
    uint64_t now = uv_hrtime();
    if (now - p->tells_ns >= TELL_WINDOW_MS * UINT64_C(1000000)) {
        if (p->told_in_window > TELL_MOST)
            log_warning(p->subject, "%u more jobs were locked or refused",
                        p->told_in_window - TELL_MOST);
        p->tells_ns = now;
        p->told_in_window = 0;
    }
    return ++p->told_in_window <= TELL_MOST;
}

/* The attempt's end is recorded. */
static void
tell_failure(struct producer *p, const struct settled *s, const struct store_fate *fate)
{
    failures_note(p->options.failures, &(struct failure){
                                           .job = s->what.id,
                                           .kind = s->kind,
                                           .queue = p->options.queue->name,
                                           .attempt = s->what.attempt,
                                           .max_attempts = s->max_attempts,
                                           .state = fate->became,
                                           .retry_at_ms = fate->due_ms,
                                           .error_kind = s->error_kind,
                                           .error = s->error,
                                           .slot = s->slot,
                                           .pid = s->pid,
                                           .hooks = fate->hooks,
                                           .entry = s->what.entry,
                                           .args = s->args,
                                           .meta = s->meta,
                                       });
}

/* The database's word on an attempt, where an operator should hear of it. */
static bool
tell_fate(void *owner, const struct settled *s, const struct store_fate *fate, bool first)
{
    struct producer *p = owner;
    bool recorded = fate->fate == FATE_ACCEPTED || fate->fate == FATE_STRIPPED;
    if (recorded && s->kind)
        tell_failure(p, s, fate);
    if (fate->fate == FATE_ACCEPTED)
        return true;
    if (!may_tell(p))
        return false;
    const char *word = settlement_word(s->what.kind);
    const char *message = fate->message ? fate->message : "no reason was given";
    struct log_facts facts = {.job = s->what.id,
                              .kind = s->kind,
                              .queue = p->options.queue->name,
                              .attempt = s->what.attempt,
                              .error = message};
    long long id = (long long)s->what.id;
    int attempt = (int)s->what.attempt;
    switch (fate->fate) {
    case FATE_LOCKED:
        log_about(LOG_LEVEL_WARNING, p->subject, &facts,
                  "job %lld, attempt %d: %s, but another session has locked its row; it "
                  "is recorded when the lock is gone: %s",
                  id, attempt, word, fate->message ? message : "the holder is not known");
        break;
    case FATE_STRIPPED:
        log_about(LOG_LEVEL_WARNING, p->subject, &facts,
                  "job %lld, attempt %d: %s, recorded without its result or details, "
                  "which the database refused: %s",
                  id, attempt, word, message);
        break;
    case FATE_PARKED:
        log_about(LOG_LEVEL_ERROR, p->subject, &facts,
                  "job %lld, attempt %d: %s, but the database refuses to record it: %s; "
                  "the job is suspended, and ends when the database takes it",
                  id, attempt, word, message);
        break;
    case FATE_STUCK:
        log_about(LOG_LEVEL_ERROR, p->subject, &facts,
                  "job %lld, attempt %d: %s, but the database refuses every change of "
                  "its row%s: %s",
                  id, attempt, word, first ? "" : ", still", message);
        break;
    case FATE_ACCEPTED:
    case FATE_REFUSED:
        break;
    }
    return true;
}

static void
tell_refusals(struct producer *p, const struct store_cycle_result *result)
{
    for (size_t i = 0; i < result->n_refusals; i++) {
        const struct store_refusal *refusal = &result->refusals[i];
        if (refusal->fresh && may_tell(p))
            log_about(
                LOG_LEVEL_ERROR, p->subject,
                &(struct log_facts){.job = refusal->id,
                                    .kind = refusal->kind,
                                    .queue = p->options.queue->name,
                                    .error = refusal->message},
                "job %lld (kind %s) cannot be claimed, the database refuses it: %s; "
                "it is passed over, and tried again every minute",
                (long long)refusal->id, refusal->kind, refusal->message);
        else
            log_debug(p->subject, "job %lld still cannot be claimed: %s",
                      (long long)refusal->id, refusal->message);
    }
    if (result->n_refusals > 0)
        p->apart_until_ns = uv_hrtime() + APART_FOR_MS * UINT64_C(1000000);
    else if (*p->claim_refusal) /* each of them by itself was claimed */
        log_warning(
            p->subject,
            "the database refused to let jobs be claimed together; claiming them one by "
            "one for 1 min: %s",
            p->claim_refusal);
    *p->claim_refusal = '\0';
}

static void
on_cycle(void *data, const struct store_cycle_result *result)
{
    struct producer *p = data;
    p->in_flight = false;
    if (p->state == PRODUCER_ABANDONING) {
        for (size_t i = 0; i < result->n_claimed; i++)
            free(result->claimed[i].job);
        step(p);
        return;
    }
    if (result->code < 0) {
        cycle_failed(p, result);
        step(p);
        return;
    }
    bool answered = p->outbox.sent.n + p->outbox.settled_sent.n > 0;
    /* To have looked proves nothing; nor does a claim while answers wait. */
    if (answered || (p->claimed_last && outbox_is_empty(&p->outbox))) {
        p->retry_ms = 0;
        p->passing = 0;
    }
    if (p->claimed_last) {
        p->claim_retry_ms = 0;
        p->claims_locked = 0;
    }
    size_t unwanted = p->outbox.sent.n - result->acked;
    if (unwanted > 0)
        ask_held(p);
    struct outbox_tally settled = outbox_confirmed(
        &p->outbox, result->fates, result->n_fates, uv_hrtime() / 1000000u, tell_fate, p);
    p->stats.acked += result->acked + settled.accepted;
    note_refused(p, unwanted + settled.refused);
    weigh_outbox(p);
    if (p->apart_last)
        tell_refusals(p, result);
    learn(p, result);
    if (p->state != PRODUCER_CLAIMING || (p->holds & PRODUCER_HOLD_PAUSED))
        release_ready(p);
    step(p);
}

/* ---- large arguments ----
 *
 * They do not come with the claim (claim.sql): a batch of them would fill the memory.
 * They are fetched when their job is next in line and a worker has room, while what is in
 * memory is less than a claim ahead may bring; and one for each that would begin at once,
 * however large. */

static struct job *
find_ready(const struct producer *p, int64_t id)
{
    for (struct list *l = p->ready.next; l != &p->ready; l = l->next) {
        struct job *job = list_entry(l, struct job, link);
        if (job->id == id)
            return job;
    }
    return NULL; /* released meanwhile */
}

/* Puts the job with its texts in the place of the one without. */
static void
complete(struct producer *p, struct job *job, const struct store_fetched *texts)
{
    struct job *whole = job_new(job->kind, strlen(job->kind), texts->args,
                                texts->args_len, texts->meta, texts->meta_len);
    if (!whole) {
        log_error(p->subject, "no memory for the arguments of job %lld: it is released",
                  (long long)job->id);
        list_remove(&job->link);
        p->n_ready--;
        settle(p, job, &released);
        return;
    }
    whole->id = job->id;
    whole->attempt = job->attempt;
    whole->max_attempts = job->max_attempts;
    whole->timeout_ms = job->timeout_ms;
    p->bytes += whole->args_len + whole->meta_len;
    list_push(&job->link, &whole->link); /* before it */
    list_remove(&job->link);
    list_push(&job->held, &whole->held);
    list_remove(&job->held);
    free(job);
}

/* The job is not this node's any more: somebody has cancelled it, or taken it back. */
static void
let_go(struct producer *p, struct job *job)
{
    list_remove(&job->link);
    p->n_ready--;
    forget_job(p, job);
}

/* A job whose arguments no worker can be given. */
static void __attribute__((format(printf, 3, 4)))
discard(struct producer *p, struct job *job, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_error(p->subject, "job %lld (kind %s) is discarded: %s", (long long)job->id,
              job->kind, text);
    list_remove(&job->link);
    p->n_ready--;
    settle(p, job,
           &(struct verdict){.kind = VERDICT_DISCARD,
                             .error = text,
                             .delay_ms = -1,
                             .exit_code = -1,
                             .run_us = -1,
                             .cpu_us = -1,
                             .max_rss_kb = -1});
}

static void
take_fetched(struct producer *p, const struct store_fetch_result *result, size_t n_asked)
{
    size_t bytes = 0, at = 0;
    for (size_t i = 0; i < n_asked && (at < result->n || result->n == 0); i++) {
        struct job *job = find_ready(p, p->asked[i]);
        const struct store_fetched *texts = &result->fetched[at];
        bool ours = at < result->n && texts->id == p->asked[i];
        if (ours) {
            bytes += texts->args_len + texts->meta_len;
            at++;
        }
        if (job && ours && !texts->args)
            discard(p, job,
                    "its args and meta of %zu bytes do not fit into a frame: "
                    "max_frame is %zu",
                    texts->bytes, p->options.max_frame);
        else if (job && ours)
            complete(p, job, texts);
        else if (job)
            let_go(p, job);
    }
    tempo_fetched(&p->tempo, at, bytes);
}

/* The database refused to tell the arguments: of one job, which then ends. */
static void
fetch_failed(struct producer *p, const jobq_error *why, size_t n_asked)
{
    struct job *job = n_asked == 1 ? find_ready(p, p->asked[0]) : NULL;
    if (is_passing(why->sqlstate) || strcmp(why->sqlstate, "55P03") == 0) {
        back_off(p, "a job's arguments", why);
        return;
    }
    p->fetch_singly = true;
    if (!job)
        return;
    discard(p, job, "its args and meta cannot be read: %s", why->message);
}

static void
on_fetched(void *data, const struct store_fetch_result *result)
{
    struct producer *p = data;
    size_t n_asked = p->n_asked;
    p->n_asked = 0;
    if (result->code == 0) {
        p->fetch_singly = false;
        take_fetched(p, result, n_asked);
    } else if (result->code != JOBQ_ECONN && p->state != PRODUCER_ABANDONING) {
        fetch_failed(p, result->error, n_asked);
    }
    step(p);
}

static void
fetch_large(struct producer *p)
{
    if (p->n_ready == 0 || first_ready(p)->args || p->n_asked > 0 || !p->attached)
        return;
    if (!p->pool || pool_room(p->pool) == 0 || is_full(p) || uv_hrtime() < p->retry_at_ns)
        return;
    size_t bytes = p->bytes < TEMPO_AHEAD_BYTES ? TEMPO_AHEAD_BYTES - p->bytes : 1;
    size_t most = tempo_fetch(&p->tempo, bytes), n = 0;
    if (most > STORE_MAX_FETCH)
        most = STORE_MAX_FETCH;
    if (p->fetch_singly)
        most = 1;
    for (struct list *l = p->ready.next; l != &p->ready && n < most; l = l->next) {
        const struct job *job = list_entry(l, struct job, link);
        if (!job->args)
            p->asked[n++] = job->id;
    }
    if (store_fetch(p->options.store, p->node, p->asked, n, bytes, p->options.max_frame,
                    on_fetched, p) == 0) {
        p->n_asked = n;
        return;
    }
    p->retry_at_ns = uv_hrtime() + RETRY_FIRST_MS * 1000000u;
    log_error(p->subject, "no memory to fetch a job's arguments, again in %s",
              jobq__duration_show(RETRY_FIRST_MS).text);
}

/* ---- sending ---- */

static bool
answers_due(const struct producer *p, uint64_t now)
{
    return outbox_pending(&p->outbox) > 0 || outbox_apart_due(&p->outbox, now / 1000000u);
}

/* Whose turn it is: answers and a claim together; or, after a refusal, each for itself.
 */
static int
take_turn(struct producer *p, struct store_cycle *cycle, uint64_t now)
{
    bool apart = outbox_apart_due(&p->outbox, now / 1000000u);
    cycle->claim_apart = now < p->apart_until_ns;
    if (!apart && now >= p->split_until_ns)
        return outbox_take(&p->outbox, cycle);
    if (cycle->claim > 0 && (p->answers_last || !answers_due(p, now))) {
        p->answers_last = false;
        return 0;
    }
    p->answers_last = true;
    cycle->claim = 0;
    if (!apart)
        return outbox_take(&p->outbox, cycle);
    cycle->look = cycle->note = false;
    return outbox_take_apart(&p->outbox, now / 1000000u, cycle);
}

/* poll: only look, so that an idle queue costs the database no write. */
static void
send_cycle(struct producer *p, size_t claim, bool poll)
{
    /* Positions that a person has set by hand lie behind the bases. */
    static const int64_t whole_line[CURSOR_PRIORITIES] = {
        INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN,
        INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN};
    uint64_t now = uv_hrtime();
    bool whole =
        poll && now - p->whole_look_ns >= (uint64_t)WHOLE_LOOK_EVERY_MS * 1000000u;
    if (whole)
        p->whole_look_ns = now;
    struct store_cycle cycle = {
        .queue = p->options.queue->name,
        .node = p->node,
        .session = p->session,
        .keep = p->options.queue->keep,
        .max_crashes = p->options.queue->max_crashes,
        .note = now - p->noted_ns >= NOTE_EVERY_MS * 1000000u,
        .noted = p->cursor.noted,
        .look = poll || tempo_look_due(&p->tempo, now),
        .bases = whole ? whole_line : p->cursor.base,
        .claim = poll ? 0 : claim,
        .cursors = p->sent_cursors,
    };
    struct segment segments[AGEING_SEGMENTS];
    if (p->state != PRODUCER_CLAIMING)
        cycle.look = cycle.note = false;
    int rc = take_turn(p, &cycle, now);
    memcpy(p->sent_cursors, p->cursor.after, sizeof p->sent_cursors);
    if (cycle.claim > 0 && p->ageing.step_ms > 0) {
        cycle.n_segments = ageing_segments(&p->ageing, p->sent_cursors, segments);
        cycle.segments = segments;
    }
    if (rc == 0 && !p->options.lost_cycle)
        rc = store_cycle(p->options.store, &cycle, on_cycle, p);
    if (rc < 0) {
        outbox_returned(&p->outbox);
        p->retry_at_ns = now + RETRY_FIRST_MS * 1000000u;
        log_error(p->subject, "no memory for a cycle, again in %s",
                  jobq__duration_show(RETRY_FIRST_MS).text);
        return;
    }
    p->in_flight = true;
    p->told_slow = false;
    p->sent_ns = now;
    p->claimed_last = cycle.claim > 0;
    p->apart_last = cycle.claim > 0 && cycle.claim_apart;
    if (cycle.note)
        p->noted_ns = now;
    tempo_sent(&p->tempo, now, cycle.look);
}

/* ---- what to do next ---- */

static bool
stopping_is_done(const struct producer *p)
{
    bool asked = p->mark == MARK_SETTING || p->mark == MARK_CLEARING;
    bool marked = p->leaves && p->attached && p->mark == MARK_ON;
    if (!p->pool_stopped || p->in_flight || p->n_asked > 0 || asked || marked ||
        p->ages == AGES_ASKED || p->asked_holders || p->asked_held)
        return false;
    if (p->state == PRODUCER_ABANDONING)
        return true;
    return p->state == PRODUCER_DRAINING && outbox_is_empty(&p->outbox) &&
           list_empty(&p->unsaid);
}

/* Nothing is on its way to or from the database. */
static bool
is_quiet(const struct producer *p)
{
    bool asked = p->mark == MARK_SETTING || p->mark == MARK_CLEARING;
    return !p->in_flight && !asked && p->n_asked == 0 && p->n_ready == 0 &&
           p->ages != AGES_ASKED && !p->asked_holders && !p->asked_held &&
           list_empty(&p->unsaid) && outbox_is_empty(&p->outbox) &&
           pool_is_still(p->pool);
}

/* Or before, when an answer that was kept for later is due. */
static void
wake_me_in(struct producer *p, int64_t ms)
{
    int64_t due_ms = outbox_due_in_ms(&p->outbox, uv_hrtime() / 1000000u);
    if (due_ms >= 0 && due_ms < ms)
        ms = due_ms;
    uv_timer_start(&p->timer, on_timer, (uint64_t)(ms > 0 ? ms : 0), 0);
}

/* The line is empty (or may be): say that we wait, and look again by ourselves. */
static void
wait_for_jobs(struct producer *p)
{
    if (p->line == LINE_EMPTY && !tempo_busy(&p->tempo, uv_hrtime())) {
        if (p->mark == MARK_ON && p->mark_doubtful && p->listening)
            p->mark = MARK_OFF;
        set_idle(p, true);
    }
    wake_me_in(p, p->tempo.poll_ms);
}

static void
step(struct producer *p)
{
    if (p->state == PRODUCER_STOPPED)
        return;
    if (stopping_is_done(p)) {
        step_soon(
            p); /* finishes there: on_stopped may free what is below us on the stack */
        return;
    }
    if (!list_empty(&p->unsaid))
        release_unsaid(p);
    if (p->leaves && p->attached && p->mark == MARK_ON) {
        p->leaves = false; /* one try: a mark that stays costs inserters a little */
        set_idle(p, false);
    }
    hand_over(p);
    release_held(p);
    if (p->state == PRODUCER_FREEZING && is_quiet(p)) {
        step_soon(p); /* likewise */
        return;
    }
    fetch_large(p);
    if (!p->attached || p->in_flight || p->state == PRODUCER_ABANDONING)
        return;
    uint64_t now = uv_hrtime();
    if (now < p->retry_at_ns) {
        uv_timer_start(&p->timer, on_timer, (p->retry_at_ns - now) / 1000000u + 1, 0);
        return;
    }
    if (p->mark == MARK_ON && tempo_busy(&p->tempo, now))
        set_idle(p, false);
    size_t claim = want(p);
    bool more = claim > 0 && (p->line == LINE_MORE || p->line == LINE_UNKNOWN);
    if (answers_due(p, now) || more)
        send_cycle(p, claim, false);
    else if (claim > 0)
        wait_for_jobs(p);
    else if (now < p->claim_at_ns)
        wake_me_in(p, (int64_t)((p->claim_at_ns - now) / 1000000u) + 1);
    else if (p->mark == MARK_ON)
        wake_me_in(p, FULL_FOR_MS); /* no room: if that lasts, nobody needs to wake us */
    else if (p->n_ready > 0)
        wake_me_in(p, HELD_FOR_MS);
    else if (outbox_due_in_ms(&p->outbox, now / 1000000u) >= 0)
        wake_me_in(p, HELD_FOR_MS);
}

static void
finish(struct producer *p)
{
    set_state(p, PRODUCER_STOPPED);
    pool_free(p->pool);
    p->pool = NULL;
    p->options.on_stopped(p->options.owner);
}

static void
on_timer(uv_timer_t *timer)
{
    struct producer *p = timer->data;
    if (p->state == PRODUCER_STOPPED)
        return;
    if (stopping_is_done(p)) {
        finish(p);
        return;
    }
    if (p->state == PRODUCER_FREEZING && is_quiet(p)) {
        set_state(p, PRODUCER_FROZEN);
        p->options.on_frozen(p->options.owner);
        return;
    }
    bool idle = p->line == LINE_SHORT || p->line == LINE_EMPTY;
    bool may_send = p->attached && !p->in_flight && uv_hrtime() >= p->retry_at_ns;
    if (may_send && idle && !answers_due(p, uv_hrtime()) && want(p) > 0)
        send_cycle(p, 0, true);
    else if (may_send && p->mark == MARK_ON && want(p) == 0 &&
             uv_hrtime() >= p->claim_at_ns)
        set_idle(p, false);
    else
        step(p);
}

/* ---- idle marks ---- */

static void
on_marked(void *data, const struct store_answer *answer)
{
    struct producer *p = data;
    bool failed = answer->code < 0; /* then its row may be there or not */
    p->mark = p->mark == MARK_SETTING || failed ? MARK_ON : MARK_OFF;
    p->mark_doubtful = failed;
    if (failed)
        p->mark_at_ns = uv_hrtime() + MARK_RETRY_MS * UINT64_C(1000000);
    if (p->state != PRODUCER_CLAIMING) {
        step(p);
        return;
    }
    if (failed && !uv_is_active((uv_handle_t *)&p->timer))
        wake_me_in(p, FULL_FOR_MS); /* not at once: the connection may be away */
    else if (p->n_ready > 0 && !uv_is_active((uv_handle_t *)&p->timer))
        wake_me_in(p, HELD_FOR_MS);
    if (failed || p->mark != MARK_ON) {
        if (!uv_is_active((uv_handle_t *)&p->timer))
            step(p);
        return;
    }
    /* Whoever inserted just before the mark did not notify: look once more, at once. */
    p->tempo.poll_ms = 1;
    if (!p->in_flight)
        wake_me_in(p, 0);
}

static void
set_idle(struct producer *p, bool idle)
{
    if ((idle && !p->listening) || p->mark != (idle ? MARK_OFF : MARK_ON))
        return;
    if (idle && uv_hrtime() < p->mark_at_ns)
        return;
    enum mark before = p->mark;
    p->mark = idle ? MARK_SETTING : MARK_CLEARING;
    if (!idle)
        p->line = LINE_UNKNOWN; /* from now on jobs come without a word */
    if (store_idle(p->options.store, p->options.queue->name, p->node, idle, on_marked,
                   p) < 0)
        p->mark = before;
}

/* ---- ageing ---- */

static int64_t
now_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000u);
}

/* Pairs of numbers, as ages.sql gives them. */
static size_t
read_heads(const char *text, struct ageing_head heads[CURSOR_PRIORITIES])
{
    size_t n = 0;
    for (char *end; *text != '\0' && n < CURSOR_PRIORITIES; text = end) {
        heads[n].position = strtoll(text, &end, 10);
        heads[n++].age_ms = strtoll(end, &end, 10);
    }
    return n;
}

static void
on_ages(void *data, const struct store_answer *answer)
{
    struct producer *p = data;
    struct ageing_head heads[CURSOR_PRIORITIES];
    p->ages = answer->code == 0 ? AGES_KNOWN : AGES_UNKNOWN; /* again soon */
    if (answer->code == 0 && answer->text)
        ageing_recall(&p->ageing, now_ms(), heads, read_heads(answer->text, heads));
    else if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning(p->subject, "the database refused to tell how old its jobs are: %s",
                    answer->error->message);
    step(p);
}

void
producer_note_position(struct producer *p, int64_t position)
{
    if (p->ageing.step_ms == 0 || p->state != PRODUCER_CLAIMING)
        return;
    ageing_note(&p->ageing, now_ms(), position);
    if (p->ages == AGES_UNKNOWN &&
        store_ages(p->options.store, p->options.queue->name, on_ages, p) == 0)
        p->ages = AGES_ASKED;
}

/* ---- the public face ---- */

int
producer_new(struct producer **out, const struct producer_options *options)
{
    struct producer *p = calloc(1, sizeof *p);
    if (!p)
        return JOBQ_ENOMEM;
    p->options = *options;
    queue_config_hold(options->queue);
    snprintf(p->subject, sizeof p->subject, "queue %s", options->queue->name);
    p->state = PRODUCER_DETACHED;
    p->random = (uint32_t)uv_hrtime() | 1u;
    p->whole_look_ns = uv_hrtime();
    list_init(&p->ready);
    list_init(&p->all);
    list_init(&p->unsaid);
    outbox_init(&p->outbox);
    cursor_init(&p->cursor, options->unsafe_base);
    tempo_init(&p->tempo, options->poll_interval_ms);
    ageing_init(&p->ageing, options->queue->ageing_ms);
    int rc = pool_new(&p->pool, options->loop, options->queue, options->max_frame,
                      &pool_events, p);
    if (rc < 0) {
        queue_config_drop(options->queue);
        free(p);
        return rc;
    }
    uv_timer_init(options->loop, &p->timer);
    p->timer.data = p;
    *out = p;
    return 0;
}

static void
on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
producer_free(struct producer *p)
{
    assert(p->state == PRODUCER_STOPPED);
    drop_list(p, &p->ready);
    drop_list(p, &p->unsaid);
    assert(p->n_all == 0);
    outbox_clear(&p->outbox);
    queue_config_drop(p->options.queue);
    uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

void
producer_attach(struct producer *p, int64_t node, int64_t session)
{
    if (p->state == PRODUCER_STOPPED || p->state == PRODUCER_ABANDONING)
        return;
    p->node = node;
    p->session = session;
    p->attached = true;
    p->retry_at_ns = 0;
    p->retry_ms = 0;
    p->claim_at_ns = 0;
    p->claim_retry_ms = 0;
    /* What was sent may have been recorded, and its answer lost: a job that was given
     * back may be claimed again only when it is known. */
    p->answers_last = false;
    p->line = LINE_UNKNOWN;
    p->mark_doubtful = true; /* after a crash of the database the marks are gone */
    cursor_init(&p->cursor, p->options.unsafe_base);
    tempo_init(&p->tempo, p->options.poll_interval_ms);
    if (p->state == PRODUCER_DETACHED)
        set_state(p, PRODUCER_CLAIMING);
    step_soon(p);
}

void
producer_detach(struct producer *p)
{
    p->attached = false;
    if (p->state == PRODUCER_CLAIMING)
        set_state(p, PRODUCER_DETACHED);
}

void
producer_poke(struct producer *p)
{
    if (p->state != PRODUCER_CLAIMING)
        return;
    if (p->line == LINE_EMPTY || p->line == LINE_SHORT)
        p->line = LINE_UNKNOWN;
    step(p);
}

void
producer_listening(struct producer *p, bool listening)
{
    p->listening = listening;
}

int
producer_configure(struct producer *p, const struct queue_config *queue, size_t max_frame,
                   int64_t poll_interval_ms)
{
    assert(strcmp(queue->name, p->options.queue->name) == 0);
    int rc = p->pool ? pool_configure(p->pool, queue, max_frame) : 0;
    if (rc < 0)
        return rc;
    queue_config_hold(queue);
    queue_config_drop(p->options.queue);
    p->options.queue = queue;
    p->options.max_frame = max_frame;
    p->options.poll_interval_ms = poll_interval_ms;
    p->tempo.poll_interval_ms = poll_interval_ms;
    if (p->ageing.step_ms != queue->ageing_ms) {
        ageing_init(&p->ageing, queue->ageing_ms);
        if (p->ages == AGES_KNOWN)
            p->ages = AGES_UNKNOWN;
    }
    if (p->tempo.poll_ms > poll_interval_ms)
        p->tempo.poll_ms = poll_interval_ms;
    if (p->state == PRODUCER_CLAIMING)
        producer_poke(p); /* a timer may be set for the old interval */
    return 0;
}

void
producer_resize(struct producer *p, int n)
{
    if (p->pool)
        pool_resize(p->pool, n);
}

void
producer_hold(struct producer *p, enum producer_hold why, bool on)
{
    unsigned before = p->holds;
    p->holds = on ? before | (unsigned)why : before & ~(unsigned)why;
    if (p->holds == before)
        return;
    bool works = p->state == PRODUCER_CLAIMING || p->state == PRODUCER_DETACHED;
    if (on && why == PRODUCER_HOLD_PAUSED && works) {
        release_ready(p);
        pool_give_back(p->pool);
    }
    if (p->holds == 0)
        producer_poke(p);
    else if (works)
        step_soon(p); /* inserters need not wake us */
}

void
producer_drain(struct producer *p, int64_t grace_ms)
{
    if (p->state == PRODUCER_STOPPED || p->state == PRODUCER_ABANDONING)
        return;
    set_state(p, PRODUCER_DRAINING);
    release_ready(p);
    if (grace_ms > 0)
        pool_stop(p->pool, grace_ms);
    else
        pool_kill(p->pool);
    step_soon(p);
}

void
producer_leave(struct producer *p, int64_t grace_ms)
{
    p->leaves = true;
    producer_drain(p, grace_ms);
}

void
producer_abandon(struct producer *p)
{
    if (p->state == PRODUCER_STOPPED || p->state == PRODUCER_ABANDONING)
        return;
    set_state(p, PRODUCER_ABANDONING);
    p->attached = false;
    drop_list(p, &p->ready);
    p->n_ready = 0;
    drop_list(p, &p->unsaid);
    /* What is under way points into the outbox no more (store_cycle copied it). */
    outbox_clear(&p->outbox);
    pool_kill(p->pool);
    step_soon(p);
}

bool
producer_can_freeze(const struct producer *p)
{
    return (p->state == PRODUCER_CLAIMING || p->state == PRODUCER_DETACHED) &&
           pool_can_freeze(p->pool);
}

void
producer_freeze(struct producer *p)
{
    assert(producer_can_freeze(p));
    set_state(p, PRODUCER_FREEZING);
    pool_freeze(p->pool);
    release_ready(p);
    step_soon(p);
}

void
producer_thaw(struct producer *p)
{
    if (p->state != PRODUCER_FREEZING && p->state != PRODUCER_FROZEN)
        return;
    set_state(p, p->attached ? PRODUCER_CLAIMING : PRODUCER_DETACHED);
    p->line = LINE_UNKNOWN;
    pool_thaw(p->pool);
    step_soon(p);
}

void
producer_put(const struct producer *p, int scaled, int resized, struct handover *handover)
{
    const struct queue_config *queue = p->options.queue;
    handover_record(handover, "queue");
    handover_put_text(handover, "name", queue->name);
    handover_put_text(handover, "mode", queue->mode == QUEUE_EXEC ? "exec" : "command");
    if (scaled >= 0)
        handover_put_int(handover, "scaled", scaled);
    handover_put_int(handover, "resized", resized);
    handover_put_int(handover, "claimed", (int64_t)p->stats.claimed);
    handover_put_int(handover, "acked", (int64_t)p->stats.acked);
    handover_put_int(handover, "refused", (int64_t)p->stats.refused);
    if (p->state == PRODUCER_FROZEN)
        pool_put(p->pool, handover);
}

static void
on_adopted(void *owner, struct job *job)
{
    struct producer *p = owner;
    if (job->cancel == JOB_CANCEL_ASKED)
        job->cancel = JOB_GOES_ON; /* nobody has acted: the request is heard again */
    list_push(&p->all, &job->held);
    p->n_all++;
    p->bytes += job->args_len + job->meta_len;
}

int
producer_adopt(struct producer *p, const struct handover_reader *reader,
               const struct handover_entry **entry, jobq_error *err)
{
    int64_t claimed, acked, refused;
    int rc = handover_get_int(*entry, "claimed", 0, INT64_MAX, &claimed, err);
    if (rc == 0)
        rc = handover_get_int(*entry, "acked", 0, INT64_MAX, &acked, err);
    if (rc == 0)
        rc = handover_get_int(*entry, "refused", 0, INT64_MAX, &refused, err);
    if (rc < 0)
        return rc;
    p->stats.claimed = (uint64_t)claimed;
    p->stats.acked = (uint64_t)acked;
    p->stats.refused = (uint64_t)refused;
    p->state = PRODUCER_FROZEN; /* until producer_thaw */
    return pool_adopt(p->pool, reader, entry, on_adopted, err);
}

static int
compare_cancels(const void *a, const void *b)
{
    const struct store_cancel *one = a, *other = b;
    if (one->id != other->id)
        return one->id < other->id ? -1 : 1;
    return (one->attempt > other->attempt) - (one->attempt < other->attempt);
}

/* Whether somebody asks for the job to be cancelled that has not been heard before. */
static bool
is_asked_for(const struct job *job, const struct store_cancel *cancels, size_t n)
{
    struct store_cancel wanted = {.id = job->id, .attempt = job->attempt};
    return job->cancel == JOB_GOES_ON &&
           bsearch(&wanted, cancels, n, sizeof wanted, compare_cancels) != NULL;
}

/* One pass over the jobs, however many requests there are: of thousands, all come again
 * until the last job has ended. */
void
producer_cancel(struct producer *p, const struct store_cancel *cancels, size_t n)
{
    struct list *next;
    if (p->state == PRODUCER_ABANDONING)
        return;
    for (struct list *l = p->ready.next; l != &p->ready; l = next) {
        struct job *job = list_entry(l, struct job, link);
        next = l->next;
        if (!is_asked_for(job, cancels, n))
            continue;
        job->cancel = JOB_CANCEL_ASKED;
        list_remove(&job->link);
        p->n_ready--;
        settle(p, job, &released);
        step_soon(p);
    }
    for (struct list *l = p->all.next; p->pool && l != &p->all; l = l->next) {
        struct job *job = list_entry(l, struct job, held);
        if (is_asked_for(job, cancels, n))
            pool_cancel(p->pool, job);
    }
}

enum producer_state
producer_state(const struct producer *p)
{
    return p->state;
}

const char *
producer_queue(const struct producer *p)
{
    return p->options.queue->name;
}

void
producer_stats(const struct producer *p, struct producer_stats *out)
{
    *out = p->stats;
    out->held = producer_held(p);
}

void
producer_pool_status(const struct producer *p, struct pool_status *out)
{
    if (p->pool)
        pool_status(p->pool, out);
    else
        *out = (struct pool_status){.trouble = ""};
}

void
producer_put_kinds(const struct producer *p, struct jobq__buf *out)
{
    if (p->pool)
        pool_put_kinds(p->pool, out);
}

int64_t
producer_cycle_ms(const struct producer *p)
{
    return p->in_flight ? (int64_t)((uv_hrtime() - p->sent_ns) / 1000000u) : 0;
}

void
producer_tell_slow(struct producer *p, int64_t limit_ms)
{
    int64_t ms = producer_cycle_ms(p);
    if (ms < limit_ms || p->told_slow)
        return;
    size_t answers = p->outbox.sent.n + p->outbox.settled_sent.n;
    p->told_slow = true;
    log_warning(p->subject,
                "the database has not answered for %.1f s; under way: %zu answer%s "
                "(%zu KiB)%s",
                (double)ms / 1000, answers, answers == 1 ? "" : "s",
                p->outbox.bytes / 1024, p->claimed_last ? " and a claim" : "");
    ask_holders(p, uv_hrtime());
}

size_t
producer_held(const struct producer *p)
{
    return p->n_all + outbox_count(&p->outbox);
}

size_t
producer_held_ids(const struct producer *p, int64_t *ids)
{
    size_t n = 0;
    for (struct list *l = p->all.next; l != &p->all; l = l->next)
        ids[n++] = list_entry(l, struct job, held)->id;
    return n + outbox_ids(&p->outbox, ids + n);
}
