/* outbox.c: see outbox.h. */
#include "jobqd/actors/outbox.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "libjobq/backoff.h"
#include "libjobq/buf.h"

struct settled {
    struct list link;
    struct settlement what; /* entry and result point behind the struct */
};

void
outbox_init(struct outbox *outbox)
{
    memset(outbox, 0, sizeof *outbox);
    list_init(&outbox->settled);
    list_init(&outbox->settled_sent);
    outbox->most = OUTBOX_BATCH;
}

static void
free_settled(struct list *list)
{
    struct list *link;
    while ((link = list_pop(list)) != NULL)
        free(list_entry(link, struct settled, link));
}

static void
free_acks(struct outbox_acks *acks)
{
    free(acks->ids);
    free(acks->attempts);
    memset(acks, 0, sizeof *acks);
}

void
outbox_clear(struct outbox *outbox)
{
    free_acks(&outbox->pending);
    free_acks(&outbox->sent);
    free_settled(&outbox->settled);
    free_settled(&outbox->settled_sent);
    free(outbox->lent);
    outbox_init(outbox);
}

static int
reserve_acks(struct outbox_acks *acks, size_t more)
{
    size_t need = acks->n + more;
    if (need <= acks->cap)
        return 0;
    size_t cap = acks->cap ? acks->cap : 256;
    while (cap < need)
        cap *= 2;
    int64_t *ids = realloc(acks->ids, cap * sizeof *ids);
    if (!ids)
        return JOBQ_ENOMEM;
    acks->ids = ids;
    int32_t *attempts = realloc(acks->attempts, cap * sizeof *attempts);
    if (!attempts)
        return JOBQ_ENOMEM;
    acks->attempts = attempts;
    acks->cap = cap;
    return 0;
}

static enum settlement_kind
settlement_of(enum verdict_kind kind)
{
    switch (kind) {
    case VERDICT_OK:
        return SETTLE_COMPLETED;
    case VERDICT_SNOOZE:
        return SETTLE_SNOOZED;
    case VERDICT_DISCARD:
        return SETTLE_DISCARDED;
    case VERDICT_CANCELLED:
    case VERDICT_ABORTED:
        return SETTLE_CANCELLED;
    case VERDICT_RELEASED:
        return SETTLE_RELEASED;
    case VERDICT_CRASH:
    case VERDICT_MEMORY: /* takes a worker down as well, so it counts as poison */
        return SETTLE_CRASHED;
    case VERDICT_ERROR:
    case VERDICT_TIMEOUT:
    case VERDICT_PROTOCOL:
    case VERDICT_UNHANDLED:
    case VERDICT_ORPHANED:
        return SETTLE_FAILED;
    }
    abort();
}

static int64_t
delay_of(const struct queue_config *queue, const struct job *job,
         const struct verdict *verdict, uint32_t random)
{
    bool own = verdict->kind == VERDICT_SNOOZE || verdict->kind == VERDICT_ERROR;
    if (own && verdict->delay_ms >= 0)
        return verdict->delay_ms;
    if (verdict->kind == VERDICT_ORPHANED)
        return 0; /* as the lifeline does it */
    return jobq__backoff_ms(&queue->backoff, job->attempt, job->max_attempts, random);
}

static void
put_text(struct jobq__buf *buf, const char *name, const char *text)
{
    if (!text || !*text)
        return;
    jobq__buf_adds(buf, ",\"");
    jobq__buf_adds(buf, name);
    jobq__buf_adds(buf, "\":");
    jobq__buf_add_json_string(buf, text, strlen(text));
}

static void
put_number(struct jobq__buf *buf, const char *name, int64_t value)
{
    if (value < 0)
        return;
    jobq__buf_adds(buf, ",\"");
    jobq__buf_adds(buf, name);
    jobq__buf_adds(buf, "\":");
    jobq__buf_add_i64(buf, value);
}

