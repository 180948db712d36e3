/* leader.h: the actor that tries to be the leader, the one node that maintains the database, by a leased row.
 * It tells its owner when the lead is won and lost; stager, lifeline and pruner do the
 * work. Two nodes that both believe they lead for a moment do no harm: each piece of that
 * work is one statement that skips what another has locked.
 */
#ifndef JOBQD_LEADER_H
#define JOBQD_LEADER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/db/store.h"

struct leader;

struct leader_options {
    uv_loop_t *loop;
    struct store *store;
    int64_t lease_ms; /* the node's; the lead's is shorter, so that it passes within it */
    bool always;      /* test seam: it believes that it leads, whatever the row says */
    void (*on_change)(void *owner, bool leads);
    void *owner;
};

int leader_new(struct leader **out, const struct leader_options *options);
void leader_start(struct leader *leader,
                  int64_t node);         /* the node lives: candidate from now on */
void leader_stop(struct leader *leader); /* not a candidate any more; the lead, if held,
                                            is lost without on_change */
/* Whether the work of a leader can be done from here, which is not so at first. Who
 * cannot neither asks for the lead nor keeps it. */
void leader_set_able(struct leader *leader, bool able);
void leader_poke(struct leader *leader);  /* the lead may be free: try at once */
void leader_close(struct leader *leader); /* frees it, once the store has closed */
bool leader_leads(const struct leader *leader);

#endif
