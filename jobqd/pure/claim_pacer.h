/* claim_pacer.h: how far ahead a queue claims, how often it looks, and whether it wants to be
 * woken. Pure: the caller brings the time.
 *
 * Ahead: three times as many jobs as the workers ended during a round trip, so that they
 * never wait for the database when jobs are short, and nothing more than their own hands
 * hold when jobs are long. Looks: after a claim that came back short, and every second;
 * never so often that looking costs more than a sixth of the time. Polls: 1 ms after the
 * line ran empty, then twice as long each time up to the poll interval. Waking: an idle
 * mark makes each insert notify, and a commit that notifies holds a lock of the whole
 * server until it is on disk, so inserters wait for one another. A queue whose jobs would
 * hold that lock for more than a third of the time is not marked: its polls find them
 * anyway. How long a commit takes is seen by our own small claims.
 */
#ifndef JOBQD_CLAIM_PACER_H
#define JOBQD_CLAIM_PACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CLAIM_PACER_AHEAD_MAX = 2048, /* jobs claimed beyond what the workers can take */
    CLAIM_PACER_AHEAD_BYTES = 4 * 1024 * 1024, /* of arguments, likewise */
    CLAIM_PACER_BUSY_MIN = 25,  /* jobs in a window: more than this may be busy … */
    CLAIM_PACER_BUSY_MAX = 500, /* … and more than this is, however fast the disk */
    CLAIM_PACER_LOCKED_MS = 64,
    CLAIM_PACER_WINDOW_MS = 100
};

struct claim_pacer {
    int64_t poll_interval_ms;
    int64_t poll_ms;        /* the wait before the next poll */
    uint64_t sent_ns;       /* when the cycle under way was sent */
    size_t ended;           /* jobs that ended since then */
    size_t ahead;           /* how many to claim beyond the workers' room */
    size_t mean_bytes;      /* of a job's arguments, a moving mean */
    bool look_wanted;       /* a claim came back short */
    uint64_t looked_ns;     /* when the last look was sent */
    uint64_t look_again_ns; /* no look before */
    uint64_t window_ns;     /* when the present window of counting began */
    size_t window_jobs;
    uint64_t commit_ns; /* a small claim's round trip, a moving mean; 0: not known yet */
    bool busy; /* the last full window, or this one, had more jobs than may be notified */
};

void claim_pacer_init(struct claim_pacer *pacer, int64_t poll_interval_ms);

/* How many to claim: room is what the workers take now, waiting what is claimed and not
 * handed over. */
size_t claim_pacer_want(const struct claim_pacer *pacer, size_t room, size_t waiting);

bool claim_pacer_look_due(const struct claim_pacer *pacer, uint64_t now_ns);
void claim_pacer_sent(struct claim_pacer *pacer, uint64_t now_ns, bool look);
void claim_pacer_ended(struct claim_pacer *pacer, size_t jobs); /* jobs ended */
/* A cycle came back. limit 0: nothing was asked for. */
void claim_pacer_came_back(struct claim_pacer *pacer, uint64_t now_ns, size_t limit,
                           size_t claimed, size_t bytes, bool looked);
/* Large arguments of so many claimed jobs were fetched. */
void claim_pacer_fetched(struct claim_pacer *pacer, size_t jobs, size_t bytes);
/* How many large jobs may be worth fetching for so many bytes; at least 1. */
size_t claim_pacer_fetch(const struct claim_pacer *pacer, size_t bytes);
void claim_pacer_empty(
    struct claim_pacer *pacer); /* a look found nothing: wait longer before the next */
/* A look found jobs that the claim could not have: somebody else holds their rows. Waits
 * longer before the next try, up to CLAIM_PACER_LOCKED_MS: others may come meanwhile. */
void claim_pacer_locked(struct claim_pacer *pacer);
bool claim_pacer_busy(struct claim_pacer *pacer, uint64_t now_ns);

#endif
