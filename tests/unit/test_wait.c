/* jobq_job_wait: what it refuses, what it returns, and what a job's info says of progress. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>
#include <signal.h>

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
enqueue(void)
{
    jobq_job job = JOBQ_JOB_INIT;
    int64_t id = 0;
    job.kind = "wait";
    assert_int_equal(jobq_enqueue(conn, &job, &id, &err), 0);
    return id;
}

static void
an_ended_job_is_returned_at_once(void **state)
{
    (void)state;
    int64_t id = enqueue();
    jobq_job_info *info = NULL;
    assert_int_equal(jobq_job_cancel(conn, NULL, id, NULL, &err), 0);
    assert_int_equal(jobq_job_wait(conn, NULL, id, 0, &info, &err), 0);
    assert_int_equal(info->id, id);
    assert_string_equal(info->state, "cancelled");
    assert_true(info->progress < 0 && !info->progress_note);
    jobq_job_info_free(info);
}

static void
the_time_is_over(void **state)
{
    (void)state;
    int64_t id = enqueue();
    jobq_job_info *info = NULL;
    char expected[100];
    assert_int_equal(jobq_job_wait(conn, NULL, id, 0, &info, &err), JOBQ_ETIMEOUT);
    snprintf(expected, sizeof expected, "job %" PRId64 " is available after 0 ms", id);
    assert_string_equal(err.message, expected);
    assert_int_equal(jobq_job_wait(conn, NULL, id, 30, &info, NULL), JOBQ_ETIMEOUT);
    assert_null(info);
    assert_string_equal(jobq_code_name(JOBQ_ETIMEOUT), "JOBQ_ETIMEOUT");
}

static void
wrong_calls_are_refused(void **state)
{
    (void)state;
    int64_t id = enqueue();
    jobq_job_info *info = NULL;
    assert_int_equal(jobq_job_wait(conn, NULL, id, -2, &info, &err), JOBQ_EINVAL);
    assert_string_equal(err.message,
                        "timeout_ms must be 0 or more, or -1 for no limit, got -2");
    assert_int_equal(jobq_job_wait(conn, NULL, id, 0, NULL, &err), JOBQ_EINVAL);
    assert_int_equal(jobq_job_wait(NULL, NULL, id, 0, &info, &err), JOBQ_EINVAL);
    assert_int_equal(jobq_client_wait(NULL, id, 0, &info, &err), JOBQ_EINVAL);
    assert_int_equal(jobq_job_wait(conn, NULL, 1 << 30, 0, &info, &err), JOBQ_ENOTFOUND);
    assert_int_equal(jobq_job_wait(conn, "nowhere", id, 0, &info, &err), JOBQ_ESCHEMA);
    sql(conn, "BEGIN");
    assert_int_equal(jobq_job_wait(conn, NULL, id, 0, &info, &err), JOBQ_ESTATE);
    assert_string_equal(err.message,
                        "the connection is in a transaction: a job enqueued in it "
                        "cannot run before it commits");
    sql(conn, "ROLLBACK");
    assert_null(info);
}

static int64_t
now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What takes this long is not held up by a server that never answers. */
enum { SOON_MS = 30000 };

/* A server that hangs: the time is kept, and the connection is of no use any more, which
 * it says itself. */
static void
a_server_that_hangs_does_not_keep_the_caller(void **state)
{
    (void)state;
    int64_t id = enqueue(), began = now_ms();
    jobq_job_info *info = NULL;
    PGconn *hung = connect_database();
    int backend = PQbackendPID(hung); /* libpq forgets it with the connection */
    assert_int_equal(kill(backend, SIGSTOP), 0);
    int rc = jobq_job_wait(hung, NULL, id, 100, &info, &err);
    int64_t took = now_ms() - began;
    assert_int_equal(kill(backend, SIGCONT), 0);
    assert_int_equal(rc, JOBQ_ECONN);
    assert_string_equal(err.message,
                        "the database did not answer in time: the connection was closed");
    assert_true(took >= 100 && took < SOON_MS);
    assert_int_equal(PQstatus(hung), CONNECTION_BAD);
    assert_int_equal(jobq_job_wait(hung, NULL, id, 100, &info, NULL), JOBQ_ECONN);
    PQreset(hung);
    assert_int_equal(jobq_job_wait(hung, NULL, id, 0, &info, &err), JOBQ_ETIMEOUT);
    assert_null(info);
    PQfinish(hung);
}

