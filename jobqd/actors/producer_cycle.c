/* producer_cycle.c: one round trip to the database: what it asks for, and what its answer
 * teaches about the queue's line of jobs.
 *
 * producer_step.c decides when to send one; producer_retry.c, what follows a failure. */
#include "jobqd/actors/producer_private.h"

#include <stdlib.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

enum {
    NOTE_EVERY_MS = 50,
    WHOLE_LOOK_EVERY_MS = 60 * 1000 /* at the whole line of an idle queue */
};

static void
take_claimed(struct producer *p, const struct store_cycle_result *result)
{
    size_t bytes = 0;
    for (size_t i = 0; i < result->n_claimed; i++) {
        struct job *job = result->claimed[i].job;
        cursor_claimed(&p->cursor, p->sent_cursors, result->claimed[i].priority,
                       result->claimed[i].position);
        p->bytes += job->args_len + job->meta_len;
        bytes += job->args ? job->args_len + job->meta_len : p->pacer.mean_bytes;
        list_push(&p->all, &job->held);
        p->n_all++;
        list_push(&p->ready, &job->link);
        p->n_ready++;
    }
    p->stats.claimed += result->n_claimed;
    claim_pacer_came_back(&p->pacer, clock_ns(), result->claim_limit, result->n_claimed,
                          bytes, result->looked);
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
    if (found && p->line == LINE_EMPTY && p->mark.state == MARK_ON)
        p->mark.doubtful = true; /* a job came without a notification */
    if (result->n_claimed > 0) {
        p->line = result->n_claimed == result->claim_limit ? LINE_MORE : LINE_SHORT;
    } else if (result->n_refusals > 0) {
        p->line = LINE_MORE; /* jobs that can be claimed may be behind them */
    } else if (result->looked && !found) {
        p->line = LINE_EMPTY;
        claim_pacer_empty(&p->pacer);
    } else if (found && (result->claim_limit == 0 || behind)) {
        p->line = LINE_MORE;
    } else if (result->claim_limit > 0) {
        if (found || p->line == LINE_MORE)
            claim_pacer_locked(&p->pacer);
        p->line = LINE_SHORT;
    }
}

static void
on_cycle(void *data, const struct store_cycle_result *result)
{
    struct producer *p = data;
    p->in_flight = false;
    if (p->state == PRODUCER_ABANDONING) {
        for (size_t i = 0; i < result->n_claimed; i++)
            free(result->claimed[i].job);
        p->step(p);
        return;
    }
    if (result->code < 0) {
        producer_cycle_failed(p, result);
        p->step(p);
        return;
    }
    producer_cycle_succeeded(p);
    size_t unwanted = p->outbox.sent.n - result->acked;
    if (unwanted > 0)
        producer_ask_doubts(p);
    struct outbox_tally settled =
        outbox_confirmed(&p->outbox, result->fates, result->n_fates,
                         clock_ns() / 1000000u, producer_tell_fate, p);
    p->stats.acked += result->acked + settled.accepted;
    producer_note_refused(p, unwanted + settled.refused);
    producer_weigh_outbox(p);
    if (p->apart_last) {
        producer_tell_refusals(p, result);
        producer_refusals_known(p, result->n_refusals);
    }
    learn(p, result);
    if (p->state != PRODUCER_CLAIMING || (p->holds & PRODUCER_HOLD_PAUSED))
        producer_release_ready(p);
    p->step(p);
}

void
producer_send_cycle(struct producer *p, size_t claim, bool poll)
{
    /* Positions that a person has set by hand may be lower than the bases. */
    static const int64_t whole_line[CURSOR_PRIORITIES] = {
        INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN,
        INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN};
    uint64_t now = clock_ns();
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
        .look = poll || claim_pacer_look_due(&p->pacer, now),
        .bases = whole ? whole_line : p->cursor.base,
        .claim = poll ? 0 : claim,
        .cursors = p->sent_cursors,
    };
    struct segment segments[AGEING_SEGMENTS];
    if (p->state != PRODUCER_CLAIMING)
        cycle.look = cycle.note = false;
    int rc = producer_take_turn(p, &cycle, now);
    memcpy(p->sent_cursors, p->cursor.after, sizeof p->sent_cursors);
    if (cycle.claim > 0 && p->ageing.step_ms > 0) {
        cycle.n_segments = ageing_segments(&p->ageing, p->sent_cursors, segments);
        cycle.segments = segments;
    }
    if (rc == 0 && !p->options.lost_cycle)
        rc = store_cycle(p->options.store, &cycle, on_cycle, p);
    if (rc < 0) {
        outbox_returned(&p->outbox);
        producer_no_memory(p, "sending claims and answers");
        return;
    }
    p->in_flight = true;
    p->told_slow = false;
    p->sent_ns = now;
    p->claimed_last = cycle.claim > 0;
    p->apart_last = cycle.claim > 0 && cycle.claim_apart;
    if (cycle.note)
        p->noted_ns = now;
    claim_pacer_sent(&p->pacer, now, cycle.look);
}

int64_t
producer_cycle_ms(const struct producer *p)
{
    return p->in_flight ? (int64_t)((clock_ns() - p->sent_ns) / 1000000u) : 0;
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
                "the database has not answered for %.1f s; waiting for it to confirm %zu "
                "answer%s (%zu KiB)%s",
                (double)ms / 1000, answers, answers == 1 ? "" : "s",
                p->outbox.bytes / 1024, p->claimed_last ? " and a claim" : "");
    producer_ask_holders(p, clock_ns());
}
