/* test_mailbox.c: short jobs are given many at a time, long ones one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "jobqd/pure/mailbox.h"

static const uint64_t US = 1000;
static const uint64_t MS = 1000000;

static struct mailbox
adaptive(void)
{
    struct mailbox m;
    mailbox_init(&m, 0);
    return m;
}

static void
begins_with_one(void **state)
{
    (void)state;
    struct mailbox m = adaptive();
    assert_int_equal(mailbox_depth(&m), 1);
}

static void
no_ops_fill_it_at_once(void **state)
{
    (void)state;
    struct mailbox m = adaptive();
    mailbox_answered(&m, 1, 80 * US);
    assert_int_equal(mailbox_depth(&m), MAILBOX_ADAPTIVE_MAX);
}

static void
holds_what_keeps_a_worker_busy(void **state)
{
    (void)state;
    struct mailbox m = adaptive();
    for (int i = 0; i < 500; i++)
        mailbox_answered(&m, 1, 5 * MS);
    assert_int_equal(mailbox_depth(&m), MAILBOX_BUSY_MS / 5);
    for (int i = 0; i < 500; i++)
        mailbox_answered(&m, 1, 300 * MS);
    assert_int_equal(mailbox_depth(&m), 1);
}

static void
one_long_job_shrinks_it_and_short_ones_take_a_while_to_convince(void **state)
{
    (void)state;
    struct mailbox m = adaptive();
    mailbox_answered(&m, 64, 64 * 50 * US);
    mailbox_answered(&m, 1, 10000 * MS);
    assert_int_equal(mailbox_depth(&m), 1);
    mailbox_answered(&m, 1, 50 * US);
    assert_int_equal(mailbox_depth(&m), 1);
    int answers = 0;
    while (mailbox_depth(&m) < MAILBOX_ADAPTIVE_MAX) {
        mailbox_answered(&m, 1, 50 * US);
        answers++;
        assert_true(answers < 1000);
    }
    assert_true(answers > 100);
}

static void
a_long_silence_is_noticed_before_its_answer(void **state)
{
    (void)state;
    struct mailbox m = adaptive();
    mailbox_answered(&m, 1, 50 * US);
    assert_false(mailbox_is_stuck(&m, 10 * MS));
    assert_int_equal(mailbox_depth(&m), MAILBOX_ADAPTIVE_MAX);
    assert_true(mailbox_is_stuck(&m, 100 * MS));
    assert_int_equal(mailbox_depth(&m), 1);
}

static void
a_fixed_one_is_left_alone(void **state)
{
    (void)state;
    struct mailbox m;
    mailbox_init(&m, 100);
    mailbox_answered(&m, 1, 10000 * MS);
    assert_int_equal(mailbox_depth(&m), 100);
    assert_false(mailbox_is_stuck(&m, 100000 * MS));
    assert_int_equal(mailbox_most(&m), 100);
}

static void
no_time_at_all_is_no_division_by_zero(void **state)
{
    (void)state;
    struct mailbox m = adaptive();
    mailbox_answered(&m, 64, 0);
    mailbox_answered(&m, 64, 0);
    assert_int_equal(mailbox_depth(&m), MAILBOX_ADAPTIVE_MAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_with_one),
        cmocka_unit_test(no_ops_fill_it_at_once),
        cmocka_unit_test(holds_what_keeps_a_worker_busy),
        cmocka_unit_test(one_long_job_shrinks_it_and_short_ones_take_a_while_to_convince),
        cmocka_unit_test(a_long_silence_is_noticed_before_its_answer),
        cmocka_unit_test(a_fixed_one_is_left_alone),
        cmocka_unit_test(no_time_at_all_is_no_division_by_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
