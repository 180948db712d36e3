/* test_testing_match.c: what was enqueued: jobq_testing_count, jobq_testing_assert_enqueued
 * and jobq_testing_refute_enqueued. */
#include "tests/unit/testing_database.h"

static void
enqueue_three(void)
{
    static const char *const tags[] = {"red", "blue"};
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "mail";
    job.args = "{\"to\": \"ada\", \"n\": [1, 2]}";
    succeeds(jobq_enqueue(conn, &job, NULL, &err));
    job.args = "{\"to\": \"bob\"}";
    job.queue = "slow";
    job.tags = tags;
    job.n_tags = 2;
    job.priority = 3;
    succeeds(jobq_enqueue(conn, &job, NULL, &err));
    job = (jobq_job)JOBQ_JOB_INIT;
    job.kind = "report";
    job.meta = "{\"trace\": {\"id\": 7}}";
    job.scheduled_at_us = INT64_C(4102444800000000); /* 2100 */
    succeeds(jobq_enqueue(conn, &job, NULL, &err));
    sql(admin,
        "INSERT INTO jobq.finished_jobs SELECT (jsonb_populate_record("
        "NULL::jobq.finished_jobs, to_jsonb(j) || jsonb_build_object('state', "
        "'completed', 'finished_at', now()))).* FROM jobq.jobs j WHERE priority = 3");
}

static void
jobs_are_counted_by_what_they_are(void **state)
{
    (void)state;
    static const char *const red[] = {"red"}, *const both[] = {"blue", "red"},
                             *const green[] = {"red", "green"};
    static const struct {
        jobq_testing_match match;
        int n;
    } rows[] = {
        {{.priority = -1}, 3},
        {{.priority = -1, .kind = "mail"}, 2},
        {{.priority = -1, .kind = "nobody's"}, 0},
        {{.priority = -1, .queue = "slow"}, 1},
        {{.priority = -1, .args = "{}"}, 3},
        {{.priority = -1, .args = "{\"to\": \"ada\"}"}, 1},
        {{.priority = -1, .args = "{\"n\": [2]}"}, 1},
        {{.priority = -1, .args = "{\"to\": null}"}, 0},
        {{.priority = -1, .meta = "{\"trace\": {\"id\": 7}}"}, 1},
        {{.priority = -1, .tags = red, .n_tags = 1}, 1},
        {{.priority = -1, .tags = both, .n_tags = 2}, 1},
        {{.priority = -1, .tags = green, .n_tags = 2}, 0},
        {{.priority = 3}, 1},
        {{.priority = 0}, 2},
        {{.priority = -1, .state = "scheduled"}, 1},
        {{.priority = -1, .state = "available", .kind = "mail"}, 2},
        {{.priority = -1, .state = "completed"}, 1},
        {{.priority = -1, .state = "executing"}, 0},
        {{.priority = -1, .scheduled_after_us = INT64_C(4102444800000000)}, 1},
        {{.priority = -1, .scheduled_after_us = INT64_C(4102444800000001)}, 0},
        {{.priority = -1, .scheduled_before_us = INT64_C(4102444800000000)}, 2},
        {{.priority = 3,
          .kind = "mail",
          .queue = "slow",
          .args = "{\"to\": \"bob\"}",
          .tags = red,
          .n_tags = 1,
          .state = "available"},
         1},
    };
    enqueue_three();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        jobq_testing_match match = rows[i].match;
        int64_t n = -1;
        match.size = sizeof match;
        succeeds(jobq_testing_count(conn, &match, &n, &err));
        if (n != rows[i].n)
            fail_msg("row %zu: %lld jobs, expected %d", i, (long long)n, rows[i].n);
        assert_int_equal(jobq_testing_assert_enqueued(conn, &match, NULL),
                         n > 0 ? 0 : JOBQ_ENOTFOUND);
        assert_int_equal(jobq_testing_refute_enqueued(conn, &match, NULL),
                         n > 0 ? JOBQ_ESTATE : 0);
    }
}

