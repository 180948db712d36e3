/* reporter.h: the actor that writes down how far this node's jobs say they are
 * (jobq._progress): the newest word of each, all of them in one statement, twice a second
 * at most, on the control connection.
 *
 * What cannot be written is dropped: the next word makes up for it. Nothing is written of
 * an attempt that has ended by then.
 */
#ifndef JOBQD_REPORTER_H
#define JOBQD_REPORTER_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/db/store.h"

struct reporter;

struct reporter_options {
    uv_loop_t *loop;
    struct store *store;
};

int reporter_new(struct reporter **out, const struct reporter_options *options);
void reporter_start(struct reporter *reporter, int64_t node);
void reporter_stop(struct reporter *reporter);
/* done: 0 to 1; note: UTF-8, or NULL; lent for the call. Cheap. */
void reporter_note(struct reporter *reporter, int64_t id, int32_t attempt, double done,
                   const char *note);
void reporter_close(struct reporter *reporter); /* frees it, once the store has closed */

#endif
