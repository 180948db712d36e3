/* test_digits.c: numbers that are too long are found, however they are written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "jobqd/pure/digits.h"

static bool
too_many(const char *json)
{
    return digits_too_many(json, strlen(json));
}

static void
by_their_exponent(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool long_one;
    } rows[] = {
        {"1e3999", false},
        {"1e4000", true},
        {"-7.5E+3999", false},
        {"-7.5E+4000", true},
        {"12.5e3998", false},
        {"123456e3994", false},
        {"123456e3995", true},
        {"123456e3999", true},
        {"1e-4000", false},
        {"1e-4001", true},
        {"0.5e-3999", false},
        {"0.5e-4000", true},
        {"0.001e4002", false},
        {"0.001e4003", true},
        {"0e9999", false},
        {"0.0E+9999", false},
        {"0e-9999", true},
        {"1e131071", true},
        {"1e99999999999999999999999999", true},
        {"1e-99999999999999999999999999", true},
        {"[1, 2E+99999]", true},
        {"{\"a\": \"1e9999999\", \"b\": -7.5e5000}", true},
        {"{\"e\": \"1e9999999\", \"true\": 1e3}", false},
        {"{\"1e9999\": [true, false, null, \"\\\"1e9999\", \"\\\\\"]}", false},
        {"[\"\\\\\", 1e9999]", true},
        {"", false},
        {"\"\\", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (too_many(rows[i].json) != rows[i].long_one)
            fail_msg("%s is %s", rows[i].json,
                     rows[i].long_one ? "too long" : "not too long");
}

/* before, then digits, then behind. */
static bool
many_digits(const char *before, size_t digits, const char *behind)
{
    char json[9000];
    size_t n = strlen(before);
    memcpy(json, before, n);
    memset(json + n, '7', digits);
    snprintf(json + n + digits, sizeof json - n - digits, "%s", behind);
    return too_many(json);
}

static void
by_their_digits(void **state)
{
    (void)state;
    assert_false(many_digits("", 4000, ""));
    assert_true(many_digits("", 4001, ""));
    assert_true(many_digits("[-", 5000, ".5]"));
    assert_false(many_digits("0.", 4000, ""));
    assert_true(many_digits("0.", 4001, ""));
    assert_false(many_digits("", 4001, "e-1"));
    assert_true(many_digits("", 4000, "e1"));
    assert_false(many_digits("0.", 8000, "e4000"));
    assert_true(many_digits("0.", 8000, "e3999"));
    assert_false(many_digits("{\"a\": \"", 8000, "\"}"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_their_exponent),
        cmocka_unit_test(by_their_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
