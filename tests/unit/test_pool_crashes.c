/* test_pool_crashes.c: workers die, by themselves or killed. The job that ran is
 * charged, the other jobs are done, and no process and no descriptor is left over. */
#include <dirent.h>
#include <signal.h>

#include "tests/unit/poolbench.h"

static void
a_crash_is_charged_to_the_head_alone(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 64;
    start(b);
    run_until(b, all_ready);
    int64_t before = give(b, "ok");
    int64_t crash = give(b, "segv");
    int64_t after = 0;
    for (int i = 0; i < 20; i++)
        after = give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(b->records[before].kind, VERDICT_OK);
    const struct record *r = &b->records[crash];
    assert_int_equal(r->kind, VERDICT_CRASH);
    assert_int_equal(r->signal, SIGSEGV);
    assert_int_equal(r->exit_code, -1);
    assert_string_equal(r->error,
                        "was killed by signal 11 (SIGSEGV) while it held the job");
    assert_non_null(strstr(r->output, "about to crash in job 2\n"));
    assert_true(r->cpu_us >= 0 && r->max_rss_kb > 0 && r->run_us >= 0);
    assert_int_equal(b->records[after].kind, VERDICT_OK);
    assert_int_equal(count_kind(b, VERDICT_OK), 21);
    assert_int_equal(status_of(b).restarts, 1);
    assert_int_equal(status_of(b).crashes, 1);
    finish(b);
}

static void
an_answer_before_the_crash_counts(void **state)
{
    (void)state;
    struct bench *b = started(1);
    for (int i = 0; i < 20; i++)
        assert_int_equal(result_of(b, "ok_and_kill")->kind, VERDICT_OK);
    finish(b);
}

static void
an_exit_with_a_job_is_a_crash(void **state)
{
    (void)state;
    struct bench *b = started(1);
    const struct record *r = result_of(b, "exit");
    assert_int_equal(r->kind, VERDICT_CRASH);
    assert_int_equal(r->exit_code, 3);
    assert_int_equal(r->signal, 0);
    r = result_of(b, "exit_0");
    assert_int_equal(r->kind, VERDICT_CRASH);
    assert_int_equal(r->exit_code, 0);
    finish(b);
}

static void
an_idle_worker_that_is_killed_charges_nobody(void **state)
{
    (void)state;
    struct bench *b = started(2);
    pid_t pids[8];
    for (int round = 0; round < 50; round++) {
        size_t n = children(pids, 8);
        assert_true(n > 0);
        kill(pids[(size_t)round % n], SIGKILL);
        give(b, "ok"); /* before the loop has seen it */
        run_until(b, all_returned);
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 50);
    finish(b);
}

/* Kills a random worker every few jobs. A kill is charged to at most one job; all other
 * jobs are done. */
static void
random_kills_lose_nothing(void **state)
{
    (void)state;
    struct bench *b = started(4);
    pid_t pids[16];
    uint32_t random = 12345;
    int kills = 0;
    while (b->given < 3000) {
        random = random * 1664525u + 1013904223u;
        for (uint32_t i = 0; i < 1 + (random >> 8) % 30; i++)
            give(b, "ok");
        size_t n = children(pids, 16);
        if (n > 0) {
            kill(pids[(random >> 16) % n], (random >> 4) % 2 ? SIGKILL : SIGSEGV);
            kills++;
        }
        for (uint32_t i = 0; i < (random >> 12) % 8; i++)
            uv_run(&b->loop, UV_RUN_NOWAIT);
        if ((random >> 20) % 4 == 0)
            run_until(b, all_returned);
    }
    run_until(b, all_returned);
    int crashed = count_kind(b, VERDICT_CRASH);
    assert_int_equal(count_kind(b, VERDICT_OK) + crashed, b->given);
    assert_true(crashed <= kills);
    print_message("%d kills, %d jobs charged\n", kills, crashed);
    finish(b);
}

static int
count_descriptors(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void
five_hundred_crashes_leak_nothing(void **state)
{
    (void)state;
    pid_t pids[16];
    struct bench *b = bench_new(2, NULL);
    int descriptors = count_descriptors();
    size_t mine = children(pids, 16);
    start(b);
    run_until(b, all_ready);
    while (b->given < 500) {
        for (int i = 0; i < 10; i++)
            give(b, "kill");
        run_until(b, all_returned);
    }
    assert_int_equal(count_kind(b, VERDICT_CRASH), 500);
    run_until(b, all_ready);
    assert_int_equal(children(pids, 16), mine + 2);
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    assert_int_equal(children(pids, 16), mine);
    assert_int_equal(count_descriptors(), descriptors);
    finish(b);
}

static void
grandchildren_go_with_their_worker(void **state)
{
    (void)state;
    struct bench *b = started(1);
    pid_t grandchild = (pid_t)atoi(result_of(b, "grandchild")->result);
    assert_true(is_alive(grandchild));
    result_of(b, "segv");
    run_until_gone(b, grandchild);
    grandchild = (pid_t)atoi(result_of(b, "grandchild")->result);
    assert_true(is_alive(grandchild));
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    run_until_gone(b, grandchild);
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_is_charged_to_the_head_alone),
        cmocka_unit_test(an_answer_before_the_crash_counts),
        cmocka_unit_test(an_exit_with_a_job_is_a_crash),
        cmocka_unit_test(an_idle_worker_that_is_killed_charges_nobody),
        cmocka_unit_test(random_kills_lose_nothing),
        cmocka_unit_test(five_hundred_crashes_leak_nothing),
        cmocka_unit_test(grandchildren_go_with_their_worker),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
