/* test_pool_held.c: the owner holds answers (pool_hold_answers). They wait in the
 * workers' sockets, and a job whose answer waits there is not late. */
#include "tests/unit/poolbench.h"

#include "jobqd/pool/pool_private.h"

static bool
is_behind(const struct bench *b, int slot)
{
    const struct worker *worker = b->pool->slots[slot]->worker;
    return worker && channel_is_behind(&worker->channel);
}

static bool
the_first_is_behind(const struct bench *b)
{
    return is_behind(b, 0);
}

static bool
both_are_behind(const struct bench *b)
{
    return is_behind(b, 0) && is_behind(b, 1);
}

/* Long enough for the pool to look at deadlines several times while answers are held. */
static void
turn_for_ms(struct bench *b, uint64_t ms)
{
    uint64_t until = uv_hrtime() + ms * 1000000u;
    while (uv_hrtime() < until)
        uv_run(&b->loop, UV_RUN_ONCE);
}

static void
held_answers_wait_in_the_sockets(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    b->queue.mailbox = 8;
    start(b);
    pool_hold_answers(b->pool, true);
    run_until(b, all_ready); /* hellos are read */
    for (int i = 0; i < 10; i++)
        give(b, i % 2 ? "ok" : "error");
    run_until(b, both_are_behind);
    turn_for_ms(b, 50);
    assert_int_equal(b->returned, 0);
    pool_hold_answers(b->pool, false);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 5);
    assert_int_equal(count_kind(b, VERDICT_ERROR), 5);
    finish(b);
}

static void
answers_count_though_their_worker_died_while_they_were_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 8;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    give(b, "ok");
    give(b, "error");
    give(b, "kill");
    give(b, "ok"); /* for its successor */
    run_until(b, one_is_left);
    assert_int_equal(b->records[1].kind, VERDICT_OK);
    assert_int_equal(b->records[2].kind, VERDICT_ERROR);
    assert_int_equal(b->records[3].kind, VERDICT_CRASH);
    run_until(b, the_first_is_behind);
    assert_int_equal(b->returned, 3);
    pool_hold_answers(b->pool, false);
    run_until(b, all_returned);
    assert_int_equal(b->records[4].kind, VERDICT_OK);
    finish(b);
}

static void
a_job_is_not_late_whose_answer_is_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    b->queue.timeout_ms = 400;
    b->queue.mailbox = 1;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    give(b, "long_error");
    give(b, "long_error");
    run_until(b, both_are_behind);
    turn_for_ms(b, 1200); /* beyond its timeout, which is when it is looked at */
    assert_int_equal(b->returned, 0);
    assert_int_equal(status_of(b).stopping, 0);
    pool_hold_answers(b->pool, false);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_ERROR), 2); /* an ok would count when late */
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

static void
a_deadline_hears_a_short_answer_that_is_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 200;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    assert_int_equal(result_of(b, "error")->kind, VERDICT_ERROR);
    finish(b);
}

static void
a_late_job_is_stopped_while_answers_are_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 200;
    b->queue.stop_grace_ms = 100;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    assert_int_equal(result_of(b, "hang")->kind, VERDICT_TIMEOUT);
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "progress_and_hang")->kind, VERDICT_TIMEOUT);
    run_until(b, all_ready);
    give(b, "obey");
    run_until(b, someone_is_busy);
    pool_cancel(b->pool, &b->jobs[b->given]);
    run_until(b, all_returned);
    assert_int_equal(b->records[b->given].kind, VERDICT_CANCELLED);
    finish(b);
}

static void
programs_and_workers_of_a_template_are_held_too(void **state)
{
    (void)state;
    struct bench *b = shell(2, "exit 65");
    pool_hold_answers(b->pool, true);
    assert_int_equal(result_of(b, "any")->kind, VERDICT_DISCARD);
    finish(b);
    b = being_forked();
    pool_hold_answers(b->pool, true);
    run_until(b, all_ready);
    give(b, "facts");
    run_until(b, the_first_is_behind);
    turn_for_ms(b, 50);
    assert_int_equal(b->returned, 0);
    pool_kill(b->pool);
    run_until(b, is_stopped);
    assert_int_equal(b->records[b->given].kind, VERDICT_OK); /* read before its end */
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_answers_wait_in_the_sockets),
        cmocka_unit_test(answers_count_though_their_worker_died_while_they_were_held),
        cmocka_unit_test(a_job_is_not_late_whose_answer_is_held),
        cmocka_unit_test(a_deadline_hears_a_short_answer_that_is_held),
        cmocka_unit_test(a_late_job_is_stopped_while_answers_are_held),
        cmocka_unit_test(programs_and_workers_of_a_template_are_held_too),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
