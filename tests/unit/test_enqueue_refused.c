/* test_enqueue_refused.c: wrong jobs, schemas and connections are refused, and the words
 * say what is wrong. */
#include "tests/unit/job_database.h"

#include <stdbool.h>

#define A128 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" A64
#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A512 A128 A128 A128 A128

/* ---- wrong jobs ---- */

static const char *const null_tag[] = {"a", NULL};
static const char *const odd_tag[] = {"a", "b\xFF"};

#define W(...)                                                                           \
    {                                                                                    \
        .size = sizeof(jobq_job), __VA_ARGS__                                            \
    }
#define U(...)                                                                           \
    {                                                                                    \
        .size = sizeof(jobq_unique), __VA_ARGS__                                         \
    }
static const jobq_unique plain_unique = JOBQ_UNIQUE_INIT;
#define TEXT128 "must be text of 1 to 128 bytes, got "
#define TEXT512 "must be text of 1 to 512 bytes, got "

static const struct {
    jobq_job job;
    const char *message;
} wrong_jobs[] = {
    {{.size = 8, .kind = "k"},
     "size must be sizeof(jobq_job), 152, got 8: start from JOBQ_JOB_INIT"},
    {W(.kind = NULL), "kind " TEXT128 "NULL"},
    {W(.kind = ""), "kind " TEXT128 "0 bytes"},
    {W(.kind = A128 "a"), "kind " TEXT128 "129 bytes"},
    {W(.kind = "a\xC3("), "kind must be UTF-8, got byte 0xC3 at byte 2"},
    {W(.kind = "k", .queue = ""), "queue " TEXT128 "0 bytes"},
    {W(.kind = "k", .queue = A128 "a"), "queue " TEXT128 "129 bytes"},
    {W(.kind = "k", .queue = "\x80"), "queue must be UTF-8, got byte 0x80 at byte 1"},
    {W(.kind = "k", .key = ""), "key " TEXT512 "0 bytes"},
    {W(.kind = "k", .key = A512 "a"), "key " TEXT512 "513 bytes"},
    {W(.kind = "k", .unique_key = ""), "unique_key " TEXT512 "0 bytes"},
    {W(.kind = "k", .unique_key = A512 "a"), "unique_key " TEXT512 "513 bytes"},
    {W(.kind = "k", .args = ""), "args: expected a value at byte 1, found the end"},
    {W(.kind = "k", .args = "{'a': 1}"),
     "args: expected a member's name in quotes at byte 2, found '''"},
    {W(.kind = "k", .args = "{\"a\": 1,}"),
     "args: expected a member's name in quotes at byte 9, found '}'"},
    {W(.kind = "k", .args = "{} {}"), "args: expected the end at byte 4, found '{'"},
    {W(.kind = "k", .args = "{\"a\": \"\\u0000\"}"),
     "args: expected no \\u0000, which jsonb cannot hold, at byte 8, found '\\'"},
    {W(.kind = "k", .args = "{\"a\": \"\xFF\"}"),
     "args: expected UTF-8 at byte 8, found byte 0xFF"},
    {W(.kind = "k", .args = "{\"a\": 1e200000}"),
     "args: expected a number that numeric can hold at byte 7, found '1'"},
    {W(.kind = "k", .args = "[1, 2]"), "args must be a JSON object, got [1, 2]"},
    {W(.kind = "k", .args = " null"), "args must be a JSON object, got null"},
    {W(.kind = "k", .meta = "7"), "meta must be a JSON object, got 7"},
    {W(.kind = "k", .meta = "{"),
     "meta: expected a member's name in quotes at byte 2, found the end"},
    {W(.kind = "k", .priority = -1), "priority must be 0 to 9, got -1"},
    {W(.kind = "k", .priority = 10), "priority must be 0 to 9, got 10"},
    {W(.kind = "k", .max_attempts = -1),
     "max_attempts must be 1 to 1000, or 0 for the queue's, got -1"},
    {W(.kind = "k", .max_attempts = 1001),
     "max_attempts must be 1 to 1000, or 0 for the queue's, got 1001"},
    {W(.kind = "k", .timeout_ms = -1),
     "timeout_ms must be 1 to 2147483647, or 0 for its queue's, got -1"},
    {W(.kind = "k", .delay_ms = -1), "delay_ms must be 0 to 31622400000000, got -1"},
    {W(.kind = "k", .delay_ms = INT64_MAX),
     "delay_ms must be 0 to 31622400000000, got 9223372036854775807"},
    {W(.kind = "k", .scheduled_at_us = -1),
     "scheduled_at_us must be 0 to 253402300799000000, got -1"},
    {W(.kind = "k", .scheduled_at_us = INT64_MAX),
     "scheduled_at_us must be 0 to 253402300799000000, got 9223372036854775807"},
    {W(.kind = "k", .delay_ms = 1, .scheduled_at_us = 1),
     "delay_ms and scheduled_at_us cannot both be set"},
    {W(.kind = "k", .n_tags = 1), "tags must be an array of n_tags strings, got NULL"},
    {W(.kind = "k", .tags = null_tag, .n_tags = 2), "tags[1] must be a string, got NULL"},
    {W(.kind = "k", .tags = odd_tag, .n_tags = 2),
     "tags[1] must be UTF-8, got byte 0xFF at byte 2"},
    {W(.kind = "k", .expires_at_us = -1),
     "expires_at_us must be 0 to 253402300799000000, got -1"},
    {W(.kind = "k", .expires_in_ms = -1),
     "expires_in_ms must be 0 to 31622400000000, got -1"},
    {W(.kind = "k", .expires_in_ms = 1, .expires_at_us = 1),
     "expires_in_ms and expires_at_us cannot both be set"},
    {W(.kind = "k", .delay_ms = 1000, .expires_in_ms = 1000),
     "expires_in_ms must be more than delay_ms, 1000, or 0, got 1000"},
    {W(.kind = "k", .scheduled_at_us = 7, .expires_at_us = 7),
     "expires_at_us must be after scheduled_at_us, 7, or 0, got 7"},
    {W(.kind = "k", .unique_key = "u", .unique_by = &plain_unique),
     "unique_by and unique_key cannot both be set"},
    {W(.kind = "k", .unique_by = &(jobq_unique){.size = 4}),
     "unique_by.size must be sizeof(jobq_unique), 40, got 4: start from "
     "JOBQ_UNIQUE_INIT"},
    {W(.kind = "k", .unique_by = &(jobq_unique)U(.fields = 16)),
     "unique_by.fields must be one or more of enum jobq_unique_field, or 0, got 16"},
    {W(.kind = "k", .unique_by = &(jobq_unique)U(.states = 256)),
     "unique_by.states must be one or more of enum jobq_unique_state, or 0, got 256"},
    {W(.kind = "k", .unique_by = &(jobq_unique)U(.period_s = -1)),
     "unique_by.period_s must be 1 to 2147483647, or JOBQ_FOREVER, got -1"},
    {W(.kind = "k", .unique_by = &(jobq_unique)U(.n_keys = 1)),
     "unique_by.keys must be an array of n_keys strings, got NULL"},
    {W(.kind = "k", .unique_by = &(jobq_unique)U(.keys = null_tag, .n_keys = 2)),
     "unique_by.keys[1] must be a string, got NULL"},
    {W(.kind = "k", .unique_by = &(jobq_unique)U(.keys = odd_tag, .n_keys = 2)),
     "unique_by.keys[1] must be UTF-8, got byte 0xFF at byte 2"},
    {W(.kind = "k", .unique_by = &(jobq_unique)U(.keys = null_tag, .n_keys = 1,
                                                 .fields = JOBQ_UNIQUE_KIND)),
     "unique_by.keys needs JOBQ_UNIQUE_ARGS or JOBQ_UNIQUE_META among unique_by.fields, "
     "got 1"},
    {W(.kind = "k", .on_conflict = 3),
     "on_conflict must be one of enum jobq_on_conflict, 0 to 2, got 3"},
    {W(.kind = "k", .on_conflict = JOBQ_ON_CONFLICT_REPLACE),
     "replace and JOBQ_ON_CONFLICT_REPLACE must be used together"},
    {W(.kind = "k", .replace = "[\"args\"]"),
     "replace and JOBQ_ON_CONFLICT_REPLACE must be used together"},
    {W(.kind = "k", .on_conflict = JOBQ_ON_CONFLICT_REPLACE,
       .replace = "[\"args\"],\"kind\":\"x\""),
     "replace: expected the end at byte 9, found ','"},
};
enum { N_WRONG_JOBS = sizeof wrong_jobs / sizeof wrong_jobs[0] };

