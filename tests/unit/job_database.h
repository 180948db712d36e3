/* job_database.h: what the tests of enqueueing and of single jobs share: each leaves its
 * connection idle. */
#ifndef TESTS_JOB_DATABASE_H
#define TESTS_JOB_DATABASE_H

#include "tests/unit/database.h"

#include <jobq/jobq.h>

#include "tests/unit/calls.h"

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

static inline jobq_job
job_of(const char *kind)
{
    jobq_job job = JOBQ_JOB_INIT;
    job.kind = kind;
    return job;
}

static const char *const odd_tags[] = {"a\"b", "c,d",  "e\\f", "{g}",         "",
                                       " h ",  "NULL", "'",    "\xC3\xA5\n\t"};
enum { N_ODD_TAGS = sizeof odd_tags / sizeof odd_tags[0] };

/* All members set. */
static inline jobq_job
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

static inline void
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

#define TEST(name) cmocka_unit_test_teardown(name, connection_is_idle)

#endif
