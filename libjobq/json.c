/* json.c: checks JSON text and finds its parts, byte by byte, without building anything
 * from it. Not a parser in the usual sense: nobody here wants the values. */
#include "libjobq/json.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "libjobq/error.h"
#include "libjobq/utf8.h"

/* numeric's limits: digits before the decimal point, and behind it. */
enum { NUMERIC_MAX_WHOLE = 131072, NUMERIC_MAX_FRACTION = 16383 };

static bool
fail(struct jobq__json *json, const char *expected)
{
    json->fault = expected;
    return false;
}

void
jobq__json_skip_space(struct jobq__json *json)
{
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t' ||
                                    *json->at == '\n' || *json->at == '\r'))
        json->at++;
}

/* Whether one of eight bytes is a quote, a backslash, a control character or not ASCII:
 * a string's plain middle is skipped a word at a time. */
static bool
has_special(const char *at)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t word;
    memcpy(&word, at, sizeof word);
    uint64_t quote = word ^ ones * '"';
    uint64_t slash = word ^ ones * '\\';
    /* With the top bits clear of all bytes, a borrow marks the zero (or too small) ones;
     * one that is marked by its neighbour's borrow only costs a slow look. */
    return ((word | (word - ones * 0x20) | (quote - ones) | (slash - ones)) & tops) != 0;
}

