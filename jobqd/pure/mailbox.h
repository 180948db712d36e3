/* mailbox.h: how many jobs a worker of a pool should hold. Pure.
 *
 * A worker that holds one job waits a round trip for the next: too slow for jobs of
 * microseconds. One that holds many makes those wait that stand behind a long one, while
 * its neighbours idle. So the adaptive depth follows the time that a job takes: as many
 * as keep a worker busy for MAILBOX_BUSY_MS. It believes bad news sooner than good news:
 * one long job shrinks it at once, many short ones make it grow.
 */
#ifndef JOBQD_MAILBOX_H
#define JOBQD_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAILBOX_BUSY_MS = 20, MAILBOX_ADAPTIVE_MAX = 64, MAILBOX_MAX = 1000 };

struct mailbox {
    size_t fixed; /* 0: adaptive */
    size_t depth;
    uint64_t service_ns; /* the smoothed time of one job; 0: not known yet */
};

/* fixed: the configured depth, at most MAILBOX_MAX; 0: adaptive. */
void mailbox_init(struct mailbox *mailbox, size_t fixed);
/* A worker has answered n jobs, for which it took elapsed_ns. */
void mailbox_answered(struct mailbox *mailbox, size_t n, uint64_t elapsed_ns);
/* Whether a worker that has been at its present job for so long should get no more until
 * it answers. Learns from it if so. A fixed depth was somebody's decision: never. */
bool mailbox_is_stuck(struct mailbox *mailbox, uint64_t busy_ns);

static inline size_t
mailbox_depth(const struct mailbox *mailbox)
{
    return mailbox->depth;
}

/* The deepest that it may ever be. */
static inline size_t
mailbox_most(const struct mailbox *mailbox)
{
    return mailbox->fixed ? mailbox->fixed : MAILBOX_ADAPTIVE_MAX;
}

#endif
