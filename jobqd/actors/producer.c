/* producer.c: the public face of a producer (see producer.h), and what its pool reports.
 * These functions record what is new; producer_step.c acts on it. producer_private.h says
 * which file does what. */
#include "jobqd/actors/producer_private.h"

#include "jobqd/base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the pool says ---- */

static void
on_verdict(void *owner, struct job *job, const struct verdict *verdict)
{
    struct producer *p = owner;
    if (p->state == PRODUCER_ABANDONING) {
        producer_forget_job(p, job);
        return;
    }
    claim_pacer_ended(&p->pacer, 1);
    producer_settle(p, job, verdict);
    producer_weigh_outbox(p);
}

static void
on_room(void *owner)
{
    producer_step(owner);
}

static void
on_pool_stopped(void *owner)
{
    struct producer *p = owner;
    p->pool_stopped = true;
    producer_step_soon(p);
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

/* ---- its life ---- */

int
producer_new(struct producer **out, const struct producer_options *options)
{
    struct producer *p = calloc(1, sizeof *p);
    if (!p)
        return JOBQ_ENOMEM;
    p->options = *options;
    queue_config_ref(options->queue);
    snprintf(p->subject, sizeof p->subject, "queue %s", options->queue->name);
    p->state = PRODUCER_DETACHED;
    p->random = (uint32_t)clock_ns() | 1u;
    p->whole_look_ns = clock_ns();
    list_init(&p->ready);
    list_init(&p->all);
    list_init(&p->unsaid);
    outbox_init(&p->outbox);
    cursor_init(&p->cursor, options->unsafe_base);
    claim_pacer_init(&p->pacer, options->poll_interval_ms);
    ageing_init(&p->ageing, options->queue->ageing_ms);
    int rc = pool_new(&p->pool, options->loop, options->queue, options->max_frame,
                      &pool_events, p);
    if (rc < 0) {
        queue_config_unref(options->queue);
        free(p);
        return rc;
    }
    producer_step_init(p, options->loop);
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
    producer_drop_jobs(p, &p->ready);
    producer_drop_jobs(p, &p->unsaid);
    assert(p->n_all == 0);
    outbox_clear(&p->outbox);
    queue_config_unref(p->options.queue);
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
    producer_retry_reset(p);
    p->line = LINE_UNKNOWN;
    p->mark.doubtful = true; /* after a crash of the database the marks are gone */
    cursor_init(&p->cursor, p->options.unsafe_base);
    claim_pacer_init(&p->pacer, p->options.poll_interval_ms);
    if (p->state == PRODUCER_DETACHED)
        producer_set_state(p, PRODUCER_CLAIMING);
    producer_step_soon(p);
}

void
producer_detach(struct producer *p)
{
    p->attached = false;
    if (p->state == PRODUCER_CLAIMING)
        producer_set_state(p, PRODUCER_DETACHED);
}

void
producer_drain(struct producer *p, int64_t grace_ms)
{
    if (p->state == PRODUCER_STOPPED || p->state == PRODUCER_ABANDONING)
        return;
    producer_set_state(p, PRODUCER_DRAINING);
    producer_release_ready(p);
    if (grace_ms > 0)
        pool_stop(p->pool, grace_ms);
    else
        pool_kill(p->pool);
    producer_step_soon(p);
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
    producer_set_state(p, PRODUCER_ABANDONING);
    p->attached = false;
    producer_drop_jobs(p, &p->ready);
    p->n_ready = 0;
    producer_drop_jobs(p, &p->unsaid);
    /* store_cycle has copied what is under way: nothing points into the outbox. */
    outbox_clear(&p->outbox);
    pool_kill(p->pool);
    producer_step_soon(p);
}

/* ---- what it is told ---- */

void
producer_poke(struct producer *p)
{
    if (p->state != PRODUCER_CLAIMING)
        return;
    if (p->line == LINE_EMPTY || p->line == LINE_SHORT)
        p->line = LINE_UNKNOWN;
    producer_step(p);
}

void
producer_listening(struct producer *p, bool listening)
{
    p->mark.listening = listening;
}

int
producer_configure(struct producer *p, const struct queue_config *queue, size_t max_frame,
                   int64_t poll_interval_ms)
{
    assert(strcmp(queue->name, p->options.queue->name) == 0);
    int rc = p->pool ? pool_configure(p->pool, queue, max_frame) : 0;
    if (rc < 0)
        return rc;
    queue_config_ref(queue);
    queue_config_unref(p->options.queue);
    p->options.queue = queue;
    p->options.max_frame = max_frame;
    p->options.poll_interval_ms = poll_interval_ms;
    p->pacer.poll_interval_ms = poll_interval_ms;
    producer_ages_configure(p);
    if (p->pacer.poll_ms > poll_interval_ms)
        p->pacer.poll_ms = poll_interval_ms;
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
        producer_release_ready(p);
        pool_give_back(p->pool);
    }
    if (p->holds == 0)
        producer_poke(p);
    else if (works)
        producer_step_soon(p); /* inserters need not wake us */
}

static int
compare_cancels(const void *a, const void *b)
{
    const struct store_cancel *one = a, *other = b;
    if (one->id != other->id)
        return one->id < other->id ? -1 : 1;
    return (one->attempt > other->attempt) - (one->attempt < other->attempt);
}

/* Whether a request to cancel this job is new. */
static bool
is_asked_for(const struct job *job, const struct store_cancel *cancels, size_t n)
{
    struct store_cancel wanted = {.id = job->id, .attempt = job->attempt};
    return job->cancel == JOB_GOES_ON &&
           bsearch(&wanted, cancels, n, sizeof wanted, compare_cancels) != NULL;
}

/* One pass over the jobs, however many requests there are: each request is repeated until
 * its job has ended, and there may be thousands. */
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
        producer_settle(p, job, &producer_released);
        producer_step_soon(p);
    }
    for (struct list *l = p->all.next; p->pool && l != &p->all; l = l->next) {
        struct job *job = list_entry(l, struct job, held);
        if (is_asked_for(job, cancels, n))
            pool_cancel(p->pool, job);
    }
}

/* ---- what it tells ---- */

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
producer_add_kinds(const struct producer *p, struct cJSON *object)
{
    if (p->pool)
        pool_add_kinds(p->pool, object);
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
