/* cron_declarer.c: see cron_declarer.h. */
#include "jobqd/actors/cron_declarer.h"

#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"
#include "libjobq/buf.h"
#include "libjobq/duration.h"

enum { RETRY_MS = 5000 }; /* after the database has refused, or could not yet */

struct cron_declarer {
    struct cron_declarer_options options;
    struct jobq__buf queues;   /* as JSON, with their max_attempts */
    struct jobq__buf sections; /* as JSON */
    int64_t node;              /* 0: does not live */
    bool fresh;
    struct rounds rounds;
    bool unheard; /* of what was configured last, there was no answer yet */
    bool waits;   /* for rows that another session has locked; it was told of */
};

/* An operator's open transaction: told once, not each time. */
static void
wait_for_rows(struct cron_declarer *cron_declarer, bool locked)
{
    if (locked && !cron_declarer->waits)
        log_warning("cron",
                    "another transaction has locked crons or queues of the "
                    "configuration; retrying every %d s",
                    RETRY_MS / 1000);
    cron_declarer->waits = locked;
}

static void
on_told(void *data, const struct store_answer *answer)
{
    struct cron_declarer *cron_declarer = data;
    if (!rounds_take(&cron_declarer->rounds))
        return;
    if (answer->code == 0 && cron_declarer->rounds.state == ROUNDS_ASKING)
        cron_declarer->unheard = false;
    if (answer->code == 0) {
        bool locked =
            answer->values[1] > 0 || answer->values[3] > 0 || answer->values[5] > 0;
        rounds_answered(&cron_declarer->rounds, locked ? RETRY_MS : ROUNDS_NEVER);
        if (answer->text)
            log_error("cron", "the database refused crons of the configuration: %s",
                      answer->text);
        if (answer->values[0] > 0)
            log_info("queue", "the configuration changed max_attempts of %lld %s",
                     (long long)answer->values[0],
                     answer->values[0] == 1 ? "queue" : "queues");
        if (answer->values[2] > 0)
            log_info("cron", "the configuration changed %lld %s",
                     (long long)answer->values[2],
                     answer->values[2] == 1 ? "cron" : "crons");
        if (answer->values[4] > 0)
            log_info("cron", "this is the first node up: enqueued %lld @reboot %s",
                     (long long)answer->values[4],
                     answer->values[4] == 1 ? "job" : "jobs");
        wait_for_rows(cron_declarer, locked);
        cron_declarer->options.on_told(cron_declarer->options.owner, answer->text);
    } else if (answer->code != JOBQ_ECONN) { /* else the connection's return calls */
        log_warning("cron",
                    "could not write the configuration's crons, retrying in %s: %s",
                    jobq__duration_show(rounds_refused(&cron_declarer->rounds)).text,
                    answer->error->message);
    } else {
        rounds_sleep(&cron_declarer->rounds, ROUNDS_NEVER);
    }
}

static bool
ask(void *owner)
{
    struct cron_declarer *cron_declarer = owner;
    return store_declare_cron(cron_declarer->options.store, cron_declarer->node,
                              cron_declarer->options.node, cron_declarer->fresh,
                              cron_declarer->queues.data, cron_declarer->sections.data,
                              on_told, cron_declarer) == 0;
}

void
cron_declarer_tell(struct cron_declarer *cron_declarer)
{
    rounds_poke_now(&cron_declarer->rounds);
}

int
cron_declarer_new(struct cron_declarer **out, const struct cron_declarer_options *options)
{
    struct cron_declarer *cron_declarer = calloc(1, sizeof *cron_declarer);
    if (!cron_declarer)
        return JOBQ_ENOMEM;
    cron_declarer->options = *options;
    rounds_init(&cron_declarer->rounds,
                &(struct rounds_options){.loop = options->loop,
                                         .ask = ask,
                                         .owner = cron_declarer,
                                         .idle_ms = RETRY_MS,
                                         .retry_first_ms = RETRY_MS,
                                         .retry_most_ms = RETRY_MS});
    *out = cron_declarer;
    return 0;
}

int
cron_declarer_configure(struct cron_declarer *cron_declarer, const struct config *config)
{
    struct jobq__buf queues = {0}, sections = {0};
    config_put_queues(config, &queues);
    config_put_crons(config, &sections);
    if (!jobq__buf_cstr(&queues) || !jobq__buf_cstr(&sections)) {
        jobq__buf_clear(&queues);
        jobq__buf_clear(&sections);
        return JOBQ_ENOMEM;
    }
    jobq__buf_clear(&cron_declarer->queues);
    jobq__buf_clear(&cron_declarer->sections);
    cron_declarer->queues = queues;
    cron_declarer->sections = sections;
    cron_declarer->unheard = true;
    cron_declarer_tell(cron_declarer);
    return 0;
}

bool
cron_declarer_is_settled(const struct cron_declarer *cron_declarer)
{
    return !cron_declarer->unheard;
}

void
cron_declarer_start(struct cron_declarer *cron_declarer, int64_t node, bool fresh)
{
    cron_declarer->node = node;
    cron_declarer->fresh = fresh;
    rounds_start(&cron_declarer->rounds);
    rounds_poke_now(&cron_declarer->rounds);
}

void
cron_declarer_stop(struct cron_declarer *cron_declarer)
{
    cron_declarer->node = 0;
    rounds_stop(&cron_declarer->rounds);
}

static void
on_closed(void *owner)
{
    struct cron_declarer *cron_declarer = owner;
    jobq__buf_clear(&cron_declarer->queues);
    jobq__buf_clear(&cron_declarer->sections);
    free(cron_declarer);
}

void
cron_declarer_close(struct cron_declarer *cron_declarer)
{
    rounds_close(&cron_declarer->rounds, on_closed);
}
