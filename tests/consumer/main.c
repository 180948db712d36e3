/* A program of somebody else's: uses every part of the installed libjobq on the database
 * in JOBQ_TEST_DATABASE, and stops at the first thing that is not as the headers say. */
#include <jobq/jobq.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int enqueue_from_cpp(PGconn *conn, int64_t *id, jobq_error *err);

static jobq_error err;

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__,  \
                    #condition, err.message);                                            \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static void
run_sql(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);
    CHECK(PQresultStatus(result) == PGRES_COMMAND_OK);
    PQclear(result);
}

static const char *
state_of(PGconn *conn, int64_t id)
{
    static char state[32];
    jobq_job_info *info = NULL;
    CHECK(jobq_job_get(conn, NULL, id, &info, &err) == 0);
    snprintf(state, sizeof state, "%s", info->state);
    jobq_job_info_free(info);
    return state;
}

static void
use_connection(PGconn *conn)
{
    jobq_job job = JOBQ_JOB_INIT;
    jobq_job jobs[3];
    jobq_job_info *info = NULL;
    int64_t id = 0, ids[3] = {0}, gone = 0;
    int done = 0;
    job.kind = "consumer";
    job.args = "{\"n\": 123456789012345678}";
    CHECK(jobq_enqueue(conn, &job, &id, &err) == 0 && id > 0);
    CHECK(jobq_job_get(conn, NULL, id, &info, &err) == 0);
    CHECK(strcmp(info->args, job.args) == 0 && strcmp(info->kind, "consumer") == 0);
    jobq_job_info_free(info);

    for (int i = 0; i < 3; i++)
        jobs[i] = job;
    CHECK(jobq_enqueue_many(conn, jobs, 3, ids, &err) == 0);
    CHECK(id < ids[0] && ids[0] < ids[1] && ids[1] < ids[2]);

    run_sql(conn, "BEGIN");
    CHECK(jobq_enqueue(conn, &job, &gone, &err) == 0);
    run_sql(conn, "ROLLBACK");
    CHECK(jobq_job_get(conn, NULL, gone, &info, &err) == JOBQ_ENOTFOUND);

    CHECK(jobq_job_cancel(conn, NULL, id, &done, &err) == 0 && done == 1);
    CHECK(strcmp(state_of(conn, id), "cancelled") == 0);
    CHECK(jobq_job_retry(conn, NULL, id, &done, &err) == 0 && done == 1);
    CHECK(strcmp(state_of(conn, id), "available") == 0);

    job.priority = 10;
    CHECK(jobq_enqueue(conn, &job, NULL, &err) == JOBQ_EINVAL);
    CHECK(strcmp(err.message, "priority must be 0 to 9, got 10") == 0);
    CHECK(strcmp(jobq_code_name(err.code), "JOBQ_EINVAL") == 0);

    CHECK(enqueue_from_cpp(conn, &id, &err) == 0);
    CHECK(strcmp(state_of(conn, id), "scheduled") == 0);
}

static void
use_client(const char *database)
{
    jobq_client_options options = JOBQ_CLIENT_OPTIONS_INIT;
    jobq_client *client = NULL;
    jobq_job job = JOBQ_JOB_INIT;
    jobq_job_info *info = NULL;
    int64_t id = 0, ids[1];
    int done = 0;
    options.database = database;
    CHECK(jobq_client_open(&options, &client, &err) == 0);
    CHECK(PQstatus(jobq_client_conn(client)) == CONNECTION_OK);
    job.kind = "consumer";
    CHECK(jobq_client_enqueue(client, &job, &id, &err) == 0);
    CHECK(jobq_client_enqueue_many(client, &job, 1, ids, &err) == 0 && ids[0] > id);
    CHECK(jobq_client_cancel(client, id, &done, &err) == 0 && done == 1);
    CHECK(jobq_client_retry(client, id, &done, &err) == 0 && done == 1);
    CHECK(jobq_client_job_get(client, id, &info, &err) == 0);
    CHECK(strcmp(info->state, "available") == 0);
    jobq_job_info_free(info);
    jobq_client_close(client);
}

static int
handle(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_ok(work, NULL, NULL);
}

static void
use_worker(void)
{
    jobq_worker_kind kind = {NULL, handle, NULL};
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    options.kinds = &kind;
    options.n_kinds = 1;
    CHECK(jobq_worker_run(&options, &err) == JOBQ_EINVAL);
    CHECK(strstr(err.message, "JOBQ_FD is not set"));
}

static void
use_unique(PGconn *conn)
{
    jobq_unique unique = JOBQ_UNIQUE_INIT;
    jobq_job job = JOBQ_JOB_INIT;
    jobq_job jobs[2];
    jobq_enqueued first = {0, 0}, again = {0, 0}, both[2];
    jobq_job_info *info = NULL;
    int done = 0;
    unique.states = JOBQ_UNIQUE_LIVE; /* an earlier run's job was cancelled */
    job.kind = "unique";
    job.unique_by = &unique;
    CHECK(jobq_job_try_enqueue(conn, &job, &first, &err) == 0);
    CHECK(first.conflict == JOBQ_INSERTED);
    CHECK(jobq_job_try_enqueue(conn, &job, &again, &err) == 0);
    CHECK(again.conflict == JOBQ_IGNORED && again.id == first.id);
    jobs[0] = jobs[1] = job;
    CHECK(jobq_job_try_enqueue_many(conn, jobs, 2, both, &err) == 0);
    CHECK(both[0].id == first.id && both[1].conflict == JOBQ_IGNORED);
    job.on_conflict = JOBQ_ON_CONFLICT_RAISE;
    CHECK(jobq_enqueue(conn, &job, NULL, &err) == JOBQ_ECONFLICT);
    CHECK(jobq_job_wait(conn, NULL, first.id, 20, &info, &err) == JOBQ_ETIMEOUT);
    CHECK(jobq_job_cancel(conn, NULL, first.id, &done, &err) == 0 && done == 1);
    CHECK(jobq_job_wait(conn, NULL, first.id, -1, &info, &err) == 0);
    CHECK(strcmp(info->state, "cancelled") == 0);
    jobq_job_info_free(info);
}

