/* test_pgconn_lost.c: there is no session, or it is lost: each batch completes once, in order,
 * and the connection tries again. */
#include "tests/unit/pgworld.h"

/* ---- being away ---- */

static void
a_batch_while_away_fails_at_once(void **state)
{
    (void)state;
    struct asked asked[2];
    start();
    ask_sql(&asked[0], "SELECT 1");
    ask_sql(&asked[1], "SELECT 1");
    wait_for(world.completed == 2);
    assert_int_equal(asked[0].order, 0);
    for (int i = 0; i < 2; i++)
        assert_lost(&asked[i], false);
    assert_int_equal(pgconn_server_version(world.conn), 0);
    wait_for(world.ready == 1);
}

static void
nobody_listens(void **state)
{
    (void)state;
    world.options.conninfo = "host=/nonexistent/folder dbname=x user=x";
    start();
    uint64_t begun = uv_hrtime();
    wait_for(world.lost >= 5);
    assert_non_null(strstr(world.why.message, "/nonexistent/folder"));
    assert_null(strchr(world.why.message, '\n'));
    /* at least half of 100 + 200 + 400 ms passed between the second and the fifth */
    assert_true(uv_hrtime() - begun > 350 * 1000000ULL);
    assert_int_equal(world.ready, 0);
}

static void
the_server_refuses_the_login(void **state)
{
    (void)state;
    char conninfo[512];
    snprintf(conninfo, sizeof conninfo, "%s user=conn_test_nobody", world.conninfo);
    world.options.conninfo = conninfo;
    start();
    wait_for(world.lost >= 2);
    assert_non_null(
        strstr(world.why.message, "role \"conn_test_nobody\" does not exist"));
}

static void
an_unreadable_connection_string(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "host=x nonsense=1",
        "host",
        "host = 'x",
        "postgresql://[::1/db",
        "postgresql:///db?colour=red",
        "host=x connect_timeout=soon",
        "service=no_such_service_anywhere",
    };
    const struct log_options quiet = {.level = LOG_LEVEL_ERROR + 1};
    log_setup(&quiet); /* it tells why there */
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        world.options.conninfo = wrong[i];
        if (strchr(wrong[i], '=') == NULL && strstr(wrong[i], "://") == NULL)
            continue; /* a database's name */
        if (pgconn_new(&world.conn, &world.loop, &world.options) != JOBQ_EINVAL)
            fail_msg("taken: %s", wrong[i]);
    }
    world.conn = NULL;
}

/* ---- losing the session ---- */

/* In flight, queued behind it, and from inside their callbacks: each completes once, in
 * order, before on_lost. */
static void
the_session_is_terminated_with_batches_queued(void **state)
{
    (void)state;
    enum { N = 100 };
    static struct asked asked[N];
    start_and_wait();
    ask_sql(&asked[0], "SELECT 'done'");
    ask_sql(&asked[1], "SELECT pg_sleep(1000)");
    for (int i = 2; i < N; i++)
        ask_sql(&asked[i], "SELECT 'never'");
    wait_for(asked[0].calls);
    terminate();
    wait_for(world.lost == 1);
    assert_int_equal(world.completed, N);
    assert_text(&asked[0], "done");
    for (int i = 1; i < N; i++) {
        assert_lost(&asked[i], true);
        assert_int_equal(asked[i].order, i);
        assert_string_equal(asked[i].sqlstate, "57P01");
    }
    assert_string_equal(world.why.sqlstate, "57P01");
    wait_for(world.ready == 2);
    ask_sql(&asked[0], "SELECT 'again'");
    wait_for(asked[0].calls);
    assert_text(&asked[0], "again");
}

static void
an_idle_session_is_terminated(void **state)
{
    (void)state;
    start_and_wait();
    for (int i = 1; i <= 3; i++) {
        terminate();
        wait_for(world.lost == i);
        assert_string_equal(world.why.sqlstate, "57P01");
        assert_non_null(strstr(world.why.message, "terminating connection"));
        wait_for(world.ready == i + 1);
    }
}

/* After a failover the old primary may live on as a standby. */
static void
a_read_only_server_is_left(void **state)
{
    (void)state;
    struct asked asked[3];
    start_and_wait();
    ask_sql(&asked[0], "SET default_transaction_read_only = on");
    ask_sql(&asked[1], "CREATE TABLE public.conn_test_ro (n int)");
    ask_sql(&asked[2], "SELECT 1");
    wait_for(world.lost == 1);
    assert_int_equal(asked[0].code, 0);
    assert_lost(&asked[1], true);
    assert_lost(&asked[2], true);
    assert_string_equal(world.why.sqlstate, "25006");
    wait_for(world.ready == 2);
}

static void
a_copy_cannot_be_taken(void **state)
{
    (void)state;
    struct asked asked;
    start_and_wait();
    ask_sql(&asked, "COPY (SELECT 1) TO STDOUT");
    wait_for(asked.calls);
    assert_lost(&asked, true);
    assert_non_null(strstr(asked.message, "PGRES_COPY_OUT"));
    wait_for(world.ready == 2);
}

static void
a_reset_connects_anew(void **state)
{
    (void)state;
    struct asked asked[2];
    start_and_wait();
    ask_sql(&asked[0], "SELECT pg_sleep(1000)");
    pgconn_reset(world.conn);
    ask_sql(&asked[1], "SELECT 1");
    assert_int_equal(world.lost, 0);
    wait_for(world.lost == 1);
    assert_lost(&asked[0], true);
    wait_for(world.ready == 2);
    assert_lost(&asked[1], false);
    assert_int_equal(asked[0].order, 0); /* in the order in which they were queued */
    assert_int_equal(asked[1].order, 1);
    pgconn_reset(world.conn);
    in_state(PGCONN_CONNECTING, reset); /* in the middle of a try */
    wait_for(world.ready == 3);
    assert_null(world.then_in_state);
    assert_int_equal(world.lost, 2);
}

#define test(name) cmocka_unit_test_setup_teardown(name, begin_world, end_world)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_batch_while_away_fails_at_once),
        test(nobody_listens),
        test(the_server_refuses_the_login),
        test(an_unreadable_connection_string),
        test(the_session_is_terminated_with_batches_queued),
        test(an_idle_session_is_terminated),
        test(a_read_only_server_is_left),
        test(a_copy_cannot_be_taken),
        test(a_reset_connects_anew),
    };
    return cmocka_run_group_tests(tests, find_database, NULL);
}
