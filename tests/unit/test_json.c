/* test_json.c: JSON is checked strictly, without a tree: what is let through, what is
 * refused and with which words, compacting, and decoding of strings. */
#include "tests/unit/json_samples.h"

static void
what_is_json_is_let_through(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        jobq_error err = {0};
        if (check(good[i].text, good[i].len, &err) != 0)
            fail_msg("%s: %s", good[i].text, err.message);
    }
}

static void
what_is_not_is_refused_by_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        jobq_error err = {0};
        int rc = check(bad[i].text, bad[i].len, &err);
        assert_string_equal(err.message, bad[i].message);
        assert_int_equal(rc, JOBQ_EINVAL);
        assert_int_equal(check(bad[i].text, bad[i].len, NULL), JOBQ_EINVAL);
    }
}

static void
an_object_is_asked_for(void **state)
{
    (void)state;
    jobq_error err;
    assert_int_equal(jobq__json_check_object(" {} ", 4, "args", &err), 0);
    assert_int_equal(jobq__json_check_object(" [1]", 4, "args", &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "args must be a JSON object, got [1]");
    assert_int_equal(jobq__json_check_object("{", 1, "args", &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "args: expected a member's name in quotes at byte "
                                     "2, found the end");
}

static void
nesting_is_bounded(void **state)
{
    (void)state;
    char text[600];
    for (int depth = 127; depth <= 200; depth++) {
        jobq_error err;
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        int rc = check(text, 2 * (size_t)depth, &err);
        assert_int_equal(rc, depth > JOBQ__JSON_MAX_DEPTH ? JOBQ_EINVAL : 0);
        if (rc != 0)
            assert_string_equal(err.message,
                                "x: expected at most 128 levels of nesting at "
                                "byte 129, found '['");
    }
}

static void
compacting_leaves_strings_and_numbers_alone(void **state)
{
    (void)state;
    static const char text[] =
        " {\n \"a \\\" b\\\\\" : [ 1.10 , \"\\t \\\\\" ] ,\r\t\"c\":{ } }\n";
    struct jobq__buf buf = {0};
    jobq__json_compact(&buf, text, sizeof text - 1);
    assert_string_equal(jobq__buf_cstr(&buf),
                        "{\"a \\\" b\\\\\":[1.10,\"\\t \\\\\"],\"c\":{}}");
    jobq__buf_clear(&buf);
}

static void
strings_are_decoded_in_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *decoded;
    } rows[] = {
        {"", ""},
        {"plain", "plain"},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
        {"\\u0041\\u00e5\\u20ac\\ud83d\\ude00.",
         "A\xC3\xA5\xE2\x82\xAC\xF0\x9F\x98\x80."},
        {"a\\u0000b", "a\xEF\xBF\xBD"
                      "b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[64];
        strcpy(text, rows[i].text);
        text[jobq__json_decode(text, strlen(text))] = '\0';
        assert_string_equal(text, rows[i].decoded);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_json_is_let_through),
        cmocka_unit_test(what_is_not_is_refused_by_place),
        cmocka_unit_test(an_object_is_asked_for),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(compacting_leaves_strings_and_numbers_alone),
        cmocka_unit_test(strings_are_decoded_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
