/* test_pgconn_close.c: calls from inside the connection's callbacks, and closing in every
 * state. */
#include "tests/unit/pgworld.h"

/* ---- calls from inside callbacks ---- */

static struct asked inner;

static void
ask_again(void)
{
    ask_sql(&inner, "SELECT 'inner'");
}

static void
close_at_once(void)
{
    pgconn_close(world.conn, false, on_closed);
    pgconn_reset(world.conn); /* too late, and harmless */
    assert_int_equal(ask(&inner, NULL, 0), JOBQ_ECONN);
    assert_int_equal(inner.calls, 0);
}

static void
on_event(int when, void (*then)(void))
{
    world.then = then;
    world.when = when;
}

static void
a_batch_is_queued_inside_a_callback(void **state)
{
    (void)state;
    struct asked asked;
    world.options.setup = "LISTEN jobq_test";
    on_event(THEN_READY, ask_again);
    start_and_wait();
    wait_for(inner.calls);
    assert_text(&inner, "inner");
    on_event(THEN_DONE, ask_again);
    ask_sql(&asked, "SELECT 1");
    wait_for(asked.calls && inner.calls);
    assert_text(&inner, "inner");
    on_event(THEN_NOTIFY, ask_again);
    inner.calls = 0;
    admin("NOTIFY jobq_test");
    wait_for(inner.calls);
    assert_text(&inner, "inner");
    on_event(THEN_DONE, ask_again); /* in a loss: it is away by then */
    ask_sql(&asked, "SELECT pg_sleep(1000)");
    terminate();
    wait_for(asked.calls && inner.calls);
    assert_lost(&asked, true);
    assert_lost(&inner, false);
    wait_for(world.ready == 2);
    on_event(THEN_LOST, ask_again);
    inner.calls = 0;
    terminate();
    wait_for(inner.calls);
    assert_lost(&inner, false);
    wait_for(world.ready == 3);
}

static void
it_is_reset_inside_a_callback(void **state)
{
    (void)state;
    struct asked asked[3];
    world.options.setup = "LISTEN jobq_test";
    on_event(THEN_READY, reset);
    start();
    wait_for(world.ready == 2);
    on_event(THEN_DONE, reset);
    for (int i = 0; i < 3; i++)
        ask_sql(&asked[i], "SELECT 'well'");
    wait_for(world.ready == 3);
    assert_text(&asked[0], "well");
    assert_lost(&asked[1], true);
    assert_lost(&asked[2], true);
    on_event(THEN_NOTIFY, reset);
    admin("NOTIFY jobq_test; NOTIFY jobq_test, 'second'");
    wait_for(world.ready == 4);
    on_event(THEN_LOST, reset);
    terminate();
    wait_for(world.ready == 5);
    assert_int_equal(world.lost, 4);
}

static void
it_is_closed_inside_a_callback(void **state)
{
    (void)state;
    struct asked asked[3] = {0};
    world.options.setup = "LISTEN jobq_test";
    static const int whens[] = {THEN_READY, THEN_DONE, THEN_NOTIFY, THEN_LOST};
    for (size_t i = 0; i < sizeof whens / sizeof whens[0]; i++) {
        on_event(whens[i], close_at_once);
        start();
        wait_for(world.ready == 1);
        if (whens[i] == THEN_DONE) {
            for (int j = 0; j < 3; j++)
                ask_sql(&asked[j], "SELECT 'well'");
        } else if (whens[i] == THEN_NOTIFY) {
            admin("NOTIFY jobq_test; NOTIFY jobq_test, 'second'");
        } else if (whens[i] == THEN_LOST) {
            terminate();
        }
        wait_for(world.closed == 1);
    }
    assert_text(&asked[0], "well");
    assert_lost(&asked[1], true);
    assert_lost(&asked[2], true);
}

/* While batches are being completed for a loss: the rest completes all the same, and
 * on_lost is not called any more. */
