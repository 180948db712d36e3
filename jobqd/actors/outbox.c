/* outbox.c: see outbox.h. */
#include "jobqd/actors/outbox.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* When a settlement is tried again: one whose row is locked soon after the lock may be
 * gone, one that cannot be recorded ever more rarely. A lock is worth a word once it has
 * lasted. */
enum {
    LOCKED_FIRST_MS = 50,
    LOCKED_MAX_MS = 1000,
    STUCK_FIRST_MS = 1000,
    STUCK_MAX_MS = 60 * 1000,
    LOCKED_TELL_MS = 1000,
    STUCK_TELL_MS = 600 * 1000 /* again */
};

/* Of the outboxes of all queues: they share the process's memory. */
static size_t bytes_of_all;

static void
weigh(struct outbox *outbox, size_t more, size_t less)
{
    outbox->bytes += more - less;
    bytes_of_all += more - less;
}

static void
init_list(struct outbox_list *list)
{
    list_init(&list->list);
    list->n = 0;
}

static void
push(struct outbox_list *list, struct settled *s)
{
    list_push(&list->list, &s->link);
    list->n++;
}

static void
push_front(struct outbox_list *list, struct settled *s)
{
    list_push_front(&list->list, &s->link);
    list->n++;
}

static struct settled *
pop(struct outbox_list *list)
{
    struct list *link = list_pop(&list->list);
    if (!link)
        return NULL;
    list->n--;
    return list_entry(link, struct settled, link);
}

static struct settled *
take_off(struct outbox_list *list, struct settled *s)
{
    list_remove(&s->link);
    list->n--;
    return s;
}

void
outbox_init(struct outbox *outbox)
{
    memset(outbox, 0, sizeof *outbox);
    init_list(&outbox->settled);
    init_list(&outbox->settled_sent);
    init_list(&outbox->suspects);
    init_list(&outbox->later);
}

static void
drop(struct outbox *outbox, struct settled *s)
{
    weigh(outbox, 0, s->weight);
    free(s);
}

