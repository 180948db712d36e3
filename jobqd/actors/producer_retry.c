/* producer_retry.c: what becomes of a cycle that the database refuses: when it is sent
 * again, and in which parts.
 *
 * A refusal may be about the server, about another transaction, or about one row. If the
 * SQLSTATE points to the server, the same cycle is sent once more. Otherwise answers and
 * claims go into separate cycles for a while, and each answer and each job is tried by
 * itself, so that a bad row does not hold up the others. The outbox does this for
 * answers; this file does it for claims. */
#include "jobqd/actors/producer_private.h"

#include <stdio.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "libjobq/duration.h"

enum {
    RETRY_FIRST_MS = 100,
    RETRY_MAX_MS = 5000,
    /* From this failure in a row on, an error may be about a row, whatever it says. */
    PASSING_MAX = 2,
    LOCK_RETRY_MS = 250,      /* a table, or our node's row, was locked */
    SPLIT_FOR_MS = 10 * 1000, /* answers and claims are separate, after a refusal */
    APART_FOR_MS = 60 * 1000  /* jobs are claimed one by one, after a refused claim */
};

void
producer_retry_reset(struct producer *p)
{
    p->retry.at_ns = 0;
    p->retry.wait_ms = 0;
    p->retry.claim_at_ns = 0;
    p->retry.claim_wait_ms = 0;
    /* What was sent may have been recorded, and the confirmation lost. A job that was
     * given back must not be claimed again before that is known: answers go first. */
    p->retry.answers_last = false;
}

/* The next wait; it grows while nothing succeeds. */
static uint64_t
longer(int64_t *retry_ms)
{
    *retry_ms = *retry_ms ? *retry_ms * 2 : RETRY_FIRST_MS;
    if (*retry_ms > RETRY_MAX_MS)
        *retry_ms = RETRY_MAX_MS;
    return clock_ns() + (uint64_t)*retry_ms * 1000000u;
}

void
producer_back_off(struct producer *p, const char *what, const jobq_error *why)
{
    p->retry.at_ns = longer(&p->retry.wait_ms);
    log_warning(p->subject, "the database refused %s, retrying in %s: %s", what,
                jobq__duration_show(p->retry.wait_ms).text, why->message);
}

void
producer_no_memory(struct producer *p, const char *what)
{
    p->retry.at_ns = clock_ns() + RETRY_FIRST_MS * UINT64_C(1000000);
    log_error(p->subject, "out of memory while %s, retrying in %s", what,
              jobq__duration_show(RETRY_FIRST_MS).text);
}

/* Answers go on being sent. */
static void
claim_later(struct producer *p, const jobq_error *why)
{
    p->retry.claim_at_ns = longer(&p->retry.claim_wait_ms);
    log_warning(p->subject, "the database refused to claim jobs, retrying in %s: %s",
                jobq__duration_show(p->retry.claim_wait_ms).text, why->message);
}

bool
producer_is_passing(const char *sqlstate)
{
    static const char *const classes[] = {"25", "40", "53", "57014"};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strncmp(sqlstate, classes[i], strlen(classes[i])) == 0)
            return strcmp(sqlstate, "53200") != 0;
    return false;
}

/* The database refused the cycle for a reason that may lie in one of its rows: all are
 * tried again, each by itself. */
static void
refused(struct producer *p, const struct store_cycle_result *result)
{
    uint64_t now = clock_ns();
    bool locked = strcmp(result->error->sqlstate, "55P03") == 0;
    bool was_apart = p->outbox.sent_apart && p->outbox.settled_sent.n > 0;
    bool answers = p->outbox.sent.n + p->outbox.settled_sent.n > 0;
    bool claims = result->failed == STORE_CLAIM ||
                  (result->failed == STORE_PARTS && p->claimed_last);
    bool reads = result->failed == STORE_NOTE || result->failed == STORE_LOOK;
    bool known = (claims && p->apart_last) || was_apart || reads;
    p->retry.split_until_ns = now + SPLIT_FOR_MS * UINT64_C(1000000);
    if (result->failed == STORE_CLAIM || reads)
        outbox_returned(&p->outbox);
    else
        outbox_refused(&p->outbox);
    /* A lock that stops one claim may be on a table. If a lock stops the next claim, too,
     * it may be one that a trigger waits for, for a single job. */
    if (claims)
        p->retry.claims_locked = locked ? p->retry.claims_locked + 1 : 0;
    if (claims && (!locked || p->retry.claims_locked > 1))
        p->retry.apart_until_ns = now + APART_FOR_MS * UINT64_C(1000000);
    if (claims && !locked)
        snprintf(p->retry.claim_refusal, sizeof p->retry.claim_refusal, "%s",
                 result->error->message);
    if (locked) {
        producer_ask_holders(p, now);
        p->retry.claim_at_ns = now + LOCK_RETRY_MS * UINT64_C(1000000);
        if (known && (answers || reads))
            p->retry.at_ns = p->retry.claim_at_ns;
        return;
    }
    if (known && claims) /* claiming them one by one did not help */
        claim_later(p, result->error);
    else if (known)
        producer_back_off(p, "claims or answers", result->error);
    else
        log_debug(p->subject,
                  "the database refused claims and answers sent together; sending them "
                  "one by one: %s",
                  result->error->message);
}

void
producer_cycle_failed(struct producer *p, const struct store_cycle_result *result)
{
    if (result->code == JOBQ_ECONN) {
        outbox_returned(&p->outbox);
        return; /* the node detaches us, and attaches us again with a new session */
    }
    if (result->code != JOBQ_EDB || (producer_is_passing(result->error->sqlstate) &&
                                     ++p->retry.passing < PASSING_MAX)) {
        outbox_returned(&p->outbox);
        producer_back_off(p, "claims or answers", result->error);
        return;
    }
    refused(p, result);
}

void
producer_cycle_succeeded(struct producer *p)
{
    bool answered = p->outbox.sent.n + p->outbox.settled_sent.n > 0;
    /* A look alone proves nothing; neither does a claim while answers wait. */
    if (answered || (p->claimed_last && outbox_is_empty(&p->outbox))) {
        p->retry.wait_ms = 0;
        p->retry.passing = 0;
    }
    if (p->claimed_last) {
        p->retry.claim_wait_ms = 0;
        p->retry.claims_locked = 0;
    }
}

void
producer_refusals_known(struct producer *p, size_t n_refusals)
{
    if (n_refusals > 0)
        p->retry.apart_until_ns = clock_ns() + APART_FOR_MS * UINT64_C(1000000);
    else if (*p->retry.claim_refusal) /* each was claimed by itself */
        log_warning(p->subject,
                    "the database refused to claim several jobs at once; claiming them "
                    "one by one for 1 min: %s",
                    p->retry.claim_refusal);
    *p->retry.claim_refusal = '\0';
}

int
producer_take_turn(struct producer *p, struct store_cycle *cycle, uint64_t now)
{
    bool apart = outbox_apart_due(&p->outbox, now / 1000000u);
    cycle->claim_apart = now < p->retry.apart_until_ns;
    if (!apart && now >= p->retry.split_until_ns)
        return outbox_take(&p->outbox, cycle);
    if (cycle->claim > 0 && (p->retry.answers_last || !producer_answers_due(p, now))) {
        p->retry.answers_last = false;
        return 0;
    }
    p->retry.answers_last = true;
    cycle->claim = 0;
    if (!apart)
        return outbox_take(&p->outbox, cycle);
    cycle->look = cycle->note = false;
    return outbox_take_apart(&p->outbox, now / 1000000u, cycle);
}
