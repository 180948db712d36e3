/* test_escape.c: no text from elsewhere reaches a terminal or a log as it is where it
 * could steer, hide or turn round what is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "jobqd/base/escape.h"
#include "libjobq/json.h"
#include "libjobq/utf8.h"

static const char *
escaped(void (*put)(struct jobq__buf *, const char *, size_t), const char *text)
{
    static char shown[256];
    struct jobq__buf out = {0};
    put(&out, text, strlen(text));
    snprintf(shown, sizeof shown, "%s", jobq__buf_cstr(&out));
    jobq__buf_clear(&out);
    return shown;
}

static const struct {
    const char *text;
    const char *as_text;
    const char *as_string; /* without its quotes */
} rows[] = {
    {"", "", ""},
    {"plain ~", "plain ~", "plain ~"},
    {"a\nb\tc\rd", "a\\nb\\tc\\rd", "a\\nb\\tc\\rd"},
    {"\x01\x1b[31m\x7f", "\\x01\\x1b[31m\\x7f", "\\u0001\\u001b[31m\\u007f"},
    {"\"\\", "\"\\", "\\\"\\\\"},
    /* C1: CSI, NEL, APC */
    {"\xc2\x9b"
     "31m\xc2\x85\xc2\x9f",
     "\\u009b31m\\u0085\\u009f", "\\u009b31m\\u0085\\u009f"},
    /* direction: LRM, RLM, ALM, the embeddings and overrides, the isolates */
    {"\xe2\x80\x8e\xe2\x80\x8f\xd8\x9c", "\\u200e\\u200f\\u061c",
     "\\u200e\\u200f\\u061c"},
    {"\xe2\x80\xaa\xe2\x80\xab\xe2\x80\xac\xe2\x80\xad\xe2\x80\xae",
     "\\u202a\\u202b\\u202c\\u202d\\u202e", "\\u202a\\u202b\\u202c\\u202d\\u202e"},
    {"\xe2\x81\xa6\xe2\x81\xa7\xe2\x81\xa8\xe2\x81\xa9", "\\u2066\\u2067\\u2068\\u2069",
     "\\u2066\\u2067\\u2068\\u2069"},
    /* separators, and what has no width */
    {"\xe2\x80\xa8\xe2\x80\xa9", "\\u2028\\u2029", "\\u2028\\u2029"},
    {"\xe2\x80\x8b\xe2\x80\x8c\xe2\x80\x8d\xe2\x81\xa0\xef\xbb\xbf\xc2\xad",
     "\\u200b\\u200c\\u200d\\u2060\\ufeff\\u00ad",
     "\\u200b\\u200c\\u200d\\u2060\\ufeff\\u00ad"},
    {"\xf3\xa0\x81\x81", "\\U000e0041", "\\udb40\\udc41"},
    /* bytes that are not UTF-8: stray, overlong, half a surrogate, cut off */
    {"\x9b\xff\xc0\xaf", "\\x9b\\xff\\xc0\\xaf", "\\\\x9b\\\\xff\\\\xc0\\\\xaf"},
    {"\xed\xa0\x80", "\\xed\\xa0\\x80", "\\\\xed\\\\xa0\\\\x80"},
    {"x\xe2\x82", "x\\xe2\\x82", "x\\\\xe2\\\\x82"},
    /* and what people write */
    {"\xc3\xa9\xc3\xa5\xe2\x82\xac\xe6\xbc\xa2\xd7\xa9\xf0\x9f\x98\x80\xc2\xa0",
     "\xc3\xa9\xc3\xa5\xe2\x82\xac\xe6\xbc\xa2\xd7\xa9\xf0\x9f\x98\x80\xc2\xa0",
     "\xc3\xa9\xc3\xa5\xe2\x82\xac\xe6\xbc\xa2\xd7\xa9\xf0\x9f\x98\x80\xc2\xa0"},
};

static void
each_kind_is_shown_instead_of_obeyed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char quoted[200];
        snprintf(quoted, sizeof quoted, "\"%s\"", rows[i].as_string);
        assert_string_equal(escaped(escape_put, rows[i].text), rows[i].as_text);
        assert_string_equal(escaped(escape_put_json_string, rows[i].text), quoted);
        assert_int_equal(jobq__json_check(quoted, strlen(quoted), "x", NULL), 0);
        const char *at = escape_find(rows[i].text);
        if (strcmp(rows[i].text, rows[i].as_text) == 0)
            assert_null(at);
        else
            assert_non_null(at);
    }
}

static void
a_json_text_stays_what_it_says(void **state)
{
    (void)state;
    assert_string_equal(escaped(escape_put_json, "{\n  \"a\": [1,\t\"\xc3\xa9\"]\r\n}"),
                        "{\n  \"a\": [1,\t\"\xc3\xa9\"]\r\n}");
    assert_string_equal(
        escaped(escape_put_json, "{\"\xc2\x9b\":\"\x7f\xe2\x80\xae\xf3\xa0\x81\x81\"}"),
        "{\"\\u009b\":\"\\u007f\\u202e\\udb40\\udc41\"}");
}

/* By the definition, not by the table: nothing that it says is hidden comes through. */
static void
no_character_is_forgotten(void **state)
{
    (void)state;
    for (uint32_t c = 1; c < 0x110000; c++) {
        char text[8] = "";
        if (c >= 0xd800 && c < 0xe000)
            continue;
        if (c < 0x80)
            text[0] = (char)c;
        else if (c < 0x800)
            snprintf(text, sizeof text, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
        else if (c < 0x10000)
            snprintf(text, sizeof text, "%c%c%c", 0xe0 | c >> 12, 0x80 | (c >> 6 & 0x3f),
                     0x80 | (c & 0x3f));
        else
            snprintf(text, sizeof text, "%c%c%c%c", 0xf0 | c >> 18,
                     0x80 | (c >> 12 & 0x3f), 0x80 | (c >> 6 & 0x3f), 0x80 | (c & 0x3f));
        bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
        bool turns = (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) ||
                     c == 0x200e || c == 0x200f || c == 0x61c;
        bool separates = c == 0x2028 || c == 0x2029;
        bool changed = strcmp(escaped(escape_put, text), text) != 0;
        if (control || turns || separates)
            assert_true(changed);
        for (const char *at = escaped(escape_put, text); changed && *at; at++)
            assert_in_range(*at, 0x20, 0x7e);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_is_shown_instead_of_obeyed),
        cmocka_unit_test(a_json_text_stays_what_it_says),
        cmocka_unit_test(no_character_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
