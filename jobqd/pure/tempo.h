/* tempo.h: how far ahead a queue claims, how often it looks, and whether it wants to be
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
#ifndef JOBQD_TEMPO_H
#define JOBQD_TEMPO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TEMPO_AHEAD_MOST = 2048, /* jobs claimed beyond what the workers can take */
    TEMPO_AHEAD_BYTES = 4 * 1024 * 1024, /* of arguments, likewise */
    TEMPO_BUSY_LEAST = 25, /* jobs in a window: more than this may be busy … */
    TEMPO_BUSY_MOST = 500, /* … and more than this is, however fast the disk */
    TEMPO_LOCKED_MS = 64,
    TEMPO_WINDOW_MS = 100
};

struct tempo {
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

void tempo_init(struct tempo *tempo, int64_t poll_interval_ms);

/* How many to claim: room is what the workers take now, waiting what is claimed and not
 * handed over. */
size_t tempo_want(const struct tempo *tempo, size_t room, size_t waiting);

bool tempo_look_due(const struct tempo *tempo, uint64_t now_ns);
void tempo_sent(struct tempo *tempo, uint64_t now_ns, bool look);
void tempo_ended(struct tempo *tempo, size_t jobs); /* jobs ended */
/* A cycle came back. limit 0: nothing was asked for. */
void tempo_came_back(struct tempo *tempo, uint64_t now_ns, size_t limit, size_t claimed,
                     size_t bytes, bool looked);
/* Large arguments of so many claimed jobs were fetched. */
void tempo_fetched(struct tempo *tempo, size_t jobs, size_t bytes);
/* How many large jobs may be worth fetching for so many bytes; at least 1. */
size_t tempo_fetch(const struct tempo *tempo, size_t bytes);
void
tempo_empty(struct tempo *tempo); /* a look found nothing: wait longer before the next */
/* A look found jobs that the claim could not have: somebody else holds their rows. Waits
 * longer before the next try, up to TEMPO_LOCKED_MS: others may come meanwhile. */
void tempo_locked(struct tempo *tempo);
bool tempo_busy(struct tempo *tempo, uint64_t now_ns);

#endif
