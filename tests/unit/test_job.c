/* test_job.c: a job is looked up, cancelled, retried and completed; in another schema, too.
 */
#include "tests/unit/job_database.h"

#include "jobqd/db/migrate.h"
#include "libjobq/state.h"

static void
an_unknown_id_is_told(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job_info *info = NULL;
    int done = 7;
    expect_error(jobq_job_get(conn, NULL, 987654321, &info, &err), &err, JOBQ_ENOTFOUND,
                 "no job has the id 987654321");
    expect_error(jobq_job_cancel(conn, NULL, 987654321, &done, &err), &err,
                 JOBQ_ENOTFOUND, "jobq.cancel: no job has the id 987654321");
    assert_string_equal(err.sqlstate, "P0002");
    expect_error(jobq_job_retry(conn, NULL, -1, &done, &err), &err, JOBQ_ENOTFOUND,
                 "jobq.retry: no job has the id -1");
    assert_null(info);
    assert_int_equal(done, 7);
}

static void
expect_looked_up(int64_t id, const jobq_job *job)
{
    jobq_error err;
    jobq_job_info *info = NULL;
    succeeds(jobq_job_get(conn, NULL, id, &info, &err));
    assert_int_equal(info->id, id);
    assert_string_equal(info->state, "available");
    assert_string_equal(info->queue, job->queue);
    assert_string_equal(info->kind, job->kind);
    assert_non_null(strstr(info->args, "\"big\": 123456789012345678"));
    assert_non_null(strstr(info->args, "\"exact\": 1.10, \"small\": 0.1}"));
    assert_string_equal(info->meta, "{\"trace\": [1, 2]}");
    assert_string_equal(info->errors, "[]");
    assert_null(info->result);
    assert_string_equal(info->key, job->key);
    assert_string_equal(info->unique_key, job->unique_key);
    assert_int_equal(info->priority, job->priority);
    assert_int_equal(info->attempt, 0);
    assert_int_equal(info->max_attempts, job->max_attempts);
    assert_int_equal(info->timeout_ms, job->timeout_ms);
    assert_true(info->inserted_at_us > INT64_C(1600000000000000));
    assert_int_equal(info->scheduled_at_us, info->inserted_at_us);
    assert_int_equal(info->attempted_at_us, 0);
    assert_int_equal(info->finished_at_us, 0);
    jobq_job_info_free(info);
}

static void
a_job_is_looked_up_cancelled_and_retried(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job_info *info = NULL;
    int64_t id = 0;
    int done = 7;
    jobq_job job = full_job();
    job.unique_key = "looked up";
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    expect_looked_up(id, &job);

    succeeds(jobq_job_cancel(conn, NULL, id, &done, &err));
    assert_int_equal(done, 1);
    succeeds(jobq_job_cancel(conn, NULL, id, &done, &err));
    assert_int_equal(done, 0);
    succeeds(jobq_job_get(conn, NULL, id, &info, &err));
    assert_string_equal(info->state, "cancelled");
    assert_true(info->finished_at_us >= info->inserted_at_us);
    jobq_job_info_free(info);

    succeeds(jobq_job_retry(conn, NULL, id, &done, &err));
    assert_int_equal(done, 1);
    succeeds(jobq_job_retry(conn, NULL, id, &done, &err));
    assert_int_equal(done, 0);
    succeeds(jobq_job_cancel(conn, NULL, id, NULL, NULL));
    jobq_job_info_free(NULL);
}

/* complete refuses with that, after "jobq.complete: job ID is not executing attempt ". */
static void
expect_not_executing(int64_t id, int attempt, const char *rest)
{
    jobq_error err;
    char message[200];
    snprintf(message, sizeof message,
             "jobq.complete: job %" PRId64 " is not executing attempt %d: it is %s", id,
             attempt, rest);
    expect_error(jobq_job_complete(conn, NULL, id, attempt, "{}", &err), &err,
                 JOBQ_ESTATE, message);
}