static void
a_wrong_job_is_refused_by_its_members_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_WRONG_JOBS; i++) {
        jobq_error err = {0};
        int64_t id = -7;
        expect_error(jobq_enqueue(conn, &wrong_jobs[i].job, &id, &err), &err, JOBQ_EINVAL,
                     wrong_jobs[i].message);
        assert_int_equal(id, -7);
        assert_string_equal(err.sqlstate, "");
    }
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'k'"), 0);
}

static void
among_many_the_element_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_WRONG_JOBS; i++) {
        jobq_error err = {0};
        char message[600];
        int64_t ids[5] = {-7, -7, -7, -7, -7};
        jobq_job jobs[5];
        for (int j = 0; j < 5; j++)
            jobs[j] = job_of("k");
        jobs[3] = wrong_jobs[i].job;
        snprintf(message, sizeof message, "jobs[3].%s", wrong_jobs[i].message);
        expect_error(jobq_enqueue_many(conn, jobs, 5, ids, &err), &err, JOBQ_EINVAL,
                     message);
        assert_int_equal(ids[0], -7);
    }
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'k'"), 0);
}

#define LIST                                                                             \
    "must be an array of one or more of args, meta, tags, priority, queue, kind, "       \
    "max_attempts, timeout_ms, scheduled_at and expires_at"
