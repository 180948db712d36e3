/* test_enqueue.c: a job is enqueued on the caller's connection: what arrives, and that it
 * is part of the caller's transaction. */
#include "tests/unit/job_database.h"

static void
a_job_with_nothing_but_a_kind_has_the_defaults(void **state)
{
    (void)state;
    jobq_error err;
    int64_t id = 0;
    jobq_job job = job_of("plain");
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    assert_string_equal(
        value("SELECT (kind, queue, state, args, meta, tags, priority, max_attempts, "
              "attempt, key, unique_key, "
              "timeout_ms, errors, position IS NULL) FROM jobq.jobs WHERE id = %" PRId64,
              id),
        "(plain,default,available,{},{},{},0,20,0,,,,[],f)");
    succeeds(jobq_enqueue(conn, &job, NULL, &err));
    succeeds(jobq_enqueue(conn, &job, NULL, NULL));
    succeeds(jobq_enqueue_many(conn, &job, 1, NULL, NULL));
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'plain'"), 4);
}

static void
every_member_arrives(void **state)
{
    (void)state;
    jobq_error err;
    int64_t id = 0, ids[3] = {0};
    jobq_job job = full_job();
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    expect_full(id);

    const jobq_job jobs[] = {job_of("plain"), job, job_of("plain")};
    succeeds(jobq_enqueue_many(conn, jobs, 3, ids, &err));
    expect_full(ids[1]);
    for (int i = 0; i < 3; i += 2)
        assert_string_equal(value("SELECT (queue, args, meta, tags, priority, "
                                  "max_attempts, timeout_ms, key, scheduled_at <= now()) "
                                  "FROM jobq.jobs WHERE id = %" PRId64,
                                  ids[i]),
                            "(default,{},{},{},0,20,,,t)");

    /* With a unique_key it goes another way. */
    jobq_job unique[] = {job_of("plain"), job, job_of("plain")};
    unique[2].unique_key = "every member";
    succeeds(jobq_enqueue_many(conn, unique, 3, ids, &err));
    expect_full(ids[1]);
    assert_string_equal(
        value("SELECT unique_key FROM jobq.jobs WHERE id = %" PRId64, ids[2]),
        "every member");
}

static void
a_job_waits_for_its_time(void **state)
{
    (void)state;
    jobq_error err;
    int64_t ids[6] = {0};
    jobq_job jobs[6];
    for (int i = 0; i < 6; i++)
        jobs[i] = job_of("timed");
    jobs[0].delay_ms = 3600 * 1000;
    jobs[1].scheduled_at_us = INT64_C(4102444800123456); /* 2100-01-01 */
    jobs[2].scheduled_at_us = 1;                         /* long past */
    jobs[3] = jobs[0];
    jobs[4] = jobs[1];
    jobs[5] = jobs[2];
    for (int i = 0; i < 3; i++)
        succeeds(jobq_enqueue(conn, &jobs[i], &ids[i], &err));
    succeeds(jobq_enqueue_many(conn, jobs + 3, 3, ids + 3, &err));
    for (int unique = 0; unique < 2; unique++) {
        for (int i = 0; i < 6; i += 3) {
            assert_string_equal(
                value("SELECT (state, scheduled_at BETWEEN now() + interval '59 minutes' "
                      "AND now() + interval '1 hour') "
                      "FROM jobq.jobs WHERE id = %" PRId64,
                      ids[i]),
                "(scheduled,t)");
            assert_string_equal(
                value("SELECT (state, scheduled_at = '2100-01-01 00:00:00.123456Z') FROM "
                      "jobq.jobs WHERE id = %" PRId64,
                      ids[i + 1]),
                "(scheduled,t)");
            assert_string_equal(
                value("SELECT (state, scheduled_at = '1970-01-01 00:00:00.000001Z') FROM "
                      "jobq.jobs WHERE id = %" PRId64,
                      ids[i + 2]),
                "(available,t)");
        }
        jobs[0].unique_key = "timed 0";
        jobs[3].unique_key = "timed 3";
        succeeds(jobq_enqueue_many(conn, jobs, 6, ids, &err));
    }
    jobq_job_info *info = NULL;
    succeeds(jobq_job_get(conn, NULL, ids[1], &info, &err));
    assert_int_equal(info->scheduled_at_us, jobs[1].scheduled_at_us);
    jobq_job_info_free(info);
}