static void
a_handler_completes_its_job(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job_info *info = NULL;
    int64_t id = 0;
    jobq_job job = job_of("completed");
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    expect_not_executing(id, 1, "available");
    sql(admin, "UPDATE jobq.jobs SET state = 'executing', attempt = 2,"
               " attempted_at = now(), attempted_by = 1 WHERE kind = 'completed'");
    expect_not_executing(id, 1, "executing attempt 2");
    expect_error(jobq_job_complete(conn, NULL, id, 2, "{", &err), &err, JOBQ_EINVAL,
                 "result: expected a member's name in quotes at byte 2, found the end");
    expect_error(jobq_job_complete(conn, NULL, id, 0, NULL, &err), &err, JOBQ_EINVAL,
                 "jobq.complete: attempt must be 1 or more, got 0");
    expect_error(jobq_job_complete(conn, NULL, 987654321, 1, NULL, &err), &err,
                 JOBQ_ENOTFOUND, "jobq.complete: no job has the id 987654321");
    sql(conn, "BEGIN");
    succeeds(jobq_job_complete(conn, NULL, id, 2, "{\"charged\": true}", &err));
    sql(conn, "ROLLBACK");
    succeeds(jobq_job_get(conn, NULL, id, &info, &err));
    assert_string_equal(info->state, "executing");
    jobq_job_info_free(info);
    succeeds(jobq_job_complete(conn, NULL, id, 2, "{\"charged\": true}", &err));
    succeeds(jobq_job_get(conn, NULL, id, &info, &err));
    assert_string_equal(info->state, "completed");
    assert_string_equal(info->result, "{\"charged\": true}");
    jobq_job_info_free(info);
    expect_not_executing(id, 2, "completed");
}

static void
another_schema_is_used_throughout(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job_info *info = NULL;
    int64_t id = 0, ids[2] = {0};
    int done = 0;
    int64_t before = count("SELECT count(*) FROM jobq.all_jobs");
    sql(admin, "DROP SCHEMA IF EXISTS other_jobs CASCADE");
    succeeds(
        migrate_apply(admin, "other_jobs", 0, MIGRATE_LOCK_WAIT_MS, NULL, NULL, &err));
    jobq_job jobs[] = {job_of("elsewhere"), job_of("elsewhere")};
    jobs[0].schema = jobs[1].schema = "other_jobs";
    succeeds(jobq_enqueue(conn, &jobs[0], &id, &err));
    succeeds(jobq_enqueue_many(conn, jobs, 2, ids, &err));
    jobs[1].unique_key = "elsewhere";
    succeeds(jobq_enqueue_many(conn, jobs, 2, ids, &err));
    succeeds(jobq_job_get(conn, "other_jobs", ids[1], &info, &err));
    assert_string_equal(info->unique_key, "elsewhere");
    jobq_job_info_free(info);
    succeeds(jobq_job_cancel(conn, "other_jobs", id, &done, &err));
    assert_int_equal(done, 1);
    succeeds(jobq_job_retry(conn, "other_jobs", id, &done, &err));
    assert_int_equal(done, 1);
    assert_int_equal(count("SELECT count(*) FROM other_jobs.jobs"), 5);
    assert_int_equal(count("SELECT count(*) FROM jobq.all_jobs"), before);
    succeeds(migrate_revert(admin, "other_jobs", 0, true, MIGRATE_LOCK_WAIT_MS, NULL,
                            NULL, &err));
}

static void
the_states_are_the_databases(void **state)
{
    (void)state;
#define X(name, label, meaning, live) label " " #live ","
    static const char ours[] = JOBQ__STATES(X);
#undef X
    assert_string_equal(
        value("SELECT string_agg(enumlabel || CASE WHEN enumlabel::jobq.job_state < "
              "'completed' THEN ' true,' ELSE ' false,' END, '' ORDER BY enumsortorder) "
              "FROM pg_enum WHERE enumtypid = 'jobq.job_state'::regtype"),
        ours);
    for (int s = 0; s < JOBQ__STATE_COUNT; s++) {
        const char *label = jobq__state_label((enum jobq__state)s);
        assert_ptr_equal(jobq__state_find(label, strlen(label)), label);
        assert_null(jobq__state_find(label, strlen(label) - 1));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_unknown_id_is_told),
        TEST(a_job_is_looked_up_cancelled_and_retried),
        TEST(a_handler_completes_its_job),
        TEST(another_schema_is_used_throughout),
        TEST(the_states_are_the_databases),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
