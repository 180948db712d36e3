/* The client that owns its connection: what it adds to job.h. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>
#include <poll.h>
#include <pthread.h>

static jobq_client *client;

static int
open_all(void **state)
{
    if (open_database(state) < 0)
        return -1;
    sql(admin, "DELETE FROM jobq.jobs");
    return 0;
}

static jobq_client *
open_client(const char *schema)
{
    jobq_client_options options = JOBQ_CLIENT_OPTIONS_INIT;
    jobq_client *out = NULL;
    jobq_error err;
    options.database = conninfo;
    options.schema = schema;
    if (jobq_client_open(&options, &out, &err) != 0)
        fail_msg("%s", err.message);
    return out;
}

static int
with_client(void **state)
{
    (void)state;
    client = open_client(NULL);
    return 0;
}

static int
without_client(void **state)
{
    (void)state;
    jobq_client_close(client);
    client = NULL;
    return 0;
}

static void
expect_error(int rc, const jobq_error *err, int code, const char *message)
{
    if (rc != code || strcmp(err->message, message) != 0)
        fail_msg("expected %s \"%s\",\ngot %s \"%s\"", jobq_code_name(code), message,
                 jobq_code_name(rc), err->message);
    assert_int_equal(err->code, code);
}

#define succeeds(call)                                                                   \
    do {                                                                                 \
        int rc_ = (call);                                                                \
        if (rc_ != 0)                                                                    \
            fail_msg("%s: %s \"%s\"", #call, jobq_code_name(rc_), err.message);          \
    } while (0)

static int
backend(void)
{
    return PQbackendPID(jobq_client_conn(client));
}

/* Ends the client's session behind its back, and waits until it could know. */
static void
kill_session(void)
{
    struct pollfd end = {.fd = PQsocket(jobq_client_conn(client)), .events = POLLRDHUP};
    value("SELECT pg_terminate_backend(%d)", backend());
    assert_int_equal(poll(&end, 1, 60000), 1);
}

/* ---- opening ---- */

static void
wrong_options_are_refused(void **state)
{
    (void)state;
    jobq_client_options options = JOBQ_CLIENT_OPTIONS_INIT;
    jobq_client *out = NULL;
    jobq_error err;
    expect_error(jobq_client_open(NULL, &out, &err), &err, JOBQ_EINVAL,
                 "options must not be NULL");
    expect_error(jobq_client_open(&options, NULL, &err), &err, JOBQ_EINVAL,
                 "out must not be NULL");
    options.schema = "no-schema";
    expect_error(
        jobq_client_open(&options, &out, &err), &err, JOBQ_EINVAL,
        "schema must be [a-z_][a-z0-9_]* of at most 63 bytes, got \"no-schema\"");
    options.schema = NULL;
    options.size = 7;
    expect_error(jobq_client_open(&options, &out, &err), &err, JOBQ_EINVAL,
                 "size must be sizeof(jobq_client_options), 24, got 7: start from "
                 "JOBQ_CLIENT_OPTIONS_INIT");
    options.size = sizeof options;
    options.database = "host=/nowhere nonsense=1";
    expect_error(jobq_client_open(&options, &out, &err), &err, JOBQ_ECONN,
                 "invalid connection option \"nonsense\"");
    options.database = "postgresql:///x?host=/nowhere";
    assert_int_equal(jobq_client_open(&options, &out, &err), JOBQ_ECONN);
    assert_non_null(strstr(err.message, "\"/nowhere/.s.PGSQL.5432\" failed"));
    assert_null(strchr(err.message, '\n'));
    assert_null(out);
    jobq_client_close(NULL);
}

