/* producer_ages.c: tells `ageing` how long jobs have been waiting.
 *
 * While this node runs, it notes the position that new jobs get, and so knows the age of
 * each. For jobs from before, it asks the database, once. */
#include "jobqd/actors/producer_private.h"

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

static int64_t
now_ms(void)
{
    return (int64_t)(clock_ns() / 1000000u);
}

static void
on_ages(void *data, const struct store_list *answer)
{
    struct producer *p = data;
    p->ages = answer->code == 0 ? AGES_KNOWN : AGES_UNKNOWN; /* again soon */
    if (answer->code == 0)
        ageing_recall(&p->ageing, now_ms(), answer->heads, answer->n);
    else if (answer->code < 0 && answer->code != JOBQ_ECONN)
        log_warning(p->subject, "could not read the ages of waiting jobs: %s",
                    answer->error->message);
    p->step(p);
}

void
producer_note_position(struct producer *p, int64_t position)
{
    if (p->ageing.step_ms == 0 || p->state != PRODUCER_CLAIMING)
        return;
    ageing_note(&p->ageing, now_ms(), position);
    if (p->ages == AGES_UNKNOWN &&
        store_ages(p->options.store, p->options.queue->name, on_ages, p) == 0)
        p->ages = AGES_ASKED;
}

void
producer_ages_configure(struct producer *p)
{
    int64_t ageing_ms = p->options.queue->ageing_ms;
    if (p->ageing.step_ms == ageing_ms)
        return;
    ageing_init(&p->ageing, ageing_ms);
    if (p->ages == AGES_KNOWN)
        p->ages = AGES_UNKNOWN;
}
