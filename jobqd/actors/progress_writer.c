/* progress_writer.c: see progress_writer.h. */
#include "jobqd/actors/progress_writer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/pure/progress_buffer.h"

enum { WRITE_EVERY_MS = 500 };

struct progress_writer {
    struct progress_writer_options options;
    int64_t node; /* 0: not started */
    struct progress_buffer progress_buffer;
    bool asked;       /* a request is under way */
    bool plain;       /* the database has refused a note's characters: done alone */
    uint64_t sent_ms; /* the last one was sent then; 0: none was */
    uv_timer_t timer;
};

static void on_timer(uv_timer_t *timer);

/* The next write, when there is something to write and its time has come. */
static void
arm(struct progress_writer *progress_writer)
{
    if (progress_writer->node == 0 || progress_writer->asked ||
        progress_writer->progress_buffer.n == 0 ||
        uv_is_active((uv_handle_t *)&progress_writer->timer))
        return;
    uint64_t now = uv_now(progress_writer->options.loop);
    uint64_t due =
        progress_writer->sent_ms ? progress_writer->sent_ms + WRITE_EVERY_MS : now;
    uv_timer_start(&progress_writer->timer, on_timer, due > now ? due - now : 0, 0);
}

static void
on_written(void *data, const struct store_answer *answer)
{
    struct progress_writer *progress_writer = data;
    progress_writer->asked = false;
    if (answer->code < 0 && answer->code != JOBQ_ECONN) {
        log_warning("progress", "could not write the progress of jobs: %s",
                    answer->error->message);
        if (strncmp(answer->error->sqlstate, "22", 2) == 0)
            progress_writer->plain =
                true; /* its encoding knows fewer characters than UTF-8 */
    }
    arm(progress_writer);
}

static void
on_timer(uv_timer_t *timer)
{
    struct progress_writer *progress_writer = timer->data;
    if (progress_writer->node == 0 || progress_writer->asked ||
        progress_writer->progress_buffer.n == 0)
        return;
    progress_writer->sent_ms = uv_now(progress_writer->options.loop);
    progress_writer->asked =
        store_progress(progress_writer->options.store, progress_writer->node,
                       progress_writer->progress_buffer.notes,
                       progress_writer->progress_buffer.n, !progress_writer->plain,
                       on_written, progress_writer) == 0;
    progress_buffer_clear(&progress_writer->progress_buffer);
}

int
progress_writer_new(struct progress_writer **out,
                    const struct progress_writer_options *options)
{
    struct progress_writer *progress_writer = calloc(1, sizeof *progress_writer);
    if (!progress_writer)
        return JOBQ_ENOMEM;
    progress_writer->options = *options;
    uv_timer_init(options->loop, &progress_writer->timer);
    progress_writer->timer.data = progress_writer;
    *out = progress_writer;
    return 0;
}

void
progress_writer_start(struct progress_writer *progress_writer, int64_t node)
{
    progress_writer->node = node;
}

void
progress_writer_stop(struct progress_writer *progress_writer)
{
    progress_writer->node = 0;
    uv_timer_stop(&progress_writer->timer);
    progress_buffer_clear(&progress_writer->progress_buffer);
}

void
progress_writer_note(struct progress_writer *progress_writer, int64_t id, int32_t attempt,
                     double done, const char *note)
{
    if (progress_writer->node != 0 &&
        progress_buffer_put(&progress_writer->progress_buffer, id, attempt, done, note))
        arm(progress_writer);
}

static void
on_closed(uv_handle_t *handle)
{
    struct progress_writer *progress_writer = handle->data;
    progress_buffer_free(&progress_writer->progress_buffer);
    free(progress_writer);
}

void
progress_writer_close(struct progress_writer *progress_writer)
{
    uv_close((uv_handle_t *)&progress_writer->timer, on_closed);
}
