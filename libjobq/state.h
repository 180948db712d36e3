/* state.h (internal): a job's states, as the database's type job_state has them, in its
 * order. A test compares the two. */
#ifndef JOBQ__STATE_H
#define JOBQ__STATE_H

#include <stdbool.h>

/* X(enumerator, label, what it means, whether the job is live) */
#define JOBQ__STATES(X)                                                                  \
    X(JOBQ__SCHEDULED, "scheduled", "waits for its time", true)                          \
    X(JOBQ__AVAILABLE, "available", "waits for a worker", true)                          \
    X(JOBQ__EXECUTING, "executing", "runs, or waits in a worker's mailbox", true)        \
    X(JOBQ__RETRYABLE, "retryable", "failed, waits for its next attempt", true)          \
    X(JOBQ__SUSPENDED, "suspended", "waits for another job", true)                       \
    X(JOBQ__COMPLETED, "completed", "its handler said ok", false)                        \
    X(JOBQ__CANCELLED, "cancelled", "somebody did not want it any more", false)          \
    X(JOBQ__DISCARDED, "discarded", "failed for the last time", false)

enum jobq__state {
#define X(name, label, meaning, live) name,
    JOBQ__STATES(X)
#undef X
        JOBQ__STATE_COUNT
};

const char *jobq__state_label(enum jobq__state state);
/* The static label equal to text, which need not be NUL-terminated; NULL when there is
 * none. */
const char *jobq__state_find(const char *text, unsigned long len);
bool jobq__state_is_live(enum jobq__state state);

#endif
