/* lifeline.h: the actor that rescues the jobs of dead nodes: it watches all nodes
 * (pure/failure_detector.h), ends those that have not renewed for a whole lease and gives their jobs
 * back (jobqd/sql/maintenance.sql). Now and then it looks for jobs whose node has no row at all
 * (strays in the same file).
 *
 * Every node watches, so that a new leader need not begin to count. The leader acts; the
 * others half a lease later, for a lead that nobody can take: it is given by the
 * database's clock, which may have been set back.
 */
#ifndef JOBQD_LIFELINE_H
#define JOBQD_LIFELINE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/actors/failures.h"
#include "jobqd/db/store.h"

struct lifeline;

struct lifeline_options {
    uv_loop_t *loop;
    struct store *store;
    struct failures *failures; /* told of what it recorded */
    int64_t lease_ms;
    void (*on_rescued)(void *owner); /* jobs of some queue became available */
    void *owner;
};

int lifeline_new(struct lifeline **out, const struct lifeline_options *options);
void lifeline_start(struct lifeline *lifeline); /* the node lives */
void lifeline_lead(struct lifeline *lifeline,
                   bool leads); /* whether this node is the leader */
void lifeline_stop(struct lifeline *lifeline);
void lifeline_close(struct lifeline *lifeline); /* frees it, once the store has closed */

#endif
