/* pruner.h: the actor that keeps the history in bounds: makes the partitions of the
 * coming days, and drops those that are past their time, one a transaction; deletes what
 * has to go sooner (by state, by queue, by count), some pages a transaction; takes away
 * the keys of unique jobs that are gone, a batch a transaction.
 */
#ifndef JOBQD_PRUNER_H
#define JOBQD_PRUNER_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/config/config.h"
#include "jobqd/db/store.h"

struct pruner;

struct pruner_options {
    uv_loop_t *loop;
    struct store *store;
    const struct config *config; /* lent */
    /* between two rounds of deletion; 0: a minute, a test's otherwise */
    int64_t round_ms;
};

int pruner_new(struct pruner **out, const struct pruner_options *options);
/* What counts from now on; lent. */
void pruner_configure(struct pruner *pruner, const struct config *config);
void pruner_start(struct pruner *pruner);
void pruner_stop(struct pruner *pruner);
void pruner_close(struct pruner *pruner); /* frees it, once the store has closed */

#endif
