/* test_cron_database.c: crons that C sets, pauses, runs and deletes in the database. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>

static PGconn *conn;
static jobq_error err;

static int
open_all(void **state)
{
    if (open_database(state) < 0)
        return -1;
    sql(admin, "DELETE FROM jobq.crons");
    conn = connect_database();
    return 0;
}

static int
close_all(void **state)
{
    sql(admin, "DELETE FROM jobq.crons");
    PQfinish(conn);
    return close_database(state);
}

static void
set_paused_resumed_run_and_deleted(void **state)
{
    (void)state;
    static const char *const tags[] = {"x", "y"};
    jobq_cron cron = JOBQ_CRON_INIT;
    int changed = -1;
    int64_t id = 0;
    cron.name = "nightly";
    cron.schedule = "0 3 * * *";
    cron.kind = "report";
    assert_int_equal(jobq_cron_set(conn, &cron, &err), 0);
    assert_string_equal(value("SELECT concat_ws(' ', timezone, args, queue, priority, "
                              "max_attempts, missed, meta, tags, paused) || "
                              "coalesce(timeout_ms, -1) FROM jobq.crons"),
                        "UTC {} default 0 once {} {} f-1");
    cron.timezone = "Europe/Stockholm";
    cron.missed = "all";
    cron.args = "{\"n\": 1}";
    cron.meta = "{\"m\": 2}";
    cron.queue = "mail";
    cron.priority = 3;
    cron.max_attempts = 4;
    cron.timeout_ms = 5;
    cron.tags = tags;
    cron.n_tags = 2;
    assert_int_equal(jobq_cron_pause(conn, NULL, "nightly", &changed, &err), 0);
    assert_int_equal(changed, 1);
    assert_int_equal(jobq_cron_set(conn, &cron, &err), 0);
    assert_string_equal(value("SELECT concat_ws(' ', timezone, args, queue, priority, "
                              "max_attempts, missed, meta, tags, paused, timeout_ms) "
                              "FROM jobq.crons"),
                        "Europe/Stockholm {\"n\": 1} mail 3 4 all {\"m\": 2} {x,y} t 5");
    assert_int_equal(jobq_cron_pause(conn, "jobq", "nightly", &changed, NULL), 0);
    assert_int_equal(changed, 0);
    assert_int_equal(jobq_cron_run(conn, NULL, "nightly", &id, &err), 0);
    assert_true(id > 0);
    assert_string_equal(value("SELECT meta FROM jobq.jobs ORDER BY id DESC LIMIT 1"),
                        "{\"m\": 2, \"cron\": \"nightly\"}");
    assert_int_equal(jobq_cron_resume(conn, NULL, "nightly", &changed, &err), 0);
    assert_int_equal(changed, 1);
    assert_int_equal(jobq_cron_delete(conn, NULL, "nightly", &err), 0);
    assert_string_equal(value("SELECT count(*) FROM jobq.crons"), "0");
    sql(conn, "BEGIN");
    assert_int_equal(jobq_cron_set(conn, &cron, &err), 0);
    sql(conn, "ROLLBACK");
    assert_string_equal(value("SELECT count(*) FROM jobq.crons"), "0");
}

static void
refused(const jobq_cron *cron, const char *text)
{
    assert_int_equal(jobq_cron_set(conn, cron, &err), JOBQ_EINVAL);
    assert_string_equal(err.message, text);
}

static void
what_is_wrong_is_told(void **state)
{
    (void)state;
    jobq_cron cron = JOBQ_CRON_INIT;
    refused(NULL, "cron must be a jobq_cron, got NULL");
    refused(&cron, "name must be text, got NULL");
    cron.name = "a";
    refused(&cron, "schedule must be text, got NULL");
    cron.schedule = "0 0 31 2 *";
    cron.kind = "";
    refused(&cron, "kind must be text of 1 to 128 bytes, got 0 bytes");
    cron.kind = "k";
    cron.priority = 10;
    refused(&cron, "priority must be 0 to 9, got 10");
    cron.priority = 0;
    refused(&cron, "jobq.crons: schedule: \"0 0 31 2 *\" never comes: none of its months "
                   "has such a day");
    cron.schedule = "@daily";
    cron.timezone = "Mars/Olympus";
    refused(&cron,
            "jobq.crons: timezone must be the name of a time zone that this server "
            "knows, such as Europe/Stockholm, got \"Mars/Olympus\"");
    cron.timezone = NULL;
    cron.missed = "never";
    refused(&cron, "jobq.crons: missed must be skip, once or all, got \"never\"");
    cron.missed = "nev\xFFr";
    refused(&cron, "missed must be UTF-8, got byte 0xFF at byte 4");
    cron.timezone = "\xC3(";
    refused(&cron, "timezone must be UTF-8, got byte 0xC3 at byte 1");
    cron.schedule = "* * * * \x80";
    refused(&cron, "schedule must be UTF-8, got byte 0x80 at byte 9");
    cron.name = "a\xFF";
    refused(&cron, "name must be UTF-8, got byte 0xFF at byte 2");
    assert_int_equal(jobq_cron_pause(conn, NULL, "a\xFF", NULL, &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "name must be UTF-8, got byte 0xFF at byte 2");
    assert_int_equal(jobq_cron_run(conn, NULL, "none", NULL, &err), JOBQ_ENOTFOUND);
    assert_string_equal(err.message, "jobq.cron_run: no cron has the name \"none\"");
    assert_int_equal(jobq_cron_pause(conn, NULL, NULL, NULL, &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "name must be text, got NULL");
    assert_int_equal(jobq_cron_delete(NULL, NULL, "a", &err), JOBQ_EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_paused_resumed_run_and_deleted),
        cmocka_unit_test(what_is_wrong_is_told),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
