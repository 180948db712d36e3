/* test_worker_answers.c: what a worker says: its hello, the answer to each job, progress, and
 * in which order. */
#include "tests/unit/workerpeer.h"

static void
hello_lists_the_kinds(void **state)
{
    (void)state;
    static const jobq_worker_kind two[] = {{"resize", on_ok, &zero},
                                           {"a\"b\xC3\xA5", on_ok, &zero}};
    peer.options.kinds = two;
    peer.options.n_kinds = 2;
    assert_int_equal(pthread_create(&peer.thread, NULL, run, NULL), 0);
    peer.started = true;
    hears("{\"t\":\"hello\",\"protocol\":1,\"kinds\":[\"resize\",\"a\\\"b\xC3\xA5\"]}");
    stop();
}

static void
one_row_takes_every_other_kind(void **state)
{
    (void)state;
    static const jobq_worker_kind rows[] = {{NULL, on_describe, NULL},
                                            {"ok", on_ok, &zero}};
    peer.options.kinds = rows;
    peer.options.n_kinds = 2;
    assert_int_equal(pthread_create(&peer.thread, NULL, run, NULL), 0);
    peer.started = true;
    hears("{\"t\":\"hello\",\"protocol\":1}");
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    say(job(2, "else", "{}"));
    hears("{\"t\":\"ok\",\"id\":2,\"result\":[2,2,20,\"default\",\"else\",{},{},0]}");
    stop();
}

static void
a_handler_sees_the_job(void **state)
{
    (void)state;
    start();
    say("{\"t\":\"job\",\"id\":9007199254740993,\"attempt\":3,\"max_attempts\":4,"
        "\"queue\":\"m\xC3\xA5il\",\"kind\":\"describe\",\"args\":{\"n\": "
        "123456789012345678, "
        "\"x\":1.10},\"meta\":{\"a\":[]},\"timeout_ms\":1800000}\n");
    hears("{\"t\":\"ok\",\"id\":9007199254740993,\"result\":[9007199254740993,3,4,"
          "\"m\xC3\xA5il\",\"describe\",{\"n\":123456789012345678,\"x\":1.10},{\"a\":[]},"
          "1800000]}");
    stop();
}

static void
each_answer_is_sent(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        const char *args;
        const char *answer;
    } rows[] = {
        {"ok", "{}", "{\"t\":\"ok\",\"id\":7}"},
        {"fails", "{}",
         "{\"t\":\"error\",\"id\":7,\"error\":\"the handler returned 7 without an "
         "answer\"}"},
        {"result", "{\"n\": 123456789012345678, \"x\": [0.1, 1.10]}",
         "{\"t\":\"ok\",\"id\":7,\"result\":{\"n\":123456789012345678,\"x\":[0.1,1.10]}"
         "}"},
        {"error", "{}",
         "{\"t\":\"error\",\"id\":7,\"error\":\"two lines\",\"detail\":\"a\\ntrace\","
         "\"retry_in_ms\":5000}"},
        {"bare_error", "{}", "{\"t\":\"error\",\"id\":7,\"error\":\"no reason given\"}"},
        {"snooze", "{}", "{\"t\":\"snooze\",\"id\":7,\"in_ms\":60000}"},
        {"discard", "{}", "{\"t\":\"discard\",\"id\":7,\"reason\":\"bad \\\"data\\\"\"}"},
        {"cancel", "{}", "{\"t\":\"cancel\",\"id\":7}"},
        {"twice", "{}", "{\"t\":\"ok\",\"id\":7}"},
        {"no_json", "{}",
         "{\"t\":\"ok\",\"id\":7,\"error\":\"the result was left out: result: expected a "
         "value at byte 7, "
         "found 'n'\"}"},
        {"no_jsonb", "{}",
         "{\"t\":\"ok\",\"id\":7,\"error\":\"the result was left out: result: expected "
         "no \\\\u0000, which "
         "jsonb cannot hold, at byte 2, found '\\\\'\"}"},
        {"too_large", "{}",
         "{\"t\":\"ok\",\"id\":7,\"error\":\"the result was left out: jobq_work_ok: the "
         "answer takes 5026 "
         "bytes, at most 4096 are allowed\"}"},
        {"no_result", "{}", "{\"t\":\"ok\",\"id\":7,\"error\":\"two lines\"}"},
        {"wrong_then_right", "{}", "{\"t\":\"ok\",\"id\":7,\"result\":[1.10,\"a b\"]}"},
        {"run_again", "{}",
         "{\"t\":\"error\",\"id\":7,\"error\":\"worker: another worker is already "
         "running in this process\"}"},
    };
    start();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        say(job(7, rows[i].kind, rows[i].args));
        hears(rows[i].answer);
    }
    stop();
}

