/* backoff.c: retry delays, and durations as people write them. Pure: the random bits and
 * the attempt come from the caller. */
#include "libjobq/backoff.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "libjobq/error.h"

enum {
    SECOND_MS = 1000,
    HOUR_MS = 3600 * SECOND_MS,
    DAY_MS = 24 * HOUR_MS,
    DEFAULT_BASE_MS = 15 * SECOND_MS,
    DEFAULT_CAP_MS = 24 * HOUR_MS,
    DEFAULT_JITTER_PERCENT = 10
};

/* No delay is longer than this, whatever the formula says: far beyond any use, and safe
 * to add to a time. */
static const int64_t LONGEST_MS = (int64_t)36500 * DAY_MS;

#define FORMULAS                                                                         \
    "allowed are oban, exponential(base=15s, cap=24h), linear(base=15s, step=15s, "      \
    "cap=24h) and constant(30s), each also with jitter=10%%"

/* a + b and a * b for non-negative numbers, held at LONGEST_MS. */
static int64_t
sum(int64_t a, int64_t b)
{
    return a > LONGEST_MS - b ? LONGEST_MS : a + b;
}

static int64_t
product(int64_t a, int64_t b)
{
    return b != 0 && a > LONGEST_MS / b ? LONGEST_MS : a * b;
}

static int64_t
power_of_two(int64_t n)
{
    return n >= 42 ? LONGEST_MS : (int64_t)1 << n;
}

/* Oban's scale: a job that may be tried 100 times waits as long in the end as one that
 * may be tried 20 times. */
static int64_t
oban_exponent(int64_t attempt, int64_t max_attempts)
{
    if (max_attempts > 20)
        attempt = attempt * 20 / max_attempts;
    return attempt > 20 ? 20 : attempt;
}

int64_t
jobq__backoff_ms(const struct jobq__backoff *backoff, int32_t attempt,
                 int32_t max_attempts, uint32_t random)
{
    int64_t n = attempt < 1 ? 1 : attempt;
    int64_t delay = 0;
    switch (backoff->formula) {
    case JOBQ__BACKOFF_OBAN:
        delay = (15 + power_of_two(oban_exponent(n, max_attempts))) * SECOND_MS;
        break;
    case JOBQ__BACKOFF_EXPONENTIAL:
        delay = product(backoff->base_ms, power_of_two(n - 1));
        break;
    case JOBQ__BACKOFF_LINEAR:
        delay = sum(backoff->base_ms, product(backoff->step_ms, n - 1));
        break;
    case JOBQ__BACKOFF_CONSTANT:
        delay = backoff->base_ms;
        break;
    }
    if (backoff->cap_ms > 0 && delay > backoff->cap_ms)
        delay = backoff->cap_ms;
    if (delay > LONGEST_MS)
        delay = LONGEST_MS;
    /* The delay is below 2^42: it can be multiplied by 100, or by 21 random bits. */
    int64_t span = delay * backoff->jitter_percent / 100;
    int64_t jitter = span * (int64_t)(random >> 11) / (1 << 21);
    return delay + jitter;
}

static const struct {
    const char *name;
    int64_t ms;
} UNITS[] = {
    {"ms", 1}, {"s", SECOND_MS}, {"m", 60 * SECOND_MS}, {"h", HOUR_MS}, {"d", DAY_MS}};

/* Takes one "90s" off the front of *text; false if there is none or it is too long. */
static bool
take_duration_part(const char **text, const char *end, int64_t *ms)
{
    const char *at = *text;
    int64_t number = 0;
    while (at < end && *at >= '0' && *at <= '9') {
        number = number * 10 + (*at++ - '0');
        if (number > LONGEST_MS)
            return false;
    }
    if (at == *text)
        return false;
    const char *unit = at;
    while (at < end && isalpha((unsigned char)*at))
        at++;
    size_t len = (size_t)(at - unit);
    for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++) {
        if (strlen(UNITS[i].name) == len && memcmp(UNITS[i].name, unit, len) == 0) {
            if (number > LONGEST_MS / UNITS[i].ms)
                return false;
            *ms = number * UNITS[i].ms;
            *text = at;
            return true;
        }
    }
    return false;
}

static int
parse_duration(const char *text, size_t len, int64_t *out_ms, jobq_error *err)
{
    const char *at = text, *end = text + len;
    int64_t total = 0, part = 0;
    bool right = len > 0;
    if (len == 1 && *text == '0')
        at = end;
    while (right && at < end) {
        right = take_duration_part(&at, end, &part) && total <= LONGEST_MS - part;
        total += right ? part : 0;
    }
    if (!right)
        return jobq__error(
            err, JOBQ_EINVAL,
            "\"%.*s\" is not a duration: write whole numbers with ms, s, m, h or "
            "d, such as 500ms, 15s or 1h30m, at most 36500d",
            len > 60 ? 60 : (int)len, text);
    *out_ms = total;
    return JOBQ_OK;
}