/* What an operator's program would do to queues and to many jobs. */
static void
use_operator(PGconn *conn)
{
    jobq_job job = JOBQ_JOB_INIT;
    int64_t id = 0, n = 0;
    int done = 0;
    CHECK(jobq_queue_pause(conn, NULL, "operated", NULL, &done, &err) == 0 && done == 1);
    CHECK(jobq_queue_scale(conn, NULL, "operated", 3, NULL, &done, &err) == 0 &&
          done == 1);
    CHECK(jobq_queue_resume(conn, NULL, "operated", NULL, &done, &err) == 0 && done == 1);
    /* As it was: this program is run more than once. */
    CHECK(jobq_queue_scale(conn, NULL, "operated", JOBQ_WORKERS_CONFIGURED, NULL, &done,
                           &err) == 0);
    job.kind = "operated";
    job.args = "{\"user\": 7}";
    CHECK(jobq_enqueue(conn, &job, &id, &err) == 0);
    CHECK(jobq_job_cancel_many(conn, NULL, "{\"kind\": \"operated\"}", &n, &err) == 0 &&
          n == 1);
    CHECK(strcmp(state_of(conn, id), "cancelled") == 0);
    CHECK(jobq_job_retry_many(conn, NULL, "{\"kind\": \"operated\"}", &n, &err) == 0 &&
          n == 1);
    CHECK(strcmp(state_of(conn, id), "available") == 0);
    CHECK(jobq_job_delete_many(conn, NULL, "{\"kind\": \"operated\"}", &n, &err) == 0 &&
          n == 1);
    CHECK(jobq_job_delete(conn, NULL, id, &done, &err) == JOBQ_ENOTFOUND);
    CHECK(jobq_enqueue(conn, &job, &id, &err) == 0);
    CHECK(jobq_job_delete(conn, NULL, id, &done, &err) == 0 && done == 1);
    CHECK(jobq_enqueue(conn, &job, &id, &err) == 0);
    CHECK(jobq_job_purge(conn, NULL, job.args, NULL, NULL, &n, &err) == 0 && n == 1);
}

/* As a test of the program above would. */
static void
use_testing(PGconn *conn)
{
    jobq_worker_kind kind = {"tested", handle, NULL};
    jobq_job job = JOBQ_JOB_INIT;
    jobq_testing_run_options run = JOBQ_TESTING_RUN_OPTIONS_INIT;
    jobq_testing_drain_options drain = JOBQ_TESTING_DRAIN_OPTIONS_INIT;
    jobq_testing_match match = JOBQ_TESTING_MATCH_INIT;
    jobq_testing_outcome *outcome = NULL;
    jobq_testing_drained done;
    int64_t n = 0;
    job.kind = match.kind = "tested";
    job.queue = drain.queue = "tests";
    job.args = "{\"a\": 1, \"b\": 2}";
    match.args = "{\"b\": 2}";
    run.kinds = drain.kinds = &kind;
    run.n_kinds = drain.n_kinds = 1;
    CHECK(jobq_testing_run(&run, &job, &outcome, &err) == 0);
    CHECK(outcome->answer == JOBQ_TESTING_OK && outcome->result == NULL);
    jobq_testing_outcome_free(outcome);

    run_sql(conn, "BEGIN");
    CHECK(jobq_testing_assert_enqueued(conn, &match, &err) == JOBQ_ENOTFOUND);
    CHECK(jobq_enqueue(conn, &job, NULL, &err) == 0);
    CHECK(jobq_testing_assert_enqueued(conn, &match, &err) == 0);
    CHECK(jobq_testing_drain(conn, &drain, &done, &err) == 0 && done.completed == 1);
    CHECK(jobq_testing_refute_enqueued(conn, &match, &err) == 0);
    match.state = "completed";
    CHECK(jobq_testing_count(conn, &match, &n, &err) == 0 && n == 1);
    run_sql(conn, "ROLLBACK");
}

int
main(void)
{
    const char *database = getenv("JOBQ_TEST_DATABASE");
    CHECK(database != NULL);
    CHECK(strcmp(jobq_version(), JOBQ_VERSION_STRING) == 0);
    CHECK(strcmp(PACKAGE_VERSION, JOBQ_VERSION_STRING) == 0);
    PGconn *conn = PQconnectdb(database);
    CHECK(PQstatus(conn) == CONNECTION_OK);
    use_connection(conn);
    use_unique(conn);
    use_operator(conn);
    use_testing(conn);
    PQfinish(conn);
    use_client(database);
    use_worker();
    return 0;
}
