/* test_nearest.c: which word was meant, and text in lines of 80 columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "jobqd/base/wrap.h"
#include "jobqd/pure/nearest.h"

static void
test_distances(void **state)
{
    (void)state;
    assert_int_equal(nearest_distance("", ""), 0);
    assert_int_equal(nearest_distance("queue", "queue"), 0);
    assert_int_equal(nearest_distance("Max-Attempts", "max_attempts"), 0);
    assert_int_equal(nearest_distance("jbos", "jobs"), 1);
    assert_int_equal(nearest_distance("queu", "queue"), 1);
    assert_int_equal(nearest_distance("queuee", "queue"), 1);
    assert_int_equal(nearest_distance("kitten", "sitting"), 3);
    assert_int_equal(nearest_distance("", "abc"), 3);
}

static const char *
meant(const char *word)
{
    static const char *const allowed[] = {"jobs", "job", "queues", "concurrency", "run"};
    struct nearest nearest;
    nearest_begin(&nearest, word);
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
        nearest_offer(&nearest, allowed[i]);
    return nearest.best;
}

static void
test_what_is_meant(void **state)
{
    (void)state;
    char endless[1000];
    assert_string_equal(meant("jbos"), "jobs");
    assert_string_equal(meant("concurency"), "concurrency");
    assert_string_equal(meant("conc"), "concurrency"); /* a beginning */
    assert_string_equal(meant("rnu"), "run");
    assert_null(meant("frobnicate"));
    assert_null(meant("x"));
    assert_null(meant(""));
    memset(endless, 'a', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_null(meant(endless));
}

static void
check_wrapped(const char *text, size_t at, size_t indent, const char *expected)
{
    struct jobq__buf out = {0};
    wrap_put(&out, text, at, indent);
    assert_string_equal(jobq__buf_cstr(&out), expected);
    jobq__buf_clear(&out);
}

static void
test_lines_have_80_columns(void **state)
{
    (void)state;
    char word[100], text[300], expected[300];
    check_wrapped("a b\nc", 0, 0, "a b c\n");
    check_wrapped("a\n\nb", 0, 2, "a\n\n  b\n");
    check_wrapped("a:\n  as is\nb", 0, 0, "a:\n  as is\nb\n");
    check_wrapped("", 0, 0, "\n");
    memset(word, 'x', 40);
    word[40] = '\0';
    snprintf(text, sizeof text, "%s %s", word, word); /* 81 columns */
    snprintf(expected, sizeof expected, "%s\n    %s\n", word, word);
    check_wrapped(text, 0, 4, expected);
    snprintf(text, sizeof text, "%.39s %s", word, word); /* 80 */
    snprintf(expected, sizeof expected, "%.39s %s\n", word, word);
    check_wrapped(text, 0, 4, expected);
    snprintf(text, sizeof text, "\u2026%.38s %s", word, word); /* 80, in more bytes */
    snprintf(expected, sizeof expected, "\u2026%.38s %s\n", word, word);
    check_wrapped(text, 0, 4, expected);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distances),
        cmocka_unit_test(test_what_is_meant),
        cmocka_unit_test(test_lines_have_80_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