#define WRONG_REPLACE                                                                    \
    "replace " LIST ", or an object of such arrays by state, got [\"nope\"]"
#define WRONG_EXPIRY                                                                     \
    "expires_at must be null or a finite time, after scheduled_at if that is in "        \
    "the future, "

/* What only the database can find out comes back with the number that the caller knows,
 * wherever the batches end: at 1000. */
static void
among_thousands_the_element_is_named(void **state)
{
    (void)state;
    enum { N = 2101 };
    static jobq_job jobs[N];
    static char keys[N][16];
    static const struct {
        size_t at;
        jobq_job job;
        bool unique; /* the others */
        const char *rest;
    } rows[] = {
        {0, W(.kind = "k", .delay_ms = 3600000, .expires_at_us = 1), false,
         "." WRONG_EXPIRY},
        {999, W(.kind = "k", .delay_ms = 3600000, .expires_at_us = 1), true,
         "." WRONG_EXPIRY},
        {1000, W(.kind = "k", .delay_ms = 3600000, .expires_at_us = 1), true,
         "." WRONG_EXPIRY},
        {2100, W(.kind = "k", .delay_ms = 3600000, .expires_at_us = 1), true,
         "." WRONG_EXPIRY},
        {1001, W(.kind = "k", .delay_ms = 3600000, .expires_at_us = 1), false,
         "." WRONG_EXPIRY},
        {1002,
         W(.kind = "k", .scheduled_at_us = INT64_C(4102444800000000),
           .expires_in_ms = 1000),
         false, "." WRONG_EXPIRY},
        {1003,
         W(.kind = "k", .unique_key = "r", .on_conflict = JOBQ_ON_CONFLICT_REPLACE,
           .replace = "[\"nope\"]"),
         true, "." WRONG_REPLACE},
        {1003,
         W(.kind = "k", .on_conflict = JOBQ_ON_CONFLICT_REPLACE, .replace = "[\"nope\"]"),
         false, "." WRONG_REPLACE},
        {1003, W(.kind = "k", .unique_key = "0", .on_conflict = JOBQ_ON_CONFLICT_RAISE),
         true, " is not unique: job "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        jobq_error err = {0};
        char message[400];
        bool conflict = rows[i].job.on_conflict == JOBQ_ON_CONFLICT_RAISE;
        for (int j = 0; j < N; j++) {
            jobs[j] = job_of("k");
            snprintf(keys[j], sizeof keys[j], "%d", j);
            jobs[j].unique_key = rows[i].unique ? keys[j] : NULL;
        }
        jobs[rows[i].at] = rows[i].job;
        int rc = jobq_job_try_enqueue_many(conn, jobs, rows[i].at + 1, NULL, &err);
        assert_int_equal(rc, conflict ? JOBQ_ECONFLICT : JOBQ_EINVAL);
        snprintf(message, sizeof message, "jobq.try_enqueue_many: jobs[%zu]%s",
                 rows[i].at, rows[i].rest);
        if (strncmp(err.message, message, strlen(message)) != 0)
            fail_msg("row %zu: expected \"%s…\",\ngot \"%s\"", i, message, err.message);
        assert_string_equal(err.sqlstate, conflict ? "23505" : "22023");
    }
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'k'"), 0);
}

/* Whatever else the job says. */
static void
a_conflict_is_checked_where_there_is_none(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job job = job_of("no conflict");
    int64_t ids[2] = {0};
    job.on_conflict = JOBQ_ON_CONFLICT_REPLACE;
    job.replace = "[\"nope\"]";
    jobq_job jobs[] = {job_of("no conflict"), job};
    expect_error(jobq_enqueue(conn, &job, NULL, &err), &err, JOBQ_EINVAL,
                 "jobq.try_enqueue: " WRONG_REPLACE);
    expect_error(jobq_enqueue_many(conn, jobs, 2, NULL, &err), &err, JOBQ_EINVAL,
                 "jobq.try_enqueue_many: jobs[1]." WRONG_REPLACE);
    /* Nothing is unique, nothing is in the way. */
    job.replace = "[\"args\"]";
    jobs[1] = job;
    jobs[0].on_conflict = JOBQ_ON_CONFLICT_RAISE;
    for (int i = 0; i < 2; i++) {
        succeeds(jobq_enqueue(conn, &jobs[i], NULL, &err));
        succeeds(jobq_enqueue_many(conn, jobs, 2, ids, &err));
    }
    assert_true(ids[1] > ids[0]);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'no conflict'"),
                     6);
    sql(admin, "DELETE FROM jobq.jobs WHERE kind = 'no conflict'");
}