/* The client's next call has a new connection. */
static void
a_server_that_hangs_does_not_keep_the_client(void **state)
{
    (void)state;
    int64_t id = enqueue(), began = now_ms();
    jobq_client_options options = JOBQ_CLIENT_OPTIONS_INIT;
    jobq_client *client = NULL;
    jobq_job_info *info = NULL;
    options.database = conninfo;
    assert_int_equal(jobq_client_open(&options, &client, &err), 0);
    int hung = PQbackendPID(jobq_client_conn(client));
    assert_int_equal(kill(hung, SIGSTOP), 0);
    int rc = jobq_client_wait(client, id, 100, &info, &err);
    int64_t took = now_ms() - began;
    int again = jobq_client_wait(client, id, 100, &info, &err);
    assert_int_equal(kill(hung, SIGCONT), 0);
    assert_int_equal(rc, JOBQ_ECONN);
    assert_true(took >= 100 && took < SOON_MS);
    assert_int_equal(again, JOBQ_ETIMEOUT);
    assert_null(info);
    jobq_client_close(client);
}

/* More than fits into one read. */
static void
a_large_job_is_waited_for(void **state)
{
    (void)state;
    enum { LARGE = 3 * 1000 * 1000 };
    jobq_job job = JOBQ_JOB_INIT;
    jobq_job_info *info = NULL;
    int64_t id = 0;
    char *args = malloc(LARGE + 16);
    assert_non_null(args);
    strcpy(args, "{\"a\": \"");
    memset(args + 7, 'x', LARGE);
    strcpy(args + 7 + LARGE, "\"}");
    job.kind = "large";
    job.args = args;
    assert_int_equal(jobq_enqueue(conn, &job, &id, &err), 0);
    assert_int_equal(jobq_job_cancel(conn, NULL, id, NULL, &err), 0);
    assert_int_equal(jobq_job_wait(conn, NULL, id, 60000, &info, &err), 0);
    assert_string_equal(info->args, args);
    jobq_job_info_free(info);
    free(args);
}

static void
progress_is_of_the_running_attempt(void **state)
{
    (void)state;
    int64_t id = enqueue();
    jobq_job_info *info = NULL;
    char text[200];
    snprintf(text, sizeof text,
             "UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 1 "
             "WHERE id = %" PRId64,
             id);
    sql(admin, text);
    snprintf(text, sizeof text,
             "INSERT INTO jobq._progress VALUES (%" PRId64 ", 1, 0.4, 'half way', now())",
             id);
    sql(admin, text);
    assert_int_equal(jobq_job_get(conn, NULL, id, &info, &err), 0);
    assert_true(info->progress > 0.399999 && info->progress < 0.400001);
    assert_string_equal(info->progress_note, "half way");
    jobq_job_info_free(info);
    sql(admin, "UPDATE jobq.jobs SET attempt = 2");
    assert_int_equal(jobq_job_get(conn, NULL, id, &info, &err), 0);
    assert_true(info->progress < 0 && !info->progress_note);
    jobq_job_info_free(info);
    sql(admin, "DELETE FROM jobq._progress");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ended_job_is_returned_at_once),
        cmocka_unit_test(the_time_is_over),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(a_server_that_hangs_does_not_keep_the_caller),
        cmocka_unit_test(a_server_that_hangs_does_not_keep_the_client),
        cmocka_unit_test(a_large_job_is_waited_for),
        cmocka_unit_test(progress_is_of_the_running_attempt),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
