/* progress_writer.c: see progress_writer.h. */
#include "jobqd/actors/progress_writer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/actors/rounds.h"
#include "jobqd/base/log.h"
#include "jobqd/pure/progress_buffer.h"

enum { WRITE_EVERY_MS = 500 };

struct progress_writer {
    struct progress_writer_options options;
    int64_t node; /* 0: not started */
    struct progress_buffer buffer;
    bool plain;       /* the database has refused a note's characters: done alone */
    uint64_t sent_ms; /* the last one was sent then; 0: none was */
    struct rounds rounds;
};

/* How long until the next write: never, while there is nothing to write. */
static int64_t
next_ms(const struct progress_writer *writer)
{
    uint64_t now = uv_now(writer->options.loop);
    uint64_t due = writer->sent_ms ? writer->sent_ms + WRITE_EVERY_MS : now;
    if (writer->buffer.n == 0)
        return ROUNDS_NEVER;
    return due > now ? (int64_t)(due - now) : 0;
}

static void
on_written(void *data, const struct store_answer *answer)
{
    struct progress_writer *writer = data;
    if (!rounds_take(&writer->rounds))
        return;
    if (answer->code < 0 && answer->code != JOBQ_ECONN) {
        log_warning("progress", "could not write the progress of jobs: %s",
                    answer->error->message);
        if (strncmp(answer->error->sqlstate, "22", 2) == 0)
            writer->plain = true; /* its encoding knows fewer characters than UTF-8 */
    }
    rounds_sleep(&writer->rounds, next_ms(writer));
}

static bool
ask(void *owner)
{
    struct progress_writer *writer = owner;
    if (writer->buffer.n == 0)
        return false;
    writer->sent_ms = uv_now(writer->options.loop);
    bool asked =
        store_progress(writer->options.store, writer->node, writer->buffer.notes,
                       writer->buffer.n, !writer->plain, on_written, writer) == 0;
    progress_buffer_clear(&writer->buffer);
    return asked;
}

int
progress_writer_new(struct progress_writer **out,
                    const struct progress_writer_options *options)
{
    struct progress_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return JOBQ_ENOMEM;
    writer->options = *options;
    rounds_init(&writer->rounds, &(struct rounds_options){.loop = options->loop,
                                                          .ask = ask,
                                                          .owner = writer,
                                                          .idle_ms = ROUNDS_NEVER});
    *out = writer;
    return 0;
}

void
progress_writer_start(struct progress_writer *writer, int64_t node)
{
    writer->node = node;
    rounds_start(&writer->rounds);
}

void
progress_writer_stop(struct progress_writer *writer)
{
    writer->node = 0;
    rounds_stop(&writer->rounds);
    progress_buffer_clear(&writer->buffer);
}

void
progress_writer_note(struct progress_writer *writer, int64_t id, int32_t attempt,
                     double done, const char *note)
{
    if (writer->node == 0 ||
        !progress_buffer_put(&writer->buffer, id, attempt, done, note))
        return;
    if (writer->rounds.state == ROUNDS_SLEEPING && writer->buffer.n == 1)
        rounds_sleep(&writer->rounds, next_ms(writer));
}

static void
on_closed(void *owner)
{
    struct progress_writer *writer = owner;
    progress_buffer_free(&writer->buffer);
    free(writer);
}

void
progress_writer_close(struct progress_writer *writer)
{
    rounds_close(&writer->rounds, on_closed);
}