/* Four hex digits at `at`; -1 if they are not. */
static int32_t
hex4(const char *at, const char *end)
{
    int32_t value = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int32_t digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if (c >= 'a' && c <= 'f')
            digit = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
            digit = c - 'A' + 10;
        else
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Behind a backslash's u. */
static bool
skip_unicode_escape(struct jobq__json *json)
{
    int32_t unit = hex4(json->at + 2, json->end);
    if (unit < 0)
        return fail(json, "four hex digits after \\u");
    if (unit == 0 && !json->text_only)
        return fail(json, "no \\u0000, which jsonb cannot hold,");
    if (unit >= 0xDC00 && unit <= 0xDFFF)
        return fail(json, "a high surrogate before this low one");
    if (unit >= 0xD800 && unit <= 0xDBFF) {
        const char *next = json->at + 6;
        int32_t low = json->end - next >= 6 && next[0] == '\\' && next[1] == 'u'
                          ? hex4(next + 2, json->end)
                          : -1;
        if (low < 0xDC00 || low > 0xDFFF)
            return fail(json, "a low surrogate after this high one");
        json->at += 6;
    }
    json->at += 6;
    return true;
}

static bool
skip_escape(struct jobq__json *json)
{
    if (json->end - json->at < 2) {
        json->at = json->end;
        return fail(json, "the end of the string");
    }
    switch (json->at[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        json->at += 2;
        return true;
    case 'u':
        return skip_unicode_escape(json);
    }
    return fail(json, "one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
}

bool
jobq__json_skip_string(struct jobq__json *json, bool *escaped)
{
    if (json->at == json->end || *json->at != '"')
        return fail(json, "a string");
    json->at++;
    *escaped = false;
    for (;;) {
        while (json->end - json->at >= 8 && !has_special(json->at))
            json->at += 8;
        if (json->at == json->end)
            return fail(json, "the end of the string");
        unsigned char c = (unsigned char)*json->at;
        if (c == '"') {
            json->at++;
            return true;
        }
        if (c == '\\') {
            *escaped = true;
            if (!skip_escape(json))
                return false;
        } else if (c < 0x20) {
            return fail(json, "control characters escaped in the string");
        } else {
            size_t n = jobq__utf8_len((const unsigned char *)json->at,
                                      (size_t)(json->end - json->at));
            if (n == 0)
                return fail(json, "UTF-8");
            json->at += n;
        }
    }
}

static size_t
skip_digits(struct jobq__json *json)
{
    const char *start = json->at;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9')
        json->at++;
    return (size_t)(json->at - start);
}

/* The exponent's digits, as a number held far above any that is allowed. */
static bool
skip_exponent(struct jobq__json *json, int64_t *exponent)
{
    json->at++;
    bool negative = json->at < json->end && *json->at == '-';
    if (negative || (json->at < json->end && *json->at == '+'))
        json->at++;
    const char *digits = json->at;
    if (skip_digits(json) == 0)
        return fail(json, "a digit");
    for (; digits < json->at; digits++)
        if (*exponent < 1000000)
            *exponent = *exponent * 10 + (*digits - '0');
    if (negative)
        *exponent = -*exponent;
    return true;
}

static bool
skip_number(struct jobq__json *json)
{
    const char *start = json->at;
    int64_t whole, fraction = 0, exponent = 0;
    if (*json->at == '-')
        json->at++;
    const char *first = json->at;
    whole = (int64_t)skip_digits(json);
    if (whole == 0)
        return fail(json, "a digit");
    if (whole > 1 && *first == '0') {
        json->at = first + 1;
        return fail(json, "no digit after a leading zero");
    }
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        fraction = (int64_t)skip_digits(json);
        if (fraction == 0)
            return fail(json, "a digit");
    }
    if (json->at < json->end && (*json->at == 'e' || *json->at == 'E') &&
        !skip_exponent(json, &exponent))
        return false;
    if (whole + exponent > NUMERIC_MAX_WHOLE ||
        fraction - exponent > NUMERIC_MAX_FRACTION) {
        json->at = start;
        return fail(json, "a number that numeric can hold");
    }
    return true;
}

static bool
skip_word(struct jobq__json *json, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(json->end - json->at) < len || memcmp(json->at, word, len) != 0)
        return fail(json, "a value");
    json->at += len;
    return true;
}

static bool
skip_scalar(struct jobq__json *json)
{
    bool escaped;
    if (json->at == json->end)
        return fail(json, "a value");
    switch (*json->at) {
    case '"':
        return jobq__json_skip_string(json, &escaped);
    case 't':
        return skip_word(json, "true");
    case 'f':
        return skip_word(json, "false");
    case 'n':
        return skip_word(json, "null");
    }
    if (*json->at == '-' || (*json->at >= '0' && *json->at <= '9'))
        return skip_number(json);
    return fail(json, "a value");
}

/* An object's next member's name and colon. */
static bool
skip_name(struct jobq__json *json)
{
    bool escaped;
    if (json->at == json->end || *json->at != '"')
        return fail(json, "a member's name in quotes");
    if (!jobq__json_skip_string(json, &escaped))
        return false;
    jobq__json_skip_space(json);
    if (json->at == json->end || *json->at != ':')
        return fail(json, "':' after the member's name");
    json->at++;
    jobq__json_skip_space(json);
    return true;
}

/* What is open, one bit a level: an object or an array. */
struct levels {
    uint64_t objects[JOBQ__JSON_MAX_DEPTH / 64];
};

static void
set_level(struct levels *levels, unsigned depth, bool object)
{
    uint64_t bit = (uint64_t)1 << depth % 64;
    if (object)
        levels->objects[depth / 64] |= bit;
    else
        levels->objects[depth / 64] &= ~bit;
}

static bool
is_object(const struct levels *levels, unsigned depth)
{
    return levels->objects[depth / 64] >> depth % 64 & 1;
}

/* After a value: closes what ends here, and leaves at the next value. *done: the value
 * that was asked for has ended. */
static bool
skip_closings(struct jobq__json *json, const struct levels *levels, unsigned base,
              bool *done)
{
    while (json->depth > base) {
        bool object = is_object(levels, json->depth - 1);
        jobq__json_skip_space(json);
        if (json->at < json->end && *json->at == (object ? '}' : ']')) {
            json->at++;
            json->depth--;
            continue;
        }
        if (json->at == json->end || *json->at != ',')
            return fail(json, object ? "',' or '}'" : "',' or ']'");
        json->at++;
        jobq__json_skip_space(json);
        return !object || skip_name(json);
    }
    *done = true;
    return true;
}

bool
jobq__json_skip_value(struct jobq__json *json)
{
    struct levels levels;
    unsigned base = json->depth;
    bool done = false;
    while (!done) {
        char c = json->at < json->end ? *json->at : '\0';
        if (c == '{' || c == '[') {
            if (json->depth == JOBQ__JSON_MAX_DEPTH)
                return fail(json, "at most 128 levels of nesting");
            set_level(&levels, json->depth++, c == '{');
            json->at++;
            jobq__json_skip_space(json);
            if (json->at < json->end && *json->at == (c == '{' ? '}' : ']')) {
                json->at++;
                json->depth--;
            } else if (c == '{') {
                if (!skip_name(json))
                    return false;
                continue;
            } else {
                continue;
            }
        } else if (!skip_scalar(json)) {
            return false;
        }
        if (!skip_closings(json, &levels, base, &done))
            return false;
    }
    return true;
}

static char *
put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xC0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *out++ = (char)(0xE0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else {
        *out++ = (char)(0xF0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3F));
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    }
    return out;
}

