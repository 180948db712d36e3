/* units.c: see units.h. */
#include "jobqd/config/units.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

bool
units_take_number(const char *text, int64_t *out, const char **rest)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]) &&
        !(text[0] == '-' && isdigit((unsigned char)text[1])))
        return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    *rest = end;
    return errno == 0;
}

static const struct {
    int64_t bytes;
    const char *name;
} sizes[] = {{GIB, "GiB"}, {MIB, "MiB"}, {KIB, "KiB"}, {1, ""}};
#define N_SIZES (sizeof sizes / sizeof sizes[0])

bool
units_parse_bytes(const char *text, int64_t *out)
{
    int64_t number = 0;
    const char *rest = "";
    if (!units_take_number(text, &number, &rest) || number < 0)
        return false;
    rest += strspn(rest, " ");
    for (size_t i = 0; i < N_SIZES; i++) {
        if (strcmp(rest, sizes[i].name) != 0)
            continue;
        if (number > INT64_MAX / sizes[i].bytes)
            return false;
        *out = number * sizes[i].bytes;
        return true;
    }
    return false;
}

void
units_put_bytes(struct jobq__buf *buf, int64_t bytes)
{
    size_t i = 0;
    while (bytes % sizes[i].bytes != 0)
        i++;
    jobq__buf_add_i64(buf, bytes / sizes[i].bytes);
    jobq__buf_adds(buf, bytes == 0 ? "" : sizes[i].name);
}

void
units_put_duration(struct jobq__buf *buf, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *name;
    } units[] = {{DAY, "d"}, {HOUR, "h"}, {MINUTE, "m"}, {SECOND, "s"}, {1, "ms"}};
    if (ms == 0)
        jobq__buf_addc(buf, '0');
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (ms < units[i].ms)
            continue;
        jobq__buf_add_i64(buf, ms / units[i].ms);
        jobq__buf_adds(buf, units[i].name);
        ms %= units[i].ms;
    }
}