static void
an_unknown_kind_is_an_error_that_names_the_known(void **state)
{
    (void)state;
    peer.options.n_kinds = 2;
    start();
    say(job(8, "mai\\u006c", "{}"));
    hears("{\"t\":\"error\",\"id\":8,\"error\":\"no handler for kind \\\"mail\\\"; this "
          "worker handles ok, fails\"}");
    say(job(9, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":9}");
    stop();
}

static void
args_that_nest_too_deep_are_discarded(void **state)
{
    (void)state;
    char args[400], line[600];
    size_t depth = 150;
    memset(args, '[', depth);
    memset(args + depth, ']', depth);
    args[2 * depth] = '\0';
    start();
    const char *deep = job(8, "ok", args);
    say(deep);
    size_t byte = (size_t)(strchr(deep, '[') - deep) + 128 + 1;
    snprintf(
        line, sizeof line,
        "{\"t\":\"discard\",\"id\":8,\"reason\":\"frame: expected at most 128 levels "
        "of nesting at byte %zu, found '['\"}",
        byte);
    hears(line);
    say(job(9, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":9}");
    stop();
}

static void
progress_is_thinned_out(void **state)
{
    (void)state;
    start();
    say(job(7, "progress", "{}"));
    int lines = 0;
    const char *line;
    while ((line = hear()) && strncmp(line, "{\"t\":\"progress\"", 15) == 0) {
        assert_string_equal(
            line, "{\"t\":\"progress\",\"id\":7,\"done\":0.25,\"note\":\"a note\"}");
        lines++;
    }
    assert_in_range(lines, 1, 500);
    assert_string_equal(line, "{\"t\":\"ok\",\"id\":7}");
    stop();
}

static void
an_answer_is_out_before_the_next_handler_begins(void **state)
{
    (void)state;
    char lines[4096];
    start();
    snprintf(lines, sizeof lines, "%s%s%s%s", job(1, "ok", "{}"), job(2, "gate", "{}"),
             job(3, "nobody's", "{}"), job(4, "gate", "{}"));
    say(lines);
    hears("{\"t\":\"ok\",\"id\":1}");
    hears("{\"t\":\"progress\",\"id\":2,\"done\":0}");
    assert_int_equal(peer.inbox_len, 0);
    assert_int_equal(write(peer.gate[1], "", 1), 1);
    hears("{\"t\":\"ok\",\"id\":2}");
    assert_non_null(strstr(hear(), "no handler for kind"));
    hears("{\"t\":\"progress\",\"id\":4,\"done\":0}");
    assert_int_equal(write(peer.gate[1], "", 1), 1);
    hears("{\"t\":\"ok\",\"id\":4}");
    stop();
}

static void
lines_may_come_in_any_pieces(void **state)
{
    (void)state;
    start();
    const char *line = job(1, "result", "{\"a\": \"b\"}");
    for (const char *at = line; *at; at++)
        say((char[]){*at, '\0'});
    hears("{\"t\":\"ok\",\"id\":1,\"result\":{\"a\":\"b\"}}");
    char *many = malloc(400 * 300);
    assert_non_null(many);
    size_t len = 0;
    for (int i = 1; i <= 400; i++)
        len += (size_t)sprintf(many + len, "%s", job(i, "result", "{}"));
    say(many);
    free(many);
    for (int i = 1; i <= 400; i++) {
        char answer[64];
        snprintf(answer, sizeof answer, "{\"t\":\"ok\",\"id\":%d,\"result\":{}}", i);
        hears(answer);
    }
    stop();
}

static void
a_running_job_sees_that_it_is_cancelled(void **state)
{
    (void)state;
    char lines[2048];
    start();
    snprintf(lines, sizeof lines, "%s%s%s", job(1, "until_stop", "{}"),
             job(2, "ok", "{}"), job(3, "ok", "{}"));
    say(lines);
    hears("{\"t\":\"progress\",\"id\":1,\"done\":0}");
    say("{\"t\":\"cancel\",\"id\":2}\n{\"t\":\"cancel\",\"id\":1}\n");
    hears("{\"t\":\"cancel\",\"id\":1,\"reason\":\"as asked\"}");
    hears("{\"t\":\"cancel\",\"id\":2,\"reason\":\"cancelled before it began\"}");
    hears("{\"t\":\"ok\",\"id\":3}");
    /* The next attempt of the same job is another matter. */
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    stop();
}

static void
cancelling_what_has_ended_is_harmless(void **state)
{
    (void)state;
    start();
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    say("{\"t\":\"cancel\",\"id\":1}\n");
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    for (int i = 0; i < 10000; i++)
        say("{\"t\":\"cancel\",\"id\":77}\n{\"t\":\"cancel\",\"id\":78}\n");
    say(job(79, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":79}");
    stop();
}

static void
a_long_trace_keeps_both_ends(void **state)
{
    (void)state;
    peer.options.max_frame = 1 << 20;
    start();
    say(job(7, "long_trace", "{}"));
    const char *line = hear();
    assert_non_null(line);
    assert_in_range(strlen(line), 65000, 65536 + 100);
    assert_non_null(strstr(line, "\"detail\":\"begin:\xC3\xA5"));
    assert_non_null(
        strstr(line, "\xC3\xA5\\n[... 131136 bytes are left out ...]\\n\xC3\xA5"));
    assert_non_null(strstr(line, "\xC3\xA5:ended\"}"));
    stop();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hello_lists_the_kinds),
        TEST(one_row_takes_every_other_kind),
        TEST(a_handler_sees_the_job),
        TEST(each_answer_is_sent),
        TEST(an_unknown_kind_is_an_error_that_names_the_known),
        TEST(args_that_nest_too_deep_are_discarded),
        TEST(progress_is_thinned_out),
        TEST(an_answer_is_out_before_the_next_handler_begins),
        TEST(lines_may_come_in_any_pieces),
        TEST(a_running_job_sees_that_it_is_cancelled),
        TEST(cancelling_what_has_ended_is_harmless),
        TEST(a_long_trace_keeps_both_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
