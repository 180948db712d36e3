/* test_testing_run.c: jobq_testing_run runs one handler here, without a database. */
#include "tests/unit/testing_handlers.h"

#include "tests/unit/calls.h"

static jobq_error err;

static jobq_testing_run_options
run_options(void)
{
    jobq_testing_run_options options = JOBQ_TESTING_RUN_OPTIONS_INIT;
    options.kinds = kinds;
    options.n_kinds = N_KINDS;
    return options;
}

static jobq_testing_outcome *
outcome_of(const char *kind)
{
    jobq_testing_run_options options = run_options();
    jobq_testing_outcome *outcome = NULL;
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = kind;
    succeeds(jobq_testing_run(&options, &job, &outcome, &err));
    return outcome;
}

static void
a_handler_sees_the_job_as_it_was_given(void **state)
{
    (void)state;
    jobq_testing_run_options options = run_options();
    jobq_testing_outcome *outcome = NULL;
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "describe";
    succeeds(jobq_testing_run(&options, &job, &outcome, &err));
    assert_string_equal(outcome->result,
                        "{\"id\":1,\"attempt\":1,\"of\":20,\"queue\":\"default\","
                        "\"kind\":\"describe\",\"args\":{},\"meta\":{},\"timeout\":0}");
    jobq_testing_outcome_free(outcome);

    options.id = INT64_MAX;
    options.attempt = 1000;
    job.args = "{\"big\": 123456789012345678, \"exact\": 1.10}";
    job.meta = "{\"trace\": [1]}";
    job.queue = "mail \xC3\xB6";
    job.max_attempts = 3;
    job.timeout_ms = 2147483647;
    succeeds(jobq_testing_run(&options, &job, &outcome, &err));
    assert_string_equal(
        outcome->result,
        "{\"id\":9223372036854775807,\"attempt\":1000,\"of\":3,\"queue\":\"mail "
        "\xC3\xB6\",\"kind\":\"describe\",\"args\":{\"big\":123456789012345678,\"exact\":"
        "1.10},"
        "\"meta\":{\"trace\":[1]},\"timeout\":2147483647}");
    jobq_testing_outcome_free(outcome);
}

static void
each_answer_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        int answer;
        const char *result, *error, *detail;
        int64_t delay_ms;
    } rows[] = {
        {"ok", JOBQ_TESTING_OK, NULL, NULL, NULL, -1},
        {"progress", JOBQ_TESTING_OK, "[1,2]", NULL, NULL, -1},
        {"seven", JOBQ_TESTING_ERROR, NULL, "the handler returned 7 without an answer",
         NULL, -1},
        {"error", JOBQ_TESTING_ERROR, NULL, "no luck", "line 1\nline 2", -1},
        {"error in a minute", JOBQ_TESTING_ERROR, NULL, "no luck", "line 1\nline 2",
         60000},
        {"bad result", JOBQ_TESTING_OK, NULL,
         "the result was left out: result: expected a member's name in quotes at byte 2, "
         "found '1'",
         NULL, -1},
        {"snooze", JOBQ_TESTING_SNOOZE, NULL, NULL, NULL, 60000},
        {"discard", JOBQ_TESTING_DISCARD, NULL, "no good", NULL, -1},
        {"discard silently", JOBQ_TESTING_DISCARD, NULL, NULL, NULL, -1},
        {"cancel", JOBQ_TESTING_CANCEL, NULL, "not wanted", NULL, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        jobq_testing_outcome *outcome = outcome_of(rows[i].kind);
        if (outcome->answer != rows[i].answer || outcome->delay_ms != rows[i].delay_ms)
            fail_msg("%s: answer %d, delay %lld", rows[i].kind, outcome->answer,
                     (long long)outcome->delay_ms);
        const char *said[] = {outcome->result, outcome->error, outcome->detail};
        const char *wanted[] = {rows[i].result, rows[i].error, rows[i].detail};
        for (int t = 0; t < 3; t++)
            if (wanted[t])
                assert_string_equal(said[t], wanted[t]);
            else
                assert_null(said[t]);
        jobq_testing_outcome_free(outcome);
    }
    jobq_testing_outcome_free(NULL);
}

static void
every_report_of_progress_is_told(void **state)
{
    (void)state;
    jobq_testing_outcome *outcome = outcome_of("progress");
    assert_int_equal(outcome->n_progress, 2);
    assert_true(outcome->progress[0].done == 0.25 && outcome->progress[1].done == 0.5);
    assert_string_equal(outcome->progress[0].note, "a \"quarter\"");
    assert_null(outcome->progress[1].note);
    jobq_testing_outcome_free(outcome);
}

static void
a_handler_is_told_to_stop_as_the_test_says(void **state)
{
    (void)state;
    for (int stop = JOBQ_STOP_NO; stop <= JOBQ_STOP_NOW; stop++) {
        jobq_testing_run_options options = run_options();
        jobq_testing_outcome *outcome = NULL;
        jobq_job job = JOBQ_JOB_INIT;
        job.kind = "should stop";
        options.stop = stop;
        succeeds(jobq_testing_run(&options, &job, &outcome, &err));
        assert_int_equal(outcome->answer, stop ? JOBQ_TESTING_SNOOZE : JOBQ_TESTING_OK);
        if (stop)
            assert_int_equal(outcome->delay_ms, stop);
        jobq_testing_outcome_free(outcome);
    }
}

static void
what_a_run_refuses(void **state)
{
    (void)state;
    jobq_testing_outcome *outcome = NULL;
    jobq_job job = JOBQ_JOB_INIT;
    jobq_testing_run_options options = run_options();
    job.kind = "ok";
    fails(jobq_testing_run(&options, NULL, &outcome, &err), JOBQ_EINVAL,
          "job must not be NULL");
    fails(jobq_testing_run(&options, &job, NULL, &err), JOBQ_EINVAL,
          "out must not be NULL");
    assert_int_equal(jobq_testing_run(NULL, &job, &outcome, NULL), JOBQ_EINVAL);
    options.size = 1;
    assert_int_equal(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL);
    assert_non_null(strstr(err.message, "start from JOBQ_TESTING_RUN_OPTIONS_INIT"));
    options = run_options();
    options.n_kinds = 0;
    fails(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL,
          "worker: kinds must have at least one row");
    options = run_options();
    options.attempt = 1001;
    fails(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL,
          "options.attempt must be 1 to 1000, or 0 for 1, got 1001");
    options = run_options();
    options.id = -1;
    fails(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL,
          "options.id must be 0 or more, got -1");
    options = run_options();
    options.stop = 4;
    fails(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL,
          "options.stop must be one of enum jobq_stop, 0 to 3, got 4");
    options = run_options();
    job.kind = "nobody's";
    fails(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL,
          "kinds has no handler for the kind \"nobody's\"");
    job.priority = 10;
    fails(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL,
          "priority must be 0 to 9, got 10");
    assert_null(outcome);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handler_sees_the_job_as_it_was_given),
        cmocka_unit_test(each_answer_is_told),
        cmocka_unit_test(every_report_of_progress_is_told),
        cmocka_unit_test(a_handler_is_told_to_stop_as_the_test_says),
        cmocka_unit_test(what_a_run_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
