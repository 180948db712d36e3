/* releaser.c: see releaser.h. */
#include "jobqd/actors/releaser.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"

enum { PAUSE_MS = 2000 };

struct releaser {
    struct store *store;
    int64_t node;
    char *left;                /* as the database gave it; NULL: nothing is left */
    unsigned list, asked_list; /* which list this is, and which was asked for */
    struct rounds rounds;
};

/* Takes over what is left; whether something is. */
static bool
keep(struct releaser *releaser, const char *left, int64_t n)
{
    free(releaser->left);
    releaser->left = n > 0 && left ? strdup(left) : NULL;
    if (n > 0 && !releaser->left)
        log_error(
            "node",
            "out of memory: cannot remember %lld jobs that are still to be given back",
            (long long)n);
    return releaser->left != NULL;
}

static void
on_released(void *data, const struct store_answer *answer)
{
    struct releaser *releaser = data;
    if (!rounds_take(&releaser->rounds))
        return;
    if (answer->code == 0 && answer->released > 0)
        log_info("node", "gave back %lld more claims whose answer was lost",
                 (long long)answer->released);
    /* One that was given back is not asked for again: it may have been claimed since. */
    if (answer->code == 0 && releaser->asked_list == releaser->list &&
        !keep(releaser, answer->claims, answer->remaining)) {
        rounds_sleep(&releaser->rounds, ROUNDS_NEVER);
        return;
    }
    if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning("node",
                    "could not give back claims whose answer was lost, retrying: %s",
                    answer->error->message);
    rounds_sleep(&releaser->rounds, PAUSE_MS);
}

static bool
ask(void *owner)
{
    struct releaser *releaser = owner;
    releaser->asked_list = releaser->list;
    return store_release(releaser->store, releaser->node, releaser->left, on_released,
                         releaser) == 0;
}

int
releaser_new(struct releaser **out, uv_loop_t *loop, struct store *store)
{
    struct releaser *releaser = calloc(1, sizeof *releaser);
    if (!releaser)
        return JOBQ_ENOMEM;
    releaser->store = store;
    rounds_init(&releaser->rounds,
                &(struct rounds_options){
                    .loop = loop, .ask = ask, .owner = releaser, .idle_ms = PAUSE_MS});
    *out = releaser;
    return 0;
}

void
releaser_take(struct releaser *releaser, int64_t node, const char *left, int64_t n)
{
    releaser->list++;
    releaser->node = node;
    if (!keep(releaser, left, n)) {
        rounds_stop(&releaser->rounds);
        return;
    }
    log_warning("node",
                "%lld claim%s whose answer was lost could not be given back yet, because "
                "the rows are locked or cannot be changed: %s",
                (long long)n, n == 1 ? "" : "s", left);
    rounds_start(&releaser->rounds);
    if (releaser->rounds.state == ROUNDS_SLEEPING)
        rounds_sleep(&releaser->rounds, PAUSE_MS);
}

void
releaser_stop(struct releaser *releaser)
{
    free(releaser->left);
    releaser->left = NULL;
    rounds_stop(&releaser->rounds);
}

static void
on_closed(void *owner)
{
    struct releaser *releaser = owner;
    free(releaser->left);
    free(releaser);
}

void
releaser_close(struct releaser *releaser)
{
    rounds_close(&releaser->rounds, on_closed);
}
