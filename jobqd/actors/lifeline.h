/* lifeline.h: the actor that rescues the jobs of dead nodes: every third of a lease it
 * ends the nodes whose lease has run out and gives their jobs back (jobqd/sql/bury.sql).
 * Now and then it looks for jobs whose node has no row at all (jobqd/sql/strays.sql).
 */
#ifndef JOBQD_LIFELINE_H
#define JOBQD_LIFELINE_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/service/store.h"

struct lifeline;

struct lifeline_options {
    uv_loop_t *loop;
    struct store *store;
    int64_t lease_ms;
    void (*on_rescued)(void *owner); /* jobs of some queue became available */
    void *owner;
};

int lifeline_new(struct lifeline **out, const struct lifeline_options *options);
void lifeline_start(struct lifeline *lifeline);
void lifeline_stop(struct lifeline *lifeline);
void lifeline_close(struct lifeline *lifeline); /* frees it, once the store has closed */

#endif
