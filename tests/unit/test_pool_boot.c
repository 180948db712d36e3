/* test_pool_boot.c: workers start, or cannot. Failed boots make the pool back off, and
 * it recovers. A worker that leaves after its job is no failure. */
#include <sys/resource.h>

#include "tests/unit/poolbench.h"

#include "jobqd/pool/pool_private.h"

static void
a_worker_that_cannot_start_puts_its_pool_into_backoff(void **state)
{
    (void)state;
    static const char *const modes[] = {"exit", "silent", "twice", "future", "early"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        struct bench *b = bench_new(2, modes[i]);
        b->queue.max_restarts = 3;
        b->queue.boot_timeout_ms = 100;
        start(b);
        run_until(b, is_backing_off);
        struct pool_status status = status_of(b);
        assert_true(status.backoff_ms_left > 0 && status.backoff_ms_left <= 1000);
        assert_true(status.crashes >= 4);
        finish(b);
    }
}

static bool
is_looked_at_often(const struct bench *b)
{
    return b->pool->slots[0]->worker->watched.busy;
}

static void
what_a_boot_uses_is_looked_at_like_a_job(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "slow");
    b->queue.max_memory_hard = (size_t)1 << 40;
    start(b);
    while (status_of(b).booting < 1)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_true(is_looked_at_often(b));
    run_until(b, all_ready);
    assert_false(is_looked_at_often(b));
    give_args(b, "sleep", "50");
    run_until(b, is_looked_at_often);
    run_until(b, all_returned);
    assert_false(is_looked_at_often(b));
    finish(b);
}

static void
a_missing_program_is_a_boot_failure(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    static char missing[] = "/nonexistent/worker";
    b->argv[0] = missing;
    b->queue.max_restarts = 2;
    start(b);
    run_until(b, is_backing_off);
    assert_true(status_of(b).crashes >= 3);
    /* It tries again when the pause is over, and pauses again. */
    uint64_t crashes = status_of(b).crashes;
    run_until(b, is_not_backing_off);
    run_until(b, is_backing_off);
    assert_true(status_of(b).crashes > crashes);
    assert_true(status_of(b).backoff_ms_left > 1000);
    /* No worker will come for this job: another node may have it. */
    int64_t id = give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(b->records[id].kind, VERDICT_RELEASED);
    finish(b);
}

/* While there are no descriptors, no process can be started and the pool pauses. It
 * recovers when there are some again. */
static void
without_descriptors_a_pool_backs_off_and_recovers(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.max_restarts = 3;
    start(b);
    run_until(b, all_ready);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    give(b, "segv");
    run_until(b, is_backing_off);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    finish(b);
}

static void
a_worker_that_goes_after_its_job_is_replaced(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "leave");
    b->queue.max_restarts = 0;
    start(b);
    for (int i = 0; i < 5; i++)
        assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_cannot_start_puts_its_pool_into_backoff),
        cmocka_unit_test(what_a_boot_uses_is_looked_at_like_a_job),
        cmocka_unit_test(a_missing_program_is_a_boot_failure),
        cmocka_unit_test(without_descriptors_a_pool_backs_off_and_recovers),
        cmocka_unit_test(a_worker_that_goes_after_its_job_is_replaced),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
