/* crontab.c: see crontab.h. */
#include "jobqd/actors/crontab.h"

#include <stdlib.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"
#include "libjobq/buf.h"
#include "libjobq/duration.h"

enum { RETRY_MS = 5000 }; /* after the database has refused, or could not yet */

struct crontab {
    struct crontab_options options;
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
wait_for_rows(struct crontab *crontab, bool locked)
{
    if (locked && !crontab->waits)
        log_warning("cron",
                    "crons or queues of the configuration are locked by another "
                    "transaction; trying again every %d s",
                    RETRY_MS / 1000);
    crontab->waits = locked;
}

static void
on_told(void *data, const struct store_answer *answer)
{
    struct crontab *crontab = data;
    if (!rounds_take(&crontab->rounds))
        return;
    if (answer->code == 0 && crontab->rounds.state == ROUNDS_ASKING)
        crontab->unheard = false;
    if (answer->code == 0) {
        bool locked =
            answer->values[1] > 0 || answer->values[3] > 0 || answer->values[5] > 0;
        rounds_answered(&crontab->rounds, locked ? RETRY_MS : ROUNDS_NEVER);
        if (answer->text)
            log_error("cron", "refused, as it stands in the configuration: %s",
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
            log_info("cron", "first node to come up: %lld @reboot %s enqueued",
                     (long long)answer->values[4],
                     answer->values[4] == 1 ? "job" : "jobs");
        wait_for_rows(crontab, locked);
        crontab->options.on_told(crontab->options.owner, answer->text);
    } else if (answer->code != JOBQ_ECONN) { /* else the connection's return calls */
        log_warning("cron", "the configuration's crons, again in %s: %s",
                    jobq__duration_show(rounds_refused(&crontab->rounds)).text,
                    answer->error->message);
    } else {
        rounds_sleep(&crontab->rounds, ROUNDS_NEVER);
    }
}

static bool
ask(void *owner)
{
    struct crontab *crontab = owner;
    return store_crontab(crontab->options.store, crontab->node, crontab->options.node,
                         crontab->fresh, crontab->queues.data, crontab->sections.data,
                         on_told, crontab) == 0;
}

void
crontab_tell(struct crontab *crontab)
{
    rounds_poke_now(&crontab->rounds);
}

int
crontab_new(struct crontab **out, const struct crontab_options *options)
{
    struct crontab *crontab = calloc(1, sizeof *crontab);
    if (!crontab)
        return JOBQ_ENOMEM;
    crontab->options = *options;
    rounds_init(&crontab->rounds, &(struct rounds_options){.loop = options->loop,
                                                           .ask = ask,
                                                           .owner = crontab,
                                                           .idle_ms = RETRY_MS,
                                                           .retry_first_ms = RETRY_MS,
                                                           .retry_most_ms = RETRY_MS});
    *out = crontab;
    return 0;
}

int
crontab_configure(struct crontab *crontab, const struct config *config)
{
    struct jobq__buf queues = {0}, sections = {0};
    config_put_queues(config, &queues);
    config_put_crons(config, &sections);
    if (!jobq__buf_cstr(&queues) || !jobq__buf_cstr(&sections)) {
        jobq__buf_clear(&queues);
        jobq__buf_clear(&sections);
        return JOBQ_ENOMEM;
    }
    jobq__buf_clear(&crontab->queues);
    jobq__buf_clear(&crontab->sections);
    crontab->queues = queues;
    crontab->sections = sections;
    crontab->unheard = true;
    crontab_tell(crontab);
    return 0;
}

bool
crontab_is_settled(const struct crontab *crontab)
{
    return !crontab->unheard;
}

void
crontab_start(struct crontab *crontab, int64_t node, bool fresh)
{
    crontab->node = node;
    crontab->fresh = fresh;
    rounds_start(&crontab->rounds);
    rounds_poke_now(&crontab->rounds);
}

void
crontab_stop(struct crontab *crontab)
{
    crontab->node = 0;
    rounds_stop(&crontab->rounds);
}

static void
on_closed(void *owner)
{
    struct crontab *crontab = owner;
    jobq__buf_clear(&crontab->queues);
    jobq__buf_clear(&crontab->sections);
    free(crontab);
}

void
crontab_close(struct crontab *crontab)
{
    rounds_close(&crontab->rounds, on_closed);
}
