/* test_pool_stop.c: a pool ends. A drain lets running jobs finish within its grace, a
 * kill does not; all other jobs are given back. */
#include "tests/unit/poolbench.h"

static void
a_drain_lets_the_running_job_finish(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 2;
    start(b);
    run_until(b, all_ready);
    int64_t running = give_args(b, "sleep", "300");
    int64_t sent = give(b, "ok");
    int64_t waiting = give(b, "ok");
    run_until(b, someone_is_busy);
    for (int i = 0; i < 5; i++)
        uv_run(&b->loop, UV_RUN_NOWAIT);
    pool_stop(b->pool, 20000);
    assert_int_equal(pool_room(b->pool), 0);
    run_until(b, is_stopped);
    assert_int_equal(b->records[running].kind, VERDICT_OK);
    /* rude_worker does not give jobs back, so it may also run this one. */
    assert_true(b->records[sent].kind == VERDICT_OK ||
                b->records[sent].kind == VERDICT_RELEASED);
    assert_int_equal(b->records[waiting].kind, VERDICT_RELEASED);
    finish(b);
}

/* A worker made with libjobq gives back the jobs that it has not begun, however long they
 * would take. */
static void
a_drain_asks_back_what_has_not_begun(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    find_program(b->program, sizeof b->program, "fault_worker");
    b->queue.mailbox = 5;
    start(b);
    run_until(b, all_ready);
    int64_t running = give_args(b, "sleep", "{\"ms\": 400}");
    for (int i = 0; i < 4; i++)
        give_args(b, "sleep", "{\"ms\": 600000}");
    run_until(b, someone_is_busy);
    for (int i = 0; i < 5; i++)
        uv_run(&b->loop, UV_RUN_ONCE);
    pool_stop(b->pool, 50000);
    run_until(b, is_stopped);
    assert_int_equal(b->records[running].kind, VERDICT_OK);
    assert_int_equal(count_kind(b, VERDICT_RELEASED), 4);
    finish(b);
}

static void
a_drain_ends_with_its_grace(void **state)
{
    (void)state;
    struct bench *b = started(2);
    int64_t id = give(b, "hang");
    run_until(b, someone_is_busy);
    pool_stop(b->pool, 60000);
    uv_run(&b->loop, UV_RUN_NOWAIT);
    uint64_t began = uv_hrtime();
    pool_stop(b->pool, 100);   /* a smaller grace counts, … */
    pool_stop(b->pool, 60000); /* … a larger one does not */
    run_until(b, is_stopped);
    assert_true(uv_hrtime() - began < 20000000000u);
    assert_int_equal(b->records[id].kind, VERDICT_RELEASED);
    finish(b);
}

static void
a_deaf_worker_is_terminated_and_killed_when_it_drains(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "deaf");
    b->queue.stop_grace_ms = 50;
    start(b);
    run_until(b, all_ready);
    pool_stop(b->pool, 50000);
    run_until(b, is_stopped);
    finish(b);
}

static void
a_pool_can_stop_while_it_boots(void **state)
{
    (void)state;
    struct bench *b = bench_new(3, "slow");
    start(b);
    pool_stop(b->pool, 20000); /* nothing has been started */
    run_until(b, is_stopped);
    finish(b);
    b = bench_new(3, "silent");
    start(b);
    while (status_of(b).booting < 3)
        uv_run(&b->loop, UV_RUN_ONCE);
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    finish(b);
}

static void
a_kill_gives_everything_back(void **state)
{
    (void)state;
    struct bench *b = started(2);
    for (int i = 0; i < 10; i++)
        give(b, "hang");
    run_until(b, someone_is_busy);
    pool_kill(b->pool);
    assert_int_equal(b->returned, 0); /* no call-back from inside */
    run_until(b, is_stopped);
    assert_int_equal(count_kind(b, VERDICT_RELEASED), 10);
    finish(b);
}

static void
an_unused_pool_stops(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    start(b);
    pool_kill(b->pool);
    pool_stop(b->pool, 0);
    run_until(b, is_stopped);
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drain_lets_the_running_job_finish),
        cmocka_unit_test(a_drain_asks_back_what_has_not_begun),
        cmocka_unit_test(a_drain_ends_with_its_grace),
        cmocka_unit_test(a_deaf_worker_is_terminated_and_killed_when_it_drains),
        cmocka_unit_test(a_pool_can_stop_while_it_boots),
        cmocka_unit_test(a_kill_gives_everything_back),
        cmocka_unit_test(an_unused_pool_stops),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
