/* daemon_systemd.c: what the daemon tells the service manager of itself, and what counts
 * as stuck. See systemd.h.
 *
 * The loop turns, or nothing here would be called. Beside it two things must make
 * progress: a request to a database that is there must be answered, or the connection be
 * given up, by the connection's own limit; and a queue's cycle that is under way must be
 * known to the connection that carries it. If either does not hold, it is us who are
 * broken, and a restart mends it. A database that is away, slow or frozen is none of
 * that: its connections are given up in time, and are away then.
 */
#include <stdio.h>
#include <stdlib.h>

#include "jobqd/base/seams.h"
#include "jobqd/daemon/daemon_private.h"
#include "jobqd/db/store.h"
#include "libjobq/duration.h"

enum {
    OVERDUE_MS = 10000, /* a connection that gives up so much later than it should … */
    LOST_CYCLE_MS = 5000, /* … or a cycle that is so old, and nobody's: stuck */
};

/* A seam: less, so that a test need not wait for it. */
static int64_t
most_overdue_ms(void)
{
    int64_t less = seam_number(SEAM_OVERDUE_MS);
    return less > 0 ? less : OVERDUE_MS;
}

bool
daemon_stuck(void *owner, char *why, size_t size)
{
    const struct daemon *d = owner;
    if (!d->store || d->state > DAEMON_LEAVING)
        return false;
    int64_t overdue_ms = store_overdue_ms(d->store);
    int64_t cycle_ms = queues_cycle_ms(&d->queues);
    if (overdue_ms > most_overdue_ms()) {
        snprintf(why, size,
                 "a request to the database has no answer, %s after its connection "
                 "should have been closed",
                 jobq__duration_show(overdue_ms).text);
        return true;
    }
    if (cycle_ms > LOST_CYCLE_MS && !store_works(d->store)) {
        snprintf(why, size,
                 "a queue has waited %s for the answer to a database request that no "
                 "connection knows of",
                 jobq__duration_show(cycle_ms).text);
        return true;
    }
    return false;
}

static void
put_work(const struct daemon *d, struct jobq__buf *out)
{
    char text[200];
    struct queues_sum sum;
    queues_sum(&d->queues, &sum);
    snprintf(text, sizeof text, "%d of %d workers busy, %zu job%s held", sum.busy,
             sum.wanted, sum.held, sum.held == 1 ? "" : "s");
    jobq__buf_adds(out, text);
    if (sum.backing_off > 0) {
        snprintf(text, sizeof text, ", %zu queue%s backing off", sum.backing_off,
                 sum.backing_off == 1 ? "" : "s");
        jobq__buf_adds(out, text);
    }
    jobq__buf_adds(out, d->database_down.told ? "; database unavailable"
                        : d->work_down.told   ? "; work connection down"
                                              : "; database up");
}

void
daemon_describe_to_systemd(void *owner, struct jobq__buf *out)
{
    const struct daemon *d = owner;
    char text[200];
    switch (d->state) {
    case DAEMON_RUNNING:
        if (!d->announced) {
            jobq__buf_adds(out, d->database_down.told
                                    ? "starting: the database is unavailable"
                                    : "starting: waiting for the database");
            break;
        }
        snprintf(text, sizeof text, "%s %zu queue%s: ",
                 d->queues.held_back ? "claiming nothing until SIGCONT, serving"
                                     : "serving",
                 d->queues.n_slots, d->queues.n_slots == 1 ? "" : "s");
        jobq__buf_adds(out, text);
        put_work(d, out);
        break;
    case DAEMON_DRAINING:
        jobq__buf_adds(out, "draining: ");
        put_work(d, out);
        break;
    case DAEMON_DATABASE:
    case DAEMON_LEAVING:
    case DAEMON_CLOSING:
    case DAEMON_STOPPING:
    case DAEMON_DONE:
        snprintf(text, sizeof text, "%s: waiting for %s",
                 d->state == DAEMON_DATABASE ? "starting" : "stopping",
                 daemon_state_meaning(d->state));
        jobq__buf_adds(out, text);
        break;
    }
}
