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
    struct progress_buffer buffer;
    bool asked;       /* a request is under way */
    bool plain;       /* the database has refused a note's characters: done alone */
    uint64_t sent_ms; /* the last one was sent then; 0: none was */
    uv_timer_t timer;
};

static void on_timer(uv_timer_t *timer);

/* The next write, when there is something to write and its time has come. */
static void
arm(struct progress_writer *writer)
{
    if (writer->node == 0 || writer->asked || writer->buffer.n == 0 ||
        uv_is_active((uv_handle_t *)&writer->timer))
        return;
    uint64_t now = uv_now(writer->options.loop);
    uint64_t due = writer->sent_ms ? writer->sent_ms + WRITE_EVERY_MS : now;
    uv_timer_start(&writer->timer, on_timer, due > now ? due - now : 0, 0);
}

static void
on_written(void *data, const struct store_answer *answer)
{
    struct progress_writer *writer = data;
    writer->asked = false;
    if (answer->code < 0 && answer->code != JOBQ_ECONN) {
        log_warning("progress", "the progress of jobs was not written: %s",
                    answer->error->message);
        if (strncmp(answer->error->sqlstate, "22", 2) == 0)
            writer->plain = true; /* its encoding knows fewer characters than UTF-8 */
    }
    arm(writer);
}

static void
on_timer(uv_timer_t *timer)
{
    struct progress_writer *writer = timer->data;
    if (writer->node == 0 || writer->asked || writer->buffer.n == 0)
        return;
    writer->sent_ms = uv_now(writer->options.loop);
    writer->asked =
        store_progress(writer->options.store, writer->node, writer->buffer.notes,
                       writer->buffer.n, !writer->plain, on_written, writer) == 0;
    progress_buffer_clear(&writer->buffer);
}

int
progress_writer_new(struct progress_writer **out,
                    const struct progress_writer_options *options)
{
    struct progress_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return JOBQ_ENOMEM;
    writer->options = *options;
    uv_timer_init(options->loop, &writer->timer);
    writer->timer.data = writer;
    *out = writer;
    return 0;
}

void
progress_writer_start(struct progress_writer *writer, int64_t node)
{
    writer->node = node;
}

void
progress_writer_stop(struct progress_writer *writer)
{
    writer->node = 0;
    uv_timer_stop(&writer->timer);
    progress_buffer_clear(&writer->buffer);
}

void
progress_writer_note(struct progress_writer *writer, int64_t id, int32_t attempt,
                     double done, const char *note)
{
    if (writer->node != 0 &&
        progress_buffer_put(&writer->buffer, id, attempt, done, note))
        arm(writer);
}

static void
on_closed(uv_handle_t *handle)
{
    struct progress_writer *writer = handle->data;
    progress_buffer_free(&writer->buffer);
    free(writer);
}

void
progress_writer_close(struct progress_writer *writer)
{
    uv_close((uv_handle_t *)&writer->timer, on_closed);
}
