/* jobq/bulk.h: each function reaches its own in the database, and what goes wrong comes
 * back with its code. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>

static PGconn *conn;
static jobq_error err;

static int
open_all(void **state)
{
    if (open_database(state) < 0)
        return -1;
    sql(admin, "DELETE FROM jobq.jobs; DELETE FROM jobq.finished_jobs");
    conn = connect_database();
    return 0;
}

static int
close_all(void **state)
{
    sql(admin, "DELETE FROM jobq.jobs; DELETE FROM jobq.finished_jobs");
    PQfinish(conn);
    return close_database(state);
}

static int64_t
enqueue(const char *kind, const char *args)
{
    jobq_job job = JOBQ_JOB_INIT;
    int64_t id = 0;
    job.kind = kind;
    job.args = args;
    assert_int_equal(jobq_enqueue(conn, &job, &id, &err), 0);
    return id;
}

static void
many_are_cancelled_retried_and_deleted(void **state)
{
    (void)state;
    int64_t n = -1;
    for (int i = 0; i < 3; i++)
        enqueue("bulk", NULL);
    enqueue("other", NULL);
    assert_int_equal(jobq_job_cancel_many(conn, NULL, "{\"kind\": \"bulk\"}", &n, &err),
                     0);
    assert_int_equal(n, 3);
    assert_int_equal(
        jobq_job_retry_many(conn, NULL, "{\"all\": true, \"limit\": 2}", &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs"), 3);
    assert_int_equal(jobq_job_delete_many(conn, NULL, "{\"kind\": \"bulk\"}", NULL, &err),
                     0);
    assert_int_equal(count("SELECT count(*) FROM jobq.all_jobs"), 1);
    assert_int_equal(jobq_job_delete_many(conn, NULL, "{\"all\": true}", &n, &err), 0);
    assert_int_equal(n, 1);
}

static void
one_is_deleted(void **state)
{
    (void)state;
    int done = -1;
    int64_t id = enqueue("bulk", NULL);
    sql(admin, "UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 1");
    assert_int_equal(jobq_job_delete(conn, NULL, id, &done, &err), 0);
    assert_int_equal(done, 0);
    sql(admin, "UPDATE jobq.jobs SET state = 'available'; DELETE FROM jobq._cancels");
    assert_int_equal(jobq_job_delete(conn, NULL, id, &done, &err), 0);
    assert_int_equal(done, 1);
    assert_int_equal(jobq_job_delete(conn, NULL, id, NULL, &err), JOBQ_ENOTFOUND);
}

static void
a_users_data_is_purged(void **state)
{
    (void)state;
    int64_t n = -1;
    enqueue("a", "{\"user\": 7}");
    enqueue("b", "{\"user\": 7}");
    enqueue("a", "{\"user\": 8}");
    assert_int_equal(jobq_job_purge(conn, NULL, "{\"user\": 7}", "a", "mail", &n, &err),
                     0);
    assert_int_equal(n, 0);
    assert_int_equal(jobq_job_purge(conn, NULL, "{\"user\": 7}", "a", NULL, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(jobq_job_purge(conn, NULL, "{\"user\": 7}", NULL, NULL, &n, &err),
                     0);
    assert_int_equal(n, 1);
    sql(admin, "DELETE FROM jobq.jobs");
}

static void
they_are_part_of_the_callers_transaction(void **state)
{
    (void)state;
    int64_t n = 0;
    enqueue("a", NULL);
    sql(conn, "BEGIN");
    assert_int_equal(jobq_job_delete_many(conn, NULL, "{\"all\": true}", &n, &err), 0);
    sql(conn, "ROLLBACK");
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs"), 1);
    sql(admin, "DELETE FROM jobq.jobs");
}

/* What is no JSON that jsonb can hold is refused by the argument's name. */
static void
wrong_json_is_named(void **state)
{
    (void)state;
    enum { DEEP = 200000 };
    char *deep = malloc(DEEP + 1);
    assert_non_null(deep);
    memset(deep, '[', DEEP);
    deep[DEEP] = '\0';
    const struct {
        const char *text;
        const char *rest;
    } rows[] = {
        {"{", ": expected a member's name in quotes at byte 2, found the end"},
        {"nope", ": expected a value at byte 1, found 'n'"},
        {"[1]", " must be a JSON object, got [1]"},
        {"{\"kind\": \"\\u0000\"}",
         ": expected no \\u0000, which jsonb cannot hold, at byte 11, found '\\'"},
        {"{\"kind\": \"\xFF\"}", ": expected UTF-8 at byte 11, found byte 0xFF"},
        {deep, ": expected at most 128 levels of nesting at byte 129, found '['"},
    };
    static int (*const calls[])(PGconn *, const char *, const char *, int64_t *,
                                jobq_error *) = {
        jobq_job_cancel_many, jobq_job_retry_many, jobq_job_delete_many};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char message[200];
        snprintf(message, sizeof message, "filter%s", rows[i].rest);
        for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++) {
            assert_int_equal(calls[c](conn, NULL, rows[i].text, NULL, &err), JOBQ_EINVAL);
            assert_string_equal(err.message, message);
        }
        snprintf(message, sizeof message, "args%s", rows[i].rest);
        assert_int_equal(jobq_job_purge(conn, NULL, rows[i].text, NULL, NULL, NULL, &err),
                         JOBQ_EINVAL);
        assert_string_equal(err.message, message);
    }
    free(deep);
    assert_int_equal(jobq_job_purge(conn, NULL, "{\"a\": 1}", "\xC3(", NULL, NULL, &err),
                     JOBQ_EINVAL);
    assert_string_equal(err.message, "kind must be UTF-8, got byte 0xC3 at byte 1");
    assert_int_equal(jobq_job_purge(conn, NULL, "{\"a\": 1}", NULL, "q\xFF", NULL, &err),
                     JOBQ_EINVAL);
    assert_string_equal(err.message, "queue must be UTF-8, got byte 0xFF at byte 2");
}

