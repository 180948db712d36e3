/* test_clock.c: the clock that a test can hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "jobqd/base/clock.h"

static void
it_goes_on(void **state)
{
    (void)state;
    uint64_t then = clock_ns();
    int64_t booted = clock_boottime_ns();
    while (clock_ns() == then)
        ;
    assert_true(clock_ns() > then);
    assert_true(clock_boottime_ns() > booted);
}

static void
held_it_stands_still(void **state)
{
    (void)state;
    uint64_t real = clock_ns();
    clock_hold(42);
    assert_int_equal(clock_ns(), 42);
    assert_int_equal(clock_ns(), 42);
    clock_hold(UINT64_C(5000000000));
    assert_int_equal(clock_ns(), UINT64_C(5000000000));
    clock_let_go();
    assert_true(clock_ns() >= real);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_on),
        cmocka_unit_test(held_it_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