static void
a_unique_key_has_one_live_job(void **state)
{
    (void)state;
    jobq_error err;
    int64_t first = 0, again = 0, ids[4] = {0};
    int done = 0;
    jobq_job job = job_of("unique");
    job.unique_key = "only one";
    succeeds(jobq_enqueue(conn, &job, &first, &err));
    succeeds(jobq_enqueue(conn, &job, &again, &err));
    assert_int_equal(again, first);

    jobq_job jobs[4] = {job_of("unique"), job, job, job};
    jobs[2].unique_key = jobs[3].unique_key = "another";
    succeeds(jobq_enqueue_many(conn, jobs, 4, ids, &err));
    assert_true(ids[0] > first);
    assert_int_equal(ids[1], first);
    assert_true(ids[2] > first && ids[2] != ids[0]);
    assert_int_equal(ids[3], ids[2]);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'unique'"), 3);

    succeeds(jobq_job_cancel(conn, NULL, first, &done, &err));
    assert_int_equal(done, 1);
    succeeds(jobq_enqueue(conn, &job, &again, &err));
    assert_true(again > first);
}

static void
a_conflict_is_told(void **state)
{
    (void)state;
    static const char *const keys[] = {"account", "region \""};
    jobq_error err;
    jobq_enqueued first, out, outs[4];
    int64_t id = 0;
    jobq_unique unique = JOBQ_UNIQUE_INIT;
    jobq_job job = job_of("conflict");
    unique.fields = JOBQ_UNIQUE_KIND | JOBQ_UNIQUE_ARGS;
    unique.states = JOBQ_UNIQUE_LIVE;
    unique.period_s = 3600;
    unique.keys = keys;
    unique.n_keys = 2;
    job.args = "{\"account\": 7, \"n\": 1}";
    job.unique_by = &unique;
    succeeds(jobq_job_try_enqueue(conn, &job, &first, &err));
    assert_int_equal(first.conflict, JOBQ_INSERTED);
    job.args = "{\"account\": 7, \"n\": 2}";
    job.queue = "elsewhere";
    succeeds(jobq_job_try_enqueue(conn, &job, &out, &err));
    assert_true(out.id == first.id && out.conflict == JOBQ_IGNORED);
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    assert_int_equal(id, first.id);

    /* The key is the one that SQL makes of the same. */
    assert_int_equal(
        count("SELECT count(*) FROM jobq._uniques WHERE key = "
              "jobq._unique_hash('conflict', "
              "'any', '{\"account\": 7}', '{}', '{\"fields\": [\"args\", \"kind\"], "
              "\"keys\": [\"region \\\"\", \"account\"]}')"),
        1);

    job.on_conflict = JOBQ_ON_CONFLICT_REPLACE;
    job.replace = "{\"available\": [\"args\", \"queue\"]}";
    jobq_job jobs[4] = {job_of("conflict"), job, job, job_of("conflict")};
    jobs[2].args = "{\"account\": 8}";
    succeeds(jobq_job_try_enqueue_many(conn, jobs, 4, outs, &err));
    assert_true(outs[1].id == first.id && outs[1].conflict == JOBQ_REPLACED);
    for (int i = 0; i < 4; i++)
        assert_true(i == 1 || (outs[i].id > first.id && !outs[i].conflict));
    assert_string_equal(
        value("SELECT (queue, args)::text FROM jobq.jobs WHERE id = %" PRId64, first.id),
        "(elsewhere,\"{\"\"n\"\": 2, \"\"account\"\": 7}\")");
    succeeds(jobq_job_try_enqueue_many(conn, jobs, 4, NULL, &err));

    char message[200];
    job.on_conflict = JOBQ_ON_CONFLICT_RAISE;
    job.replace = NULL;
    id = -7;
    snprintf(message, sizeof message,
             "jobq.try_enqueue: the job is not unique: job %" PRId64
             ", available, has the same kind and args (of the keys \"account\", \"region "
             "\\\"\")",
             first.id);
    expect_error(jobq_enqueue(conn, &job, &id, &err), &err, JOBQ_ECONFLICT, message);
    assert_string_equal(err.sqlstate, "23505");
    assert_int_equal(id, -7);
    assert_int_equal(jobq_enqueue_many(conn, &job, 1, &id, &err), JOBQ_ECONFLICT);
    assert_int_equal(id, -7);
    sql(admin, "DELETE FROM jobq.jobs WHERE kind = 'conflict'");
}

