/* producer_mark.c: the idle mark, a row in jobq._idle. While it is there, inserters
 * notify this node of new jobs in the queue.
 *
 * A request may fail although the database has carried it out, and a crash of the
 * database empties the table. The mark is then doubtful: it counts as on, so that it will
 * be cleared, and is set again when the queue is next found empty. producer_step.c
 * decides when to set and clear it, and what to do after an answer. */
#include "jobqd/actors/producer_private.h"

#include "jobqd/base/clock.h"

enum { MARK_RETRY_MS = 1000 };

static void
on_marked(void *data, const struct store_answer *answer)
{
    struct producer_mark *mark = data;
    bool failed = answer->code < 0;
    mark->state = mark->state == MARK_SETTING || failed ? MARK_ON : MARK_OFF;
    mark->doubtful = failed;
    if (failed)
        mark->not_until_ns = clock_ns() + MARK_RETRY_MS * UINT64_C(1000000);
    mark->on_answer(mark->owner, failed);
}

/* Without memory for the request, the state stays as it was. */
static void
ask(struct producer_mark *mark, bool idle, const char *queue, int64_t node)
{
    enum mark_state before = mark->state;
    mark->state = idle ? MARK_SETTING : MARK_CLEARING;
    if (store_idle(mark->store, queue, node, idle, on_marked, mark) < 0)
        mark->state = before;
}

void
producer_mark_set(struct producer_mark *mark, const char *queue, int64_t node)
{
    if (!mark->listening)
        return;
    if (mark->state == MARK_ON && mark->doubtful)
        mark->state = MARK_OFF;
    if (mark->state == MARK_OFF && clock_ns() >= mark->not_until_ns)
        ask(mark, true, queue, node);
}

bool
producer_mark_clear(struct producer_mark *mark, const char *queue, int64_t node)
{
    if (mark->state != MARK_ON)
        return false;
    ask(mark, false, queue, node);
    return true;
}

bool
producer_mark_is_asked(const struct producer_mark *mark)
{
    return mark->state == MARK_SETTING || mark->state == MARK_CLEARING;
}
