/* test_testing_drain.c: jobq_testing_drain runs the jobs of a queue here, on the caller's
 * connection, and settles each as jobqd would. */
#include "tests/unit/testing_database.h"

#include "tests/unit/testing_handlers.h"

static jobq_testing_drain_options
drain_options(void)
{
    jobq_testing_drain_options options = JOBQ_TESTING_DRAIN_OPTIONS_INIT;
    options.kinds = kinds;
    options.n_kinds = N_KINDS;
    return options;
}

/* completed retryable discarded snoozed cancelled refused */
static void
expect_drained(const jobq_testing_drained *done, const char *wanted)
{
    char text[80];
    snprintf(text, sizeof text, "%d %d %d %d %d %d", done->completed, done->retryable,
             done->discarded, done->snoozed, done->cancelled, done->refused);
    assert_string_equal(text, wanted);
}

static void
drains_to(const char *wanted)
{
    jobq_testing_drain_options options = drain_options();
    jobq_testing_drained done;
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, wanted);
}

static void
an_empty_queue_is_drained_at_once(void **state)
{
    (void)state;
    drains_to("0 0 0 0 0 0");
    succeeds(jobq_testing_drain(
        conn,
        &(jobq_testing_drain_options){sizeof(jobq_testing_drain_options), NULL, "other",
                                      kinds, N_KINDS, 0, 0, 0},
        NULL, NULL));
}

static void
each_outcome_is_settled_as_jobqd_would(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        int max_attempts;
        const char *drained;
        const char *row; /* state, attempt, first error's kind and text, result */
    } rows[] = {
        {"ok", 20, "1 0 0 0 0 0", "(completed,1,,,)"},
        {"progress", 20, "1 0 0 0 0 0", "(completed,1,,,\"[1, 2]\")"},
        {"seven", 20, "0 1 0 0 0 0",
         "(retryable,1,error,\"the handler returned 7 without an answer\",)"},
        {"error", 1, "0 0 1 0 0 0", "(discarded,1,error,\"no luck\",)"},
        {"error now", 20, "0 1 0 0 0 0", "(available,1,error,\"no luck\",)"},
        {"snooze", 20, "0 0 0 1 0 0", "(scheduled,0,,,)"},
        {"snooze", 1, "0 0 0 1 0 0", "(scheduled,0,,,)"},
        {"snooze 0", 20, "0 0 0 1 0 0", "(available,0,,,)"},
        {"discard", 20, "0 0 1 0 0 0", "(discarded,1,error,\"no good\",)"},
        {"discard silently", 20, "0 0 1 0 0 0",
         "(discarded,1,error,\"no reason given\",)"},
        {"cancel", 20, "0 0 0 0 1 0", "(cancelled,1,error,\"not wanted\",)"},
        {"cancel silently", 20, "0 0 0 0 1 0", "(cancelled,1,,,)"},
        {"complete", 20, "1 0 0 0 0 0", "(completed,1,,,[3])"},
        {"cancel itself", 20, "0 0 0 0 1 0",
         "(cancelled,1,error,\"the handler returned 1 without an answer\",)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        jobq_job job = JOBQ_JOB_INIT;
        int64_t id = 0;
        job.kind = rows[i].kind;
        job.max_attempts = rows[i].max_attempts;
        for (int in_transaction = 0; in_transaction < 2; in_transaction++) {
            empty(NULL);
            succeeds(jobq_enqueue(conn, &job, &id, &err));
            sql(conn, in_transaction ? "BEGIN" : "SELECT");
            drains_to(rows[i].drained);
            sql(conn, in_transaction ? "COMMIT" : "SELECT");
            assert_string_equal(
                value("SELECT (state, attempt, errors #>> '{0,kind}', errors #>> "
                      "'{0,error}', result)::text FROM jobq.all_jobs WHERE id = %" PRId64,
                      id),
                rows[i].row);
            assert_int_equal(count("SELECT count(*) FROM jobq._cancels"), 0);
        }
    }
}

