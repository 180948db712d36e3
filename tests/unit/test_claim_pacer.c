/* test_claim_pacer.c: how far ahead a queue claims, how often it looks, when it wants to be
 * woken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "jobqd/pure/claim_pacer.h"

static const uint64_t MS = 1000000;

static void
long_jobs_are_not_claimed_ahead(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    for (uint64_t i = 1; i <= 50; i++) {
        claim_pacer_sent(&t, i * 10 * MS, false);
        claim_pacer_ended(&t, 1);
        claim_pacer_came_back(&t, (i * 10 + 1) * MS, 4, 4, 400, false);
    }
    assert_int_equal(claim_pacer_want(&t, 3, 0), 3);
    assert_int_equal(claim_pacer_want(&t, 3, 2), 1);
    assert_int_equal(claim_pacer_want(&t, 0, 2), 0);
}

static void
short_jobs_are_claimed_ahead_within_bounds(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    claim_pacer_sent(&t, 1 * MS, false);
    claim_pacer_ended(&t, 100);
    claim_pacer_came_back(&t, 2 * MS, 128, 128, 128 * 50, false);
    assert_int_equal(claim_pacer_want(&t, 64, 0), 364);
    claim_pacer_sent(&t, 3 * MS, false);
    claim_pacer_ended(&t, 100000);
    claim_pacer_came_back(&t, 4 * MS, 128, 128, 128 * 50, false);
    assert_int_equal(claim_pacer_want(&t, 0, 0), CLAIM_PACER_AHEAD_MAX);
}

static void
large_arguments_bound_the_claim(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    claim_pacer_sent(&t, 1 * MS, false);
    claim_pacer_ended(&t, 1000);
    claim_pacer_came_back(&t, 2 * MS, 4, 4, (size_t)4 * 1024 * 1024, false);
    assert_true(claim_pacer_want(&t, 64, 0) <= 8);
    assert_true(claim_pacer_want(&t, 64, 0) >= 1);
}

static void
large_arguments_are_fetched_within_their_bound(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    assert_true(claim_pacer_fetch(&t, CLAIM_PACER_AHEAD_BYTES) >
                1000); /* nothing is known yet */
    claim_pacer_fetched(&t, 2, (size_t)2 * 1024 * 1024);
    assert_int_equal(claim_pacer_fetch(&t, CLAIM_PACER_AHEAD_BYTES), 5);
    assert_int_equal(claim_pacer_fetch(&t, 1), 1);
    assert_true(claim_pacer_want(&t, 64, 0) <= 4); /* and bound the claim as well */
    claim_pacer_fetched(&t, 0, 0);
    assert_int_equal(claim_pacer_fetch(&t, CLAIM_PACER_AHEAD_BYTES), 5);
}

static void
a_short_claim_asks_for_a_look(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    claim_pacer_sent(&t, 1 * MS, true);
    claim_pacer_came_back(&t, 2 * MS, 8, 8, 0, true);
    assert_false(claim_pacer_look_due(&t, 3 * MS)); /* a look of 1 ms pauses for 5 */
    assert_false(claim_pacer_look_due(&t, 10 * MS));
    assert_true(claim_pacer_look_due(&t, 1002 * MS)); /* at least every second */
    claim_pacer_sent(&t, 11 * MS, false);
    claim_pacer_came_back(&t, 12 * MS, 8, 3, 0, false);
    assert_true(claim_pacer_look_due(&t, 12 * MS));
}

static void
a_slow_look_is_not_repeated_at_once(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    claim_pacer_sent(&t, 1 * MS, true);
    claim_pacer_came_back(&t, 41 * MS, 8, 3, 0, true);
    assert_false(claim_pacer_look_due(&t, 200 * MS));
    assert_true(claim_pacer_look_due(&t, 242 * MS));
}

static void
polls_slow_down_to_the_interval(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    assert_int_equal(t.poll_ms, 1);
    for (int i = 0; i < 5; i++)
        claim_pacer_empty(&t);
    assert_int_equal(t.poll_ms, 32);
    for (int i = 0; i < 20; i++)
        claim_pacer_empty(&t);
    assert_int_equal(t.poll_ms, 1000);
    claim_pacer_sent(&t, 1 * MS, false);
    claim_pacer_came_back(&t, 2 * MS, 8, 1, 10, false);
    assert_int_equal(t.poll_ms, 1);
}

static void
a_busy_queue_is_not_woken(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    uint64_t now = 1000 * MS;
    assert_false(claim_pacer_busy(&t, now));
    for (int i = 0; i < 200; i++) {
        now += MS;
        claim_pacer_sent(&t, now, false);
        claim_pacer_came_back(&t, now, 64, 20, 100, false); /* 20,000 a second */
    }
    assert_true(claim_pacer_busy(&t, now));
    now += 150 * MS;
    claim_pacer_busy(&t, now);
    now += 150 * MS;
    assert_false(claim_pacer_busy(&t, now));
}

/* Jobs come one by one, every `every` ms, and each claim takes `commit_us`. */
static bool
is_busy_with(uint64_t every_ms, uint64_t commit_us)
{
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    uint64_t now = 1000 * MS;
    for (int i = 0; i < 200; i++) {
        now += every_ms * MS;
        claim_pacer_sent(&t, now, false);
        claim_pacer_came_back(&t, now + commit_us * 1000, 1, 1, 10, false);
    }
    return claim_pacer_busy(&t, now);
}

static void
jobs_whose_commits_would_wait_for_one_another_are_not_notified(void **state)
{
    (void)state;
    assert_false(is_busy_with(3, 300)); /* 330 a second on a fast disk */
    assert_true(is_busy_with(3, 4000)); /* on a slow one each notifies most of the time */
    assert_false(is_busy_with(50, 4000));
    assert_true(is_busy_with(1, 500));
}

static void
a_large_claim_does_not_count_as_a_slow_commit(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    claim_pacer_sent(&t, 1 * MS, false);
    claim_pacer_came_back(&t, 2 * MS, 1, 1, 10, false);
    claim_pacer_sent(&t, 10 * MS, false);
    claim_pacer_came_back(&t, 30 * MS, 1024, 1024, 10, false);
    assert_int_equal(t.commit_ns, MS);
}

static void
locked_jobs_are_asked_for_less_and_less(void **state)
{
    (void)state;
    struct claim_pacer t;
    claim_pacer_init(&t, 1000);
    int64_t waits[] = {2, 4, 8, 16, 32, 64, 64};
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        claim_pacer_locked(&t);
        assert_int_equal(t.poll_ms, waits[i]);
    }
    claim_pacer_init(&t, 10);
    for (size_t i = 0; i < 9; i++)
        claim_pacer_locked(&t);
    assert_int_equal(t.poll_ms, 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_jobs_are_not_claimed_ahead),
        cmocka_unit_test(short_jobs_are_claimed_ahead_within_bounds),
        cmocka_unit_test(large_arguments_bound_the_claim),
        cmocka_unit_test(large_arguments_are_fetched_within_their_bound),
        cmocka_unit_test(a_short_claim_asks_for_a_look),
        cmocka_unit_test(a_slow_look_is_not_repeated_at_once),
        cmocka_unit_test(polls_slow_down_to_the_interval),
        cmocka_unit_test(a_busy_queue_is_not_woken),
        cmocka_unit_test(jobs_whose_commits_would_wait_for_one_another_are_not_notified),
        cmocka_unit_test(a_large_claim_does_not_count_as_a_slow_commit),
        cmocka_unit_test(locked_jobs_are_asked_for_less_and_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