static void
wrong_calls_are_refused(void **state)
{
    (void)state;
    static const char *const no_client = "client must be an open client, got NULL";
    jobq_error err;
    jobq_job job = JOBQ_JOB_INIT;
    jobq_job_info *info = NULL;
    expect_error(jobq_client_enqueue(NULL, &job, NULL, &err), &err, JOBQ_EINVAL,
                 no_client);
    expect_error(jobq_client_enqueue_many(NULL, &job, 1, NULL, &err), &err, JOBQ_EINVAL,
                 no_client);
    expect_error(jobq_client_job_get(NULL, 1, &info, &err), &err, JOBQ_EINVAL, no_client);
    expect_error(jobq_client_cancel(NULL, 1, NULL, &err), &err, JOBQ_EINVAL, no_client);
    expect_error(jobq_client_retry(NULL, 1, NULL, &err), &err, JOBQ_EINVAL, no_client);
    expect_error(jobq_client_reconnect(NULL, &err), &err, JOBQ_EINVAL, no_client);
    expect_error(jobq_client_enqueue(client, NULL, NULL, &err), &err, JOBQ_EINVAL,
                 "job must point to a jobq_job, got NULL");
    expect_error(jobq_client_enqueue(client, &job, NULL, &err), &err, JOBQ_EINVAL,
                 "kind must be text of 1 to 128 bytes, got NULL");
    expect_error(jobq_client_enqueue_many(client, NULL, 1, NULL, &err), &err, JOBQ_EINVAL,
                 "jobs must point to 1 jobs, got NULL");
    expect_error(jobq_client_job_get(client, 1, NULL, &err), &err, JOBQ_EINVAL,
                 "out must point to a jobq_job_info *, got NULL");
    expect_error(jobq_client_job_get(client, 987654321, &info, &err), &err,
                 JOBQ_ENOTFOUND, "no job has the id 987654321");
    expect_error(jobq_client_cancel(client, 987654321, NULL, &err), &err, JOBQ_ENOTFOUND,
                 "jobq.cancel: no job has the id 987654321");
    assert_int_equal(jobq_client_retry(client, 987654321, NULL, NULL), JOBQ_ENOTFOUND);
}

/* ---- its schema and its encoding ---- */

static void
the_clients_schema_is_for_what_names_none(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job_info *info = NULL;
    int64_t id = 0, ids[2] = {0};
    jobq_client *elsewhere = open_client("nosuch");
    jobq_job jobs[] = {JOBQ_JOB_INIT, JOBQ_JOB_INIT};
    jobs[0].kind = jobs[1].kind = "schema";
    assert_int_equal(jobq_client_enqueue(elsewhere, jobs, &id, &err), JOBQ_ESCHEMA);
    assert_int_equal(jobq_client_enqueue_many(elsewhere, jobs, 2, ids, &err),
                     JOBQ_ESCHEMA);
    assert_int_equal(jobq_client_job_get(elsewhere, 1, &info, &err), JOBQ_ESCHEMA);
    assert_int_equal(jobq_client_cancel(elsewhere, 1, NULL, &err), JOBQ_ESCHEMA);
    assert_int_equal(jobq_client_retry(elsewhere, 1, NULL, &err), JOBQ_ESCHEMA);
    jobs[0].schema = jobs[1].schema = "jobq";
    succeeds(jobq_client_enqueue(elsewhere, jobs, &id, &err));
    succeeds(jobq_client_enqueue_many(elsewhere, jobs, 2, ids, &err));
    assert_true(ids[0] > id && ids[1] > ids[0]);
    jobq_client_close(elsewhere);
}

static void
the_environments_encoding_does_not_matter(void **state)
{
    (void)state;
    jobq_error err;
    int64_t id = 0;
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "\xC3\xA5";
    setenv("PGCLIENTENCODING", "LATIN1", 1);
    jobq_client *other = open_client(NULL);
    unsetenv("PGCLIENTENCODING");
    succeeds(jobq_client_enqueue(other, &job, &id, &err));
    assert_string_equal(value("SELECT kind FROM jobq.jobs WHERE id = %" PRId64, id),
                        job.kind);
    jobq_client_close(other);
}

/* ---- broken connections ---- */

static void
a_connection_lost_between_calls_is_made_anew(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job_info *info = NULL;
    int64_t ids[2] = {0};
    int done = 0, before;
    jobq_job jobs[] = {JOBQ_JOB_INIT, JOBQ_JOB_INIT};
    jobs[0].kind = jobs[1].kind = "lost";

    before = backend();
    kill_session();
    succeeds(jobq_client_enqueue(client, jobs, ids, &err));
    assert_int_not_equal(backend(), before);
    kill_session();
    succeeds(jobq_client_enqueue_many(client, jobs, 2, ids, &err));
    kill_session();
    succeeds(jobq_client_cancel(client, ids[0], &done, &err));
    kill_session();
    succeeds(jobq_client_retry(client, ids[0], &done, &err));
    kill_session();
    succeeds(jobq_client_job_get(client, ids[0], &info, &err));
    assert_string_equal(info->state, "available");
    jobq_job_info_free(info);
    kill_session();
    succeeds(jobq_client_reconnect(client, &err));
    before = backend();
    succeeds(jobq_job_delete(jobq_client_conn(client), NULL, ids[0], &done, &err));
    succeeds(jobq_client_reconnect(client, &err));
    assert_int_equal(backend(), before);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'lost'"), 2);
}

