/* duration.c: see duration.h. */
#include "libjobq/duration.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

struct jobq__duration
jobq__duration_show(int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *name;
    } units[] = {{INT64_C(24) * 3600 * 1000, "d"},
                 {INT64_C(3600) * 1000, "h"},
                 {INT64_C(60) * 1000, "min"},
                 {INT64_C(1000), "s"}};
    struct jobq__duration span;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (ms != 0 && ms % units[i].ms == 0) {
            snprintf(span.text, sizeof span.text, "%" PRId64 " %s", ms / units[i].ms,
                     units[i].name);
            return span;
        }
    }
    int64_t tenths = ms / 100 + (ms % 100 >= 50);
    if (ms > 1000)
        snprintf(span.text, sizeof span.text, "%" PRId64 ".%" PRId64 " s", tenths / 10,
                 tenths % 10);
    else
        snprintf(span.text, sizeof span.text, "%" PRId64 " ms", ms);
    return span;
}

struct jobq__duration
jobq__duration_show_ns(uint64_t ns)
{
    return jobq__duration_show((int64_t)((ns + 500000) / 1000000));
}