/* The error entry as a JSON object; the database adds attempt and time. */
static void
put_entry(struct jobq__buf *buf, const struct verdict *verdict)
{
    const char *kind = verdict_error_kind(verdict->kind);
    jobq__buf_adds(buf, "{\"kind\":\"");
    jobq__buf_adds(buf, kind ? kind : "error");
    jobq__buf_adds(buf, "\",\"error\":");
    const char *error =
        verdict->error && *verdict->error ? verdict->error : "no reason was given";
    jobq__buf_add_json_string(buf, error, strlen(error));
    put_text(buf, "detail", verdict->detail);
    if (verdict->signal > 0) {
        const char *name = sigabbrev_np(verdict->signal);
        jobq__buf_adds(buf, ",\"signal\":\"SIG");
        jobq__buf_adds(buf, name ? name : "?");
        jobq__buf_adds(buf, "\"");
    }
    put_number(buf, "exit_code", verdict->exit_code);
    put_text(buf, "output", verdict->output);
    if (verdict->run_us >= 0)
        put_number(buf, "run_ms", verdict->run_us / 1000);
    if (verdict->cpu_us >= 0)
        put_number(buf, "cpu_ms", verdict->cpu_us / 1000);
    put_number(buf, "max_rss_kb", verdict->max_rss_kb);
    jobq__buf_adds(buf, "}");
}

static bool
leaves_entry(const struct verdict *verdict)
{
    if (verdict->kind == VERDICT_CANCELLED)
        return verdict->error != NULL;
    return verdict_error_kind(verdict->kind) != NULL;
}

/* One block: the struct, then entry, then result, each with its NUL. */
static struct settled *
new_settled(const char *entry, size_t entry_len, const char *result, size_t result_len)
{
    struct settled *s = malloc(sizeof *s + entry_len + result_len + 2);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    char *text = (char *)(s + 1);
    if (entry) {
        memcpy(text, entry, entry_len);
        text[entry_len] = '\0';
        s->what.entry = text;
        text += entry_len + 1;
    }
    if (result) {
        memcpy(text, result, result_len);
        text[result_len] = '\0';
        s->what.result = text;
    }
    list_init(&s->link);
    return s;
}

static int
add_settlement(struct outbox *outbox, const struct queue_config *queue,
               const struct job *job, const struct verdict *verdict, uint32_t random)
{
    struct jobq__buf entry = {0};
    if (leaves_entry(verdict))
        put_entry(&entry, verdict);
    struct settled *s = entry.failed
                            ? NULL
                            : new_settled(entry.data, entry.len, verdict->result,
                                          verdict->result ? verdict->result_len : 0);
    jobq__buf_clear(&entry);
    if (!s)
        return JOBQ_ENOMEM;
    s->what.id = job->id;
    s->what.attempt = job->attempt;
    s->what.kind = settlement_of(verdict->kind);
    s->what.delay_ms = delay_of(queue, job, verdict, random);
    s->what.run_us = verdict->run_us;
    s->what.cpu_us = verdict->cpu_us;
    s->what.max_rss_kb = verdict->max_rss_kb;
    list_push(&outbox->settled, &s->link);
    outbox->n_settled++;
    return 0;
}

int
outbox_add(struct outbox *outbox, const struct queue_config *queue, const struct job *job,
           const struct verdict *verdict, uint32_t random)
{
    bool plain = verdict->kind == VERDICT_OK && !verdict->result && verdict->cpu_us < 0;
    if (!plain)
        return add_settlement(outbox, queue, job, verdict, random);
    /* With room for what is under way, so that taking it back cannot fail. */
    int rc = reserve_acks(&outbox->pending, outbox->sent.n + 1);
    if (rc < 0)
        return rc;
    outbox->pending.ids[outbox->pending.n] = job->id;
    outbox->pending.attempts[outbox->pending.n] = job->attempt;
    outbox->pending.n++;
    return 0;
}

size_t
outbox_pending(const struct outbox *outbox)
{
    return outbox->pending.n + outbox->n_settled;
}

size_t
outbox_count(const struct outbox *outbox)
{
    return outbox_pending(outbox) + outbox->sent.n + outbox->n_settled_sent;
}

bool
outbox_is_empty(const struct outbox *outbox)
{
    return outbox_count(outbox) == 0;
}

/* The oldest pending acks, leaving `pending` the capacity to take them back. */
static int
take_acks(struct outbox *outbox)
{
    size_t n = outbox->pending.n < OUTBOX_BATCH ? outbox->pending.n : OUTBOX_BATCH;
    int rc = reserve_acks(&outbox->sent, n);
    if (rc < 0)
        return rc;
    if (n == 0)
        return 0;
    size_t rest = outbox->pending.n - n;
    memcpy(outbox->sent.ids, outbox->pending.ids, n * sizeof(int64_t));
    memcpy(outbox->sent.attempts, outbox->pending.attempts, n * sizeof(int32_t));
    memmove(outbox->pending.ids, outbox->pending.ids + n, rest * sizeof(int64_t));
    memmove(outbox->pending.attempts, outbox->pending.attempts + n,
            rest * sizeof(int32_t));
    outbox->sent.n = n;
    outbox->pending.n = rest;
    return 0;
}