static void
it_is_closed_while_it_is_being_lost(void **state)
{
    (void)state;
    struct asked asked[3];
    start_and_wait();
    ask_sql(&asked[0], "SELECT pg_sleep(1000)");
    ask_sql(&asked[1], "SELECT 1");
    ask_sql(&asked[2], "SELECT 1");
    on_event(THEN_DONE, close_at_once);
    terminate();
    wait_for(world.closed);
    for (int i = 0; i < 3; i++)
        assert_lost(&asked[i], true);
    assert_int_equal(world.lost, 0);
}

/* ---- closing ---- */

static void
close_in(enum pgconn_state state, const char *conninfo)
{
    world.options.conninfo = conninfo;
    in_state(state, close_at_once);
    start();
    wait_for(world.closed);
}

static void
closing_in_every_state(void **state)
{
    (void)state;
    char conninfo[512];
    start();
    assert_int_equal(pgconn_state(world.conn), PGCONN_AWAY);
    close_conn(true); /* there is nothing to flush */
    close_in(PGCONN_RESOLVING, "host=localhost port=1 dbname=x user=x"); /* looking up */
    close_in(PGCONN_CONNECTING, world.conninfo);
    close_in(PGCONN_READY, world.conninfo);
    snprintf(conninfo, sizeof conninfo, "%s connect_timeout=0", world.conninfo);
    world.options.setup = "SELECT pg_sleep(1000)";
    close_in(PGCONN_SETTING_UP, conninfo);
    assert_int_equal(world.lost, 0);

    world.options.conninfo = "host=/nonexistent dbname=x user=x";
    start();
    wait_for(world.lost >= 1);
    assert_int_equal(pgconn_state(world.conn), PGCONN_AWAY); /* in the back-off */
    close_conn(false);
}

static void
closing_with_batches(void **state)
{
    (void)state;
    struct asked asked[3];
    for (int flush = 0; flush <= 1; flush++) {
        start();
        wait_for(world.ready == 1);
        ask_sql(&asked[0], "SELECT 'one'");
        ask_sql(&asked[1], "SELECT pg_sleep(0.05)");
        ask_sql(&asked[2], "SELECT 'three'");
        if (!flush)
            pgconn_reset(world.conn); /* closing comes first */
        close_conn(flush);
        if (flush)
            assert_text(&asked[2], "three");
        for (int i = 0; i < 3 && !flush; i++)
            assert_lost(&asked[i], true);
    }
    assert_int_equal(world.lost, 0);
    start();
    ask_sql(&asked[0], "SELECT 'refused'"); /* not completed yet */
    close_conn(false);
    assert_lost(&asked[0], false);
}

static void
a_flush_has_a_limit(void **state)
{
    (void)state;
    struct asked asked;
    world.options.dead_after_ms = 100;
    start_and_wait();
    ask_sql(&asked, "SELECT pg_sleep(1000)");
    close_conn(true);
    assert_lost(&asked, true);
    world.options.dead_after_ms = 0;
    start();
    wait_for(world.ready == 1);
    ask_sql(&asked, "SELECT pg_sleep(1000)");
    pgconn_close(world.conn, true, on_closed);
    for (int i = 0; i < 3; i++)
        uv_run(&world.loop, UV_RUN_NOWAIT);
    assert_int_equal(world.closed, 0);
    close_conn(false); /* not to wait after all */
    assert_lost(&asked, true);
    admin("SELECT count(pg_terminate_backend(pid))" WHERE_WE_ARE);
}

#define test(name) cmocka_unit_test_setup_teardown(name, begin_world, end_world)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_batch_is_queued_inside_a_callback),
        test(it_is_reset_inside_a_callback),
        test(it_is_closed_inside_a_callback),
        test(it_is_closed_while_it_is_being_lost),
        test(closing_in_every_state),
        test(closing_with_batches),
        test(a_flush_has_a_limit),
    };
    return cmocka_run_group_tests(tests, find_database, NULL);
}
