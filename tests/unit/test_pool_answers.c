/* test_pool_answers.c: a job goes to a worker and its answer comes back: each answer's
 * verdict, args of any size, which worker gets which job, the job's output, and what a
 * worker's environment lacks. */
#include "tests/unit/poolbench.h"

static void
each_answer_becomes_its_verdict(void **state)
{
    (void)state;
    struct bench *b = started(1);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    int64_t id = give_args(b, "result", "{\"n\":123456789012345678,\"x\":0.1}");
    run_until(b, all_returned);
    const struct record *r = &b->records[id];
    assert_int_equal(r->kind, VERDICT_OK);
    assert_string_equal(r->result, "{\"n\":123456789012345678,\"x\":0.1}");
    assert_true(r->run_us >= 0);
    r = result_of(b, "error");
    assert_int_equal(r->kind, VERDICT_ERROR);
    assert_string_equal(r->error, "no \"luck\"");
    assert_string_equal(r->detail, "a\ntrace");
    assert_int_equal(r->delay_ms, 1234);
    r = result_of(b, "snooze");
    assert_int_equal(r->kind, VERDICT_SNOOZE);
    assert_int_equal(r->delay_ms, 777);
    r = result_of(b, "discard");
    assert_int_equal(r->kind, VERDICT_DISCARD);
    assert_string_equal(r->error, "bad data");
    assert_int_equal(result_of(b, "cancel")->kind, VERDICT_CANCELLED);
    assert_int_equal(result_of(b, "progress")->kind, VERDICT_OK);
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

static void
many_jobs_flow_through_few_workers(void **state)
{
    (void)state;
    struct bench *b = started(3);
    for (int i = 0; i < 2000; i++)
        give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 2000);
    assert_true(b->rooms > 0);
    assert_true(b->rooms < 2000);
    finish(b);
}

static void
big_args_pass_through_a_full_socket(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 100;
    start(b);
    run_until(b, all_ready);
    static char args[300 * 1024];
    memset(args, 'x', sizeof args - 1);
    args[0] = args[sizeof args - 2] = '"';
    for (int i = 0; i < 60; i++)
        give_args(b, "ok", args);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 60);
    finish(b);
}

static void
args_that_fit_into_no_frame_are_refused(void **state)
{
    (void)state;
    struct bench *b = started(1);
    char *args = malloc(((size_t)1 << 20) + 3);
    assert_non_null(args);
    memset(args, 'x', (size_t)1 << 20);
    args[0] = args[(size_t)1 << 20] = '"';
    args[((size_t)1 << 20) + 1] = '\0';
    int64_t id = give_args(b, "ok", args);
    run_until(b, all_returned);
    assert_int_equal(b->records[id].kind, VERDICT_DISCARD);
    assert_string_equal(
        b->records[id].error,
        "args and meta take 1048579 bytes, too many for a message to a worker "
        "(max_frame = 1048576 bytes)");
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    finish(b);
    free(args);
}

static void
kinds_that_the_program_does_not_list_are_unhandled(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, "kinds");
    start(b);
    const struct record *r = result_of(b, "c");
    assert_int_equal(r->kind, VERDICT_UNHANDLED);
    assert_non_null(strstr(r->error, "no handler for kind \"c\""));
    assert_int_equal(result_of(b, "a")->kind, VERDICT_OK);
    finish(b);
}

static void
a_slow_job_does_not_idle_its_neighbours(void **state)
{
    (void)state;
    struct bench *b = started(2);
    for (int i = 0; i < 200; i++) /* the mailbox learns that jobs are short */
        give(b, "ok");
    run_until(b, all_returned);
    int64_t slow = give_args(b, "sleep", "1500");
    while (!someone_is_busy(b))
        uv_run(&b->loop, UV_RUN_ONCE);
    int64_t first = b->given + 1;
    for (int i = 0; i < 20; i++)
        give_args(b, "sleep", "20");
    /* The other worker alone needs 400 ms for all 20, and the slow job takes longer. */
    int64_t waiting = 0;
    while (b->records[slow].times == 0) {
        uv_run(&b->loop, UV_RUN_ONCE);
        waiting = 0;
        for (int64_t id = first; id <= b->given; id++)
            waiting += b->records[id].times == 0;
    }
    assert_true(waiting <= 10);
    run_until(b, all_returned);
    finish(b);
}

static void
jobs_are_spread_over_idle_workers(void **state)
{
    (void)state;
    struct bench *b = started(4);
    for (int i = 0; i < 400; i++)
        give(b, "ok");
    run_until(b, all_returned);
    for (int i = 0; i < 4; i++)
        give_args(b, "sleep", "200");
    while (status_of(b).busy < 4 && !all_returned(b))
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_int_equal(status_of(b).busy, 4);
    run_until(b, all_returned);
    finish(b);
}

static void
a_flood_of_output_is_survived(void **state)
{
    (void)state;
    struct bench *b = started(2);
    int64_t flood = give(b, "flood");
    for (int i = 0; i < 200; i++)
        give(b, "ok");
    while (b->returned < 100)
        uv_run(&b->loop, UV_RUN_ONCE);
    run_until(b, all_returned);
    assert_int_equal(b->records[flood].kind, VERDICT_OK);
    finish(b);
}

static void
the_end_of_the_output_is_kept(void **state)
{
    (void)state;
    struct bench *b = started(1);
    const struct record *r = result_of(b, "long_output");
    size_t len = strlen(r->output);
    assert_true(len > 1900 && len <= 2048);
    assert_string_equal(r->output + len - strlen("line 1999 \xc3\xa5\xc3\xa4\xc3\xb6\n"),
                        "line 1999 \xc3\xa5\xc3\xa4\xc3\xb6\n");
    finish(b);
}

static void
secrets_do_not_reach_a_worker(void **state)
{
    (void)state;
    setenv("PGPASSWORD", "hush", 1);
    setenv("DATABASE_URL", "postgresql://hush@h/d", 1);
    setenv("JOBQ_DATABASE", "postgresql://hush@h/d", 1);
    setenv("NOTIFY_SOCKET", "/run/hush", 1);
    setenv("APP_SETTING", "stays", 1);
    struct bench *b = started(1);
    const struct record *r = result_of(b, "environment");
    assert_int_equal(r->kind, VERDICT_OK);
    assert_null(strstr(r->result, "hush"));
    assert_non_null(strstr(r->result, "\"APP_SETTING=stays\""));
    assert_non_null(strstr(r->result, "\"JOBQ_QUEUE=test\""));
    assert_non_null(strstr(r->result, "\"JOBQ_FD=3\""));
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_answer_becomes_its_verdict),
        cmocka_unit_test(many_jobs_flow_through_few_workers),
        cmocka_unit_test(big_args_pass_through_a_full_socket),
        cmocka_unit_test(args_that_fit_into_no_frame_are_refused),
        cmocka_unit_test(kinds_that_the_program_does_not_list_are_unhandled),
        cmocka_unit_test(a_slow_job_does_not_idle_its_neighbours),
        cmocka_unit_test(jobs_are_spread_over_idle_workers),
        cmocka_unit_test(a_flood_of_output_is_survived),
        cmocka_unit_test(the_end_of_the_output_is_kept),
        cmocka_unit_test(secrets_do_not_reach_a_worker),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
