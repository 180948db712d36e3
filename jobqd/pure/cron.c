/* cron.c: see cron.h. What is said here of a fault is said by cron_field and cron_parse
 * of migrations/schema/schedule.sql in the same words. */
#include "jobqd/pure/cron.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "libjobq/backoff.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

#define BLANKS " \t"
#define MAX_BYTES 256
#define MIN_EVERY_MS ((int64_t)1000)
#define MAX_EVERY_MS ((int64_t)366 * 24 * 3600 * 1000)
/* The longest wait is for a 29th of February: 8 years around 2100. */
#define SEARCH_DAYS (9 * 366)

#define DAY_S ((int64_t)24 * 3600)
#define LAST_DAY 0      /* the bit of L */
#define LAST_WEEKDAYS 8 /* the first bit of 0L */

#define ALLOWED                                                                          \
    "five fields (minute, hour, day of month, month, day of week), @yearly, @annually, " \
    "@monthly, @weekly, @daily, @midnight, @hourly, @reboot or @every TIME, such as "    \
    "@every 90s"

enum field { MINUTE, HOUR, DAY, MONTH, WEEKDAY, N_FIELDS };

static const char *const month_names[] = {"-",   "jan", "feb", "mar", "apr", "may", "jun",
                                          "jul", "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed",
                                            "thu", "fri", "sat", NULL};
static const char *const no_names[] = {NULL};

static const struct {
    const char *name;
    int least, most;
    int star; /* the last value of * */
    int steps;
    const char *const *names; /* by value */
    const char *allowed;
} fields[N_FIELDS] = {
    [MINUTE] = {"minute", 0, 59, 59, 60, no_names, "0 to 59"},
    [HOUR] = {"hour", 0, 23, 23, 24, no_names, "0 to 23"},
    [DAY] = {"day of month", 1, 31, 31, 31, no_names, "1 to 31, L (the last day)"},
    [MONTH] = {"month", 1, 12, 12, 12, month_names, "1 to 12, jan to dec"},
    [WEEKDAY] = {"day of week", 0, 7, 6, 7, weekday_names,
                 "0 to 7 (0 and 7 are Sunday), sun to sat, 5L or friL (the last Friday)"},
};

/* Some bytes of the schedule. */
struct piece {
    const char *at;
    size_t len;
};

/* ---- Faults ---- */

