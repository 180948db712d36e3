/* canceller.h: the actor that hears of requests to cancel running jobs (jobq.cancel) and
 * says which of this node's attempts they are for.
 *
 * The requests are rows of jobq._cancels. It reads those of its node twice a second while
 * the node holds any job, and at once when a notification says that there is one. What
 * becomes of the job is its producer's business, and the row is taken away by whoever
 * settles it: until then the same request comes again.
 */
#ifndef JOBQD_CANCELLER_H
#define JOBQD_CANCELLER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/db/store.h"

struct canceller;

struct canceller_options {
    uv_loop_t *loop;
    struct store *store;
    bool (*holds_jobs)(void *owner); /* without any there is nothing to ask for */
    /* Ordered by id and attempt; lent for the call. */
    void (*on_cancels)(void *owner, const struct store_cancel *cancels, size_t n);
    void *owner;
};

int canceller_new(struct canceller **out, const struct canceller_options *options);
void canceller_start(struct canceller *canceller, int64_t node);
void canceller_poke(struct canceller *canceller); /* there may be a request */
void canceller_stop(struct canceller *canceller);
void
canceller_close(struct canceller *canceller); /* frees it, once the store has closed */

#endif