static void
wrong_calls_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *filter;
        const char *message;
    } rows[] = {
        {NULL, "filter must be a JSON object, got NULL"},
        {"{}",
         "jobq.cancel_many: filter must have a condition, or \"all\": true for every "
         "job, got {}"},
        {"{\"limit\": -1}",
         "jobq.cancel_many: filter.limit must be 1 to 2147483647, got -1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t n = 5;
        assert_int_equal(jobq_job_cancel_many(conn, NULL, rows[i].filter, &n, &err),
                         JOBQ_EINVAL);
        assert_string_equal(err.message, rows[i].message);
        assert_int_equal(n, 5);
    }
    assert_int_equal(jobq_job_cancel_many(conn, NULL, "no JSON", NULL, &err),
                     JOBQ_EINVAL);
    assert_int_equal(jobq_job_purge(conn, NULL, NULL, NULL, NULL, NULL, &err),
                     JOBQ_EINVAL);
    assert_string_equal(err.message, "args must be a JSON object, got NULL");
    assert_int_equal(jobq_job_purge(conn, NULL, "{}", NULL, NULL, NULL, &err),
                     JOBQ_EINVAL);
    assert_string_equal(
        err.message,
        "jobq.purge: args must be a JSON object with at least one member, got {}");
    assert_int_equal(jobq_job_retry_many(NULL, NULL, "{}", NULL, &err), JOBQ_EINVAL);
    assert_int_equal(jobq_job_delete_many(conn, "nowhere", "{}", NULL, &err),
                     JOBQ_ESCHEMA);
    assert_int_equal(jobq_job_delete(NULL, NULL, 1, NULL, &err), JOBQ_EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_are_cancelled_retried_and_deleted),
        cmocka_unit_test(one_is_deleted),
        cmocka_unit_test(a_users_data_is_purged),
        cmocka_unit_test(they_are_part_of_the_callers_transaction),
        cmocka_unit_test(wrong_json_is_named),
        cmocka_unit_test(wrong_calls_are_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
