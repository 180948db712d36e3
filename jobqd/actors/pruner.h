/* pruner.h: the actor that keeps the history in bounds: makes the partitions of the
 * coming days, and drops those that are past their time, one a transaction. */
#ifndef JOBQD_PRUNER_H
#define JOBQD_PRUNER_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/service/store.h"

struct pruner;

struct pruner_options {
    uv_loop_t *loop;
    struct store *store;
    int64_t keep_completed_ms;
    int64_t keep_failed_ms;
};

int pruner_new(struct pruner **out, const struct pruner_options *options);
/* How long from now on. */
void pruner_keep(struct pruner *pruner, int64_t completed_ms, int64_t failed_ms);
void pruner_start(struct pruner *pruner);
void pruner_stop(struct pruner *pruner);
void pruner_close(struct pruner *pruner); /* frees it, once the store has closed */

#endif