static void
a_transaction_on_the_lent_connection_is_not_made_anew(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "half a transaction";
    sql(jobq_client_conn(client), "BEGIN");
    succeeds(jobq_client_enqueue(client, &job, NULL, &err));
    kill_session();
    assert_int_equal(jobq_client_enqueue(client, &job, NULL, &err), JOBQ_ECONN);
    assert_int_equal(
        count("SELECT count(*) FROM jobq.jobs WHERE kind = 'half a transaction'"), 0);
}

static void *
enqueue_one(void *out)
{
    jobq_error *err = out;
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "during";
    jobq_client_enqueue(client, &job, NULL, err);
    return NULL;
}

/* What was under way may have happened or not: only the caller can tell what to do. */
static void
a_connection_lost_during_a_call_is_told(void **state)
{
    (void)state;
    jobq_error err = {0};
    pthread_t thread;
    char query[200];
    sql(admin, "BEGIN; LOCK TABLE jobq.jobs");
    assert_int_equal(pthread_create(&thread, NULL, enqueue_one, &err), 0);
    snprintf(query, sizeof query,
             "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %d AND "
             "pg_stat_clear_snapshot() IS NOT NULL",
             backend());
    wait_until(query);
    value("SELECT pg_terminate_backend(%d)", backend());
    assert_int_equal(pthread_join(thread, NULL), 0);
    sql(admin, "COMMIT");
    assert_int_equal(err.code, JOBQ_ECONN);
    assert_non_null(
        strstr(err.message, "terminating connection due to administrator command"));
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'during'"), 0);
    enqueue_one(&err);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'during'"), 1);
}

static void
a_database_that_is_away_is_told(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "away";
    sql(admin, "DROP DATABASE IF EXISTS jobq_client_away");
    sql(admin, "CREATE DATABASE jobq_client_away");
    char away[1024];
    snprintf(away, sizeof away, "%s dbname=jobq_client_away", conninfo);
    jobq_client_options options = JOBQ_CLIENT_OPTIONS_INIT;
    options.database = away;
    jobq_client *gone = NULL;
    succeeds(jobq_client_open(&options, &gone, &err));
    sql(admin, "DROP DATABASE jobq_client_away WITH (FORCE)");
    for (int i = 0; i < 3; i++)
        assert_int_equal(jobq_client_enqueue(gone, &job, NULL, &err), JOBQ_ECONN);
    assert_non_null(strstr(err.message, "database \"jobq_client_away\" does not exist"));
    err = (jobq_error){0};
    assert_int_equal(jobq_client_reconnect(gone, &err), JOBQ_ECONN);
    assert_non_null(strstr(err.message, "database \"jobq_client_away\" does not exist"));
    jobq_client_close(gone);
}

static void
what_came_of_a_job_is_told(void **state)
{
    (void)state;
    jobq_error err;
    jobq_client *teller = open_client("jobq");
    jobq_enqueued out = {0}, outs[2] = {{0}};
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "told";
    job.unique_key = "told";
    assert_int_equal(jobq_client_try_enqueue(teller, &job, &out, &err), 0);
    assert_int_equal(out.conflict, JOBQ_INSERTED);
    jobq_job jobs[] = {job, job};
    jobs[0].unique_key = NULL;
    assert_int_equal(jobq_client_try_enqueue_many(teller, jobs, 2, outs, &err), 0);
    assert_true(outs[0].id > out.id && outs[0].conflict == JOBQ_INSERTED);
    assert_true(outs[1].id == out.id && outs[1].conflict == JOBQ_IGNORED);
    jobs[0].size = offsetof(jobq_job, expires_at_us); /* of an older program */
    assert_int_equal(jobq_client_try_enqueue(teller, &jobs[0], &out, &err), 0);
    assert_true(out.id > outs[0].id);
    jobq_client_close(teller);
}

/* ---- what the database asks to be tried again ---- */

/* A schema whose functions fail as a collision with another transaction does, until they
 * have been tried so many times. */
static void
make_unlucky_schema(const char *sqlstate, int tries)
{
    char text[1000];
    snprintf(text, sizeof text,
             "DROP SCHEMA IF EXISTS unlucky CASCADE; CREATE SCHEMA unlucky; "
             "CREATE SEQUENCE unlucky.tries; "
             "CREATE FUNCTION unlucky.cancel(id bigint) RETURNS boolean LANGUAGE plpgsql "
             "SET search_path = pg_catalog AS $$ BEGIN IF nextval('unlucky.tries') < %d "
             "THEN RAISE 'bad luck' USING "
             "ERRCODE = '%s'; END IF; RETURN true; END $$",
             tries, sqlstate);
    sql(admin, "SET client_min_messages = warning");
    sql(admin, text);
}

