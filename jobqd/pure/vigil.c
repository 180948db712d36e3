/* vigil.c: see vigil.h. Nodes are few: each look compares all with all. */
#include "jobqd/pure/vigil.h"

#include <jobq/error.h>
#include <stdlib.h>
#include <string.h>

static const struct sight *
find(const struct vigil *vigil, int64_t id)
{
    for (size_t i = 0; i < vigil->n; i++) {
        if (vigil->sights[i].id == id)
            return &vigil->sights[i];
    }
    return NULL;
}

int
vigil_look(struct vigil *vigil, const struct sight *seen, size_t n, int64_t now_ns)
{
    struct sight *sights = malloc((n + 1) * sizeof *sights);
    if (!sights)
        return JOBQ_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct sight *before = find(vigil, seen[i].id);
        sights[i] = seen[i];
        sights[i].since_ns =
            before && before->mark == seen[i].mark ? before->since_ns : now_ns;
    }
    free(vigil->sights);
    vigil->sights = sights;
    vigil->n = n;
    return 0;
}

void
vigil_clear(struct vigil *vigil)
{
    free(vigil->sights);
    memset(vigil, 0, sizeof *vigil);
}

static int64_t
death_ns(const struct sight *sight, int percent)
{
    return sight->since_ns + sight->lease_ms * 10000 * percent;
}

size_t
vigil_dead(const struct vigil *vigil, int64_t now_ns, int percent, struct sight *out,
           size_t most)
{
    size_t n = 0;
    for (size_t i = 0; i < vigil->n && n < most; i++) {
        if (death_ns(&vigil->sights[i], percent) <= now_ns)
            out[n++] = vigil->sights[i];
    }
    return n;
}

int64_t
vigil_next_ns(const struct vigil *vigil, int64_t now_ns, int percent)
{
    int64_t next_ns = INT64_MAX;
    for (size_t i = 0; i < vigil->n; i++) {
        int64_t at_ns = death_ns(&vigil->sights[i], percent);
        if (at_ns > now_ns && at_ns < next_ns)
            next_ns = at_ns;
    }
    return next_ns;
}
