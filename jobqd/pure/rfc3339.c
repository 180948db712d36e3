/* rfc3339.c: see rfc3339.h. */
#include "jobqd/pure/rfc3339.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "jobqd/pure/cron.h"

/* Takes a number of n digits, of min to max, off the front. */
static bool
take(const char **at, int n, int min, int max, int *out)
{
    int number = 0;
    for (int i = 0; i < n; i++) {
        if (!isdigit((unsigned char)(*at)[i]))
            return false;
        number = number * 10 + ((*at)[i] - '0');
    }
    *at += n;
    *out = number;
    return number >= min && number <= max;
}

static bool
take_one_of(const char **at, const char *chars)
{
    if (**at == '\0' || !strchr(chars, **at))
        return false;
    (*at)++;
    return true;
}

/* HH:MM[:SS[.f…]] */
static bool
take_time(const char **at, int64_t *ms)
{
    int hour, minute, second = 0, digits = 0;
    if (!take(at, 2, 0, 23, &hour) || !take_one_of(at, ":") ||
        !take(at, 2, 0, 59, &minute))
        return false;
    if (**at == ':' && (++*at, !take(at, 2, 0, 59, &second)))
        return false;
    *ms = ((int64_t)hour * 3600 + minute * 60 + second) * 1000;
    if (!take_one_of(at, "."))
        return true;
    for (int weight = 100; isdigit((unsigned char)**at); weight /= 10, digits++, ++*at)
        *ms += weight * (**at - '0');
    return digits > 0;
}

/* Z or +HH:MM */
static bool
take_offset(const char **at, int64_t *ms)
{
    int hour, minute;
    *ms = 0;
    if (take_one_of(at, "Zz"))
        return true;
    int sign = **at == '-' ? -1 : 1;
    if (!take_one_of(at, "+-") || !take(at, 2, 0, 23, &hour) || !take_one_of(at, ":") ||
        !take(at, 2, 0, 59, &minute))
        return false;
    *ms = (int64_t)sign * (hour * 60 + minute) * 60000;
    return true;
}

bool
rfc3339_parse(const char *text, int64_t *out_ms)
{
    int year, month, day, month_back, day_back;
    int64_t time_ms, offset_ms, year_back;
    if (!take(&text, 4, 1, 9999, &year) || !take_one_of(&text, "-") ||
        !take(&text, 2, 1, 12, &month) || !take_one_of(&text, "-") ||
        !take(&text, 2, 1, 31, &day) || !take_one_of(&text, "Tt ") ||
        !take_time(&text, &time_ms) || !take_offset(&text, &offset_ms) || *text != '\0')
        return false;
    int64_t number = cron_day_number(year, month, day);
    cron_date(number, &year_back, &month_back, &day_back);
    if (day_back != day)
        return false; /* the 31st of a shorter month */
    *out_ms = number * 24 * 3600 * 1000 + time_ms - offset_ms;
    return true;
}

void
rfc3339_print(char out[RFC3339_SIZE], int64_t at_ms, int64_t offset_s)
{
    int month, day;
    int64_t year, of_day;
    char fraction[8] = "", zone[16] = "Z";
    if (offset_s % 60 != 0)
        offset_s = 0;
    at_ms += offset_s * 1000;
    int64_t number = at_ms / (24 * 3600 * 1000);
    of_day = at_ms % (24 * 3600 * 1000);
    if (of_day < 0) {
        of_day += 24 * 3600 * 1000;
        number--;
    }
    cron_date(number, &year, &month, &day);
    if (of_day % 1000 != 0)
        snprintf(fraction, sizeof fraction, ".%03d", (int)(of_day % 1000));
    int ahead = (int)(offset_s < 0 ? -offset_s : offset_s) / 60;
    if (offset_s != 0)
        snprintf(zone, sizeof zone, "%c%02d:%02d", offset_s < 0 ? '-' : '+',
                 ahead / 60 % 100, ahead % 60);
    int seconds = (int)(of_day / 1000);
    snprintf(out, RFC3339_SIZE, "%04" PRId64 "-%02d-%02dT%02d:%02d:%02d%s%s", year, month,
             day, seconds / 3600, seconds / 60 % 60, seconds % 60, fraction, zone);
}