static void
a_collision_is_tried_again(void **state)
{
    (void)state;
    static const struct {
        const char *sqlstate;
        int lucky_at;
        int code;
        int tries;
    } rows[] = {
        {"40001", 3, JOBQ_OK, 3},        {"40P01", 5, JOBQ_OK, 5},
        {"40001", 99, JOBQ_EDB, 5},      {"23503", 3, JOBQ_EDB, 1},
        {"23505", 3, JOBQ_ECONFLICT, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        jobq_error err = {0};
        int done = 0;
        make_unlucky_schema(rows[i].sqlstate, rows[i].lucky_at);
        jobq_client *unlucky = open_client("unlucky");
        assert_int_equal(jobq_client_cancel(unlucky, 1, &done, &err), rows[i].code);
        assert_int_equal(done, rows[i].code == JOBQ_OK);
        assert_int_equal(count("SELECT last_value FROM unlucky.tries"), rows[i].tries);
        if (rows[i].code != JOBQ_OK) {
            assert_string_equal(err.sqlstate, rows[i].sqlstate);
            assert_string_equal(err.message, "bad luck");
        }
        jobq_client_close(unlucky);
    }
}

static void
within_a_transaction_of_the_callers_nothing_is_tried_again(void **state)
{
    (void)state;
    jobq_error err;
    make_unlucky_schema("40001", 3);
    jobq_client *unlucky = open_client("unlucky");
    sql(jobq_client_conn(unlucky), "BEGIN");
    assert_int_equal(jobq_client_cancel(unlucky, 1, NULL, &err), JOBQ_EDB);
    assert_int_equal(count("SELECT last_value FROM unlucky.tries"), 1);
    jobq_client_close(unlucky);
    sql(admin, "DROP SCHEMA unlucky CASCADE");
}

/* ---- threads ---- */

enum { THREADS = 2, ROUNDS = 200 };

static void *
work_alone(void *out)
{
    jobq_error *err = out;
    jobq_client_options options = JOBQ_CLIENT_OPTIONS_INIT;
    jobq_client *own = NULL;
    options.database = conninfo;
    if (jobq_client_open(&options, &own, err) != 0)
        return NULL;
    for (int i = 0; i < ROUNDS && err->code == 0; i++) {
        int64_t ids[3];
        int done = 0;
        jobq_job_info *info = NULL;
        jobq_job jobs[] = {JOBQ_JOB_INIT, JOBQ_JOB_INIT};
        jobs[0].kind = jobs[1].kind = "threads";
        if (jobq_client_enqueue(own, &jobs[0], &ids[2], err) == 0 &&
            jobq_client_enqueue_many(own, jobs, 2, ids, err) == 0 &&
            jobq_client_cancel(own, ids[0], &done, err) == 0 &&
            jobq_client_job_get(own, ids[0], &info, err) == 0 && done != 1)
            err->code = JOBQ_ESTATE;
        jobq_job_info_free(info);
    }
    jobq_client_close(own);
    return NULL;
}

static void
threads_with_a_client_each_do_not_meet(void **state)
{
    (void)state;
    jobq_error errors[THREADS] = {0};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work_alone, &errors[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (errors[i].code != 0)
            fail_msg("thread %d: %s", i, errors[i].message);
    }
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'threads'"),
                     2 * THREADS * ROUNDS);
    sql(admin, "DELETE FROM jobq.jobs WHERE kind = 'threads'");
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, with_client, without_client)
    const struct CMUnitTest tests[] = {
        TEST(wrong_options_are_refused),
        TEST(wrong_calls_are_refused),
        TEST(the_clients_schema_is_for_what_names_none),
        TEST(the_environments_encoding_does_not_matter),
        TEST(a_connection_lost_between_calls_is_made_anew),
        TEST(a_transaction_on_the_lent_connection_is_not_made_anew),
        TEST(a_connection_lost_during_a_call_is_told),
        TEST(a_database_that_is_away_is_told),
        TEST(what_came_of_a_job_is_told),
        TEST(a_collision_is_tried_again),
        TEST(within_a_transaction_of_the_callers_nothing_is_tried_again),
        TEST(threads_with_a_client_each_do_not_meet),
    };
    return cmocka_run_group_tests(tests, open_all, close_database);
}
