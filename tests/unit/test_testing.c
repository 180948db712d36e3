/* The testing helpers for applications: a handler run here, a queue drained here, and
 * what was enqueued. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>

#include "libjobq/sql.h"

static PGconn *conn;
static jobq_error err;

static int
open_all(void **state)
{
    if (open_database(state) < 0)
        return -1;
    conn = connect_database();
    return 0;
}

static int
close_all(void **state)
{
    PQfinish(conn);
    return close_database(state);
}

static int
empty(void **state)
{
    (void)state;
    sql(admin, "DELETE FROM jobq.jobs; DELETE FROM jobq.finished_jobs; "
               "DELETE FROM jobq._cancels; DROP TABLE IF EXISTS public.done; "
               "CREATE TABLE public.done (id bigint, kind text)");
    return 0;
}

static int
is_idle(void **state)
{
    (void)state;
    return PQtransactionStatus(conn) == PQTRANS_IDLE ? 0 : -1;
}

#define succeeds(call)                                                                   \
    do {                                                                                 \
        int rc_ = (call);                                                                \
        if (rc_ != 0)                                                                    \
            fail_msg("%s: %s \"%s\"", #call, jobq_code_name(rc_), err.message);          \
    } while (0)

#define fails(call, code_, message_)                                                     \
    do {                                                                                 \
        int rc_ = (call);                                                                \
        if (rc_ != (code_) || strcmp(err.message, (message_)) != 0)                      \
            fail_msg("%s: expected %s \"%s\",\ngot %s \"%s\"", #call,                    \
                     jobq_code_name(code_), (message_), jobq_code_name(rc_),             \
                     err.message);                                                       \
        assert_int_equal(err.code, (code_));                                             \
    } while (0)

/* ---- handlers ---- */

static int
on_describe(jobq_work *work, void *data)
{
    char text[512];
    (void)data;
    snprintf(text, sizeof text,
             "{\"id\": %lld, \"attempt\": %d, \"of\": %d, \"queue\": \"%s\", \"kind\": "
             "\"%s\", \"args\": %s,\n\"meta\": %s, \"timeout\": %lld}",
             (long long)jobq_work_id(work), jobq_work_attempt(work),
             jobq_work_max_attempts(work), jobq_work_queue(work), jobq_work_kind(work),
             jobq_work_args(work), jobq_work_meta(work),
             (long long)jobq_work_timeout_ms(work));
    return jobq_work_ok(work, text, NULL);
}

static int
on_ok(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    return 0;
}

static int
on_seven(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    return 7;
}

static int
on_error(jobq_work *work, void *data)
{
    return jobq_work_error(work, "no\nluck", "line 1\nline 2", *(int64_t *)data, NULL);
}

static int
on_snooze(jobq_work *work, void *data)
{
    return jobq_work_snooze(work, *(int64_t *)data, NULL);
}

static int
on_discard(jobq_work *work, void *data)
{
    return jobq_work_discard(work, data, NULL);
}

static int
on_cancel(jobq_work *work, void *data)
{
    return jobq_work_cancel(work, data, NULL);
}

static int
on_bad_result(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_ok(work, "{1}", NULL);
}

static int
on_progress(jobq_work *work, void *data)
{
    (void)data;
    assert_int_equal(jobq_work_progress(work, 0.25, "a \"quarter\"", NULL), 0);
    assert_int_equal(jobq_work_progress(work, 0.5, NULL, NULL), 0);
    assert_int_equal(jobq_work_progress(work, 2, NULL, NULL), JOBQ_EINVAL);
    assert_int_equal(jobq_work_ok(work, "[1, 2]", NULL), 0);
    assert_int_equal(jobq_work_ok(work, NULL, NULL), JOBQ_ESTATE);
    return 0;
}

static int
on_should_stop(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_should_stop(work) == JOBQ_STOP_NO
               ? jobq_work_ok(work, NULL, NULL)
               : jobq_work_snooze(work, jobq_work_should_stop(work), NULL);
}

/* # in the statement stands for the job's id. */
static void
use(jobq_work *work, const char *statement)
{
    char text[512];
    size_t before = strcspn(statement, "#");
    snprintf(text, sizeof text, "%.*s%lld%s", (int)before, statement,
             (long long)jobq_work_id(work), statement + before + 1);
    PQclear(PQexec(conn, text));
}

/* Runs the statement in data, and says ok. */
static int
on_sql(jobq_work *work, void *data)
{
    use(work, data);
    return 0;
}

static int
on_sql_and_error(jobq_work *work, void *data)
{
    use(work, data);
    return 1;
}

static int
on_pipeline(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    return PQenterPipelineMode(conn) ? 0 : 1;
}

static int64_t minus_one = -1, zero = 0, minute = 60000;

