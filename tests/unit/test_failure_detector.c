/* The detector: a node is dead when its mark has not changed for its lease, on our clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "jobqd/pure/failure_detector.h"

#define MS INT64_C(1000000)

static void
a_node_that_renews_lives(void **state)
{
    (void)state;
    struct failure_detector detector = {0};
    struct sight out[4];
    for (int64_t i = 0; i < 100; i++) {
        struct sight seen = {.id = 7, .mark = i / 2, .lease_ms = 1000};
        assert_int_equal(failure_detector_look(&detector, &seen, 1, i * 400 * MS), 0);
        assert_int_equal(failure_detector_dead(&detector, i * 400 * MS, 100, out, 4), 0);
    }
    failure_detector_clear(&detector);
}

static void
one_that_stands_still_for_its_lease_is_dead(void **state)
{
    (void)state;
    struct failure_detector detector = {0};
    struct sight out[4];
    const struct sight seen[] = {{.id = 1, .mark = 10, .lease_ms = 1000},
                                 {.id = 2, .mark = 10, .lease_ms = 3000}};
    assert_int_equal(failure_detector_look(&detector, seen, 2, 500 * MS), 0);
    assert_int_equal(failure_detector_look(&detector, seen, 2, 1400 * MS), 0);
    assert_int_equal(failure_detector_dead(&detector, 1499 * MS, 100, out, 4), 0);
    assert_int_equal(failure_detector_next_ns(&detector, 1499 * MS, 100), 1500 * MS);
    assert_int_equal(failure_detector_dead(&detector, 1500 * MS, 100, out, 4), 1);
    assert_int_equal(out[0].id, 1);
    assert_int_equal(out[0].mark, 10);
    assert_int_equal(failure_detector_dead(&detector, 1500 * MS, 150, out, 4), 0);
    assert_int_equal(failure_detector_next_ns(&detector, 1500 * MS, 100), 3500 * MS);
    assert_int_equal(failure_detector_dead(&detector, 3500 * MS, 100, out, 4), 2);
    assert_int_equal(failure_detector_dead(&detector, 3500 * MS, 100, out, 1), 1);
    assert_true(failure_detector_next_ns(&detector, 3500 * MS, 100) == INT64_MAX);
    failure_detector_clear(&detector);
}

static void
one_whose_lease_lasts_for_ages_lives(void **state)
{
    (void)state;
    struct failure_detector detector = {0};
    struct sight out[4];
    const struct sight seen[] = {{.id = 1, .lease_ms = INT64_C(251000000000000)},
                                 {.id = 2, .lease_ms = INT64_MAX}};
    assert_int_equal(failure_detector_look(&detector, seen, 2, 500 * MS), 0);
    assert_int_equal(failure_detector_dead(&detector, 1000000 * MS, 100, out, 4), 0);
    assert_int_equal(failure_detector_dead(&detector, 1000000 * MS, 150, out, 4), 0);
    assert_true(failure_detector_next_ns(&detector, 500 * MS, 150) > 1000000 * MS);
    failure_detector_clear(&detector);
}

static void
a_mark_that_goes_back_is_a_renewal_too(void **state)
{
    (void)state;
    struct failure_detector detector = {0};
    struct sight out[4];
    struct sight seen = {.id = 1, .mark = 1000, .lease_ms = 1000};
    assert_int_equal(failure_detector_look(&detector, &seen, 1, 0), 0);
    seen.mark = 10; /* the database's clock was set back */
    assert_int_equal(failure_detector_look(&detector, &seen, 1, 900 * MS), 0);
    assert_int_equal(failure_detector_dead(&detector, 1800 * MS, 100, out, 4), 0);
    assert_int_equal(failure_detector_dead(&detector, 1900 * MS, 100, out, 4), 1);
    failure_detector_clear(&detector);
}

static void
who_has_left_and_come_back_starts_anew(void **state)
{
    (void)state;
    struct failure_detector detector = {0};
    struct sight out[4];
    const struct sight seen = {.id = 1, .mark = 10, .lease_ms = 1000};
    assert_int_equal(failure_detector_look(&detector, &seen, 1, 0), 0);
    assert_int_equal(failure_detector_look(&detector, NULL, 0, 500 * MS), 0);
    assert_int_equal(failure_detector_dead(&detector, 5000 * MS, 100, out, 4), 0);
    assert_int_equal(failure_detector_look(&detector, &seen, 1, 900 * MS), 0);
    assert_int_equal(failure_detector_dead(&detector, 1899 * MS, 100, out, 4), 0);
    assert_int_equal(failure_detector_dead(&detector, 1900 * MS, 100, out, 4), 1);
    failure_detector_clear(&detector);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_that_renews_lives),
        cmocka_unit_test(one_that_stands_still_for_its_lease_is_dead),
        cmocka_unit_test(one_whose_lease_lasts_for_ages_lives),
        cmocka_unit_test(a_mark_that_goes_back_is_a_renewal_too),
        cmocka_unit_test(who_has_left_and_come_back_starts_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