static void
a_failed_job_waits_for_its_back_off(void **state)
{
    (void)state;
    jobq_testing_drain_options options = drain_options();
    jobq_testing_drained done;
    int64_t id = enqueue("error");
    drains_to("0 1 0 0 0 0");
    /* Oban's: 15 s + 2^1 s, and up to a tenth more */
    assert_string_equal(
        value("SELECT scheduled_at - attempted_at BETWEEN interval '16.9 s' AND "
              "interval '25 s' AND position IS NULL FROM jobq.jobs WHERE id = %" PRId64,
              id),
        "t");
    drains_to("0 0 0 0 0 0");
    options.with_scheduled = 1;
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, "0 1 0 0 0 0");
    assert_string_equal(
        value("SELECT (attempt, jsonb_array_length(errors), errors -> 1 ->> 'attempt', "
              "errors -> 1 ->> 'detail', errors -> 1 ->> 'node')::text FROM jobq.jobs"),
        "(2,2,2,\"line 1\nline 2\",drain)");
    sql(admin, "UPDATE jobq.jobs SET scheduled_at = now() - interval '1 s'");
    drains_to("0 1 0 0 0 0"); /* it is due */
}

static void
the_history_keeps_every_column(void **state)
{
    (void)state;
    static const char *const tags[] = {"red", "b\"lue"};
    jobq_job job = JOBQ_JOB_INIT;
    int64_t id = 0;
    job.kind = "progress";
    job.args = "{\"big\": 123456789012345678, \"exact\": 1.10, \"text\": \"\xC3\xB6\"}";
    job.meta = "{\"trace\": [1]}";
    job.priority = 7;
    job.timeout_ms = 5000;
    job.key = "group";
    job.unique_key = "one";
    job.tags = tags;
    job.n_tags = 2;
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    sql(admin, "CREATE TEMPORARY TABLE before AS SELECT * FROM jobq.jobs");
    drains_to("1 0 0 0 0 0");
    assert_string_equal(
        value("SELECT coalesce(string_agg(b.key, ', ' ORDER BY b.key), 'none') "
              "FROM before j, jobq.finished_jobs f, jsonb_each(to_jsonb(j)) b "
              "JOIN jsonb_each(to_jsonb(f)) a ON a.key = b.key AND a.value <> b.value"),
        "attempt, attempted_at, attempted_by, position, state");
    assert_string_equal(
        value("SELECT (j.position IS NULL, result, finished_at >= attempted_at, "
              "run_us >= 0)::text FROM jobq.finished_jobs j"),
        "(t,\"[1, 2]\",t,t)");
    sql(admin, "DROP TABLE before");
}

static void
the_line_is_followed(void **state)
{
    (void)state;
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = "note";
    int64_t last = enqueue("note");
    for (int priority = 9; priority > 0; priority--) {
        job.priority = priority;
        succeeds(jobq_enqueue(conn, &job, NULL, &err));
    }
    sql(admin, "UPDATE jobq.jobs SET priority = 9, position = jobq._next_position() "
               "WHERE priority = 0");
    drains_to("10 0 0 0 0 0");
    assert_string_equal(
        value("SELECT string_agg(f.priority::text, ' ' ORDER BY d.ctid) FROM public.done "
              "d JOIN jobq.finished_jobs f USING (id)"),
        "1 2 3 4 5 6 7 8 9 9");
    assert_int_equal(count("SELECT id FROM public.done ORDER BY ctid DESC LIMIT 1"),
                     last);
}

static void
other_queues_and_what_waits_are_left_alone(void **state)
{
    (void)state;
    jobq_job job = JOBQ_JOB_INIT;
    jobq_testing_drain_options options = drain_options();
    jobq_testing_drained done;
    job.kind = "ok";
    job.queue = "other";
    succeeds(jobq_enqueue(conn, &job, NULL, &err));
    job.queue = NULL;
    job.delay_ms = 3600000;
    succeeds(jobq_enqueue(conn, &job, NULL, &err));
    enqueue("ok");
    sql(admin, "INSERT INTO jobq.jobs (kind, state) VALUES ('ok', 'suspended')");
    sql(admin,
        "INSERT INTO jobq.jobs (kind, expires_at) VALUES ('ok', now() - interval '1 s')");
    drains_to("1 0 0 0 0 0");
    options.with_scheduled = 1;
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, "1 0 0 0 0 0");
    assert_string_equal(
        value("SELECT string_agg(queue || ' ' || state, ', ' ORDER BY id) "
              "FROM jobq.jobs"),
        "other available, default suspended, default available");
    options.queue = "other";
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, "1 0 0 0 0 0");
}

