/* Schedules in C: what is read, when it comes (with clocks of our own, so that no host's
 * time zones count), times as text; and crons of the database from C. That SQL agrees,
 * and what is refused and how, is integration/test_cron.py's. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>

#include "jobqd/config/timezone.h"
#include "jobqd/pure/cron.h"
#include "jobqd/pure/rfc3339.h"

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

static int64_t
at(const char *text)
{
    int64_t ms = -1;
    assert_true(rfc3339_parse(text, &ms));
    return ms;
}

static void
comes(const char *schedule, const char *after, cron_offset offset, const char *expected)
{
    struct cron cron;
    char text[RFC3339_SIZE];
    int64_t ms;
    if (cron_parse(schedule, &cron, &err) != 0)
        fail_msg("%s: %s", schedule, err.message);
    assert_true(cron_next(&cron, at(after), offset, NULL, &ms));
    rfc3339_print(text, ms, offset ? offset(NULL, ms / 1000) : 0);
    assert_string_equal(text, expected);
}

static void
when_schedules_come(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"* * * * *", "2026-11-23T10:00:00Z", "2026-11-23T10:01:00Z"},
        {"* * * * *", "2026-11-23T10:00:59.999Z", "2026-11-23T10:01:00Z"},
        {"0 0 L * *", "2028-02-01T00:00:00Z", "2028-02-29T00:00:00Z"},
        {"0 0 1,L feb *", "2027-02-01T00:00:00Z", "2027-02-28T00:00:00Z"},
        {"0 0 * * 5L", "2026-11-01T00:00:00Z", "2026-11-27T00:00:00Z"},
        {"0 0 * * FRIL", "2026-11-27T00:00:00Z", "2026-12-25T00:00:00Z"},
        {"0 0 13 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"},
        {"0 0 */10 * 1", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"},
        {"0 0 13 * *", "2026-11-13T00:00:00Z", "2026-12-13T00:00:00Z"},
        {"5-59/15 8-10 * * mon-fri", "2026-11-21T09:00:00Z", "2026-11-23T08:05:00Z"},
        {"0 0 * * fri-sun", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"},
        {"0 0 * * 7", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"},
        {"@yearly", "2026-11-23T00:00:00Z", "2027-01-01T00:00:00Z"},
        {"@Annually", "2026-11-23T00:00:00Z", "2027-01-01T00:00:00Z"},
        {"@monthly", "2026-11-23T00:00:00Z", "2026-12-01T00:00:00Z"},
        {"@weekly", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"},
        {"@daily", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"},
        {"@midnight", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"},
        {"@hourly", "2026-11-23T00:00:00Z", "2026-11-23T01:00:00Z"},
        {"@every 90s", "2026-11-23T00:00:00.5Z", "2026-11-23T00:01:30.500Z"},
        {"@every 1h30m", "2026-11-23T00:00:00Z", "2026-11-23T01:30:00Z"},
        {"0 0 29 2 *", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"},
        {"0 0 1 1 *", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"},
        {"0 12 * * *", "1904-02-28T13:00:00Z", "1904-02-29T12:00:00Z"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        comes(rows[i][0], rows[i][1], NULL, rows[i][2]);
}

/* Clocks that are set at 2026-03-29T01:00Z and back at 2026-10-25T01:00Z. */
static int64_t
summer_time(void *data, int64_t at_s)
{
    (void)data;
    return at_s >= 1774746000 && at_s < 1792890000 ? 7200 : 3600;
}

/* Clocks that leave out a whole day, at 2011-12-30T10:00Z. */
static int64_t
across_the_date_line(void *data, int64_t at_s)
{
    (void)data;
    return at_s >= 1325239200 ? 14 * 3600 : -10 * 3600;
}

static void
when_clocks_are_set(void **state)
{
    (void)state;
    comes("30 2 * * *", "2026-03-28T12:00:00Z", summer_time, "2026-03-29T03:00:00+02:00");
    comes("30 2 * * *", "2026-03-29T01:00:00Z", summer_time, "2026-03-30T02:30:00+02:00");
    comes("*/30 * * * *", "2026-10-25T00:00:00Z", summer_time,
          "2026-10-25T02:30:00+02:00");
    comes("*/30 * * * *", "2026-10-25T00:30:00Z", summer_time,
          "2026-10-25T03:00:00+01:00");
    comes("0 12 * * *", "2011-12-29T22:00:00Z", across_the_date_line,
          "2011-12-31T00:00:00+14:00");
    comes("0 0 31 * *", "2011-12-29T22:00:00Z", across_the_date_line,
          "2011-12-31T00:00:00+14:00");
}

static void
nothing_is_changed_by_what_is_wrong(void **state)
{
    (void)state;
    struct cron cron = {.kind = CRON_EVERY, .every_ms = 7};
    int64_t ms = 7;
    assert_int_equal(cron_parse("0 0 31 feb *", &cron, &err), JOBQ_EINVAL);
    assert_string_equal(
        err.message, "\"0 0 31 feb *\" never comes: none of its months has such a day");
    assert_int_equal(cron_parse("* * * * mon-", &cron, NULL), JOBQ_EINVAL);
    assert_true(cron.kind == CRON_EVERY && cron.every_ms == 7);
    assert_int_equal(cron_parse("@REBOOT", &cron, &err), 0);
    assert_false(cron_next(&cron, 0, NULL, NULL, &ms));
    assert_int_equal(ms, 7);
}

static void
times_as_text(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "2026-11-23",
                                        "2026-11-23T10:00:00",
                                        "2026-11-23T24:00:00Z",
                                        "2026-11-31T10:00:00Z",
                                        "2026-11-23T10:00:00.Z",
                                        "2026-11-23T10:00:00+0100",
                                        "2026-11-23T10:00:00Z ",
                                        "0000-11-23T10:00:00Z",
                                        "26-11-23T10:00:00Z"};
    int64_t ms;
    char text[RFC3339_SIZE];
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(rfc3339_parse(wrong[i], &ms));
    assert_int_equal(at("1970-01-01T00:00Z"), 0);
    assert_int_equal(at("1970-01-01t01:00:00.0129+01:00"), 12);
    assert_int_equal(at("1969-12-31 23:59:59.5-00:00"), -500);
    rfc3339_print(text, -500, 0);
    assert_string_equal(text, "1969-12-31T23:59:59.500Z");
    rfc3339_print(text, at("0001-01-01T00:00:00Z"), 0);
    assert_string_equal(text, "0001-01-01T00:00:00Z");
    rfc3339_print(text, at("2026-11-23T10:00:00Z"), -12600);
    assert_string_equal(text, "2026-11-23T06:30:00-03:30");
    rfc3339_print(text, at("1850-11-23T10:00:00Z"), 4332);
    assert_string_equal(text, "1850-11-23T10:00:00Z");
}

static void
dates(void **state)
{
    (void)state;
    int64_t year;
    int month, day;
    for (int64_t number = -800000; number < 800000; number += 13) {
        cron_date(number, &year, &month, &day);
        assert_true(month >= 1 && month <= 12 && day >= 1 && day <= 31);
        assert_int_equal(cron_day_number(year, month, day), number);
    }
    assert_int_equal(cron_day_number(2000, 3, 1), 11017);
}

static void
names_of_zones(void **state)
{
    (void)state;
    assert_true(timezone_is_name("Europe/Stockholm") && timezone_is_name("Etc/GMT+5"));
    assert_false(timezone_is_name("") || timezone_is_name("/etc/localtime") ||
                 timezone_is_name("a/../b") || timezone_is_name("a//b") ||
                 timezone_is_name("a/"));
    assert_int_equal(timezone_check("UTC", &err), 0);
    assert_int_equal(timezone_check("right/UTC", &err), JOBQ_EINVAL);
    assert_int_equal(timezone_check("Europe", &err), JOBQ_EINVAL);
}

/* ---- on a database ---- */

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
        cmocka_unit_test(when_schedules_come),
        cmocka_unit_test(when_clocks_are_set),
        cmocka_unit_test(nothing_is_changed_by_what_is_wrong),
        cmocka_unit_test(times_as_text),
        cmocka_unit_test(dates),
        cmocka_unit_test(names_of_zones),
        cmocka_unit_test(set_paused_resumed_run_and_deleted),
        cmocka_unit_test(what_is_wrong_is_told),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
