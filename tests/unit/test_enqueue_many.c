/* test_enqueue_many.c: thousands of jobs, and large ones, are enqueued by one call. */
#include "tests/unit/job_database.h"

static void
thousands_keep_the_order_of_the_array(void **state)
{
    (void)state;
    enum { N = 5000 };
    jobq_error err;
    jobq_job *jobs = calloc(N, sizeof *jobs);
    int64_t *ids = calloc(N, sizeof *ids);
    char(*args)[32] = calloc(N, sizeof *args);
    assert_true(jobs && ids && args);
    for (int i = 0; i < N; i++) {
        snprintf(args[i], sizeof args[i], "{\"n\": %d}", i);
        jobs[i] = job_of("thousands");
        jobs[i].args = args[i];
    }
    succeeds(jobq_enqueue_many(conn, jobs, N, ids, &err));
    for (int i = 1; i < N; i++)
        assert_true(ids[i] > ids[i - 1]);
    for (int i = 0; i < N; i += 499)
        assert_string_equal(
            value("SELECT args ->> 'n' FROM jobq.jobs WHERE id = %" PRId64, ids[i]),
            strtok(args[i] + 6, "}"));
    assert_int_equal(count("SELECT count(*) FROM (SELECT (args -> 'n')::int n, "
                           "row_number() OVER (ORDER BY position) - 1 place "
                           "FROM jobq.jobs WHERE kind = 'thousands') o WHERE n = place"),
                     N);

    /* All or nothing, also over several statements. */
    int64_t before = ids[0];
    for (int i = 0; i < N; i++)
        jobs[i].args = NULL;
    jobs[N - 1].kind = "thousands";
    jobs[N - 1].schema = "other";
    expect_error(jobq_enqueue_many(conn, jobs, N, ids, &err), &err, JOBQ_EINVAL,
                 "jobs[4999].schema must be that of jobs[0], \"jobq\", got \"other\"");
    jobs[N - 1].schema = NULL;
    sql(admin, "ALTER TABLE jobq.jobs ADD CONSTRAINT refused CHECK (key <> 'refused')");
    jobs[N - 1].key = "refused";
    int rc = jobq_enqueue_many(conn, jobs, N, ids, &err);
    sql(admin, "ALTER TABLE jobq.jobs DROP CONSTRAINT refused");
    assert_int_equal(rc, JOBQ_EINVAL);
    assert_string_equal(err.sqlstate, "23514");
    assert_int_equal(ids[0], before);
    assert_int_equal(PQtransactionStatus(conn), PQTRANS_IDLE);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'thousands'"), N);
    free(args);
    free(ids);
    free(jobs);
}

/* 280 MB: more than Postgres takes in one JSON array. */
static void
large_jobs_go_in_several_statements(void **state)
{
    (void)state;
    enum { N = 700, BYTES = 400 * 1024 };
    jobq_error err;
    int64_t ids[N];
    jobq_job jobs[N];
    char *args = malloc(BYTES + 16);
    assert_non_null(args);
    sprintf(args, "{\"x\": \"");
    memset(args + 7, 'x', BYTES);
    strcpy(args + 7 + BYTES, "\"}");
    for (int i = 0; i < N; i++) {
        jobs[i] = job_of("large");
        jobs[i].args = args;
    }
    succeeds(jobq_enqueue_many(conn, jobs, N, ids, &err));
    jobs[0].unique_key = "large";
    succeeds(jobq_enqueue_many(conn, jobs, N, ids, &err));
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'large' AND "
                           "length(args ->> 'x') = 400 * 1024"),
                     2 * N);
    sql(admin, "DELETE FROM jobq.jobs WHERE kind = 'large'");
    free(args);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(thousands_keep_the_order_of_the_array),
        TEST(large_jobs_go_in_several_statements),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
