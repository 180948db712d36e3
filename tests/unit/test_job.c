/* Enqueueing, looking up, cancelling and retrying on the caller's own connection. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>

#include "jobqd/db/migrate.h"
#include "libjobq/state.h"

#define A128 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" A64
#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A512 A128 A128 A128 A128

static PGconn *conn;

static int
open_all(void **state)
{
    if (open_database(state) < 0)
        return -1;
    sql(admin, "DELETE FROM jobq.jobs");
    conn = connect_database();
    return 0;
}

static int
close_all(void **state)
{
    PQfinish(conn);
    return close_database(state);
}

/* Each test leaves the connection as it was. */
static int
connection_is_idle(void **state)
{
    (void)state;
    return PQtransactionStatus(conn) == PQTRANS_IDLE ? 0 : -1;
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

static jobq_job
job_of(const char *kind)
{
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = kind;
    return job;
}

/* ---- what arrives ---- */

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

static const char *const odd_tags[] = {"a\"b", "c,d",  "e\\f", "{g}",         "",
                                       " h ",  "NULL", "'",    "\xC3\xA5\n\t"};
enum { N_ODD_TAGS = sizeof odd_tags / sizeof odd_tags[0] };

/* All members set. */
static jobq_job
full_job(void)
{
    jobq_job job = job_of("full");
    job.args = "{\"big\": 123456789012345678, \"small\": 0.1, \"exact\": 1.10, "
               "\"text\": \"\xC3\xA5\xF0\x9F\x98\x80 \\\" \\\\ \\n\"}";
    job.meta = " { \"trace\" : [ 1 , 2 ] } ";
    job.queue = "mail \"\xC3\xB6\"";
    job.priority = 9;
    job.max_attempts = 1000;
    job.timeout_ms = 2147483647;
    job.key = "customer 7";
    job.tags = odd_tags;
    job.n_tags = N_ODD_TAGS;
    return job;
}

static void
expect_full(int64_t id)
{
    assert_string_equal(value("SELECT (queue, priority, max_attempts, timeout_ms, key, "
                              "meta)::text FROM jobq.jobs WHERE id = %" PRId64,
                              id),
                        "(\"mail \"\"\xC3\xB6\"\"\",9,1000,2147483647,\"customer "
                        "7\",\"{\"\"trace\"\": [1, 2]}\")");
    assert_string_equal(
        value("SELECT args FROM jobq.jobs WHERE id = %" PRId64, id),
        "{\"big\": 123456789012345678, \"text\": \"\xC3\xA5\xF0\x9F\x98\x80 \\\" \\\\ "
        "\\n\", \"exact\": 1.10, \"small\": 0.1}");
    for (int i = 0; i < N_ODD_TAGS; i++)
        assert_string_equal(
            value("SELECT tags[%d] FROM jobq.jobs WHERE id = %" PRId64, i + 1, id),
            odd_tags[i]);
    assert_string_equal(
        value("SELECT cardinality(tags) FROM jobq.jobs WHERE id = %" PRId64, id), "9");
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

/* ---- transactions ---- */

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

/* ---- look up, cancel, retry ---- */

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

/* ---- other schemas, and the database's words ---- */

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
#define TEST(name) cmocka_unit_test_teardown(name, connection_is_idle)
    const struct CMUnitTest tests[] = {
        TEST(a_job_with_nothing_but_a_kind_has_the_defaults),
        TEST(every_member_arrives),
        TEST(a_job_waits_for_its_time),
        TEST(a_unique_key_has_one_live_job),
        TEST(a_conflict_is_told),
        TEST(an_expiry_arrives),
        TEST(jobs_of_the_first_size_are_taken),
        TEST(thousands_keep_the_order_of_the_array),
        TEST(large_jobs_go_in_several_statements),
        TEST(a_job_vanishes_with_its_transaction),
        TEST(what_is_refused_before_it_is_sent_leaves_the_transaction_alone),
        TEST(an_enqueuer_may_enqueue),
        TEST(a_wrong_job_is_refused_by_its_members_name),
        TEST(among_many_the_element_is_named),
        TEST(among_thousands_the_element_is_named),
        TEST(a_conflict_is_checked_where_there_is_none),
        TEST(wrong_schemas_are_refused),
        TEST(null_is_refused),
        TEST(a_connection_that_cannot_take_a_statement_is_refused),
        TEST(a_lost_connection_is_refused),
        TEST(a_missing_schema_is_told),
        TEST(an_unknown_id_is_told),
        TEST(a_job_is_looked_up_cancelled_and_retried),
        TEST(a_handler_completes_its_job),
        TEST(another_schema_is_used_throughout),
        TEST(the_states_are_the_databases),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
