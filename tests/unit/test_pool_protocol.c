/* test_pool_protocol.c: workers break the protocol. The verdict names the breach, and
 * the pool replaces the worker. */
#include "tests/unit/poolbench.h"

static void
each_breach_of_the_protocol_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        const char *error; /* a part of it */
    } breaches[] = {
        {"garbage", ""},
        {"binary", ""},
        {"empty_line", ""},
        {"array", ""},
        {"unknown_type", "done"},
        {"no_id", "id"},
        {"two_objects", ""},
        {"wrong_id", "which it does not hold"},
        {"job_back", "sent a \"job\" message, which only jobqd sends"},
        {"stop_back", "sent a \"stop\" message, which only jobqd sends"},
        {"hello_again", "said hello twice"},
        {"long_line", "sent a line longer than 1048576 bytes (max_frame)"},
        {"half_line", "closed the connection in the middle of a line"},
    };
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 8;
    start(b);
    run_until(b, all_ready);
    for (size_t i = 0; i < sizeof breaches / sizeof breaches[0]; i++) {
        int64_t id = give(b, breaches[i].kind);
        int64_t behind = give(b, "ok");
        run_until(b, all_returned);
        const struct record *r = &b->records[id];
        print_message("%s: %s\n", breaches[i].kind, r->error);
        assert_int_equal(r->kind, VERDICT_PROTOCOL);
        assert_true(strlen(r->error) > 0);
        assert_non_null(strstr(r->error, breaches[i].error));
        assert_int_equal(b->records[behind].kind, VERDICT_OK);
        assert_int_equal(status_of(b).crashes, i + 1);
    }
    finish(b);
}

static bool
one_has_crashed(const struct bench *b)
{
    return status_of(b).crashes == 1;
}

static bool
two_have_crashed(const struct bench *b)
{
    return status_of(b).crashes == 2;
}

static void
a_breach_without_a_job_charges_none(void **state)
{
    (void)state;
    struct bench *b = started(1);
    assert_int_equal(result_of(b, "answer_twice")->kind, VERDICT_OK);
    run_until(b, one_has_crashed);
    assert_int_equal(result_of(b, "progress_of_nothing")->kind, VERDICT_OK);
    run_until(b, two_have_crashed);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    finish(b);
}

static void
killed_within_a_line_is_a_crash(void **state)
{
    (void)state;
    struct bench *b = started(1);
    assert_int_equal(result_of(b, "half_line_and_kill")->kind, VERDICT_CRASH);
    finish(b);
}

static void
a_closed_socket_is_not_waited_for_for_ever(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.stop_grace_ms = 50;
    start(b);
    const struct record *r = result_of(b, "close");
    assert_int_equal(r->kind, VERDICT_PROTOCOL);
    assert_string_equal(r->error, "closed its socket but did not exit");
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_breach_of_the_protocol_is_named),
        cmocka_unit_test(a_breach_without_a_job_charges_none),
        cmocka_unit_test(killed_within_a_line_is_a_crash),
        cmocka_unit_test(a_closed_socket_is_not_waited_for_for_ever),
    };
    bench_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