static void
an_assertion_that_fails_shows_what_comes_near(void **state)
{
    (void)state;
    jobq_testing_match match = JOBQ_TESTING_MATCH_INIT;
    char message[512];
    match.kind = "mail";
    match.args = "{\"to\": \"eve\"}";
    fails(jobq_testing_assert_enqueued(conn, &match, &err), JOBQ_ENOTFOUND,
          "no enqueued job matches: kind \"mail\", args {\"to\": \"eve\"}; no job is "
          "enqueued");
    enqueue_three();
    int64_t last = count("SELECT max(id) FROM jobq.jobs");
    snprintf(message, sizeof message,
             "no enqueued job matches: kind \"mail\", args {\"to\": \"eve\"}; nearest: "
             "job %lld kind \"mail\" queue \"slow\" priority 3 available args {\"to\": "
             "\"bob\"} tags [\"red\",\"blue\"]; job %lld kind \"mail\" queue \"default\" "
             "priority 0 available args {\"n\": [1, 2], \"to\": \"ada\"}; job %lld kind "
             "\"report\" queue \"default\" priority 0 scheduled args {}",
             (long long)last - 1, (long long)last - 2, (long long)last);
    fails(jobq_testing_assert_enqueued(conn, &match, &err), JOBQ_ENOTFOUND, message);
    match.args = NULL;
    succeeds(jobq_testing_assert_enqueued(conn, &match, &err));
    match.queue = "slow";
    assert_int_equal(jobq_testing_refute_enqueued(conn, &match, &err), JOBQ_ESTATE);
    snprintf(message, sizeof message,
             "1 enqueued job matches what none should match: kind \"mail\", queue "
             "\"slow\"; job "
             "%lld kind \"mail\" queue \"slow\"",
             (long long)last - 1);
    assert_memory_equal(err.message, message, strlen(message));
    match = (jobq_testing_match)JOBQ_TESTING_MATCH_INIT;
    assert_int_equal(jobq_testing_refute_enqueued(conn, &match, &err), JOBQ_ESTATE);
    assert_memory_equal(
        err.message, "3 enqueued jobs match what none should match: any job; ",
        strlen("3 enqueued jobs match what none should match: any job; "));
}

static void
an_assertion_sees_the_callers_transaction(void **state)
{
    (void)state;
    jobq_testing_match match = JOBQ_TESTING_MATCH_INIT;
    match.kind = "mine";
    sql(conn, "BEGIN");
    enqueue("mine");
    succeeds(jobq_testing_assert_enqueued(conn, &match, &err));
    succeeds(jobq_testing_refute_enqueued(admin, &match, &err));
    sql(conn, "ROLLBACK");
    succeeds(jobq_testing_refute_enqueued(conn, &match, &err));
}

static void
what_a_match_refuses(void **state)
{
    (void)state;
    jobq_testing_match match = JOBQ_TESTING_MATCH_INIT;
    int64_t n = 7;
    assert_int_equal(jobq_testing_count(conn, NULL, &n, NULL), JOBQ_EINVAL);
    match.size = 0;
    assert_int_equal(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL);
    assert_non_null(strstr(err.message, "start from JOBQ_TESTING_MATCH_INIT"));
    match = (jobq_testing_match)JOBQ_TESTING_MATCH_INIT;
    match.priority = 10;
    fails(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL,
          "match.priority must be 0 to 9, or -1 for any, got 10");
    match.priority = -1;
    match.state = "done";
    fails(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL,
          "match.state must be one of scheduled, available, executing, retryable, "
          "suspended, completed, cancelled and discarded, got \"done\"");
    match.state = NULL;
    match.args = "[1]";
    fails(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL,
          "match.args must be a JSON object, got [1]");
    match.args = NULL;
    match.meta = "{";
    assert_int_equal(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL);
    match.meta = NULL;
    match.n_tags = 1;
    fails(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL,
          "match.tags must be an array of n_tags strings, got NULL");
    match.tags = (const char *const[]){"a", NULL, "b\xFF"};
    match.n_tags = 3;
    fails(jobq_testing_assert_enqueued(conn, &match, &err), JOBQ_EINVAL,
          "match.tags[1] must be a string, got NULL");
    match.tags += 2;
    match.n_tags = 1;
    fails(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL,
          "match.tags[0] must be UTF-8, got byte 0xFF at byte 2");
    match.n_tags = 0;
    match.queue = "\xC3(";
    fails(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL,
          "match.queue must be UTF-8, got byte 0xC3 at byte 1");
    match.kind = "a\x80";
    fails(jobq_testing_count(conn, &match, &n, &err), JOBQ_EINVAL,
          "match.kind must be UTF-8, got byte 0x80 at byte 2");
    match.kind = match.queue = NULL;
    fails(jobq_testing_count(NULL, &match, &n, &err), JOBQ_EINVAL,
          "conn must be an open connection, got NULL");
    assert_int_equal(n, 7);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(jobs_are_counted_by_what_they_are),
        TEST(an_assertion_that_fails_shows_what_comes_near),
        TEST(an_assertion_sees_the_callers_transaction),
        TEST(what_a_match_refuses),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