static void
jobs_that_handlers_enqueue_are_run_unless_told_otherwise(void **state)
{
    (void)state;
    jobq_testing_drain_options options = drain_options();
    jobq_testing_drained done;
    enqueue("enqueue");
    drains_to("2 0 0 0 0 0");
    enqueue("enqueue");
    options.recursive = 0;
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, "1 0 0 0 0 0");
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'note'"), 1);
}

static void
a_drain_has_an_end(void **state)
{
    (void)state;
    jobq_testing_drain_options options = drain_options();
    jobq_testing_drained done;
    enqueue("again");
    options.limit = 3;
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, "3 0 0 0 0 0");
    sql(conn, "BEGIN");
    options.limit = 0;
    fails(jobq_testing_drain(conn, &options, &done, &err), JOBQ_ESTATE,
          "1000 jobs have run and there may be more: does one enqueue itself? If "
          "not, set a limit");
    expect_drained(&done, "1000 0 0 0 0 0");
    sql(conn, "ROLLBACK");
    assert_int_equal(count("SELECT count(*) FROM jobq.finished_jobs"), 3);
}

static void
a_kind_without_a_handler_fails_as_in_jobqd(void **state)
{
    (void)state;
    jobq_testing_drain_options options = drain_options();
    jobq_testing_drained done;
    static const jobq_worker_kind any[] = {{NULL, on_describe, NULL}};
    enqueue("nobody's");
    options.n_kinds = 2;
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, "0 1 0 0 0 0");
    assert_string_equal(value("SELECT (errors -> 0 ->> 'kind', errors -> 0 ->> "
                              "'error')::text FROM jobq.jobs"),
                        "(unhandled,\"no handler for kind \"\"nobody's\"\"; this worker "
                        "handles describe, ok\")");
    options.kinds = any;
    options.n_kinds = 1;
    options.with_scheduled = 1;
    succeeds(jobq_testing_drain(conn, &options, &done, &err));
    expect_drained(&done, "1 0 0 0 0 0");
}

static void
all_of_it_is_in_the_callers_transaction(void **state)
{
    (void)state;
    sql(conn, "BEGIN");
    enqueue("note");
    enqueue("enqueue");
    drains_to("3 0 0 0 0 0");
    assert_int_equal(PQtransactionStatus(conn), PQTRANS_INTRANS);
    assert_int_equal(count("SELECT count(*) FROM public.done"), 0);
    sql(conn, "ROLLBACK");
    assert_int_equal(count("SELECT count(*) FROM jobq.all_jobs"), 0);
    assert_int_equal(count("SELECT count(*) FROM public.done"), 0);
}

static void
a_failed_statement_of_a_handler_does_not_end_the_drain(void **state)
{
    (void)state;
    sql(conn, "BEGIN");
    int64_t wrong = enqueue("wrong sql");
    enqueue("note and fail");
    enqueue("note");
    drains_to("1 2 0 0 0 0");
    sql(conn, "COMMIT");
    assert_string_equal(
        value("SELECT errors -> 0 ->> 'error' FROM jobq.jobs WHERE id = %" PRId64, wrong),
        "a statement of the handler failed in the caller's transaction: the handler's "
        "changes there were rolled back");
    /* What it did before it said no is its own business. */
    assert_string_equal(
        value("SELECT string_agg(kind, ' ' ORDER BY id) FROM public.done"),
        "failed note");
    /* Without a transaction the statement failed alone, and the handler did not care. */
    enqueue("wrong sql");
    drains_to("1 0 0 0 0 0");
}

/* Also when it has begun another one since. */
static void
a_handler_that_ends_the_transaction_ends_the_drain(void **state)
{
    (void)state;
    static const char *const enders[] = {"commit", "commit, begin",
                                         "commit, begin, fail"};
    for (size_t i = 0; i < sizeof enders / sizeof enders[0]; i++) {
        char message[120];
        jobq_testing_drain_options options = drain_options();
        jobq_testing_drained done;
        empty(NULL);
        sql(conn, "BEGIN");
        enqueue("ok");
        int64_t id = enqueue(enders[i]);
        snprintf(message, sizeof message,
                 "the handler of job %lld (%s) ended the caller's transaction",
                 (long long)id, enders[i]);
        fails(jobq_testing_drain(conn, &options, &done, &err), JOBQ_ESTATE, message);
        expect_drained(&done, "1 0 0 0 0 0");
        sql(conn, i > 0 ? "ROLLBACK" : "SELECT 1");
    }
}

