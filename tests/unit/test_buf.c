/* The byte buffer, and how text becomes a JSON string. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "libjobq/buf.h"
#include "libjobq/json.h"

static void
grows(void **state)
{
    (void)state;
    struct jobq__buf buf = {0};
    for (int i = 0; i < 10000; i++)
        jobq__buf_adds(&buf, "0123456789");
    assert_false(buf.failed);
    assert_int_equal(buf.len, 100000);
    assert_memory_equal(buf.data + 99990, "0123456789", 10);
    jobq__buf_reset(&buf);
    assert_int_equal(buf.len, 0);
    assert_string_equal(jobq__buf_cstr(&buf), "");
    jobq__buf_clear(&buf);
    assert_null(buf.data);
}

static void
remembers_failure(void **state)
{
    (void)state;
    struct jobq__buf buf = {0};
    jobq__buf_adds(&buf, "kept");
    jobq__buf_reserve(&buf, SIZE_MAX - 2);
    assert_true(buf.failed);
    jobq__buf_adds(&buf, "dropped");
    assert_int_equal(buf.len, 4);
    assert_null(jobq__buf_cstr(&buf));
    jobq__buf_reset(&buf);
    jobq__buf_adds(&buf, "again");
    assert_string_equal(jobq__buf_cstr(&buf), "again");
    jobq__buf_clear(&buf);
}

static void
prints_numbers(void **state)
{
    (void)state;
    struct jobq__buf buf = {0};
    jobq__buf_add_i64(&buf, 0);
    jobq__buf_addc(&buf, ' ');
    jobq__buf_add_i64(&buf, -7);
    jobq__buf_addc(&buf, ' ');
    jobq__buf_add_i64(&buf, INT64_MAX);
    jobq__buf_addc(&buf, ' ');
    jobq__buf_add_i64(&buf, INT64_MIN);
    assert_string_equal(jobq__buf_cstr(&buf),
                        "0 -7 9223372036854775807 -9223372036854775808");
    jobq__buf_clear(&buf);
}

static void
quotes_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
        const char *quoted;
    } rows[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"a\"b\\c", 5, "\"a\\\"b\\\\c\""},
        {"\n\r\t\x01\x1F", 5, "\"\\n\\r\\t\\u0001\\u001f\""},
        {"\x7F", 1, "\"\x7F\""},
        {"\xC3\xA5\xF0\x9F\x98\x80", 6, "\"\xC3\xA5\xF0\x9F\x98\x80\""},
        {"a\0b", 3,
         "\"a\xEF\xBF\xBD"
         "b\""},
        {"\xFF", 1, "\"\xEF\xBF\xBD\""},
        {"\xC3", 1, "\"\xEF\xBF\xBD\""},
        {"\xC0\x80", 2, "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},                 /* overlong */
        {"\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* surrogate */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct jobq__buf buf = {0};
        jobq__buf_add_json_string(&buf, rows[i].text, rows[i].len);
        assert_string_equal(jobq__buf_cstr(&buf), rows[i].quoted);
        assert_int_equal(jobq__json_check(buf.data, buf.len, "text", NULL), 0);
        jobq__buf_clear(&buf);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows),
        cmocka_unit_test(remembers_failure),
        cmocka_unit_test(prints_numbers),
        cmocka_unit_test(quotes_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
