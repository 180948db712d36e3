/* releaser.h: the actor that gives back, later, what the audit of a new work session had
 * to leave: jobs that this node holds by the database's word, but not by its own, and
 * whose rows are locked by another session or cannot be changed. It tries every few
 * seconds. */
#ifndef JOBQD_RELEASER_H
#define JOBQD_RELEASER_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/db/store.h"

struct releaser;

int releaser_new(struct releaser **out, uv_loop_t *loop, struct store *store);
/* left: n jobs, as store_session gives them, copied. What it had before is forgotten. */
void releaser_take(struct releaser *releaser, int64_t node, const char *left, int64_t n);
void releaser_stop(struct releaser *releaser);
void releaser_close(struct releaser *releaser); /* frees it, once the store has closed */

#endif
