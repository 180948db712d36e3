/* test_intensity.c: how many bad ends are too many, and how long the pause is then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "jobqd/pure/intensity.h"

static struct intensity
five_in_ten_seconds(void)
{
    struct intensity intensity;
    assert_int_equal(intensity_init(&intensity, 5, 10000), 0);
    return intensity;
}

static void
five_restarts_are_allowed_the_sixth_pauses(void **state)
{
    (void)state;
    struct intensity i = five_in_ten_seconds();
    for (int64_t now = 1000; now <= 5000; now += 1000)
        assert_int_equal(intensity_bad_end(&i, now, 0), 0);
    assert_int_equal(intensity_bad_end(&i, 6000, 0), INTENSITY_FIRST_MS);
    assert_int_equal(intensity_pause_left(&i, 6400), 600);
    assert_int_equal(intensity_pause_left(&i, 7000), 0);
    intensity_clear(&i);
}

static void
the_window_slides(void **state)
{
    (void)state;
    struct intensity i = five_in_ten_seconds();
    /* One every 2 s: never more than five within any 10 s. */
    for (int64_t now = 0; now < 200000; now += 2000)
        assert_int_equal(intensity_bad_end(&i, now, 0), 0);
    /* A little faster is too fast. */
    int64_t now = 200000;
    while (intensity_bad_end(&i, now, 0) == 0) {
        now += 1900;
        assert_true(now < 230000);
    }
    intensity_clear(&i);
}

static void
an_end_leaves_the_window_at_its_edge(void **state)
{
    (void)state;
    struct intensity i = five_in_ten_seconds();
    for (int k = 0; k < 5; k++)
        assert_int_equal(intensity_bad_end(&i, 0, 0), 0);
    assert_int_equal(intensity_bad_end(&i, 10000, 0), 0);
    intensity_clear(&i);
    i = five_in_ten_seconds();
    for (int k = 0; k < 5; k++)
        assert_int_equal(intensity_bad_end(&i, 0, 0), 0);
    assert_int_equal(intensity_bad_end(&i, 9999, 0), INTENSITY_FIRST_MS);
    intensity_clear(&i);
}

/* Ends badly at once, until the pool pauses; returns the pause and moves *now past it. */
static int64_t
fail_until_pause(struct intensity *i, int64_t *now, uint32_t random)
{
    int64_t pause_ms = 0;
    for (int k = 0; k < 7 && pause_ms == 0; k++)
        pause_ms = intensity_bad_end(i, (*now)++, random);
    *now += pause_ms;
    return pause_ms;
}

static void
pauses_double_up_to_the_cap(void **state)
{
    (void)state;
    struct intensity i = five_in_ten_seconds();
    int64_t now = 0;
    const int64_t expected[] = {1000,  2000,  4000,  8000, 16000,
                                32000, 60000, 60000, 60000};
    for (size_t k = 0; k < sizeof expected / sizeof expected[0]; k++)
        assert_int_equal(fail_until_pause(&i, &now, 0), expected[k]);
    intensity_clear(&i);
}

static void
behaving_for_a_while_is_forgiven(void **state)
{
    (void)state;
    struct intensity i = five_in_ten_seconds();
    int64_t now = 0;
    fail_until_pause(&i, &now, 0);
    fail_until_pause(&i, &now, 0);
    assert_int_equal(fail_until_pause(&i, &now, 0), 4000);
    now += 4000 + 10000;
    assert_int_equal(fail_until_pause(&i, &now, 0), 1000);
    intensity_clear(&i);
}

static void
jitter_shortens_by_a_quarter_at_most(void **state)
{
    (void)state;
    int64_t least = INT64_MAX;
    int64_t most = 0;
    for (uint32_t random = 0; random < 5000; random++) {
        struct intensity i = five_in_ten_seconds();
        int64_t now = 0;
        int64_t pause_ms = fail_until_pause(&i, &now, random);
        least = pause_ms < least ? pause_ms : least;
        most = pause_ms > most ? pause_ms : most;
        intensity_clear(&i);
    }
    assert_int_equal(least, 750);
    assert_int_equal(most, 1000);
}

static void
a_bad_end_during_a_pause_changes_nothing(void **state)
{
    (void)state;
    struct intensity i = five_in_ten_seconds();
    for (int k = 0; k < 5; k++)
        intensity_bad_end(&i, 0, 0);
    assert_int_equal(intensity_bad_end(&i, 0, 0), 1000);
    for (int k = 0; k < 100; k++)
        assert_int_equal(intensity_bad_end(&i, 400, 0), 600);
    assert_int_equal(intensity_bad_end(&i, 1000, 0),
                     0); /* over, and the window is empty */
    intensity_clear(&i);
}

static void
none_allowed_pauses_at_the_first(void **state)
{
    (void)state;
    struct intensity i;
    assert_int_equal(intensity_init(&i, 0, 10000), 0);
    assert_int_equal(intensity_pause_left(&i, 0), 0);
    assert_int_equal(intensity_bad_end(&i, 5, 0), 1000);
    assert_int_equal(intensity_bad_end(&i, 1005, 0), 2000);
    intensity_clear(&i);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_restarts_are_allowed_the_sixth_pauses),
        cmocka_unit_test(the_window_slides),
        cmocka_unit_test(an_end_leaves_the_window_at_its_edge),
        cmocka_unit_test(pauses_double_up_to_the_cap),
        cmocka_unit_test(behaving_for_a_while_is_forgiven),
        cmocka_unit_test(jitter_shortens_by_a_quarter_at_most),
        cmocka_unit_test(a_bad_end_during_a_pause_changes_nothing),
        cmocka_unit_test(none_allowed_pauses_at_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
