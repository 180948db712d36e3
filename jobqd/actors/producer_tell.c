/* producer_tell.c: what a producer logs about single jobs: those that failed, those whose
 * end the database does not record at once, and those that it refuses to let be claimed.
 *
 * It decides nothing: producer_retry.c and the outbox decide what is sent again. */
#include "jobqd/actors/producer_private.h"

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

enum {
    TELL_WINDOW_MS = 10 * 1000, /* in each such window … */
    TELL_MAX = 100,             /* … at most this many jobs are named */
    REFUSED_EVERY_MS = 60 * 1000
};

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

/* A lock on a table, or a trigger, can affect thousands of jobs: the log names some. */
static bool
may_tell(struct producer *p)
{
    uint64_t now = clock_ns();
    if (now - p->tells.window_ns >= TELL_WINDOW_MS * UINT64_C(1000000)) {
        if (p->tells.in_window > TELL_MAX)
            log_warning(p->subject, "%u more jobs were locked or refused",
                        p->tells.in_window - TELL_MAX);
        p->tells.window_ns = now;
        p->tells.in_window = 0;
    }
    return ++p->tells.in_window <= TELL_MAX;
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

bool
producer_tell_fate(void *owner, const struct settled *s, const struct store_fate *fate,
                   bool first)
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
    const char *message = fate->message ? fate->message : "no reason given";
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
                  "job %lld, attempt %d: %s, but another session has locked its row; "
                  "this will be recorded once the lock is released: %s",
                  id, attempt, word, fate->message ? message : "holder unknown");
        break;
    case FATE_STRIPPED:
        log_about(LOG_LEVEL_WARNING, p->subject, &facts,
                  "job %lld, attempt %d: %s, but the database refused its result or "
                  "details; recorded without them: %s",
                  id, attempt, word, message);
        break;
    case FATE_PARKED:
        log_about(LOG_LEVEL_ERROR, p->subject, &facts,
                  "job %lld, attempt %d: %s, but the database refuses to record it: %s; "
                  "the job is suspended until the database accepts it",
                  id, attempt, word, message);
        break;
    case FATE_STUCK:
        log_about(LOG_LEVEL_ERROR, p->subject, &facts,
                  "job %lld, attempt %d: %s, but the database refuses every change to "
                  "its row%s; retrying to record it: %s",
                  id, attempt, word, first ? "" : ", again", message);
        break;
    case FATE_ACCEPTED:
    case FATE_REFUSED:
        break;
    }
    return true;
}

void
producer_tell_refusals(struct producer *p, const struct store_cycle_result *result)
{
    for (size_t i = 0; i < result->n_refusals; i++) {
        const struct store_refusal *refusal = &result->refusals[i];
        if (refusal->fresh && may_tell(p))
            log_about(LOG_LEVEL_ERROR, p->subject,
                      &(struct log_facts){.job = refusal->id,
                                          .kind = refusal->kind,
                                          .queue = p->options.queue->name,
                                          .error = refusal->message},
                      "job %lld (kind %s) cannot be claimed, because the database "
                      "refuses it: %s; skipping it, retrying every minute",
                      (long long)refusal->id, refusal->kind, refusal->message);
        else
            log_debug(p->subject, "job %lld still cannot be claimed: %s",
                      (long long)refusal->id, refusal->message);
    }
}

void
producer_note_refused(struct producer *p, size_t refused)
{
    if (refused == 0)
        return;
    p->stats.refused += refused;
    uint64_t now = clock_ns();
    if (p->tells.refused_ns &&
        now - p->tells.refused_ns < REFUSED_EVERY_MS * UINT64_C(1000000))
        return;
    p->tells.refused_ns = now;
    log_info(p->subject,
             "%llu answers so far were ignored, because those attempts had already ended "
             "(jobq.complete in the handler's own transaction, or the job was taken back "
             "from this node)",
             (unsigned long long)p->stats.refused);
}