/* One kind a handler, so that a test needs only its name. */
static const jobq_worker_kind kinds[] = {
    {"describe", on_describe, NULL},
    {"ok", on_ok, NULL},
    {"seven", on_seven, NULL},
    {"error", on_error, &minus_one},
    {"error now", on_error, &zero},
    {"error in a minute", on_error, &minute},
    {"snooze", on_snooze, &minute},
    {"snooze 0", on_snooze, &zero},
    {"discard", on_discard, "no good"},
    {"discard silently", on_discard, NULL},
    {"cancel", on_cancel, "not wanted"},
    {"cancel silently", on_cancel, NULL},
    {"bad result", on_bad_result, NULL},
    {"progress", on_progress, NULL},
    {"should stop", on_should_stop, NULL},
    {"note", on_sql,
     "INSERT INTO public.done SELECT id, kind FROM jobq.jobs WHERE id "
     "OPERATOR(pg_catalog.=) #"},
    {"note and fail", on_sql_and_error, "INSERT INTO public.done VALUES (#, 'failed')"},
    {"wrong sql", on_sql, "SELECT FROM nowhere -- #"},
    {"enqueue", on_sql,
     "SELECT jobq.enqueue('note', pg_catalog.jsonb_build_object('of', #))"},
    {"again", on_sql,
     "SELECT jobq.enqueue('again', pg_catalog.jsonb_build_object('of', #))"},
    {"complete", on_sql, "SELECT jobq.complete(#, 1, '[3]')"},
    {"delete", on_sql, "DELETE FROM jobq.jobs WHERE id OPERATOR(pg_catalog.=) #"},
    {"cancel itself", on_sql_and_error, "SELECT jobq.cancel(#)"},
    {"commit", on_sql, "COMMIT -- #"},
    {"commit, begin", on_sql, "COMMIT; BEGIN -- #"},
    {"commit, begin, fail", on_sql, "COMMIT; BEGIN; SELECT FROM nowhere -- #"},
    {"pipeline", on_pipeline, NULL},
    {"begin", on_sql, "BEGIN -- #"},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

/* ---- one handler ---- */

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
    assert_non_null(strstr(err.message, "begin with JOBQ_TESTING_RUN_OPTIONS_INIT"));
    options = run_options();
    options.n_kinds = 0;
    fails(jobq_testing_run(&options, &job, &outcome, &err), JOBQ_EINVAL,
          "worker: kinds must have one row or more");
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

/* ---- a queue ---- */

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

static int64_t
enqueue(const char *kind)
{
    jobq_job job = JOBQ_JOB_INIT;
    int64_t id = 0;
    job.kind = kind;
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    return id;
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
         "(discarded,1,error,\"no reason was given\",)"},
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
          "1000 jobs have run and there may be more: does one enqueue itself? give a "
          "limit");
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
        "a statement of the handler failed in the caller's transaction: what it did "
        "there "
        "was undone");
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
    assert_non_null(strstr(err.message, "begin with JOBQ_TESTING_DRAIN_OPTIONS_INIT"));
    options = drain_options();
    fails(jobq_testing_drain(NULL, &options, NULL, &err), JOBQ_EINVAL,
          "conn must be an open connection, got NULL");
    options.kinds = NULL;
    fails(jobq_testing_drain(conn, &options, NULL, &err), JOBQ_EINVAL,
          "worker: kinds must have one row or more");
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

/* ---- what was enqueued ---- */

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
             "1 enqueued job matches what none shall: kind \"mail\", queue \"slow\"; job "
             "%lld kind \"mail\" queue \"slow\"",
             (long long)last - 1);
    assert_memory_equal(err.message, message, strlen(message));
    match = (jobq_testing_match)JOBQ_TESTING_MATCH_INIT;
    assert_int_equal(jobq_testing_refute_enqueued(conn, &match, &err), JOBQ_ESTATE);
    assert_memory_equal(err.message, "3 enqueued jobs match what none shall: any job; ",
                        strlen("3 enqueued jobs match what none shall: any job; "));
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
    assert_non_null(strstr(err.message, "begin with JOBQ_TESTING_MATCH_INIT"));
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

#define T(test) cmocka_unit_test_setup_teardown(test, empty, is_idle)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_handler_sees_the_job_as_it_was_given),
        T(each_answer_is_told),
        T(every_report_of_progress_is_told),
        T(a_handler_is_told_to_stop_as_the_test_says),
        T(what_a_run_refuses),
        T(an_empty_queue_is_drained_at_once),
        T(each_outcome_is_settled_as_jobqd_would),
        T(a_failed_job_waits_for_its_back_off),
        T(the_history_keeps_every_column),
        T(the_line_is_followed),
        T(other_queues_and_what_waits_are_left_alone),
        T(jobs_that_handlers_enqueue_are_run_unless_told_otherwise),
        T(a_drain_has_an_end),
        T(a_kind_without_a_handler_fails_as_in_jobqd),
        T(all_of_it_is_in_the_callers_transaction),
        T(a_failed_statement_of_a_handler_does_not_end_the_drain),
        T(a_handler_that_ends_the_transaction_ends_the_drain),
        T(a_handler_that_leaves_pipeline_mode_on_ends_the_drain),
        T(a_transaction_that_a_handler_leaves_open_is_rolled_back),
        T(a_job_that_somebody_else_ends_is_refused),
        T(what_a_drain_refuses),
        T(jobs_are_counted_by_what_they_are),
        T(an_assertion_that_fails_shows_what_comes_near),
        T(an_assertion_sees_the_callers_transaction),
        T(what_a_match_refuses),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
