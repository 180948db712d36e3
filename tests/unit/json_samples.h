/* json_samples.h: what the tests of JSON share: texts that are let through, and texts that
 * are refused, with the words. */
#ifndef TESTS_JSON_SAMPLES_H
#define TESTS_JSON_SAMPLES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "libjobq/json.h"

#define TEN "0123456789"
#define TEXT(literal) literal, sizeof literal - 1

static const struct {
    const char *text;
    size_t len;
} good[] = {
    {TEXT("{}")},
    {TEXT(" \t\r\n[ ] \n")},
    {TEXT("0")},
    {TEXT("-0")},
    {TEXT("-12.50e+3")},
    {TEXT("1E5")},
    {TEXT("0.1")},
    {TEXT("123456789012345678901234567890")},
    {TEXT("1e1000")},
    {TEXT("1e-1000")},
    {TEXT("true")},
    {TEXT("false")},
    {TEXT("null")},
    {TEXT("\"\"")},
    {TEXT("\"eight ch\"")},
    {TEXT("\"" TEN TEN "\\\"" TEN "\"")},
    {TEXT("\"\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u00e5\"")},
    {TEXT("\"\\ud83d\\ude00\"")},
    {TEXT("\"\xC3\xA5 \xE2\x82\xAC \xF0\x9F\x98\x80 \x7F\"")},
    {TEXT("{\"a\": [1, {\"b\": null}, []], \"a\": {}}")},
    {TEXT("[[[[[[[[]]]]]]]]")},
};

static const struct {
    const char *text;
    size_t len;
    const char *message;
} bad[] = {
    {TEXT(""), "x: expected a value at byte 1, found the end"},
    {TEXT(" "), "x: expected a value at byte 2, found the end"},
    {TEXT("{} x"), "x: expected the end at byte 4, found 'x'"},
    {TEXT("{}\0"), "x: expected the end at byte 3, found byte 0x00"},
    {TEXT("nul"), "x: expected a value at byte 1, found 'n'"},
    {TEXT("True"), "x: expected a value at byte 1, found 'T'"},
    {TEXT("+1"), "x: expected a value at byte 1, found '+'"},
    {TEXT("-"), "x: expected a digit at byte 2, found the end"},
    {TEXT(".5"), "x: expected a value at byte 1, found '.'"},
    {TEXT("5."), "x: expected a digit at byte 3, found the end"},
    {TEXT("1e"), "x: expected a digit at byte 3, found the end"},
    {TEXT("1e+x"), "x: expected a digit at byte 4, found 'x'"},
    {TEXT("01"), "x: expected no digit after a leading zero at byte 2, found '1'"},
    {TEXT("0x1F"), "x: expected the end at byte 2, found 'x'"},
    {TEXT("NaN"), "x: expected a value at byte 1, found 'N'"},
    {TEXT("[1e131073]"),
     "x: expected a number that numeric can hold at byte 2, found '1'"},
    {TEXT("1e-16384"), "x: expected a number that numeric can hold at byte 1, found '1'"},
    {TEXT("'a'"), "x: expected a value at byte 1, found '''"},
    {TEXT("\"a"), "x: expected the end of the string at byte 3, found the end"},
    {TEXT("\"a\\"), "x: expected the end of the string at byte 4, found the end"},
    {TEXT("\"\\q\""),
     "x: expected one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u at byte 2, found '\\'"},
    {TEXT("\"\\u00g0\""), "x: expected four hex digits after \\u at byte 2, found '\\'"},
    {TEXT("\"\\u00\""), "x: expected four hex digits after \\u at byte 2, found '\\'"},
    {TEXT("\"\\u0000\""),
     "x: expected no \\u0000, which jsonb cannot hold, at byte 2, found '\\'"},
    {TEXT("\"\\ud83d\""),
     "x: expected a low surrogate after this high one at byte 2, found '\\'"},
    {TEXT("\"\\ud83d\\u0041\""),
     "x: expected a low surrogate after this high one at byte 2, found '\\'"},
    {TEXT("\"\\ude00\""),
     "x: expected a high surrogate before this low one at byte 2, found '\\'"},
    {TEXT("\"a\tb\""),
     "x: expected control characters escaped in the string at byte 3, found byte 0x09"},
    {TEXT("\"12345678\n\""),
     "x: expected control characters escaped in the string at byte 10, found byte 0x0A"},
    {TEXT("\"\xC3(\""), "x: expected UTF-8 at byte 2, found byte 0xC3"},
    {TEXT("\"\xC0\x80\""), "x: expected UTF-8 at byte 2, found byte 0xC0"},
    {TEXT("\"\xED\xA0\x80\""), "x: expected UTF-8 at byte 2, found byte 0xED"},
    {TEXT("\"\xF4\x90\x80\x80\""), "x: expected UTF-8 at byte 2, found byte 0xF4"},
    {TEXT("[1,]"), "x: expected a value at byte 4, found ']'"},
    {TEXT("[1 2]"), "x: expected ',' or ']' at byte 4, found '2'"},
    {TEXT("[1}"), "x: expected ',' or ']' at byte 3, found '}'"},
    {TEXT("[1"), "x: expected ',' or ']' at byte 3, found the end"},
    {TEXT("{\"a\"}"), "x: expected ':' after the member's name at byte 5, found '}'"},
    {TEXT("{\"a\":}"), "x: expected a value at byte 6, found '}'"},
    {TEXT("{\"a\":1,}"), "x: expected a member's name in quotes at byte 8, found '}'"},
    {TEXT("{a:1}"), "x: expected a member's name in quotes at byte 2, found 'a'"},
    {TEXT("{\"a\":1]"), "x: expected ',' or '}' at byte 7, found ']'"},
    {TEXT("{\"a\":1 \"b\":2}"), "x: expected ',' or '}' at byte 8, found '\"'"},
    {TEXT("// a\n1"), "x: expected a value at byte 1, found '/'"},
    {TEXT("\xEF\xBB\xBF{}"), "x: expected a value at byte 1, found '\xEF\xBB\xBF'"},
};

/* Checks a copy that ends with the text, so that a sanitizer reports a read beyond it. */
static inline int
check(const char *text, size_t len, jobq_error *err)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int rc = jobq__json_check(copy, len, "x", err);
    free(copy);
    return rc;
}

#endif
