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
wait_for_rows(struct cron_declarer *declarer, bool locked)
{
    if (locked && !declarer->waits)
        log_warning("cron",
                    "cannot apply the configuration's crons and queues yet: another "
                    "transaction has locked their rows; retrying every %d s",
                    RETRY_MS / 1000);
    declarer->waits = locked;
}

static void
on_told(void *data, const struct store_answer *answer)
{
    struct cron_declarer *declarer = data;
    if (!rounds_take(&declarer->rounds))
        return;
    if (answer->code == 0 && declarer->rounds.state == ROUNDS_ASKING)
        declarer->unheard = false;
    if (answer->code == 0) {
        bool locked = answer->queues_locked > 0 || answer->crons_locked > 0 ||
                      answer->remaining > 0;
        rounds_answered(&declarer->rounds, locked ? RETRY_MS : ROUNDS_NEVER);
        if (answer->fault)
            log_error("cron", "the database refused crons of the configuration: %s",
                      answer->fault);
        if (answer->queues_changed > 0)
            log_info("queue", "the configuration changed max_attempts of %lld %s",
                     (long long)answer->queues_changed,
                     answer->queues_changed == 1 ? "queue" : "queues");
        if (answer->crons_changed > 0)
            log_info("cron", "the configuration changed %lld %s",
                     (long long)answer->crons_changed,
                     answer->crons_changed == 1 ? "cron" : "crons");
        if (answer->fired > 0)
            log_info("cron", "this is the first node up: enqueued %lld @reboot %s",
                     (long long)answer->fired, answer->fired == 1 ? "job" : "jobs");
        wait_for_rows(declarer, locked);
        declarer->options.on_told(declarer->options.owner, answer->fault);
    } else if (answer->code != JOBQ_ECONN) { /* else the connection's return calls */
        log_warning("cron",
                    "could not write the configuration's crons, retrying in %s: %s",
                    jobq__duration_show(rounds_refused(&declarer->rounds)).text,
                    answer->error->message);
    } else {
        rounds_sleep(&declarer->rounds, ROUNDS_NEVER);
    }
}

static bool
ask(void *owner)
{
    struct cron_declarer *declarer = owner;
    return store_declare_cron(declarer->options.store, declarer->node,
                              declarer->options.node, declarer->fresh,
                              declarer->queues.data, declarer->sections.data, on_told,
                              declarer) == 0;
}

void
cron_declarer_tell(struct cron_declarer *declarer)
{
    rounds_poke_now(&declarer->rounds);
}

int
cron_declarer_new(struct cron_declarer **out, const struct cron_declarer_options *options)
{
    struct cron_declarer *declarer = calloc(1, sizeof *declarer);
    if (!declarer)
        return JOBQ_ENOMEM;
    declarer->options = *options;
    rounds_init(&declarer->rounds, &(struct rounds_options){.loop = options->loop,
                                                            .ask = ask,
                                                            .owner = declarer,
                                                            .idle_ms = RETRY_MS,
                                                            .retry_first_ms = RETRY_MS,
                                                            .retry_most_ms = RETRY_MS});
    *out = declarer;
    return 0;
}

int
cron_declarer_configure(struct cron_declarer *declarer, const struct config *config)
{
    struct jobq__buf queues = {0}, sections = {0};
    config_put_queues(config, &queues);
    config_put_crons(config, &sections);
    if (!jobq__buf_cstr(&queues) || !jobq__buf_cstr(&sections)) {
        jobq__buf_clear(&queues);
        jobq__buf_clear(&sections);
        return JOBQ_ENOMEM;
    }
    jobq__buf_clear(&declarer->queues);
    jobq__buf_clear(&declarer->sections);
    declarer->queues = queues;
    declarer->sections = sections;
    declarer->unheard = true;
    cron_declarer_tell(declarer);
    return 0;
}

bool
cron_declarer_is_settled(const struct cron_declarer *declarer)
{
    return !declarer->unheard;
}

void
cron_declarer_start(struct cron_declarer *declarer, int64_t node, bool fresh)
{
    declarer->node = node;
    declarer->fresh = fresh;
    rounds_start(&declarer->rounds);
    rounds_poke_now(&declarer->rounds);
}

void
cron_declarer_stop(struct cron_declarer *declarer)
{
    declarer->node = 0;
    rounds_stop(&declarer->rounds);
}

static void
on_closed(void *owner)
{
    struct cron_declarer *declarer = owner;
    jobq__buf_clear(&declarer->queues);
    jobq__buf_clear(&declarer->sections);
    free(declarer);
}

void
cron_declarer_close(struct cron_declarer *declarer)
{
    rounds_close(&declarer->rounds, on_closed);
}
