/* settled.h: how one attempt ended, as the database is to record it: made from a verdict,
 * in one block of memory with its texts. Knows no list and no cycle: those are the
 * outbox's.
 */
#ifndef JOBQD_SETTLED_H
#define JOBQD_SETTLED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/config/config.h"
#include "jobqd/pure/job.h"
#include "jobqd/pure/list.h"
#include "jobqd/db/store.h"

struct settled {
    struct list link;
    struct settlement what; /* entry and result point behind the struct */
    size_t weight;          /* bytes of entry and result */
    enum fate fate;         /* the database's last word: FATE_LOCKED or FATE_STUCK; else
                               FATE_ACCEPTED: it has not been asked */
    int tries;              /* with such a word */
    uint64_t first_ms;      /* when the first of them came */
    uint64_t due_ms;        /* when to try again */
    bool told;              /* the log knows */
    const char *kind;       /* of a failed attempt, as the next ones; NULL: not one */
    const char *error_kind; /* static */
    const char *error;      /* cut */
    const char *args; /* of a queue with hooks, as meta; NULL: not, or they are large */
    const char *meta;
    int32_t max_attempts;
    int slot; /* as in struct verdict */
    long pid;
};

/* What a verdict on a job leaves. queue: for the back-off; random: 32 random bits for its
 * jitter. NULL: no memory. Freed by free(). */
struct settled *settled_new(const struct queue_config *queue, const struct job *job,
                            const struct verdict *verdict, uint32_t random);
/* A plain completion. NULL: no memory. */
struct settled *settled_completed(int64_t id, int32_t attempt);

#endif
