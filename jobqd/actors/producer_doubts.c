/* producer_doubts.c: acks that the database did not accept. Most of these attempts had
 * ended in another way; for some the job still runs, as far as the database knows. This
 * file asks which ones. The outbox then sends their acks again, one by one. */
#include "jobqd/actors/producer_private.h"

static void
on_doubts(void *data, const struct store_held_result *result)
{
    struct producer *p = data;
    p->doubts_asked = false;
    if (result->code == 0)
        outbox_doubt_ended(&p->outbox, result->ids, result->n);
    else
        outbox_doubt_returned(&p->outbox);
    p->step(p);
}

/* Sent right after the cycle, so that its answer comes before that of the next one. */
void
producer_ask_doubts(struct producer *p)
{
    if (p->doubts_asked)
        return;
    const struct outbox_acks *acks = &p->outbox.doubtful;
    outbox_doubt(&p->outbox);
    p->doubts_asked = store_held(p->options.store, p->node, acks->ids, acks->attempts,
                                 acks->n, on_doubts, p) == 0;
    if (!p->doubts_asked)
        outbox_doubt_returned(&p->outbox);
}
