/* digits.c: see digits.h. */
#include "jobqd/pure/digits.h"

#include <stdint.h>

/* The greatest exponent that is told apart: no frame has that many digits. */
enum { EXPONENT_ENOUGH = 1 << 30 };

static bool
is_digit(const char *at, const char *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

static int64_t
read_exponent(const char **at, const char *end)
{
    int64_t value = 0;
    bool negative = false;
    if (*at < end && (**at == '+' || **at == '-'))
        negative = *(*at)++ == '-';
    for (; is_digit(*at, end); (*at)++)
        if (value < EXPONENT_ENOUGH)
            value = value * 10 + (**at - '0');
    return negative ? -value : value;
}

/* Reads the number that begins with the digit at `at`. Zeros in front do not count. */
static bool
is_too_long(const char **at, const char *end)
{
    int64_t whole = 0, fraction = 0, zeros = 0, exponent = 0;
    bool zero = true;
    for (; is_digit(*at, end); (*at)++, whole++) {
        zero = zero && **at == '0';
        zeros += zero;
    }
    if (*at < end && **at == '.') {
        for ((*at)++; is_digit(*at, end); (*at)++, fraction++) {
            zero = zero && **at == '0';
            zeros += zero;
        }
    }
    if (*at < end && (**at == 'e' || **at == 'E')) {
        (*at)++;
        exponent = read_exponent(at, end);
    }
    return (!zero && whole - zeros + exponent > DIGITS_MAX) ||
           fraction - exponent > DIGITS_MAX;
}

bool
digits_too_many(const char *json, size_t len)
{
    const char *end = json + len;
    bool in_string = false;
    for (const char *at = json; at < end;) {
        if (!in_string && is_digit(at, end)) {
            if (is_too_long(&at, end))
                return true;
            continue;
        }
        if (*at == '"')
            in_string = !in_string;
        else if (in_string && *at == '\\' && at + 1 < end)
            at++;
        at++;
    }
    return false;
}
