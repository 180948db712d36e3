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
    if (ms > 10 * 1000 || (ms > 1000 && ms % 100 == 0))
        snprintf(span.text, sizeof span.text, "%" PRId64 ".%" PRId64 " s", ms / 1000,
                 ms % 1000 / 100);
    else
        snprintf(span.text, sizeof span.text, "%" PRId64 " ms", ms);
    return span;
}
