/* test_pool_exec.c: a queue of mode exec starts one process a job, whose exit code is
 * the answer. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>

#include "tests/unit/poolbench.h"

static void
exit_codes_are_answers(void **state)
{
    (void)state;
    static const struct {
        const char *args;
        enum verdict_kind kind;
        int exit_code;
        int signal;
    } cases[] = {
        {"exit 0", VERDICT_OK, 0, 0},
        {"exit 65", VERDICT_DISCARD, 65, 0},
        {"exit 75", VERDICT_SNOOZE, 75, 0},
        {"exit 1", VERDICT_ERROR, 1, 0},
        {"exit 255", VERDICT_ERROR, 255, 0},
        {"kill -SEGV $$", VERDICT_CRASH, -1, SIGSEGV},
        {"kill -KILL $$", VERDICT_CRASH, -1, SIGKILL},
    };
    struct bench *b = shell(2, "read command; echo out; echo err >&2; eval \"$command\"");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t id = give_args(b, "script", cases[i].args);
        run_until(b, all_returned);
        const struct record *r = &b->records[id];
        assert_int_equal(r->kind, cases[i].kind);
        assert_int_equal(r->exit_code, cases[i].exit_code);
        assert_int_equal(r->signal, cases[i].signal);
        assert_true(r->cpu_us >= 0 && r->max_rss_kb != 0 && r->run_us > 0);
        if (r->kind != VERDICT_OK && r->kind != VERDICT_SNOOZE)
            assert_string_equal(r->output, "out\nerr\n");
    }
    assert_int_equal(b->records[3].delay_ms, 60000);
    assert_int_equal(status_of(b).restarts, 0);
    assert_false(status_of(b).backing_off);
    finish(b);
}

static void
a_program_finds_its_job_around_itself(void **state)
{
    (void)state;
    struct bench *b = shell(
        1,
        "test \"$(cat)\" = '{\"a\": 1}' || exit 10\n"
        "test \"$JOBQ_JOB_ID $JOBQ_KIND $JOBQ_QUEUE $JOBQ_ATTEMPT $JOBQ_MAX_ATTEMPTS\" = "
        "'1 script test 2 20' || exit 11\n"
        "now=$(date +%s000)\n"
        "test $JOBQ_DEADLINE_MS -gt $now -a $JOBQ_DEADLINE_MS -lt $((now + 700000)) || "
        "exit 12\n"
        "test -z \"$JOBQ_FD$PGPASSWORD$DATABASE_URL$JOBQ_DATABASE\" || exit 13\n"
        "test -e /proc/self/fd/3 && exit 14\n"
        "exit 0\n");
    int64_t id = give_args(b, "script", "{\"a\": 1}");
    run_until(b, all_returned);
    assert_int_equal(b->records[id].exit_code, 0);
    finish(b);
}

static void
a_program_need_not_read_its_args(void **state)
{
    (void)state;
    static char args[900 * 1024];
    memset(args, 'x', sizeof args - 1);
    struct bench *b = shell(2, "exec 0<&-; exit 0");
    for (int i = 0; i < 10; i++)
        give_args(b, "script", args);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 10);
    finish(b);
}

static void
no_more_programs_than_slots_run_at_once(void **state)
{
    (void)state;
    struct bench *b = shell(3, "sleep 0.05");
    assert_int_equal(pool_room(b->pool), 3);
    pid_t pids[32];
    for (int i = 0; i < 12; i++)
        give(b, "script");
    assert_int_equal(pool_room(b->pool), 0);
    while (!all_returned(b)) {
        uv_run(&b->loop, UV_RUN_ONCE);
        assert_true(children(pids, 32) <= 3);
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 12);
    finish(b);
}

static bool
both_are_busy(const struct bench *b)
{
    return status_of(b).busy == 2;
}

static bool
ignores_sigterm(pid_t pid)
{
    char path[64], line[256];
    unsigned long long ignored = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    while (fgets(line, sizeof line, file) && sscanf(line, "SigIgn: %llx", &ignored) != 1)
        ;
    fclose(file);
    return ignored >> (SIGTERM - 1) & 1;
}

/* Waits without running the loop: a busy machine could otherwise reach the deadline of a
 * program, and terminate it, before the program ignores SIGTERM. */