static void
drop_all(struct outbox *outbox, struct outbox_list *list)
{
    struct settled *s;
    while ((s = pop(list)) != NULL)
        drop(outbox, s);
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
    free_acks(&outbox->doubtful);
    drop_all(outbox, &outbox->settled);
    drop_all(outbox, &outbox->settled_sent);
    drop_all(outbox, &outbox->suspects);
    drop_all(outbox, &outbox->later);
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

int
outbox_add(struct outbox *outbox, const struct queue_config *queue, const struct job *job,
           const struct verdict *verdict, uint32_t random)
{
    bool plain = verdict->kind == VERDICT_OK && !verdict->result && !verdict->error &&
                 verdict->cpu_us < 0;
    if (!plain) {
        struct settled *s = settled_new(queue, job, verdict, random);
        if (!s)
            return JOBQ_ENOMEM;
        weigh(outbox, s->weight, 0);
        push(&outbox->settled, s);
        return 0;
    }
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
    return outbox->pending.n + outbox->settled.n;
}

size_t
outbox_count(const struct outbox *outbox)
{
    return outbox_pending(outbox) + outbox->sent.n + outbox->doubtful.n +
           outbox->settled_sent.n + outbox->suspects.n + outbox->later.n;
}

bool
outbox_is_empty(const struct outbox *outbox)
{
    return outbox_count(outbox) == 0;
}

int64_t
outbox_due_in_ms(const struct outbox *outbox, uint64_t now_ms)
{
    if (outbox->later.n == 0)
        return -1;
    return outbox->later_due_ms > now_ms ? (int64_t)(outbox->later_due_ms - now_ms) : 0;
}

bool
outbox_apart_due(const struct outbox *outbox, uint64_t now_ms)
{
    return outbox->suspects.n > 0 || outbox_due_in_ms(outbox, now_ms) == 0;
}

bool
outbox_is_heavy(const struct outbox *outbox, bool was)
{
    size_t limit = was ? OUTBOX_LIGHT_BYTES : OUTBOX_HEAVY_BYTES;
    return bytes_of_all > limit && outbox->bytes > OUTBOX_OWN_BYTES;
}

/* ---- sending ---- */

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

static int
reserve_lent(struct outbox *outbox, size_t n)
{
    if (n <= outbox->lent_cap)
        return 0;
    struct settlement *lent = realloc(outbox->lent, n * sizeof *lent);
    if (!lent)
        return JOBQ_ENOMEM;
    outbox->lent = lent;
    outbox->lent_cap = n;
    return 0;
}

/* Sends the settlement, which is off its list, unless the batch has its fill of bytes. */
static bool
send_one(struct outbox *outbox, struct settled *s, size_t *bytes)
{
    if (outbox->settled_sent.n > 0 && *bytes + s->weight > OUTBOX_BATCH_BYTES)
        return false;
    *bytes += s->weight;
    outbox->lent[outbox->settled_sent.n] = s->what;
    push(&outbox->settled_sent, s);
    return true;
}

static void
lend(struct outbox *outbox, struct store_cycle *cycle)
{
    cycle->n_acks = outbox->sent.n;
    cycle->ack_ids = outbox->sent.ids;
    cycle->ack_attempts = outbox->sent.attempts;
    cycle->n_settlements = outbox->settled_sent.n;
    cycle->settlements = outbox->lent;
    cycle->settle_apart = outbox->sent_apart;
}

int
outbox_take(struct outbox *outbox, struct store_cycle *cycle)
{
    assert(outbox->sent.n == 0 && outbox->settled_sent.n == 0);
    size_t most = outbox->settled.n < OUTBOX_BATCH ? outbox->settled.n : OUTBOX_BATCH;
    size_t bytes = 0;
    int rc = reserve_lent(outbox, most);
    if (rc == 0)
        rc = take_acks(outbox);
    if (rc < 0)
        return rc;
    outbox->sent_apart = false;
    while (outbox->settled_sent.n < most) {
        struct settled *s = pop(&outbox->settled);
        if (!send_one(outbox, s, &bytes)) {
            push_front(&outbox->settled, s);
            break;
        }
    }
    lend(outbox, cycle);
    return 0;
}

/* Sends those that are due again, as far as there is room; notes when the next one is. */
static void
send_due(struct outbox *outbox, uint64_t now_ms, size_t *bytes)
{
    struct list *next;
    bool room = true;
    uint64_t due_ms = UINT64_MAX;
    for (struct list *l = outbox->later.list.next; l != &outbox->later.list; l = next) {
        struct settled *s = list_entry(l, struct settled, link);
        next = l->next;
        room = room && outbox->settled_sent.n < STORE_MAX_APART;
        if (room && s->due_ms <= now_ms) {
            take_off(&outbox->later, s);
            if (send_one(outbox, s, bytes))
                continue;
            room = false;
            push_front(&outbox->later, s);
        }
        due_ms = s->due_ms < due_ms ? s->due_ms : due_ms;
    }
    outbox->later_due_ms = due_ms;
}

int
outbox_take_apart(struct outbox *outbox, uint64_t now_ms, struct store_cycle *cycle)
{
    assert(outbox->sent.n == 0 && outbox->settled_sent.n == 0);
    size_t bytes = 0;
    int rc = reserve_lent(outbox, STORE_MAX_APART);
    if (rc < 0)
        return rc;
    outbox->sent_apart = true;
    while (outbox->suspects.n > 0 && outbox->settled_sent.n < STORE_MAX_APART) {
        struct settled *s = pop(&outbox->suspects);
        if (!send_one(outbox, s, &bytes)) {
            push_front(&outbox->suspects, s);
            break;
        }
    }
    send_due(outbox, now_ms, &bytes);
    lend(outbox, cycle);
    return 0;
}

/* ---- what came of it ---- */

/* Keeps it until it is due again. */
static void
keep(struct outbox *outbox, struct settled *s, const struct store_fate *fate,
     uint64_t now_ms, outbox_tell tell, void *owner)
{
    bool locked = fate->fate == FATE_LOCKED;
    uint64_t pause_ms = locked ? LOCKED_FIRST_MS : STUCK_FIRST_MS;
    uint64_t most_ms = locked ? LOCKED_MAX_MS : STUCK_MAX_MS;
    if (s->fate != fate->fate) {
        s->fate = fate->fate;
        s->tries = 0;
        s->first_ms = now_ms;
        s->told = false;
    }
    for (int i = 0; i < s->tries && pause_ms < most_ms; i++)
        pause_ms *= 2;
    s->due_ms = now_ms + (pause_ms < most_ms ? pause_ms : most_ms);
    s->tries++;
    bool again = !locked && s->told && now_ms - s->first_ms >= STUCK_TELL_MS;
    if ((!s->told && (!locked || now_ms - s->first_ms >= LOCKED_TELL_MS)) || again) {
        bool done = tell(owner, s, fate, !s->told);
        if (again && done)
            s->first_ms = now_ms;
        s->told = s->told || done;
    }
    if (outbox->later.n == 0 || s->due_ms < outbox->later_due_ms)
        outbox->later_due_ms = s->due_ms;
    push(&outbox->later, s);
}

static int
by_id(const void *key, const void *element)
{
    int64_t id = *(const int64_t *)key;
    const struct store_fate *fate = element;
    return (id > fate->id) - (id < fate->id);
}

struct outbox_tally
outbox_confirmed(struct outbox *outbox, const struct store_fate *fates, size_t n,
                 uint64_t now_ms, outbox_tell tell, void *owner)
{
    struct settled *s;
    struct outbox_tally tally = {0};
    outbox->sent.n = 0;
    while ((s = pop(&outbox->settled_sent)) != NULL) {
        const struct store_fate *fate =
            n > 0 ? bsearch(&s->what.id, fates, n, sizeof *fates, by_id) : NULL;
        if (!fate) { /* nothing was said of it: it is asked about again */
            push(&outbox->suspects, s);
            continue;
        }
        switch (fate->fate) {
        case FATE_LOCKED:
        case FATE_STUCK:
            keep(outbox, s, fate, now_ms, tell, owner);
            continue;
        case FATE_STRIPPED:
        case FATE_PARKED:
            tell(owner, s, fate, true);
            tally.accepted++;
            break;
        case FATE_ACCEPTED:
            if (s->kind)
                tell(owner, s, fate, true);
            tally.accepted++;
            break;
        case FATE_REFUSED:
            tally.refused++;
            break;
        }
        drop(outbox, s);
    }
    return tally;
}

/* ---- acks that took no row away ---- */

void
outbox_doubt(struct outbox *outbox)
{
    assert(outbox->doubtful.n == 0);
    struct outbox_acks empty = outbox->doubtful;
    outbox->doubtful = outbox->sent;
    outbox->sent = empty;
}

static bool
suspect_ack(struct outbox *outbox, int64_t id, int32_t attempt)
{
    struct settled *s = settled_completed(id, attempt);
    if (s)
        push(&outbox->suspects, s);
    return s != NULL;
}

void
outbox_doubt_ended(struct outbox *outbox, const int64_t *running, size_t n)
{
    struct outbox_acks *doubtful = &outbox->doubtful;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < doubtful->n; k++)
            if (doubtful->ids[k] == running[i]) {
                suspect_ack(outbox, doubtful->ids[k], doubtful->attempts[k]);
                break;
            }
    doubtful->n = 0;
}