static void
wrong_schemas_are_refused(void **state)
{
    (void)state;
#define LEGAL "schema must be [a-z_][a-z0-9_]* of at most 63 bytes, got "
    static const struct {
        const char *schema;
        const char *message;
    } wrong_schemas[] = {
        {"", LEGAL "\"\""},           {"Jobq", LEGAL "\"Jobq\""},
        {"7jobs", LEGAL "\"7jobs\""}, {"a\"; --", LEGAL "\"a\"; --\""},
        {A64, LEGAL "\"" A64 "\""},
    };
    jobq_error err;
    jobq_job job = job_of("k");
    jobq_job_info *info = NULL;
    for (size_t i = 0; i < sizeof wrong_schemas / sizeof wrong_schemas[0]; i++) {
        const char *schema = wrong_schemas[i].schema, *message = wrong_schemas[i].message;
        job.schema = schema;
        expect_error(jobq_enqueue(conn, &job, NULL, &err), &err, JOBQ_EINVAL, message);
        expect_error(jobq_enqueue_many(conn, &job, 1, NULL, &err), &err, JOBQ_EINVAL,
                     message);
        expect_error(jobq_job_get(conn, schema, 1, &info, &err), &err, JOBQ_EINVAL,
                     message);
        expect_error(jobq_job_cancel(conn, schema, 1, NULL, &err), &err, JOBQ_EINVAL,
                     message);
        expect_error(jobq_job_retry(conn, schema, 1, NULL, &err), &err, JOBQ_EINVAL,
                     message);
    }
    assert_null(info);
}

/* ---- wrong connections ---- */

/* Every call on `on` is refused with that code and message. */
static void
expect_refusals(PGconn *on, int code, const char *message)
{
    jobq_error err;
    jobq_job job = job_of("k");
    jobq_job_info *info = NULL;
    expect_error(jobq_enqueue(on, &job, NULL, &err), &err, code, message);
    expect_error(jobq_enqueue_many(on, &job, 1, NULL, &err), &err, code, message);
    expect_error(jobq_job_get(on, NULL, 1, &info, &err), &err, code, message);
    expect_error(jobq_job_cancel(on, NULL, 1, NULL, &err), &err, code, message);
    expect_error(jobq_job_retry(on, NULL, 1, NULL, &err), &err, code, message);
}

static void
null_is_refused(void **state)
{
    (void)state;
    jobq_error err;
    expect_refusals(NULL, JOBQ_EINVAL, "conn must be an open connection, got NULL");
    expect_error(jobq_enqueue(conn, NULL, NULL, &err), &err, JOBQ_EINVAL,
                 "job must point to a jobq_job, got NULL");
    expect_error(jobq_enqueue_many(conn, NULL, 2, NULL, &err), &err, JOBQ_EINVAL,
                 "jobs must point to 2 jobs, got NULL");
    succeeds(jobq_enqueue_many(conn, NULL, 0, NULL, &err));
    expect_error(jobq_job_get(conn, NULL, 1, NULL, &err), &err, JOBQ_EINVAL,
                 "out must point to a jobq_job_info *, got NULL");
}

