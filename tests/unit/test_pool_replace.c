/* test_pool_replace.c: while jobs go on, workers are replaced one by one (a new
 * configuration, max_jobs), and the pool grows and shrinks. */
#include "tests/unit/poolbench.h"

/* What the pool is configured with next: the same with other arguments. */
struct change {
    struct queue_config queue;
    char *argv[4];
};

static void
configure(struct bench *b, struct change *change, const char *mode)
{
    change->queue = b->queue;
    change->queue.argv = change->argv;
    change->argv[0] = b->argv[0];
    change->argv[1] = (char *)(uintptr_t)mode;
    change->argv[2] = NULL;
    assert_int_equal(pool_configure(b->pool, &change->queue, (size_t)1 << 20), 0);
}

static bool
nobody_is_outdated(const struct bench *b)
{
    struct pool_status status = status_of(b);
    return status.outdated == 0 && status.surge == 0 && status.stopping == 0 &&
           status.ready == status.wanted;
}

static bool
is_well_composed(const struct bench *b)
{
    pid_t pids[64];
    return children(pids, 64) <= (size_t)b->queue.concurrency + 1 &&
           status_of(b).busy <= b->queue.concurrency;
}

/* Ten changes during a stream of jobs, each before the last one is complete. */
static void
a_new_configuration_brings_new_workers(void **state)
{
    (void)state;
    struct bench *b = started(4);
    struct change changes[10];
    pid_t before[8], after[8];
    assert_int_equal(children(before, 8), 4);
    for (int i = 0; i < 2000; i++) {
        give(b, "ok");
        if (i % 200 == 0)
            configure(b, &changes[i / 200], NULL);
        if (i % 3 == 0)
            uv_run(&b->loop, UV_RUN_NOWAIT);
        assert_true(is_well_composed(b));
    }
    while (!all_returned(b) || !nobody_is_outdated(b)) {
        uv_run(&b->loop, UV_RUN_ONCE);
        assert_true(is_well_composed(b));
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 2000);
    assert_int_equal(children(after, 8), 4);
    for (int i = 0; i < 16; i++)
        assert_int_not_equal(before[i / 4], after[i % 4]);
    assert_int_equal(status_of(b).restarts, 0);
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

static void
a_replacement_waits_for_the_running_job(void **state)
{
    (void)state;
    struct bench *b = started(1);
    struct change change;
    int64_t slow = give_args(b, "sleep", "700");
    run_until(b, someone_is_busy);
    configure(b, &change, NULL);
    int64_t next = give_args(b, "sleep", "0");
    while (b->records[slow].times == 0) {
        uv_run(&b->loop, UV_RUN_ONCE);
        assert_true(is_well_composed(b));
        assert_int_equal(b->records[next].times, 0);
    }
    run_until(b, all_returned);
    run_until(b, nobody_is_outdated);
    assert_int_equal(b->records[slow].kind, VERDICT_OK);
    finish(b);
}

/* A worker that was chosen to go may run a long job. Then another worker goes in its
 * place when its own job ends: a long job delays only the worker that runs it. */
static void
a_long_job_holds_up_its_own_worker_alone(void **state)
{
    (void)state;
    struct bench *b = started(3);
    struct change change;
    int64_t slow = give_args(b, "hang", "{}");
    run_until(b, someone_is_busy);
    configure(b, &change, NULL);
    while (status_of(b).outdated > 1 || status_of(b).surge == 0) {
        give_args(b, "sleep", "10");
        run_until(b, one_is_left);
    }
    assert_int_equal(b->records[slow].times, 0);
    pool_kill(b->pool);
    run_until(b, is_stopped);
    assert_int_equal(b->records[slow].kind, VERDICT_RELEASED);
    finish(b);
}

static bool
a_surge_has_failed(const struct bench *b)
{
    return status_of(b).crashes > 0 && status_of(b).surge == 0;
}

static void
a_replacement_that_fails_leaves_all_as_it_was(void **state)
{
    (void)state;
    struct bench *b = started(2);
    struct change broken, good;
    configure(b, &broken, "exit");
    run_until(b, a_surge_has_failed);
    assert_int_equal(status_of(b).outdated, 2);
    assert_int_equal(status_of(b).ready, 2);
    assert_false(status_of(b).backing_off);
    for (int i = 0; i < 20; i++)
        give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 20);
    result_of(b, "segv"); /* the old program takes that place as well */
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    configure(b, &good, NULL);
    run_until(b, nobody_is_outdated);
    finish(b);
}

static void
a_worker_goes_after_max_jobs(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    b->queue.max_jobs = 10;
    b->queue.mailbox = 1;
    start(b);
    run_until(b, all_ready);
    pid_t seen[64];
    size_t n_seen = 0;
    for (int i = 0; i < 40; i++) {
        for (int n = 0; n < 20; n++)
            give(b, "ok");
        run_until(b, all_returned);
        run_until(b, nobody_is_outdated);
        assert_true(is_well_composed(b));
        pid_t now[8];
        size_t n_now = children(now, 8);
        for (size_t k = 0; k < n_now && n_seen < 64; k++) {
            size_t at = 0;
            while (at < n_seen && seen[at] != now[k])
                at++;
            seen[at] = now[k];
            n_seen += at == n_seen;
        }
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 800);
    assert_true(n_seen > 10);
    assert_int_equal(status_of(b).restarts, 0);
    finish(b);
}

static void
a_pool_grows_and_shrinks(void **state)
{
    (void)state;
    struct bench *b = started(2);
    pool_resize(b->pool, 5);
    b->queue.concurrency = 5;
    run_until(b, all_ready);
    for (int i = 0; i < 5; i++)
        give_args(b, "sleep", "300");
    while (status_of(b).busy < 5)
        uv_run(&b->loop, UV_RUN_ONCE);
    pool_resize(b->pool, 1);
    assert_int_equal(status_of(b).wanted, 1);
    assert_int_equal(b->returned, 0);
    run_until(b, all_returned);
    run_until(b, nobody_is_outdated);
    pid_t pids[8];
    assert_int_equal(children(pids, 8), 1);
    assert_int_equal(count_kind(b, VERDICT_OK), 5);
    finish(b);
}

static void
a_pool_without_wanted_workers_has_no_room(void **state)
{
    (void)state;
    struct bench *b = started(2);
    assert_int_equal(pool_idle(b->pool), 2);
    pool_resize(b->pool, 0);
    assert_int_equal(pool_room(b->pool), 0); /* before any of them was told */
    assert_int_equal(pool_idle(b->pool), 0);
    finish(b);
}

static void
a_pool_stops_while_it_replaces(void **state)
{
    (void)state;
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        struct bench *b = started(2);
        struct change change;
        for (int i = 0; i < 10; i++)
            give(b, "ok");
        configure(b, &change, "slow");
        while (status_of(b).surge == 0)
            uv_run(&b->loop, UV_RUN_ONCE);
        if (kill_it)
            pool_kill(b->pool);
        else
            pool_stop(b->pool, 20000);
        run_until(b, is_stopped);
        finish(b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_configuration_brings_new_workers),
        cmocka_unit_test(a_replacement_waits_for_the_running_job),
        cmocka_unit_test(a_long_job_holds_up_its_own_worker_alone),
        cmocka_unit_test(a_replacement_that_fails_leaves_all_as_it_was),
        cmocka_unit_test(a_worker_goes_after_max_jobs),
        cmocka_unit_test(a_pool_grows_and_shrinks),
        cmocka_unit_test(a_pool_without_wanted_workers_has_no_room),
        cmocka_unit_test(a_pool_stops_while_it_replaces),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
