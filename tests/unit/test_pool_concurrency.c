/* test_pool_concurrency.c: a worker that runs three jobs at a time: how many jobs it is
 * sent, which jobs are charged when it dies, and each job's own deadline. */
#include <sys/socket.h>

#include "tests/unit/poolbench.h"

#include "jobqd/pool/pool_private.h"

static struct bench *
many(int mailbox)
{
    struct bench *b = bench_new(1, "many");
    b->queue.mailbox = mailbox;
    b->queue.stop_grace_ms = 200;
    start(b);
    run_until(b, all_ready);
    return b;
}

static bool
three_are_held(const struct bench *b)
{
    return b->progresses == 3;
}

static bool
one_is_held(const struct bench *b)
{
    return b->progresses >= 1;
}

static bool
one_has_returned(const struct bench *b)
{
    return b->returned == 1;
}

static void
a_worker_runs_as_many_as_it_says(void **state)
{
    (void)state;
    struct bench *b = many(1);
    assert_int_equal(pool_room(b->pool), 3);
    for (int i = 0; i < 3; i++)
        give(b, "hold");
    run_until(b, three_are_held);
    assert_int_equal(pool_room(b->pool), 0);
    pool_kill(b->pool);
    finish(b);

    b = many(3); /* two wait behind the three that run */
    assert_int_equal(pool_room(b->pool), 5);
    assert_int_equal(pool_idle(b->pool), 3);
    give(b, "hold");
    assert_int_equal(pool_idle(b->pool), 2);
    give(b, "hold");
    give(b, "answer_held");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 3);
    assert_int_equal(b->records[1].times, 1);
    assert_int_equal(b->records[1].cpu_us, -1);
    finish(b);
}

/* The pool makes frames only up to a backlog of 256 KiB. Here the socket takes more than
 * that at once, so it never reports that it can be written again: the pool must make the
 * third frame without that report. */
static void
all_that_it_may_run_are_sent(void **state)
{
    (void)state;
    struct bench *b = many(1);
    int size = 200 * 1024; /* the kernel doubles it */
    assert_int_equal(setsockopt(b->pool->slots[0]->worker->channel.fd, SOL_SOCKET,
                                SO_SNDBUF, &size, sizeof size),
                     0);
    static char args[300 * 1024];
    memset(args, 'x', sizeof args - 1);
    args[0] = args[sizeof args - 2] = '"';
    for (int i = 0; i < 3; i++)
        give_args(b, "hold", args);
    run_until(b, three_are_held);
    pool_kill(b->pool);
    finish(b);
}

static void
a_crash_is_charged_to_all_that_run(void **state)
{
    (void)state;
    struct bench *b = many(20);
    give(b, "hold");
    give(b, "hold");
    run_until(b, one_is_held);
    int64_t crash = give(b, "segv");
    for (int i = 0; i < 10; i++)
        give(b, "ok");
    run_until(b, all_returned);
    for (int64_t id = 1; id <= crash; id++) {
        assert_int_equal(b->records[id].kind, VERDICT_CRASH);
        assert_string_equal(
            b->records[id].error,
            "was killed by signal 11 (SIGSEGV) while it held the job and 2 others");
        assert_int_equal(b->records[id].cpu_us, -1);
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 10);
    assert_int_equal(status_of(b).crashes, 1);
    finish(b);
}

static void
each_has_a_deadline_of_its_own(void **state)
{
    (void)state;
    struct bench *b = many(1);
    int64_t other = give(b, "hold");
    int64_t late = give(b, "hold");
    b->jobs[late].timeout_ms = 60;
    run_until(b, one_has_returned);
    assert_int_equal(b->records[late].kind, VERDICT_TIMEOUT);
    assert_string_equal(b->records[late].error, "ran longer than its timeout of 60 ms");
    give(b, "answer_held");
    run_until(b, all_returned);
    assert_int_equal(b->records[other].kind, VERDICT_OK);
    assert_int_equal(status_of(b).restarts, 0);
    finish(b);
}

static void
the_end_for_a_late_job_gives_the_others_back(void **state)
{
    (void)state;
    struct bench *b = many(1);
    int64_t other = give(b, "hold");
    int64_t late = give(b, "hold_on");
    int64_t cancelled = give(b, "hold_on");
    b->jobs[late].timeout_ms = 60;
    run_until(b, three_are_held);
    pool_cancel(b->pool, &b->jobs[cancelled]);
    run_until(b, all_returned);
    assert_int_equal(b->records[late].kind, VERDICT_TIMEOUT);
    assert_int_equal(b->records[cancelled].kind, VERDICT_ABORTED);
    assert_int_equal(b->records[other].kind, VERDICT_RELEASED);
    finish(b);
}

static void
cpu_limit_is_for_one_at_a_time(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "many");
    b->queue.cpu_limit_ms = 1000;
    b->queue.max_restarts = 1;
    start(b);
    run_until(b, is_backing_off);
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_runs_as_many_as_it_says),
        cmocka_unit_test(all_that_it_may_run_are_sent),
        cmocka_unit_test(a_crash_is_charged_to_all_that_run),
        cmocka_unit_test(each_has_a_deadline_of_its_own),
        cmocka_unit_test(the_end_for_a_late_job_gives_the_others_back),
        cmocka_unit_test(cpu_limit_is_for_one_at_a_time),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