static void
a_connection_that_cannot_take_a_statement_is_refused(void **state)
{
    (void)state;
    PGresult *result;
    sql(conn, "BEGIN");
    PQclear(PQexec(conn, "SELECT FROM nowhere"));
    expect_refusals(conn, JOBQ_ESTATE, "the transaction has failed: roll it back first");
    sql(conn, "ROLLBACK");

    assert_true(PQsendQuery(conn, "SELECT 1"));
    expect_refusals(conn, JOBQ_ESTATE,
                    "the connection is busy: read the results of its last query first");
    while ((result = PQgetResult(conn)))
        PQclear(result);

    assert_true(PQenterPipelineMode(conn));
    expect_refusals(
        conn, JOBQ_ESTATE,
        "the connection is in pipeline mode: leave it with PQexitPipelineMode");
    assert_true(PQexitPipelineMode(conn));

    assert_int_equal(PQsetClientEncoding(conn, "LATIN1"), 0);
    expect_refusals(
        conn, JOBQ_ESTATE,
        "the connection's client_encoding must be UTF8, got LATIN1: set it with "
        "PQsetClientEncoding");
    assert_int_equal(PQsetClientEncoding(conn, "UTF8"), 0);
}

static void
a_lost_connection_is_refused(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job job = job_of("lost");
    PGconn *lost = connect_database();
    value("SELECT pg_terminate_backend(%d)", PQbackendPID(lost));
    assert_int_equal(jobq_enqueue(lost, &job, NULL, &err), JOBQ_ECONN);
    while (PQstatus(lost) == CONNECTION_OK)
        assert_int_equal(jobq_enqueue(lost, &job, NULL, &err), JOBQ_ECONN);
    assert_int_equal(jobq_enqueue(lost, &job, NULL, &err), JOBQ_ECONN);
    assert_int_equal(strncmp(err.message, "the connection is not open: ", 28), 0);
    char message[512];
    strcpy(message, err.message);
    expect_refusals(lost, JOBQ_ECONN, message);
    PQfinish(lost);

    PGconn *never = PQconnectdb("host=/nowhere dbname=x");
    assert_int_equal(jobq_enqueue(never, &job, NULL, &err), JOBQ_ECONN);
    assert_non_null(strstr(err.message, "/nowhere"));
    PQfinish(never);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'lost'"), 0);
}

static void
a_missing_schema_is_told(void **state)
{
    (void)state;
    static const char hint[] =
        ": is the jobq schema installed, and as new as this library? "
        "Run `jobqd migrate status`";
    jobq_error err;
    char message[200];
    jobq_job job = job_of("k");
    jobq_job_info *info = NULL;
    job.schema = "nosuch";
    snprintf(message, sizeof message, "schema \"nosuch\" does not exist%s", hint);
    expect_error(jobq_enqueue(conn, &job, NULL, &err), &err, JOBQ_ESCHEMA, message);
    assert_string_equal(err.sqlstate, "3F000");
    expect_error(jobq_job_cancel(conn, "nosuch", 1, NULL, &err), &err, JOBQ_ESCHEMA,
                 message);
    snprintf(message, sizeof message, "relation \"nosuch.jobs\" does not exist%s", hint);
    expect_error(jobq_enqueue_many(conn, &job, 1, NULL, &err), &err, JOBQ_ESCHEMA,
                 message);
    snprintf(message, sizeof message, "relation \"nosuch.all_jobs\" does not exist%s",
             hint);
    expect_error(jobq_job_get(conn, "nosuch", 1, &info, &err), &err, JOBQ_ESCHEMA,
                 message);
    /* A schema of something else. */
    snprintf(message, sizeof message, "function public.retry(bigint) does not exist%s",
             hint);
    expect_error(jobq_job_retry(conn, "public", 1, NULL, &err), &err, JOBQ_ESCHEMA,
                 message);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_wrong_job_is_refused_by_its_members_name),
        TEST(among_many_the_element_is_named),
        TEST(among_thousands_the_element_is_named),
        TEST(a_conflict_is_checked_where_there_is_none),
        TEST(wrong_schemas_are_refused),
        TEST(null_is_refused),
        TEST(a_connection_that_cannot_take_a_statement_is_refused),
        TEST(a_lost_connection_is_refused),
        TEST(a_missing_schema_is_told),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