int
outbox_take(struct outbox *outbox, struct store_cycle *cycle)
{
    assert(outbox->sent.n == 0 && outbox->n_settled_sent == 0);
    size_t n = outbox->n_settled < outbox->most ? outbox->n_settled : outbox->most;
    if (n > outbox->lent_cap) {
        struct settlement *lent = realloc(outbox->lent, n * sizeof *lent);
        if (!lent)
            return JOBQ_ENOMEM;
        outbox->lent = lent;
        outbox->lent_cap = n;
    }
    int rc = take_acks(outbox);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        struct settled *s = list_entry(list_pop(&outbox->settled), struct settled, link);
        outbox->lent[i] = s->what;
        list_push(&outbox->settled_sent, &s->link);
    }
    outbox->n_settled -= n;
    outbox->n_settled_sent = n;
    cycle->n_acks = outbox->sent.n;
    cycle->ack_ids = outbox->sent.ids;
    cycle->ack_attempts = outbox->sent.attempts;
    cycle->n_settlements = n;
    cycle->settlements = outbox->lent;
    return 0;
}

void
outbox_confirmed(struct outbox *outbox)
{
    outbox->sent.n = 0;
    free_settled(&outbox->settled_sent);
    outbox->n_settled_sent = 0;
    if (outbox->n_settled == 0)
        outbox->most = OUTBOX_BATCH;
}

void
outbox_returned(struct outbox *outbox)
{
    struct outbox_acks *sent = &outbox->sent, *pending = &outbox->pending;
    if (sent->n > 0) {
        assert(pending->cap >=
               pending->n + sent->n); /* outbox_add and take_acks see to it */
        memmove(pending->ids + sent->n, pending->ids, pending->n * sizeof(int64_t));
        memmove(pending->attempts + sent->n, pending->attempts,
                pending->n * sizeof(int32_t));
        memcpy(pending->ids, sent->ids, sent->n * sizeof(int64_t));
        memcpy(pending->attempts, sent->attempts, sent->n * sizeof(int32_t));
        pending->n += sent->n;
        sent->n = 0;
    }
    struct list *link;
    while (!list_empty(&outbox->settled_sent)) {
        link = outbox->settled_sent.prev;
        list_remove(link);
        list_push_front(&outbox->settled, link);
    }
    outbox->n_settled += outbox->n_settled_sent;
    outbox->n_settled_sent = 0;
}

void
outbox_suspect(struct outbox *outbox, const char *why)
{
    if (outbox->n_settled == 0)
        return;
    if (outbox->most > 1) {
        outbox->most = 1;
        return;
    }
    struct list *link = list_pop(&outbox->settled);
    struct settled *bad = list_entry(link, struct settled, link);
    struct jobq__buf entry = {0};
    struct jobq__buf error = {0};
    jobq__buf_adds(&error, "the database refused what the attempt left: ");
    jobq__buf_adds(&error, why);
    put_entry(&entry, &(struct verdict){.kind = VERDICT_ERROR,
                                        .error = jobq__buf_cstr(&error),
                                        .exit_code = -1,
                                        .run_us = -1,
                                        .cpu_us = -1,
                                        .max_rss_kb = -1});
    struct settled *s = entry.failed ? NULL : new_settled(entry.data, entry.len, NULL, 0);
    jobq__buf_clear(&entry);
    jobq__buf_clear(&error);
    if (!s) { /* no memory: keep the old one, and try again with the next cycle */
        list_push_front(&outbox->settled, link);
        return;
    }
    struct settlement what = bad->what;
    what.entry = s->what.entry;
    what.result = NULL;
    if (what.kind == SETTLE_COMPLETED)
        what.kind = SETTLE_FAILED;
    s->what = what;
    free(bad);
    list_push_front(&outbox->settled, &s->link);
}

size_t
outbox_ids(const struct outbox *outbox, int64_t *ids)
{
    size_t n = 0;
    for (size_t i = 0; i < outbox->pending.n; i++)
        ids[n++] = outbox->pending.ids[i];
    for (size_t i = 0; i < outbox->sent.n; i++)
        ids[n++] = outbox->sent.ids[i];
    for (struct list *l = outbox->settled.next; l != &outbox->settled; l = l->next)
        ids[n++] = list_entry(l, struct settled, link)->what.id;
    for (struct list *l = outbox->settled_sent.next; l != &outbox->settled_sent;
         l = l->next)
        ids[n++] = list_entry(l, struct settled, link)->what.id;
    return n;
}