static int
out_of_memory(jobq_error *err)
{
    return jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

/* BEFORE "piece" BEHIND */
static int
refuse(const char *before, struct piece piece, const char *behind, jobq_error *err)
{
    struct jobq__buf quoted = {0};
    jobq__buf_add_json_string(&quoted, piece.at, piece.len);
    const char *text = jobq__buf_cstr(&quoted);
    int rc = !text ? out_of_memory(err)
                   : jobq__error(err, JOBQ_EINVAL, "%s%s%s", before, text, behind);
    jobq__buf_clear(&quoted);
    return rc;
}

/* FIELD "item" is not allowed: WHY */
static int
refuse_item(enum field field, struct piece item, const char *why, jobq_error *err)
{
    struct jobq__buf before = {0}, behind = {0};
    jobq__buf_adds(&before, fields[field].name);
    jobq__buf_addc(&before, ' ');
    jobq__buf_adds(&behind, " is not allowed: ");
    jobq__buf_adds(&behind, why);
    int rc = jobq__buf_cstr(&before) && jobq__buf_cstr(&behind)
                 ? refuse(before.data, item, behind.data, err)
                 : out_of_memory(err);
    jobq__buf_clear(&before);
    jobq__buf_clear(&behind);
    return rc;
}

static int
refuse_value(enum field field, struct piece item, jobq_error *err)
{
    char why[200] = "";
    strncat(why, fields[field].allowed, sizeof why - 1);
    strncat(why, ", *, ranges a-b, steps */n and a-b/n, lists a,b",
            sizeof why - strlen(why) - 1);
    return refuse_item(field, item, why, err);
}

/* ---- Fields ---- */

/* Takes a number of 1 to 4 digits off the front. */
static bool
take_number(struct piece *rest, int *out)
{
    size_t n = 0;
    int number = 0;
    while (n < rest->len && n < 5 && isdigit((unsigned char)rest->at[n]))
        number = number * 10 + (rest->at[n++] - '0');
    if (n < 1 || n > 4)
        return false;
    rest->at += n;
    rest->len -= n;
    *out = number;
    return true;
}

/* Takes a number or one of the field's names. */
static bool
take_value(enum field field, struct piece *rest, int *out, bool *named)
{
    *named = false;
    if (take_number(rest, out))
        return true;
    const char *const *names = fields[field].names;
    for (int value = 0; rest->len >= 3 && names[value] != NULL; value++) {
        if (strncasecmp(names[value], rest->at, 3) != 0)
            continue;
        rest->at += 3;
        rest->len -= 3;
        *out = value;
        *named = true;
        return true;
    }
    return false;
}

static bool
take_char(struct piece *rest, char c)
{
    if (rest->len == 0 || rest->at[0] != c)
        return false;
    rest->at++;
    rest->len--;
    return true;
}

/* An item as it stands: LOW[-HIGH][/STEP], *[/STEP]. */
struct item {
    int low, high;
    int step;
    bool stepped;
    bool ranged; /* it has a - or is a * */
};

static bool
read_item(enum field field, struct piece rest, struct item *out)
{
    bool named;
    *out = (struct item){.step = 1, .low = fields[field].least};
    out->high = fields[field].star;
    out->ranged = take_char(&rest, '*');
    if (!out->ranged) {
        if (!take_value(field, &rest, &out->low, &named))
            return false;
        out->high = out->low;
        out->ranged = take_char(&rest, '-');
        if (out->ranged && !take_value(field, &rest, &out->high, &named))
            return false;
        /* At the end of a range Sunday ends the week. */
        if (out->ranged && field == WEEKDAY && named && out->high == 0 && out->low > 0)
            out->high = 7;
    }
    out->stepped = take_char(&rest, '/');
    if (out->stepped && !take_number(&rest, &out->step))
        return false;
    return rest.len == 0 && out->low >= fields[field].least &&
           out->low <= fields[field].most && out->high >= fields[field].least &&
           out->high <= fields[field].most;
}

/* L and 5L; false: it is none of them. */
static bool
read_last(enum field field, struct piece item, uint64_t *mask)
{
    int value;
    bool named;
    if (item.len == 0 || toupper((unsigned char)item.at[item.len - 1]) != 'L')
        return false;
    struct piece rest = {item.at, item.len - 1};
    if (field == DAY && rest.len == 0) {
        *mask |= (uint64_t)1 << LAST_DAY;
        return true;
    }
    bool one = rest.len == 1 || (rest.len == 3 && isalpha((unsigned char)rest.at[0]));
    if (field != WEEKDAY || !one || !take_value(field, &rest, &value, &named) ||
        rest.len > 0 || value > 7)
        return false;
    *mask |= (uint64_t)1 << (value % 7 + LAST_WEEKDAYS);
    return true;
}

static int
parse_item(enum field field, struct piece text, uint64_t *mask, jobq_error *err)
{
    struct item item;
    char why[100];
    if (read_last(field, text, mask))
        return 0;
    if (!read_item(field, text, &item))
        return refuse_value(field, text, err);
    if (item.high < item.low)
        return refuse_item(field, text, "a range begins with its lower end", err);
    if (item.stepped && !item.ranged) {
        snprintf(why, sizeof why, "a step stands behind * or a range, as in %d-%d/%d",
                 item.low, fields[field].most, item.step);
        return refuse_item(field, text, why, err);
    }
    if (item.step < 1 || item.step > fields[field].steps) {
        snprintf(why, sizeof why, "a step is 1 to %d", fields[field].steps);
        return refuse_item(field, text, why, err);
    }
    for (int value = item.low; value <= item.high; value += item.step)
        *mask |= (uint64_t)1 << (field == WEEKDAY ? value % 7 : value);
    return 0;
}

static int
parse_field(enum field field, struct piece text, uint64_t *mask, jobq_error *err)
{
    int rc = 0;
    *mask = 0;
    while (rc == 0) {
        const char *comma = memchr(text.at, ',', text.len);
        struct piece item = {text.at, comma ? (size_t)(comma - text.at) : text.len};
        rc = parse_item(field, item, mask, err);
        if (!comma)
            break;
        text.at += item.len + 1;
        text.len -= item.len + 1;
    }
    return rc;
}

/* ---- Schedules ---- */

/* The words of the text, the first N_FIELDS of them; returns how many there are. */
static size_t
split(struct piece text, struct piece words[N_FIELDS])
{
    size_t n = 0;
    const char *end = text.at + text.len;
    for (const char *at = text.at; at < end;) {
        const char *stop = at;
        while (stop < end && !strchr(BLANKS, *stop))
            stop++;
        if (n < N_FIELDS)
            words[n] = (struct piece){at, (size_t)(stop - at)};
        n++;
        at = stop;
        while (at < end && strchr(BLANKS, *at))
            at++;
    }
    return n;
}

static bool
is_star(struct piece piece)
{
    return piece.len == 1 && piece.at[0] == '*';
}

static int
parse_fields(const struct piece words[N_FIELDS], struct cron *out, jobq_error *err)
{
    uint64_t masks[N_FIELDS] = {0};
    for (int i = 0; i < N_FIELDS; i++) {
        int rc = parse_field((enum field)i, words[i], &masks[i], err);
        if (rc != 0)
            return rc;
    }
    *out = (struct cron){.kind = CRON_FIELDS,
                         .minutes = masks[MINUTE],
                         .hours = (uint32_t)masks[HOUR],
                         .days = (uint32_t)masks[DAY],
                         .months = (uint32_t)masks[MONTH],
                         .weekdays = (uint32_t)masks[WEEKDAY],
                         .either = !is_star(words[DAY]) && !is_star(words[WEEKDAY])};
    return 0;
}

static int
parse_every(struct piece time, struct cron *out, jobq_error *err)
{
    char text[MAX_BYTES + 1];
    int64_t ms = 0;
    memcpy(text, time.at, time.len);
    text[time.len] = '\0';
    int rc = jobq__duration_parse(text, &ms, err);
    if (rc == JOBQ_ENOMEM)
        return rc;
    if (rc != 0 || ms < MIN_EVERY_MS || ms > MAX_EVERY_MS)
        return refuse("@every ", time,
                      " is not allowed: 1s to 366d, with a unit (ms, s, m, h, d)", err);
    *out = (struct cron){.kind = CRON_EVERY, .every_ms = ms};
    return 0;
}

static bool
same(struct piece piece, const char *word)
{
    return strlen(word) == piece.len && strncasecmp(word, piece.at, piece.len) == 0;
}

/* The five fields that a nickname stands for; NULL: it is none. */
static const char *
find_nickname(struct piece word)
{
    static const struct {
        const char *name, *schedule;
    } nicknames[] = {
        {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
        {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
        {"@hourly", "0 * * * *"},
    };
    for (size_t i = 0; i < sizeof nicknames / sizeof nicknames[0]; i++) {
        if (same(word, nicknames[i].name))
            return nicknames[i].schedule;
    }
    return NULL;
}

static int
refuse_count(struct piece text, size_t n, jobq_error *err)
{
    char has[200];
    snprintf(has, sizeof has, " has %zu field%s; allowed are ", n, n == 1 ? "" : "s");
    struct jobq__buf behind = {0};
    jobq__buf_adds(&behind, text.at[0] == '@' ? " is not allowed: " : has);
    jobq__buf_adds(&behind, ALLOWED);
    int rc =
        jobq__buf_cstr(&behind) ? refuse("", text, behind.data, err) : out_of_memory(err);
    jobq__buf_clear(&behind);
    return rc;
}

static int
parse(struct piece text, struct cron *out, jobq_error *err)
{
    struct piece words[N_FIELDS] = {{NULL, 0}};
    size_t n = split(text, words);
    if (n == 1 && same(words[0], "@reboot")) {
        *out = (struct cron){.kind = CRON_REBOOT};
        return 0;
    }
    if (n == 2 && same(words[0], "@every"))
        return parse_every(words[1], out, err);
    const char *stands_for = n == 1 ? find_nickname(words[0]) : NULL;
    if (stands_for != NULL)
        n = split((struct piece){stands_for, strlen(stands_for)}, words);
    if (n != N_FIELDS)
        return refuse_count(text, n, err);
    return parse_fields(words, out, err);
}

int
cron_parse(const char *text, struct cron *out, jobq_error *err)
{
    struct cron parsed = {.kind = CRON_FIELDS};
    int64_t next_ms;
    size_t bytes = strlen(text);
    text += strspn(text, BLANKS);
    struct piece trimmed = {text, strlen(text)};
    while (trimmed.len > 0 && strchr(BLANKS, text[trimmed.len - 1]))
        trimmed.len--;
    if (trimmed.len == 0)
        return jobq__error(err, JOBQ_EINVAL, "must be " ALLOWED ", got nothing");
    if (bytes > MAX_BYTES)
        return jobq__error(err, JOBQ_EINVAL, "must be " ALLOWED ", got %zu bytes", bytes);
    int rc = parse(trimmed, &parsed, err);
    if (rc != 0)
        return rc;
    if (parsed.kind == CRON_FIELDS && !cron_next(&parsed, 0, NULL, NULL, &next_ms))
        return refuse("", trimmed, " never comes: none of its months has such a day",
                      err);
    *out = parsed;
    return 0;
}

/* ---- The calendar ---- */

/* Years begin in March here, so that the leap day is a year's last, and an era is the 400
 * years after which all repeats. */
int64_t
cron_day_number(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void
cron_date(int64_t day_number, int64_t *year, int *month, int *day)
{
    int64_t shifted = day_number + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t of_era = shifted - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100);
    int64_t shifted_month = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * shifted_month + 2) / 5 + 1);
    *month = (int)(shifted_month < 10 ? shifted_month + 3 : shifted_month - 9);
    *year = years + era * 400 + (*month <= 2);
}

static int
days_in_month(int64_t year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

static int64_t
floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

static bool
has(uint64_t mask, int bit)
{
    return mask >> bit & 1;
}

static bool
is_its_day(const struct cron *cron, int64_t day_number, int64_t year, int month, int day)
{
    int last = days_in_month(year, month);
    int weekday = (int)(((day_number + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
    bool by_day = has(cron->days, day) || (has(cron->days, LAST_DAY) && day == last);
    bool by_weekday = has(cron->weekdays, weekday) ||
                      (has(cron->weekdays, weekday + LAST_WEEKDAYS) && day > last - 7);
    return cron->either ? by_day || by_weekday : by_day && by_weekday;
}

/* The first minute of the day from `minute` on; -1: none. */
static int
next_in_day(const struct cron *cron, int minute)
{
    for (; minute < 24 * 60; minute++) {
        if (!has(cron->hours, minute / 60))
            minute += 59 - minute % 60;
        else if (has(cron->minutes, minute % 60))
            return minute;
    }
    return -1;
}

/* The first minute from `since_s` (of a full minute) on that the fields allow, as a clock
 * shows it. False: there is none, ever. */
static bool
next_shown(const struct cron *cron, int64_t since_s, int64_t *out_s)
{
    int64_t first = floor_div(since_s, DAY_S), year;
    int month, day;
    int minute = (int)((since_s - first * DAY_S) / 60);
    for (int64_t number = first; number < first + SEARCH_DAYS; number++, minute = 0) {
        cron_date(number, &year, &month, &day);
        if (!has(cron->months, month)) {
            number += days_in_month(year, month) - day;
            continue;
        }
        int found =
            is_its_day(cron, number, year, month, day) ? next_in_day(cron, minute) : -1;
        if (found < 0)
            continue;
        *out_s = number * DAY_S + (int64_t)found * 60;
        return true;
    }
    return false;
}

/* ---- Clocks ---- */

static int64_t
shown_at(cron_offset offset, void *data, int64_t at_s)
{
    return at_s + (offset ? offset(data, at_s) : 0);
}

/* The first moment at which clocks show this time, or a later one. A clock is set at most
 * once in a day or two, and by a day at most. */
static int64_t
moment_of(cron_offset offset, void *data, int64_t shown_s)
{
    if (!offset)
        return shown_s;
    int64_t about_s = shown_s - offset(data, shown_s);
    /* By what is in force before, and after, a change nearby. */
    int64_t old_s = shown_s - offset(data, about_s - DAY_S - 3600);
    int64_t new_s = shown_s - offset(data, about_s + DAY_S + 3600);
    bool old_right = shown_at(offset, data, old_s) == shown_s;
    bool new_right = shown_at(offset, data, new_s) == shown_s;
    if (old_right && new_right)
        return old_s < new_s ? old_s : new_s;
    if (old_right || new_right)
        return old_right ? old_s : new_s;
    /* Skipped: the old clock's reckoning is behind the jump, the new one's before it. */
    int64_t before_s = new_s < old_s ? new_s : old_s;
    int64_t behind_s = new_s < old_s ? old_s : new_s;
    while (behind_s - before_s > 1) {
        int64_t middle_s = before_s + (behind_s - before_s) / 2;
        if (shown_at(offset, data, middle_s) > shown_s)
            behind_s = middle_s;
        else
            before_s = middle_s;
    }
    return behind_s;
}

bool
cron_next(const struct cron *cron, int64_t after_ms, cron_offset offset, void *data,
          int64_t *next_ms)
{
    switch (cron->kind) {
    case CRON_REBOOT:
        return false;
    case CRON_EVERY:
        *next_ms = after_ms + cron->every_ms;
        return true;
    case CRON_FIELDS:
        break;
    }
    int64_t after_s = floor_div(after_ms, 1000);
    int64_t shown_s = floor_div(shown_at(offset, data, after_s), 60) * 60;
    for (;;) {
        /* Where a time is shown twice, those of the second showing have been: we walk to
         * its end. */
        if (!next_shown(cron, shown_s + 60, &shown_s))
            return false;
        int64_t slot_s = moment_of(offset, data, shown_s);
        if (slot_s > after_s) {
            *next_ms = slot_s * 1000;
            return true;
        }
    }
}
