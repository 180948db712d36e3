/* releaser.c: see releaser.h. */
#include "jobqd/actors/releaser.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"

enum { PAUSE_MS = 2000 };

struct releaser {
    struct store *store;
    int64_t node;
    char *left;                /* as the database gave it; NULL: nothing is left */
    unsigned list, asked_list; /* which list this is, and which was asked for */
    bool asked;
    uv_timer_t timer;
};

static void on_timer(uv_timer_t *timer);

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
    releaser->asked = false;
    if (!releaser->left)
        return;
    if (answer->code == 0 && answer->values[0] > 0)
        log_info("node", "gave back %lld more claims whose answer was lost",
                 (long long)answer->values[0]);
    /* One that was given back is not asked for again: it may have been claimed since. */
    if (answer->code == 0 && releaser->asked_list == releaser->list &&
        !keep(releaser, answer->text, answer->values[1]))
        return;
    if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning("node",
                    "could not give back claims whose answer was lost, retrying: %s",
                    answer->error->message);
    uv_timer_start(&releaser->timer, on_timer, PAUSE_MS, 0);
}

static void
on_timer(uv_timer_t *timer)
{
    struct releaser *releaser = timer->data;
    if (releaser->asked || !releaser->left)
        return;
    releaser->asked_list = releaser->list;
    releaser->asked = store_release(releaser->store, releaser->node, releaser->left,
                                    on_released, releaser) == 0;
    if (!releaser->asked)
        uv_timer_start(&releaser->timer, on_timer, PAUSE_MS, 0);
}

int
releaser_new(struct releaser **out, uv_loop_t *loop, struct store *store)
{
    struct releaser *releaser = calloc(1, sizeof *releaser);
    if (!releaser)
        return JOBQ_ENOMEM;
    releaser->store = store;
    uv_timer_init(loop, &releaser->timer);
    releaser->timer.data = releaser;
    *out = releaser;
    return 0;
}

void
releaser_take(struct releaser *releaser, int64_t node, const char *left, int64_t n)
{
    releaser->list++;
    releaser->node = node;
    if (!keep(releaser, left, n))
        return;
    log_warning("node",
                "%lld claim%s whose answer was lost could not be given back yet, because "
                "the rows are locked or cannot be changed: %s",
                (long long)n, n == 1 ? "" : "s", left);
    uv_timer_start(&releaser->timer, on_timer, PAUSE_MS, 0);
}

void
releaser_stop(struct releaser *releaser)
{
    free(releaser->left);
    releaser->left = NULL;
    uv_timer_stop(&releaser->timer);
}

static void
on_closed(uv_handle_t *handle)
{
    struct releaser *releaser = handle->data;
    free(releaser->left);
    free(releaser);
}

void
releaser_close(struct releaser *releaser)
{
    uv_close((uv_handle_t *)&releaser->timer, on_closed);
}