static char
plain_escape(char c)
{
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    }
    return c;
}

size_t
jobq__json_decode(char *text, size_t len)
{
    const char *end = text + len;
    const char *in = memchr(text, '\\', len);
    if (!in)
        return len;
    char *out = text + (in - text);
    while (in < end) {
        if (*in != '\\') {
            *out++ = *in++;
        } else if (in[1] != 'u') {
            *out++ = plain_escape(in[1]);
            in += 2;
        } else {
            uint32_t c = (uint32_t)hex4(in + 2, end);
            in += 6;
            if (c >= 0xD800 && c <= 0xDBFF) {
                c = 0x10000 + ((c - 0xD800) << 10) +
                    ((uint32_t)hex4(in + 2, end) - 0xDC00);
                in += 6;
            }
            out = put_utf8(out, c ? c : 0xFFFD);
        }
    }
    return (size_t)(out - text);
}

int
jobq__json_error(const struct jobq__json *json, jobq_error *err, int code,
                 const char *what)
{
    char found[24];
    size_t byte = (size_t)(json->at - json->text) + 1;
    size_t left = (size_t)(json->end - json->at);
    size_t n = jobq__utf8_len((const unsigned char *)json->at, left);
    if (left == 0)
        snprintf(found, sizeof found, "the end");
    else if (n == 0 || (unsigned char)*json->at < 0x20)
        snprintf(found, sizeof found, "byte 0x%02X", (unsigned)(unsigned char)*json->at);
    else
        snprintf(found, sizeof found, "'%.*s'", (int)n, json->at);
    return jobq__error(err, code, "%s: expected %s at byte %zu, found %s", what,
                       json->fault, byte, found);
}

int
jobq__json_check(const char *text, size_t len, const char *what, jobq_error *err)
{
    struct jobq__json json = {.text = text, .at = text, .end = text + len};
    jobq__json_skip_space(&json);
    if (jobq__json_skip_value(&json)) {
        jobq__json_skip_space(&json);
        if (json.at < json.end)
            fail(&json, "the end");
    }
    return json.fault ? jobq__json_error(&json, err, JOBQ_EINVAL, what) : JOBQ_OK;
}

int
jobq__json_check_object(const char *text, size_t len, const char *what, jobq_error *err)
{
    int rc = jobq__json_check(text, len, what, err);
    if (rc)
        return rc;
    struct jobq__json json = {.text = text, .at = text, .end = text + len};
    jobq__json_skip_space(&json);
    if (*json.at == '{')
        return JOBQ_OK;
    size_t left = (size_t)(json.end - json.at);
    return jobq__error(err, JOBQ_EINVAL, "%s must be a JSON object, got %.*s", what,
                       left > 60 ? 60 : (int)left, json.at);
}

void
jobq__json_compact(struct jobq__buf *buf, const char *text, size_t len)
{
    const char *end = text + len;
    const char *plain = text;
    bool in_string = false;
    for (const char *at = text; at < end; at++) {
        if (in_string) {
            if (*at == '\\')
                at++;
            else if (*at == '"')
                in_string = false;
        } else if (*at == '"') {
            in_string = true;
        } else if (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') {
            jobq__buf_add(buf, plain, (size_t)(at - plain));
            plain = at + 1;
        }
    }
    jobq__buf_add(buf, plain, (size_t)(end - plain));
}
