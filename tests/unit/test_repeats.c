/* test_repeats.c: of failures that are alike, some are shown and the rest is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "jobqd/pure/repeats.h"

static size_t
note_many(struct repeats *r, const char *what, int n, uint64_t now_ms)
{
    size_t shown = 0, entry;
    char text[400];
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, "%s %d", what, i);
        shown += repeats_note(r, text, now_ms, &entry);
    }
    return shown;
}

static void
the_first_are_shown_and_the_rest_counted(void **state)
{
    (void)state;
    struct repeats r = {0};
    struct repeats_count count;
    assert_int_equal(note_many(&r, "no such user:", 10000, 1000), REPEATS_SHOWN);
    assert_int_equal(repeats_due_ms(&r), 1000 + REPEATS_FIRST_MS);
    assert_false(repeats_due(&r, 1000 + REPEATS_FIRST_MS - 1, false, &count));
    assert_true(repeats_due(&r, 1000 + REPEATS_FIRST_MS, false, &count));
    assert_int_equal(count.entry, 0);
    assert_int_equal(count.n, 10000 - REPEATS_SHOWN);
    assert_int_equal(count.within_ms, REPEATS_FIRST_MS);
    assert_false(repeats_due(&r, 1000 + REPEATS_FIRST_MS, false, &count));
}

static void
what_goes_on_is_counted_only(void **state)
{
    (void)state;
    struct repeats r = {0};
    struct repeats_count count;
    note_many(&r, "boom", 6, 0);
    assert_true(repeats_due(&r, REPEATS_FIRST_MS, false, &count));
    assert_int_equal(note_many(&r, "boom", 3, REPEATS_FIRST_MS + 1), 0);
    assert_int_equal(repeats_due_ms(&r), REPEATS_FIRST_MS + REPEATS_NEXT_MS);
    assert_true(repeats_due(&r, REPEATS_FIRST_MS + REPEATS_NEXT_MS, false, &count));
    assert_int_equal(count.n, 3);
    assert_int_equal(count.within_ms, REPEATS_NEXT_MS);
}

static void
what_has_stopped_is_shown_again(void **state)
{
    (void)state;
    struct repeats r = {0};
    struct repeats_count count;
    note_many(&r, "boom", 6, 0);
    assert_true(repeats_due(&r, REPEATS_FIRST_MS, false, &count));
    uint64_t later = REPEATS_FIRST_MS + REPEATS_NEXT_MS;
    assert_false(repeats_due(&r, later, false, &count));
    assert_int_equal(repeats_due_ms(&r), UINT64_MAX);
    assert_int_equal(note_many(&r, "boom", 6, later), REPEATS_SHOWN);
}

static void
words_with_digits_make_no_difference(void **state)
{
    (void)state;
    struct repeats r = {0};
    size_t a, b, c, d;
    repeats_note(&r, "at 0x7f3a: row 3f2b-99aa of t1", 0, &a);
    repeats_note(&r, "at 0x11: row 4e-1b of t77", 0, &b);
    repeats_note(&r, "at 0x11: line 4e-1b of t77", 0, &c);
    repeats_note(&r, "", 0, &d);
    assert_int_equal(a, b);
    assert_int_not_equal(a, c);
    assert_int_not_equal(a, d);
}

static void
what_has_no_room_is_counted_together(void **state)
{
    (void)state;
    struct repeats r = {0};
    struct repeats_count count;
    size_t entry, shown = 0;
    for (int i = 0; i < REPEATS_KEYS + 10; i++) {
        char text[20] = {(char)('a' + i % 26), (char)('a' + i / 26), '\0'};
        shown += repeats_note(&r, text, 5, &entry);
    }
    assert_int_equal(shown, REPEATS_KEYS);
    assert_int_equal(entry, REPEATS_KEYS);
    assert_true(repeats_due(&r, 5 + REPEATS_FIRST_MS, false, &count));
    assert_int_equal(count.entry, REPEATS_KEYS);
    assert_int_equal(count.n, 10);
    assert_false(repeats_due(&r, 5 + REPEATS_FIRST_MS, false, &count));
    assert_true(repeats_note(&r, "new", 5 + REPEATS_FIRST_MS, &entry));
}

static void
at_the_end_all_is_told(void **state)
{
    (void)state;
    struct repeats r = {0};
    struct repeats_count count;
    note_many(&r, "boom", 7, 0);
    assert_true(repeats_due(&r, 10, true, &count));
    assert_int_equal(count.n, 2);
    assert_false(repeats_due(&r, 10, true, &count));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_are_shown_and_the_rest_counted),
        cmocka_unit_test(what_goes_on_is_counted_only),
        cmocka_unit_test(what_has_stopped_is_shown_again),
        cmocka_unit_test(words_with_digits_make_no_difference),
        cmocka_unit_test(what_has_no_room_is_counted_together),
        cmocka_unit_test(at_the_end_all_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
