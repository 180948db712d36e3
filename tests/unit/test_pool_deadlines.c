/* test_pool_deadlines.c: jobs run longer than their timeout. The worker is asked to
 * stop the job, then terminated, then killed. Time that a job waits, or that the loop
 * stands still, is not the job's. */
#include <poll.h>
#include <signal.h>

#include "tests/unit/poolbench.h"

static struct bench *
hasty(void)
{
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 100;
    b->queue.stop_grace_ms = 100;
    b->queue.mailbox = 4;
    start(b);
    run_until(b, all_ready);
    return b;
}

static void
a_late_job_is_stopped_then_terminated_then_killed(void **state)
{
    (void)state;
    struct bench *b = hasty();
    const struct record *r = result_of(b, "hang");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_int_equal(r->signal, SIGKILL);
    assert_true(r->run_us >= 300000);
    assert_string_equal(
        r->error,
        "ran longer than its timeout of 100 ms and was killed by signal 9 (SIGKILL)");
    r = result_of(b, "hang_until_term");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_int_equal(r->signal, SIGTERM);
    assert_true(r->run_us >= 200000);
    finish(b);
}

static void
jobs_behind_a_late_one_are_not_to_blame(void **state)
{
    (void)state;
    struct bench *b = hasty();
    int64_t late = give(b, "hang");
    for (int i = 0; i < 3; i++)
        give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(b->records[late].kind, VERDICT_TIMEOUT);
    assert_int_equal(count_kind(b, VERDICT_OK), 3);
    finish(b);
}

static void
an_answer_after_the_deadline_counts_if_it_is_ok(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 50;
    start(b);
    pid_t before[4], after[4];
    run_until(b, all_ready);
    size_t n = children(before, 4);
    assert_int_equal(result_of(b, "late_ok")->kind, VERDICT_OK);
    const struct record *r = result_of(b, "late_error");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_string_equal(
        r->error, "ran longer than its timeout of 50 ms and then said: interrupted");
    r = result_of(b, "obey");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_string_equal(r->error, "ran longer than its timeout of 50 ms");
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    /* It obeyed each time, so the pool did not kill it. */
    assert_int_equal(children(after, 4), n);
    assert_memory_equal(before, after, n * sizeof before[0]);
    finish(b);
}

static void
a_job_may_have_a_timeout_of_its_own(void **state)
{
    (void)state;
    struct bench *b = started(1);
    int64_t id = give(b, "obey");
    b->jobs[id].timeout_ms = 60;
    run_until(b, all_returned);
    assert_int_equal(b->records[id].kind, VERDICT_TIMEOUT);
    assert_non_null(strstr(b->records[id].error, "60 ms"));
    finish(b);
}

static void
waiting_behind_another_job_is_not_running(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 400;
    b->queue.mailbox = 10;
    start(b);
    for (int i = 0; i < 8; i++)
        give_args(b, "sleep", "100");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 8);
    finish(b);
}

/* The loop handles nothing for this time. */
static void
stand_still_for_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* On a busy machine one turn of the loop may see both the job's beginning and its end. */
static bool
has_begun(const struct bench *b)
{
    return someone_is_busy(b) || all_returned(b);
}

static void
what_was_in_time_is_not_late_though_the_loop_was(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 500;
    b->queue.stop_grace_ms = 100;
    start(b);
    run_until(b, all_ready);
    give(b, "error_soon");
    run_until(b, has_begun);
    stand_still_for_ms(1000);
    run_until(b, all_returned);
    assert_int_equal(b->records[b->given].kind, VERDICT_ERROR);
    finish(b);
    b = bench_new(1, NULL);
    b->queue.timeout_ms = 500;
    b->queue.stop_grace_ms = 100;
    b->queue.mode = QUEUE_EXEC;
    static char sh[] = "/bin/sh", c[] = "-c", script[] = "exit 65";
    b->argv[0] = sh;
    b->argv[1] = c;
    b->argv[2] = script;
    start(b);
    give(b, "any");
    run_until(b, has_begun);
    stand_still_for_ms(1000);
    run_until(b, all_returned);
    assert_int_equal(b->records[b->given].kind, VERDICT_DISCARD);
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_job_is_stopped_then_terminated_then_killed),
        cmocka_unit_test(jobs_behind_a_late_one_are_not_to_blame),
        cmocka_unit_test(an_answer_after_the_deadline_counts_if_it_is_ok),
        cmocka_unit_test(a_job_may_have_a_timeout_of_its_own),
        cmocka_unit_test(waiting_behind_another_job_is_not_running),
        cmocka_unit_test(what_was_in_time_is_not_late_though_the_loop_was),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
