/* test_duration.c: durations as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "libjobq/duration.h"

static void
in_the_largest_unit(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } rows[] = {{0, "0 ms"},
                {1, "1 ms"},
                {300, "300 ms"},
                {999, "999 ms"},
                {1000, "1 s"},
                {1049, "1.0 s"},
                {1050, "1.1 s"},
                {1200, "1.2 s"},
                {1234, "1.2 s"},
                {1982, "2.0 s"},
                {10437, "10.4 s"},
                {15000, "15 s"},
                {30000, "30 s"},
                {59999, "60.0 s"},
                {60000, "1 min"},
                {90000, "90 s"},
                {7200000, "2 h"},
                {86400000, "1 d"},
                {INT64_MAX, "9223372036854775.8 s"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_string_equal(jobq__duration_show(rows[i].ms).text, rows[i].text);
}

static void
a_measured_time_is_rounded(void **state)
{
    (void)state;
    assert_string_equal(jobq__duration_show_ns(0).text, "0 ms");
    assert_string_equal(jobq__duration_show_ns(499999).text, "0 ms");
    assert_string_equal(jobq__duration_show_ns(500000).text, "1 ms");
    assert_string_equal(jobq__duration_show_ns(26841000).text, "27 ms");
    assert_string_equal(jobq__duration_show_ns(1234567890).text, "1.2 s");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_the_largest_unit),
                                       cmocka_unit_test(a_measured_time_is_rounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
