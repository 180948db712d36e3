/* reporter.c: see reporter.h. */
#include "jobqd/actors/reporter.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/pure/board.h"

enum { WRITE_EVERY_MS = 500 };

struct reporter {
    struct reporter_options options;
    int64_t node; /* 0: not started */
    struct board board;
    bool asked;       /* a request is under way */
    bool plain;       /* the database has refused a note's characters: done alone */
    uint64_t sent_ms; /* the last one was sent then; 0: none was */
    uv_timer_t timer;
};

static void on_timer(uv_timer_t *timer);

/* The next write, when there is something to write and its time has come. */
static void
arm(struct reporter *reporter)
{
    if (reporter->node == 0 || reporter->asked || reporter->board.n == 0 ||
        uv_is_active((uv_handle_t *)&reporter->timer))
        return;
    uint64_t now = uv_now(reporter->options.loop);
    uint64_t due = reporter->sent_ms ? reporter->sent_ms + WRITE_EVERY_MS : now;
    uv_timer_start(&reporter->timer, on_timer, due > now ? due - now : 0, 0);
}

static void
on_written(void *data, const struct store_answer *answer)
{
    struct reporter *reporter = data;
    reporter->asked = false;
    if (answer->code < 0 && answer->code != JOBQ_ECONN) {
        log_warning("reporter", "the progress of jobs was not written: %s",
                    answer->error->message);
        if (strncmp(answer->error->sqlstate, "22", 2) == 0)
            reporter->plain = true; /* its encoding knows fewer characters than UTF-8 */
    }
    arm(reporter);
}

static void
on_timer(uv_timer_t *timer)
{
    struct reporter *reporter = timer->data;
    if (reporter->node == 0 || reporter->asked || reporter->board.n == 0)
        return;
    reporter->sent_ms = uv_now(reporter->options.loop);
    reporter->asked =
        store_progress(reporter->options.store, reporter->node, reporter->board.notes,
                       reporter->board.n, !reporter->plain, on_written, reporter) == 0;
    board_clear(&reporter->board);
}

int
reporter_new(struct reporter **out, const struct reporter_options *options)
{
    struct reporter *reporter = calloc(1, sizeof *reporter);
    if (!reporter)
        return JOBQ_ENOMEM;
    reporter->options = *options;
    uv_timer_init(options->loop, &reporter->timer);
    reporter->timer.data = reporter;
    *out = reporter;
    return 0;
}

void
reporter_start(struct reporter *reporter, int64_t node)
{
    reporter->node = node;
}

void
reporter_stop(struct reporter *reporter)
{
    reporter->node = 0;
    uv_timer_stop(&reporter->timer);
    board_clear(&reporter->board);
}

void
reporter_note(struct reporter *reporter, int64_t id, int32_t attempt, double done,
              const char *note)
{
    if (reporter->node != 0 && board_put(&reporter->board, id, attempt, done, note))
        arm(reporter);
}

static void
on_closed(uv_handle_t *handle)
{
    struct reporter *reporter = handle->data;
    board_free(&reporter->board);
    free(reporter);
}

void
reporter_close(struct reporter *reporter)
{
    uv_close((uv_handle_t *)&reporter->timer, on_closed);
}
