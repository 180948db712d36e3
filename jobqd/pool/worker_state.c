/* worker_state.c: a worker's states, and what can be said of it from what it is: no move
 * is made here, and nothing is sent. */
#include "jobqd/pool/worker_private.h"

#include <assert.h>
#include <stdio.h>

#include "jobqd/base/log.h"

/* ---- states ---- */

const char *
worker_state_meaning(enum worker_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        WORKER_STATES(X)
#undef X
    };
    return meanings[state];
}

#define BIT(state) (1u << (state))
/* What every living process may come to at any moment. */
#define WHENEVER (BIT(WORKER_TERMINATING) | BIT(WORKER_KILLING) | BIT(WORKER_ENDED))

static bool
is_legal(enum worker_state from, enum worker_state to)
{
    static const unsigned moves[] = {
        [WORKER_UNFORKED] = BIT(WORKER_BOOTING) | BIT(WORKER_ENDED),
        [WORKER_BOOTING] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_LEAVING),
        [WORKER_IDLE] =
            WHENEVER | BIT(WORKER_BUSY) | BIT(WORKER_STOPPING) | BIT(WORKER_LEAVING),
        [WORKER_BUSY] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_STOPPING) |
                        BIT(WORKER_CANCELLING) | BIT(WORKER_LEAVING),
        [WORKER_STOPPING] = WHENEVER | BIT(WORKER_CANCELLING) | BIT(WORKER_LEAVING),
        [WORKER_CANCELLING] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_BUSY) |
                              BIT(WORKER_STOPPING) | BIT(WORKER_LEAVING),
        [WORKER_LEAVING] = WHENEVER,
        [WORKER_TERMINATING] = BIT(WORKER_KILLING) | BIT(WORKER_ENDED),
        [WORKER_KILLING] = BIT(WORKER_ENDED),
        [WORKER_ENDED] = 0,
    };
    return moves[from] & BIT(to);
}

bool
worker_is_exec(const struct worker *worker)
{
    return worker->program->queue->mode == QUEUE_EXEC;
}

bool
worker_takes_jobs(const struct worker *worker)
{
    return !worker_is_exec(worker) &&
           (worker->state == WORKER_IDLE || worker->state == WORKER_BUSY);
}

void
worker_set_state(struct worker *worker, enum worker_state state, uint64_t now_ns)
{
    bool legal = is_legal(worker->state, state);
    assert(legal);
    (void)legal;
    bool took_jobs = worker_takes_jobs(worker);
    worker->state = state;
    worker->entered_ns = now_ns;
    /* A worker changes between these two with every burst of jobs: that would be all that
     * the log says. */
    if (state != WORKER_IDLE && state != WORKER_BUSY && log_wants(LOG_LEVEL_DEBUG))
        log_debug(worker->subject, "waits for %s", worker_state_meaning(state));
    if (took_jobs && !worker_takes_jobs(worker))
        worker->events->on_withdrawn(worker->owner, worker);
}

struct job *
worker_head(const struct worker *worker)
{
    if (list_empty(&worker->running))
        return NULL;
    return list_entry(worker->running.next, struct job, link);
}

bool
worker_may_have_answered(const struct worker *worker, uint64_t now_ns)
{
    const struct channel *channel = &worker->channel;
    bool held_up = channel_is_held_up(channel) ||
                   (channel->released_ns != 0 &&
                    now_ns < worker_after_ms(channel->released_ns, WORKER_HEAR_MS));
    return held_up && channel_is_behind(channel);
}

/* ---- its jobs ---- */

const struct verdict worker_no_verdict = {
    .delay_ms = -1, .exit_code = -1, .run_us = -1, .cpu_us = -1, .max_rss_kb = -1};

int64_t
worker_run_us(const struct job *job, uint64_t now_ns)
{
    return job->started_ns ? (int64_t)((now_ns - job->started_ns) / 1000u) : -1;
}

void
worker_take_off(struct worker *worker, struct job *job)
{
    list_remove(&job->link);
    worker->n_jobs--;
    if (job->started_ns == 0)
        return;
    worker->n_running--;
    if (job->late_ns != 0)
        worker->n_late--;
}

/* ---- for the log ---- */

void
worker_name(struct worker *worker)
{
    snprintf(worker->name, sizeof worker->name, "%s/w%d", worker->program->queue->name,
             worker->slot + 1);
    int n = snprintf(worker->subject, sizeof worker->subject, "worker %s", worker->name);
    if (worker->child.pid > 0 && n > 0 && (size_t)n < sizeof worker->subject)
        snprintf(worker->subject + n, sizeof worker->subject - (size_t)n, " pid %ld",
                 (long)worker->child.pid);
}

struct log_facts
worker_facts(const struct worker *worker, const struct job *job)
{
    struct log_facts facts = {.queue = worker->program->queue->name,
                              .worker = worker->name,
                              .pid = (long)worker->child.pid};
    if (job) {
        facts.job = job->id;
        facts.kind = job->kind;
        facts.attempt = (int)job->attempt;
        facts.max_attempts = (int)job->max_attempts;
    }
    return facts;
}
