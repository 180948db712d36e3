/* progress_writer.h: the actor that writes down how far this node's jobs say they are
 * (jobq._progress): the newest word of each, all of them in one statement, twice a second
 * at most, on the control connection.
 *
 * What cannot be written is dropped: the next word makes up for it. Nothing is written of
 * an attempt that has ended by then.
 */
#ifndef JOBQD_PROGRESS_WRITER_H
#define JOBQD_PROGRESS_WRITER_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/db/store.h"

struct progress_writer;

struct progress_writer_options {
    uv_loop_t *loop;
    struct store *store;
};

int progress_writer_new(struct progress_writer **out,
                        const struct progress_writer_options *options);
void progress_writer_start(struct progress_writer *writer, int64_t node);
void progress_writer_stop(struct progress_writer *writer);
/* done: 0 to 1; note: UTF-8, or NULL; lent for the call. Cheap. */
void progress_writer_note(struct progress_writer *writer, int64_t id, int32_t attempt,
                          double done, const char *note);
void progress_writer_close(
    struct progress_writer *writer); /* frees it, once the store has closed */

#endif
