/* Pausing, resuming and scaling queues from C: what the rows say afterwards, and what is
 * refused. What nodes make of it is integration/test_queues.py's. */
#include "tests/unit/database.h"

#include <jobq/jobq.h>

static PGconn *conn;
static jobq_error err;

static int
open_all(void **state)
{
    if (open_database(state) < 0)
        return -1;
    sql(admin, "DELETE FROM jobq.queues; DELETE FROM jobq.queue_nodes");
    conn = connect_database();
    return 0;
}

static int
close_all(void **state)
{
    sql(admin, "DELETE FROM jobq.queues; DELETE FROM jobq.queue_nodes");
    PQfinish(conn);
    return close_database(state);
}

static void
all_nodes(void **state)
{
    (void)state;
    int changed = -1;
    assert_int_equal(jobq_queue_pause(conn, NULL, "mail", NULL, &changed, &err), 0);
    assert_int_equal(changed, 1);
    assert_int_equal(jobq_queue_pause(conn, "jobq", "mail", NULL, &changed, NULL), 0);
    assert_int_equal(changed, 0);
    assert_string_equal(value("SELECT paused FROM jobq.queues WHERE name = 'mail'"), "t");
    assert_int_equal(jobq_queue_scale(conn, NULL, "mail", 0, NULL, &changed, &err), 0);
    assert_int_equal(changed, 1);
    assert_string_equal(value("SELECT concurrency FROM jobq.queues"), "0");
    assert_int_equal(jobq_queue_resume(conn, NULL, "mail", NULL, &changed, &err), 0);
    assert_int_equal(changed, 1);
    assert_int_equal(
        jobq_queue_scale(conn, NULL, "mail", JOBQ_WORKERS_CONFIGURED, NULL, NULL, &err),
        0);
    assert_string_equal(value("SELECT coalesce(concurrency, -1) FROM jobq.queues "
                              "WHERE NOT paused"),
                        "-1");
}

static void
one_node(void **state)
{
    (void)state;
    int changed = -1;
    assert_int_equal(jobq_queue_pause(conn, NULL, "mail", "web-1", &changed, &err), 0);
    assert_int_equal(changed, 1);
    assert_int_equal(jobq_queue_scale(conn, NULL, "mail", 7, "web-1", &changed, &err), 0);
    assert_string_equal(value("SELECT concat(node, paused, concurrency) "
                              "FROM jobq.queue_nodes WHERE queue = 'mail'"),
                        "web-1t7");
    assert_int_equal(jobq_queue_resume(conn, NULL, "mail", "web-2", &changed, &err), 0);
    assert_int_equal(changed, 0);
    assert_int_equal(jobq_queue_resume(conn, NULL, "mail", "web-1", &changed, &err), 0);
    assert_int_equal(changed, 1);
    assert_int_equal(jobq_queue_scale(conn, NULL, "mail", JOBQ_WORKERS_CONFIGURED,
                                      "web-1", &changed, &err),
                     0);
    assert_string_equal(value("SELECT count(*) FROM jobq.queue_nodes"), "0");
}

static void
in_the_caller_s_transaction(void **state)
{
    (void)state;
    sql(conn, "BEGIN");
    assert_int_equal(jobq_queue_pause(conn, NULL, "later", NULL, NULL, &err), 0);
    sql(conn, "ROLLBACK");
    assert_string_equal(value("SELECT count(*) FROM jobq.queues WHERE name = 'later'"),
                        "0");
}

static void
what_is_wrong_is_told(void **state)
{
    (void)state;
    int changed = 77;
#define REFUSED(call, code, text)                                                        \
    do {                                                                                 \
        assert_int_equal((call), code);                                                  \
        assert_string_equal(err.message, text);                                          \
    } while (0)
    REFUSED(jobq_queue_pause(conn, NULL, NULL, NULL, &changed, &err), JOBQ_EINVAL,
            "queue must be text of 1 to 128 bytes, got NULL");
    REFUSED(jobq_queue_pause(conn, NULL, "", NULL, &changed, &err), JOBQ_EINVAL,
            "jobq.pause: queue must be text of 1 to 128 bytes, got \"\"");
    REFUSED(jobq_queue_resume(conn, NULL, "mail", "a b", &changed, &err), JOBQ_EINVAL,
            "jobq.resume: node must be null or 1 to 128 letters, digits and . _ - : @, "
            "got \"a b\"");
    REFUSED(jobq_queue_scale(conn, NULL, "mail", 1001, NULL, &changed, &err), JOBQ_EINVAL,
            "jobq.scale: n must be null or 0 to 1000, got 1001");
    REFUSED(jobq_queue_scale(conn, NULL, "mail", -2, NULL, &changed, &err), JOBQ_EINVAL,
            "jobq.scale: n must be null or 0 to 1000, got -2");
    REFUSED(jobq_queue_pause(conn, NULL, "m\xFF", NULL, &changed, &err), JOBQ_EINVAL,
            "queue must be UTF-8, got byte 0xFF at byte 2");
    REFUSED(jobq_queue_resume(conn, NULL, "mail", "\xC3(", &changed, &err), JOBQ_EINVAL,
            "node must be UTF-8, got byte 0xC3 at byte 1");
    REFUSED(jobq_queue_scale(conn, NULL, "\x80", 1, NULL, &changed, &err), JOBQ_EINVAL,
            "queue must be UTF-8, got byte 0x80 at byte 1");
    REFUSED(jobq_queue_pause(NULL, NULL, "mail", NULL, &changed, &err), JOBQ_EINVAL,
            "conn must be an open connection, got NULL");
    assert_int_equal(jobq_queue_pause(conn, NULL, "mail", NULL, NULL, &err), 0);
    REFUSED(jobq_queue_resume(conn, NULL, "mail", "web-1", &changed, &err), JOBQ_ESTATE,
            "jobq.resume: queue mail is paused on all nodes: resume it without "
            "naming a node, then pause it on single nodes");
    assert_int_equal(changed, 77);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_nodes),
        cmocka_unit_test(one_node),
        cmocka_unit_test(in_the_caller_s_transaction),
        cmocka_unit_test(what_is_wrong_is_told),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