static void
an_expiry_arrives(void **state)
{
    (void)state;
    jobq_error err;
    int64_t ids[6];
    jobq_job jobs[6];
    jobq_job_info *info = NULL;
    for (int i = 0; i < 6; i++)
        jobs[i] = job_of("expires");
    jobs[0].expires_at_us = INT64_C(4102444800123456); /* 2100-01-01 */
    jobs[1].expires_in_ms = 3600 * 1000;
    jobs[3] = jobs[0];
    jobs[4] = jobs[1];
    for (int i = 0; i < 3; i++)
        succeeds(jobq_enqueue(conn, &jobs[i], &ids[i], &err));
    succeeds(jobq_enqueue_many(conn, jobs + 3, 3, ids + 3, &err));
    for (int unique = 0; unique < 2; unique++) {
        for (int i = 0; i < 6; i += 3)
            assert_string_equal(
                value("SELECT array_agg(CASE WHEN expires_at IS NULL THEN 'none' WHEN "
                      "expires_at = '2100-01-01 00:00:00.123456Z' THEN 'then' WHEN "
                      "expires_at BETWEEN now() + interval '59 minutes' AND now() + "
                      "interval '1 hour' THEN 'soon' END ORDER BY id) FROM jobq.jobs "
                      "WHERE id BETWEEN %" PRId64 " AND %" PRId64,
                      ids[i], ids[i + 2]),
                "{then,soon,none}");
        jobs[2].unique_key = "expires";
        succeeds(jobq_enqueue_many(conn, jobs, 6, ids, &err));
    }
    succeeds(jobq_job_get(conn, NULL, ids[0], &info, &err));
    assert_int_equal(info->expires_at_us, jobs[0].expires_at_us);
    jobq_job_info_free(info);
    jobs[0].delay_ms = 1000;
    jobs[0].expires_at_us = 1;
    assert_int_equal(jobq_enqueue(conn, &jobs[0], NULL, &err), JOBQ_EINVAL);
    assert_non_null(strstr(err.message, "expires_at must be null or a finite time"));
}

/* A program that was built with the first release's header. */
static void
jobs_of_the_first_size_are_taken(void **state)
{
    (void)state;
    enum { N = 3, FIRST = offsetof(jobq_job, expires_at_us) };
    jobq_error err;
    int64_t ids[N], id = 0;
    union {
        char bytes[N * FIRST];
        jobq_job align;
    } old;
    memset(&old, 0xAA, sizeof old);
    for (int i = 0; i < N; i++) {
        jobq_job job = job_of("older");
        job.priority = i;
        job.size = FIRST;
        memcpy(old.bytes + i * FIRST, &job, FIRST);
    }
    const jobq_job *jobs = (const jobq_job *)(void *)old.bytes;
    assert_int_equal(FIRST, 112);
    succeeds(jobq_enqueue(conn, jobs, &id, &err));
    succeeds(jobq_enqueue_many(conn, jobs, N, ids, &err));
    for (int i = 0; i < N; i++)
        assert_int_equal(atoi(value("SELECT priority FROM jobq.jobs WHERE id = %" PRId64
                                    " AND expires_at IS NULL",
                                    ids[i])),
                         i);
    size_t wrong = 7;
    memcpy(old.bytes + 2 * FIRST, &wrong, sizeof wrong);
    expect_error(jobq_enqueue_many(conn, jobs, N, ids, &err), &err, JOBQ_EINVAL,
                 "jobs[2].size must be sizeof(jobq_job), 152, got 7: start from "
                 "JOBQ_JOB_INIT");
}