static void
wait_for_a_child_that_ignores_sigterm(void)
{
    pid_t pids[8];
    for (int ms = 0; ms < LIMIT_MS; ms++) {
        size_t n = children(pids, 8);
        for (size_t i = 0; i < n; i++)
            if (ignores_sigterm(pids[i]))
                return;
        poll(NULL, 0, 1);
    }
    fail_msg("no child ignores SIGTERM");
}

static void
a_late_program_is_terminated_then_killed(void **state)
{
    (void)state;
    struct bench *b =
        shell(2, "read how; test $how = deaf && trap '' TERM; sleep 100; sleep 100");
    b->queue.timeout_ms = 1000; /* more than two forks take on a busy machine */
    b->queue.stop_grace_ms = 100;
    int64_t polite = give_args(b, "script", "polite");
    int64_t deaf = give_args(b, "script", "deaf");
    run_until(b, both_are_busy);
    wait_for_a_child_that_ignores_sigterm();
    run_until(b, all_returned);
    assert_int_equal(b->records[polite].kind, VERDICT_TIMEOUT);
    assert_int_equal(b->records[polite].signal, SIGTERM);
    assert_int_equal(b->records[deaf].kind, VERDICT_TIMEOUT);
    assert_int_equal(b->records[deaf].signal, SIGKILL);
    finish(b);
}

static void
what_a_program_leaves_behind_is_killed(void **state)
{
    (void)state;
    struct bench *b = shell(1, "sleep 1000 & echo $!; exit 9");
    int64_t id = give(b, "script");
    run_until(b, all_returned);
    pid_t left = (pid_t)atoi(b->records[id].output);
    assert_true(left > 0);
    run_until_gone(b, left);
    finish(b);
}

static void
a_missing_exec_program_backs_off_and_releases(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    static char missing[] = "/nonexistent/script";
    b->queue.mode = QUEUE_EXEC;
    b->queue.max_restarts = 3;
    b->argv[0] = missing;
    start(b);
    for (int i = 0; i < 20; i++)
        give(b, "script");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_RELEASED), 20);
    assert_true(status_of(b).backing_off);
    assert_int_equal(pool_room(b->pool), 0);
    /* When the pause is over there is room again. */
    int rooms = b->rooms;
    run_until(b, is_not_backing_off);
    while (b->rooms == rooms)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_int_equal(pool_room(b->pool), 2);
    finish(b);
}

static void
a_drain_lets_programs_finish_and_a_kill_does_not(void **state)
{
    (void)state;
    struct bench *b = shell(1, "sleep 0.2; exit 0");
    int64_t running = give(b, "script");
    int64_t waiting = give(b, "script");
    run_until(b, someone_is_busy);
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    assert_int_equal(b->records[running].kind, VERDICT_OK);
    assert_int_equal(b->records[waiting].kind, VERDICT_RELEASED);
    finish(b);
    b = shell(1, "sleep 100");
    give(b, "script");
    run_until(b, someone_is_busy);
    pool_kill(b->pool);
    run_until(b, is_stopped);
    assert_int_equal(b->records[1].kind, VERDICT_RELEASED);
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_are_answers),
        cmocka_unit_test(a_program_finds_its_job_around_itself),
        cmocka_unit_test(a_program_need_not_read_its_args),
        cmocka_unit_test(no_more_programs_than_slots_run_at_once),
        cmocka_unit_test(a_late_program_is_terminated_then_killed),
        cmocka_unit_test(what_a_program_leaves_behind_is_killed),
        cmocka_unit_test(a_missing_exec_program_backs_off_and_releases),
        cmocka_unit_test(a_drain_lets_programs_finish_and_a_kill_does_not),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