void
outbox_doubt_returned(struct outbox *outbox)
{
    struct outbox_acks *doubtful = &outbox->doubtful, *pending = &outbox->pending;
    size_t n = doubtful->n;
    doubtful->n = 0;
    if (reserve_acks(pending, n + outbox->sent.n + 1) < 0)
        return;
    memcpy(pending->ids + pending->n, doubtful->ids, n * sizeof(int64_t));
    memcpy(pending->attempts + pending->n, doubtful->attempts, n * sizeof(int32_t));
    pending->n += n;
}

static void
return_acks(struct outbox *outbox)
{
    struct outbox_acks *sent = &outbox->sent, *pending = &outbox->pending;
    if (sent->n == 0)
        return;
    assert(pending->cap >= pending->n + sent->n); /* outbox_add and take_acks see to it */
    memmove(pending->ids + sent->n, pending->ids, pending->n * sizeof(int64_t));
    memmove(pending->attempts + sent->n, pending->attempts, pending->n * sizeof(int32_t));
    memcpy(pending->ids, sent->ids, sent->n * sizeof(int64_t));
    memcpy(pending->attempts, sent->attempts, sent->n * sizeof(int32_t));
    pending->n += sent->n;
    sent->n = 0;
}

static void
return_settled(struct outbox *outbox, struct outbox_list *to)
{
    while (outbox->settled_sent.n > 0) {
        struct list *last = outbox->settled_sent.list.prev;
        push_front(
            to, take_off(&outbox->settled_sent, list_entry(last, struct settled, link)));
    }
}

void
outbox_returned(struct outbox *outbox)
{
    return_acks(outbox);
    return_settled(outbox, outbox->sent_apart ? &outbox->suspects : &outbox->settled);
}

void
outbox_refused(struct outbox *outbox)
{
    return_settled(outbox, &outbox->suspects);
    while (outbox->sent.n > 0) {
        size_t last = outbox->sent.n - 1;
        struct settled *s =
            settled_completed(outbox->sent.ids[last], outbox->sent.attempts[last]);
        if (!s) {
            return_acks(outbox);
            return;
        }
        outbox->sent.n = last;
        push_front(&outbox->suspects, s);
    }
}

static size_t
list_ids(const struct outbox_list *list, int64_t *ids)
{
    size_t n = 0;
    for (struct list *l = list->list.next; l != &list->list; l = l->next)
        ids[n++] = list_entry(l, struct settled, link)->what.id;
    return n;
}

size_t
outbox_ids(const struct outbox *outbox, int64_t *ids)
{
    const struct outbox_list *lists[] = {&outbox->settled, &outbox->settled_sent,
                                         &outbox->suspects, &outbox->later};
    size_t n = 0;
    for (size_t i = 0; i < outbox->pending.n; i++)
        ids[n++] = outbox->pending.ids[i];
    for (size_t i = 0; i < outbox->sent.n; i++)
        ids[n++] = outbox->sent.ids[i];
    for (size_t i = 0; i < outbox->doubtful.n; i++)
        ids[n++] = outbox->doubtful.ids[i];
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        n += list_ids(lists[i], ids + n);
    return n;
}