int
jobq__duration_parse(const char *text, int64_t *out_ms, jobq_error *err)
{
    return parse_duration(text, strlen(text), out_ms, err);
}

/* A piece of a formula's text, without the blanks around it. */
struct piece {
    const char *at;
    size_t len;
};

static struct piece
trimmed(const char *at, const char *end)
{
    while (at < end && isspace((unsigned char)*at))
        at++;
    while (end > at && isspace((unsigned char)end[-1]))
        end--;
    return (struct piece){at, (size_t)(end - at)};
}

static bool
is(struct piece piece, const char *word)
{
    return strlen(word) == piece.len && memcmp(piece.at, word, piece.len) == 0;
}

static int
parse_jitter(struct piece value, int *out, jobq_error *err)
{
    int percent = 0;
    size_t i = 0;
    for (; i < value.len && i < 3 && isdigit((unsigned char)value.at[i]); i++)
        percent = percent * 10 + (value.at[i] - '0');
    if (i == 0 || i + 1 != value.len || value.at[i] != '%' || percent > 100)
        return jobq__error(err, JOBQ_EINVAL,
                           "backoff: jitter must be 0%% to 100%%, got \"%.*s\"",
                           value.len > 60 ? 60 : (int)value.len, value.at);
    *out = percent;
    return JOBQ_OK;
}

/* One `name=value`, or constant's bare duration. */
static int
parse_argument(struct piece arg, struct jobq__backoff *out, jobq_error *err)
{
    const char *equals = arg.len ? memchr(arg.at, '=', arg.len) : NULL;
    struct piece name = equals ? trimmed(arg.at, equals) : (struct piece){"", 0};
    struct piece value = equals ? trimmed(equals + 1, arg.at + arg.len) : arg;
    if (is(name, "jitter"))
        return parse_jitter(value, &out->jitter_percent, err);

    bool capped =
        out->formula == JOBQ__BACKOFF_EXPONENTIAL || out->formula == JOBQ__BACKOFF_LINEAR;
    int64_t *target = NULL;
    if (out->formula == JOBQ__BACKOFF_CONSTANT && !equals && arg.len)
        target = &out->base_ms;
    else if (is(name, "base") && out->formula != JOBQ__BACKOFF_OBAN)
        target = &out->base_ms;
    else if (is(name, "step") && out->formula == JOBQ__BACKOFF_LINEAR)
        target = &out->step_ms;
    else if (is(name, "cap") && capped)
        target = &out->cap_ms;
    if (!target)
        return jobq__error(err, JOBQ_EINVAL, "backoff: unexpected \"%.*s\"; " FORMULAS,
                           arg.len > 60 ? 60 : (int)arg.len, arg.at);
    return parse_duration(value.at, value.len, target, err);
}

static int
parse_formula(struct piece name, struct jobq__backoff *out, jobq_error *err)
{
    *out = (struct jobq__backoff){.base_ms = DEFAULT_BASE_MS,
                                  .step_ms = DEFAULT_BASE_MS,
                                  .jitter_percent = DEFAULT_JITTER_PERCENT};
    if (is(name, "oban")) {
        out->formula = JOBQ__BACKOFF_OBAN;
    } else if (is(name, "exponential")) {
        out->formula = JOBQ__BACKOFF_EXPONENTIAL;
        out->cap_ms = DEFAULT_CAP_MS;
    } else if (is(name, "linear")) {
        out->formula = JOBQ__BACKOFF_LINEAR;
        out->cap_ms = DEFAULT_CAP_MS;
    } else if (is(name, "constant")) {
        out->formula = JOBQ__BACKOFF_CONSTANT;
        out->base_ms = -1;
    } else {
        return jobq__error(err, JOBQ_EINVAL,
                           "backoff: unknown formula \"%.*s\"; " FORMULAS,
                           name.len > 60 ? 60 : (int)name.len, name.at);
    }
    return JOBQ_OK;
}

int
jobq__backoff_parse(const char *text, struct jobq__backoff *out, jobq_error *err)
{
    struct piece all = trimmed(text, text + strlen(text));
    const char *end = all.at + all.len;
    const char *open = memchr(all.at, '(', all.len);
    struct jobq__backoff parsed;
    int rc = parse_formula(trimmed(all.at, open ? open : end), &parsed, err);
    if (rc)
        return rc;
    if (open && end[-1] != ')')
        return jobq__error(err, JOBQ_EINVAL,
                           "backoff: \"%.60s\" is missing its closing )", text);
    for (const char *at = open ? open + 1 : end; at < end;) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma ? comma : end - 1;
        rc = parse_argument(trimmed(at, stop), &parsed, err);
        if (rc)
            return rc;
        at = stop + 1;
    }
    if (parsed.base_ms < 0)
        return jobq__error(err, JOBQ_EINVAL,
                           "backoff: constant needs a delay, such as constant(30s)");
    *out = parsed;
    return JOBQ_OK;
}
