/* failure_detector.c: see failure_detector.h. Nodes are few: each look compares all with all. */
#include "jobqd/pure/failure_detector.h"

#include <jobq/error.h>
#include <stdlib.h>
#include <string.h>

static const struct sight *
find(const struct failure_detector *detector, int64_t id)
{
    for (size_t i = 0; i < detector->n; i++) {
        if (detector->sights[i].id == id)
            return &detector->sights[i];
    }
    return NULL;
}

int
failure_detector_look(struct failure_detector *detector, const struct sight *seen,
                      size_t n, int64_t now_ns)
{
    struct sight *sights = malloc((n + 1) * sizeof *sights);
    if (!sights)
        return JOBQ_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct sight *before = find(detector, seen[i].id);
        sights[i] = seen[i];
        sights[i].since_ns =
            before && before->mark == seen[i].mark ? before->since_ns : now_ns;
    }
    free(detector->sights);
    detector->sights = sights;
    detector->n = n;
    return 0;
}

void
failure_detector_clear(struct failure_detector *detector)
{
    free(detector->sights);
    memset(detector, 0, sizeof *detector);
}

/* A hundred years: a row may say anything, and nanoseconds end at 292. */
static const int64_t LEASE_MAX_MS = INT64_C(3155760000000);

static int64_t
death_ns(const struct sight *sight, int percent)
{
    int64_t lease_ms = sight->lease_ms < LEASE_MAX_MS ? sight->lease_ms : LEASE_MAX_MS;
    return sight->since_ns + lease_ms * 10000 * percent;
}

size_t
failure_detector_dead(const struct failure_detector *detector, int64_t now_ns,
                      int percent, struct sight *out, size_t most)
{
    size_t n = 0;
    for (size_t i = 0; i < detector->n && n < most; i++) {
        if (death_ns(&detector->sights[i], percent) <= now_ns)
            out[n++] = detector->sights[i];
    }
    return n;
}

int64_t
failure_detector_next_ns(const struct failure_detector *detector, int64_t now_ns,
                         int percent)
{
    int64_t next_ns = INT64_MAX;
    for (size_t i = 0; i < detector->n; i++) {
        int64_t at_ns = death_ns(&detector->sights[i], percent);
        if (at_ns > now_ns && at_ns < next_ns)
            next_ns = at_ns;
    }
    return next_ns;
}