static void
a_handler_that_leaves_pipeline_mode_on_ends_the_drain(void **state)
{
    (void)state;
    for (int in_transaction = 0; in_transaction < 2; in_transaction++) {
        jobq_testing_drain_options options = drain_options();
        empty(NULL);
        sql(conn, in_transaction ? "BEGIN" : "SELECT 1");
        enqueue("pipeline");
        fails(jobq_testing_drain(conn, &options, NULL, &err), JOBQ_ESTATE,
              "the connection is in pipeline mode: leave it with PQexitPipelineMode");
        assert_true(PQexitPipelineMode(conn));
        sql(conn, in_transaction ? "ROLLBACK" : "SELECT 1");
    }
}

static void
a_transaction_that_a_handler_leaves_open_is_rolled_back(void **state)
{
    (void)state;
    enqueue("begin");
    enqueue("ok");
    drains_to("1 1 0 0 0 0");
    assert_string_equal(value("SELECT errors -> 0 ->> 'error' FROM jobq.jobs"),
                        "the handler left a transaction open: it was rolled back");
}

static void
a_job_that_somebody_else_ends_is_refused(void **state)
{
    (void)state;
    enqueue("delete");
    drains_to("0 0 0 0 0 1");
}

static void
what_a_drain_refuses(void **state)
{
    (void)state;
    jobq_testing_drain_options options = drain_options();
    assert_int_equal(jobq_testing_drain(conn, NULL, NULL, NULL), JOBQ_EINVAL);
    options.size = 1;
    assert_int_equal(jobq_testing_drain(conn, &options, NULL, &err), JOBQ_EINVAL);
    assert_non_null(strstr(err.message, "start from JOBQ_TESTING_DRAIN_OPTIONS_INIT"));
    options = drain_options();
    fails(jobq_testing_drain(NULL, &options, NULL, &err), JOBQ_EINVAL,
          "conn must be an open connection, got NULL");
    options.kinds = NULL;
    fails(jobq_testing_drain(conn, &options, NULL, &err), JOBQ_EINVAL,
          "worker: kinds must have at least one row");
    options = drain_options();
    options.queue = "m\xFF";
    fails(jobq_testing_drain(conn, &options, NULL, &err), JOBQ_EINVAL,
          "options.queue must be UTF-8, got byte 0xFF at byte 2");
    options = drain_options();
    options.schema = "Jobq";
    fails(jobq_testing_drain(conn, &options, NULL, &err), JOBQ_EINVAL,
          "schema must be [a-z_][a-z0-9_]* of at most 63 bytes, got \"Jobq\"");
    options.schema = "nowhere";
    assert_int_equal(jobq_testing_drain(conn, &options, NULL, &err), JOBQ_ESCHEMA);
}

static int
open_for_handlers(void **state)
{
    int rc = open_all(state);
    handlers_conn = conn;
    return rc;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_queue_is_drained_at_once),
        TEST(each_outcome_is_settled_as_jobqd_would),
        TEST(a_failed_job_waits_for_its_back_off),
        TEST(the_history_keeps_every_column),
        TEST(the_line_is_followed),
        TEST(other_queues_and_what_waits_are_left_alone),
        TEST(jobs_that_handlers_enqueue_are_run_unless_told_otherwise),
        TEST(a_drain_has_an_end),
        TEST(a_kind_without_a_handler_fails_as_in_jobqd),
        TEST(all_of_it_is_in_the_callers_transaction),
        TEST(a_failed_statement_of_a_handler_does_not_end_the_drain),
        TEST(a_handler_that_ends_the_transaction_ends_the_drain),
        TEST(a_handler_that_leaves_pipeline_mode_on_ends_the_drain),
        TEST(a_transaction_that_a_handler_leaves_open_is_rolled_back),
        TEST(a_job_that_somebody_else_ends_is_refused),
        TEST(what_a_drain_refuses),
    };
    return cmocka_run_group_tests(tests, open_for_handlers, close_all);
}
