/* producer_fetch.c: fetches large arguments after the claim.
 *
 * They do not come with the claim (sql/hot/claim.sql): a batch of them could fill the memory.
 * They are fetched when their job is next in line and a worker has room, as long as the
 * jobs in memory take less than CLAIM_PACER_AHEAD_BYTES. Beyond that, one is fetched for each
 * worker that would start it at once, however large it is. */
#include "jobqd/actors/producer_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

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

/* Puts a job with these texts in the place of the one without. */
static void
complete(struct producer *p, struct job *job, const struct store_fetched *texts)
{
    struct job *whole = job_new(job->kind, strlen(job->kind), texts->args,
                                texts->args_len, texts->meta, texts->meta_len);
    if (!whole) {
        log_error(p->subject, "job %lld: out of memory for its arguments; releasing it",
                  (long long)job->id);
        list_remove(&job->link);
        p->n_ready--;
        producer_settle(p, job, &producer_released);
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

/* The job no longer belongs to this node: it was cancelled or taken back. */
static void
let_go(struct producer *p, struct job *job)
{
    list_remove(&job->link);
    p->n_ready--;
    producer_forget_job(p, job);
}

/* Ends a job whose arguments cannot be given to a worker. */
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
    producer_settle(p, job,
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
        struct job *job = find_ready(p, p->fetch.asked[i]);
        const struct store_fetched *texts = &result->fetched[at];
        bool ours = at < result->n && texts->id == p->fetch.asked[i];
        if (ours) {
            bytes += texts->args_len + texts->meta_len;
            at++;
        }
        if (job && ours && !texts->args)
            discard(p, job,
                    "args and meta take %zu bytes, too many for a message to a worker "
                    "(max_frame = %zu bytes); enqueue less or raise max_frame",
                    texts->bytes, p->options.max_frame);
        else if (job && ours)
            complete(p, job, texts);
        else if (job)
            let_go(p, job);
    }
    claim_pacer_fetched(&p->pacer, at, bytes);
}

/* The database refused to return the arguments. If they were one job's, it ends. */
static void
fetch_failed(struct producer *p, const jobq_error *why, size_t n_asked)
{
    struct job *job = n_asked == 1 ? find_ready(p, p->fetch.asked[0]) : NULL;
    if (producer_is_passing(why->sqlstate) || strcmp(why->sqlstate, "55P03") == 0) {
        producer_back_off(p, "to return a job's arguments", why);
        return;
    }
    p->fetch.singly = true;
    if (!job)
        return;
    discard(p, job, "args and meta cannot be read: %s", why->message);
}

static void
on_fetched(void *data, const struct store_fetch_result *result)
{
    struct producer *p = data;
    size_t n_asked = p->fetch.n;
    p->fetch.n = 0;
    if (result->code == 0) {
        p->fetch.singly = false;
        take_fetched(p, result, n_asked);
    } else if (result->code != JOBQ_ECONN && p->state != PRODUCER_ABANDONING) {
        fetch_failed(p, result->error, n_asked);
    }
    p->step(p);
}

void
producer_fetch_large(struct producer *p)
{
    if (p->n_ready == 0 || producer_first_ready(p)->args || p->fetch.n > 0 ||
        !p->attached)
        return;
    if (!p->pool || pool_room(p->pool) == 0 || producer_is_full(p) ||
        clock_ns() < p->retry.at_ns)
        return;
    size_t bytes =
        p->bytes < CLAIM_PACER_AHEAD_BYTES ? CLAIM_PACER_AHEAD_BYTES - p->bytes : 1;
    size_t most = claim_pacer_fetch(&p->pacer, bytes), n = 0;
    if (most > STORE_MAX_FETCH)
        most = STORE_MAX_FETCH;
    if (p->fetch.singly)
        most = 1;
    for (struct list *l = p->ready.next; l != &p->ready && n < most; l = l->next) {
        const struct job *job = list_entry(l, struct job, link);
        if (!job->args)
            p->fetch.asked[n++] = job->id;
    }
    if (store_fetch(p->options.store, p->node, p->fetch.asked, n, bytes,
                    p->options.max_frame, on_fetched, p) == 0) {
        p->fetch.n = n;
        return;
    }
    producer_no_memory(p, "fetching a job's arguments");
}
