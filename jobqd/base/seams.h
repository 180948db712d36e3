/* seams.h: what tests may change from outside, by environment variables: waits that would
 * be too long for a test, faults that are hard to provoke, and promises that are switched
 * off to show that a test would notice. Compiled in only with -DJOBQ_TEST_SEAMS=ON; in
 * any other build each seam is absent, whatever the environment says.
 */
#ifndef JOBQD_SEAMS_H
#define JOBQD_SEAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(enumerator, variable) */
#define SEAMS(X)                                                                         \
    X(SEAM_AWAY_MS, "JOBQ_TEST_AWAY_MS")         /* in place of a minute of absence */   \
    X(SEAM_GUARD_SLOTS, "JOBQ_TEST_GUARD_SLOTS") /* in the guard's table */              \
    X(SEAM_HANDOVER_LACKS, "JOBQ_TEST_HANDOVER_LACKS") /* a member that is left out */   \
    X(SEAM_HOOK_MS, "JOBQ_TEST_HOOK_MS")               /* how long a hook may run */     \
    X(SEAM_LEADS, "JOBQ_TEST_LEADS")             /* the node believes that it leads */   \
    X(SEAM_LOST_CYCLE, "JOBQ_TEST_LOST_CYCLE")   /* a cycle's answer is lost */          \
    X(SEAM_OVERDUE_MS, "JOBQ_TEST_OVERDUE_MS")   /* after it a request is stuck */       \
    X(SEAM_PROBE_MS, "JOBQ_TEST_PROBE_MS")       /* between probes of the notifier */    \
    X(SEAM_PRUNE_MS, "JOBQ_TEST_PRUNE_MS")       /* between rounds of the pruner */      \
    X(SEAM_TAKE_OVER, "JOBQ_TEST_TAKE_OVER")     /* how an upgrade fails */              \
    X(SEAM_UNFENCED, "JOBQ_TEST_UNFENCED")       /* no lease stops this node */          \
    X(SEAM_UNSAFE_BASE, "JOBQ_TEST_UNSAFE_BASE") /* the cursor forgets late commits */

enum seam {
#define X(name, variable) name,
    SEAMS(X)
#undef X
};

#ifdef JOBQ_TEST_SEAMS
/* The variable's text; NULL: it is not set. */
const char *seam_text(enum seam seam);
/* From here on it counts as not set. */
void seam_forget(enum seam seam);
#else
static inline const char *
seam_text(enum seam seam)
{
    (void)seam;
    return NULL;
}

static inline void
seam_forget(enum seam seam)
{
    (void)seam;
}
#endif

static inline bool
seam_is_set(enum seam seam)
{
    return seam_text(seam) != NULL;
}

/* 0: it is not set. */
int64_t seam_number(enum seam seam);

#endif