static void
a_job_vanishes_with_its_transaction(void **state)
{
    (void)state;
    jobq_error err;
    int64_t ids[5] = {0};
    jobq_job_info *info = NULL;
    const jobq_job jobs[] = {job_of("vanishes"), job_of("vanishes")};
    sql(conn, "BEGIN");
    succeeds(jobq_enqueue(conn, &jobs[0], &ids[0], &err));
    succeeds(jobq_enqueue_many(conn, jobs, 2, ids + 1, &err));
    succeeds(jobq_job_get(conn, NULL, ids[2], &info, &err));
    assert_int_equal(info->id, ids[2]);
    jobq_job_info_free(info);
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'vanishes'"), 0);
    sql(conn, "ROLLBACK");
    for (int i = 0; i < 3; i++)
        assert_int_equal(jobq_job_get(conn, NULL, ids[i], &info, &err), JOBQ_ENOTFOUND);

    sql(conn, "BEGIN");
    succeeds(jobq_enqueue(conn, &jobs[0], &ids[0], &err));
    sql(conn, "COMMIT");
    assert_int_equal(count("SELECT count(*) FROM jobq.jobs WHERE kind = 'vanishes'"), 1);
}

static void
what_is_refused_before_it_is_sent_leaves_the_transaction_alone(void **state)
{
    (void)state;
    jobq_error err;
    jobq_job job = job_of("refused");
    job.priority = 10;
    sql(conn, "BEGIN");
    assert_int_equal(jobq_enqueue(conn, &job, NULL, &err), JOBQ_EINVAL);
    assert_int_equal(jobq_enqueue_many(conn, &job, 1, NULL, &err), JOBQ_EINVAL);
    assert_int_equal(PQtransactionStatus(conn), PQTRANS_INTRANS);
    sql(conn, "ROLLBACK");
}

static void
an_enqueuer_may_enqueue(void **state)
{
    (void)state;
    jobq_error err;
    int64_t id = 0, ids[2] = {0};
    jobq_job jobs[] = {full_job(), full_job()};
    sql(conn, "SET ROLE jobq_enqueuer");
    succeeds(jobq_enqueue(conn, &jobs[0], &id, &err));
    succeeds(jobq_enqueue_many(conn, jobs, 2, ids, &err));
    expect_full(ids[1]);
    jobs[0].unique_key = "of the enqueuer";
    succeeds(jobq_enqueue_many(conn, jobs, 2, ids, &err));
    int rc = jobq_job_cancel(conn, NULL, id, NULL, &err);
    sql(conn, "RESET ROLE");
    expect_error(rc, &err, JOBQ_EDB, "permission denied for function cancel");
    assert_string_equal(err.sqlstate, "42501");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_with_nothing_but_a_kind_has_the_defaults),
        TEST(every_member_arrives),
        TEST(a_job_waits_for_its_time),
        TEST(a_unique_key_has_one_live_job),
        TEST(a_conflict_is_told),
        TEST(an_expiry_arrives),
        TEST(jobs_of_the_first_size_are_taken),
        TEST(a_job_vanishes_with_its_transaction),
        TEST(what_is_refused_before_it_is_sent_leaves_the_transaction_alone),
        TEST(an_enqueuer_may_enqueue),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
