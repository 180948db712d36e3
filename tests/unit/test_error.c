/* What a jobq_error says, and that it is always one line of UTF-8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "libjobq/error.h"
#include "libjobq/utf8.h"

static void
names_codes(void **state)
{
    (void)state;
    assert_string_equal(jobq_code_name(0), "JOBQ_OK");
    assert_string_equal(jobq_code_name(JOBQ_EINVAL), "JOBQ_EINVAL");
    assert_string_equal(jobq_code_name(JOBQ_ESCHEMA), "JOBQ_ESCHEMA");
    assert_string_equal(jobq_code_name(JOBQ_ECONFLICT), "JOBQ_ECONFLICT");
    assert_string_equal(jobq_code_name(-77), "JOBQ_E?");
    assert_string_equal(jobq_code_name(1), "JOBQ_E?");
}

static void
makes_one_line(void **state)
{
    (void)state;
    jobq_error err = {.sqlstate = "40001"};
    int rc = jobq__error(&err, JOBQ_EDB, "first\nsecond\r\n");
    assert_int_equal(rc, JOBQ_EDB);
    assert_int_equal(err.code, JOBQ_EDB);
    assert_string_equal(err.message, "first second");
    assert_string_equal(err.sqlstate, "");
    jobq__error(&err, JOBQ_EDB, "\xFF%s", "\xC3\xA5");
    assert_string_equal(err.message, "?\xC3\xA5");
}

static void
cuts_between_characters(void **state)
{
    (void)state;
    for (int lead = 500; lead <= 512; lead++) {
        char text[600];
        memset(text, 'x', sizeof text);
        for (size_t i = (size_t)lead; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xF0\x9F\x98\x80", 4);
        text[lead + 40] = '\0';
        jobq_error err;
        jobq__error(&err, JOBQ_EIO, "%s", text);
        size_t len = strlen(err.message);
        assert_in_range(len, 508, 511);
        assert_null(strchr(err.message, '?'));
        for (size_t i = 0; i < len;) {
            size_t n = jobq__utf8_len((const unsigned char *)err.message + i, len - i);
            assert_int_not_equal(n, 0);
            i += n;
        }
    }
}

static void
needs_no_object(void **state)
{
    (void)state;
    assert_int_equal(jobq__error(NULL, JOBQ_EINVAL, "nobody %s", "listens"), JOBQ_EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_codes),
        cmocka_unit_test(makes_one_line),
        cmocka_unit_test(cuts_between_characters),
        cmocka_unit_test(needs_no_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
