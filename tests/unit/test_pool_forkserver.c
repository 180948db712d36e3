/* test_pool_forkserver.c: a pool shrinks or ends while its forkserver forks a worker. */
#include "tests/unit/poolbench.h"

#include "jobqd/pool/pool_private.h"

static bool
came_or_went(const struct bench *b)
{
    return b->pool->n_lives == 0 || b->pool->slots[0]->worker->said_hello;
}

static void
who_is_let_go_while_it_is_born_takes_no_job(void **state)
{
    (void)state;
    struct bench *b = being_forked();
    pool_resize(b->pool, 0);
    run_until(b, came_or_went);
    assert_int_equal(b->pool->n_lives, 0);
    assert_int_equal(result_of(b, "facts")->kind, VERDICT_RELEASED);
    pool_resize(b->pool, 1);
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "facts")->kind, VERDICT_OK);
    finish(b);
}

static void
a_pool_that_ends_while_a_worker_is_born_ends(void **state)
{
    (void)state;
    struct bench *b = being_forked();
    pool_kill(b->pool);
    run_until(b, is_stopped);
    finish(b);
    b = being_forked();
    finish(b); /* a drain */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_let_go_while_it_is_born_takes_no_job),
        cmocka_unit_test(a_pool_that_ends_while_a_worker_is_born_ends),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
