/* producer_jobs.c: the jobs in a producer's memory, and how a job leaves it: it ends, and
 * the outbox keeps its verdict until the database has confirmed it.
 *
 * It sends nothing: the cycle takes what the outbox holds. */
#include "jobqd/actors/producer_private.h"

#include <stdlib.h>

#include "jobqd/base/log.h"

const struct verdict producer_released = {.kind = VERDICT_RELEASED,
                                          .delay_ms = -1,
                                          .exit_code = -1,
                                          .run_us = -1,
                                          .cpu_us = -1,
                                          .max_rss_kb = -1};

void
producer_forget_job(struct producer *p, struct job *job)
{
    list_remove(&job->held);
    p->n_all--;
    p->bytes -= job->args_len + job->meta_len;
    free(job);
}

void
producer_drop_jobs(struct producer *p, struct list *list)
{
    struct list *link;
    while ((link = list_pop(list)) != NULL)
        producer_forget_job(p, list_entry(link, struct job, link));
}

/* xorshift: good enough for jitter. */
static uint32_t
next_random(struct producer *p)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 17;
    p->random ^= p->random << 5;
    return p->random;
}

void
producer_settle(struct producer *p, struct job *job, const struct verdict *verdict)
{
    struct verdict cancelled;
    char text[VERDICT_TEXT];
    if (job->cancel != JOB_GOES_ON) {
        verdict_of_cancelled(verdict, &cancelled, text);
        verdict = &cancelled;
    }
    if (outbox_add(&p->outbox, p->options.queue, job, verdict, next_random(p)) == 0) {
        producer_forget_job(p, job);
        return;
    }
    log_error(p->subject,
              "job %lld: out of memory to record how it ended; it will be released",
              (long long)job->id);
    list_push(&p->unsaid, &job->link);
}

void
producer_release_ready(struct producer *p)
{
    struct list *link;
    while ((link = list_pop(&p->ready)) != NULL) {
        p->n_ready--;
        producer_settle(p, list_entry(link, struct job, link), &producer_released);
    }
}

void
producer_release_unsaid(struct producer *p)
{
    struct list again;
    list_init(&again);
    struct list *link;
    while ((link = list_pop(&p->unsaid)) != NULL)
        list_push(&again, link);
    while ((link = list_pop(&again)) != NULL)
        producer_settle(p, list_entry(link, struct job, link), &producer_released);
}

/* While the database is slower than the workers, answers stay in the workers' sockets. */
void
producer_weigh_outbox(struct producer *p)
{
    bool heavy = outbox_is_heavy(&p->outbox, p->heavy);
    if (heavy == p->heavy || !p->pool)
        return;
    p->heavy = heavy;
    log_debug(p->subject,
              heavy ? "answers are held back: %zu KiB are unconfirmed"
                    : "answers are accepted again: %zu KiB are unconfirmed",
              p->outbox.bytes / 1024);
    pool_hold_answers(p->pool, heavy);
}

bool
producer_answers_due(const struct producer *p, uint64_t now)
{
    return outbox_pending(&p->outbox) > 0 || outbox_apart_due(&p->outbox, now / 1000000u);
}

struct job *
producer_first_ready(const struct producer *p)
{
    return list_entry(p->ready.next, struct job, link);
}
