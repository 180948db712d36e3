/* The connection, while the network is well: batches, errors, notifications, and every
 * way to begin and to end. */
#include "tests/unit/pgworld.h"

/* ---- batches ---- */

static void
a_batch_gives_its_results(void **state)
{
    (void)state;
    struct asked asked;
    const struct pgconn_statement statements[] = {
        {.sql = "SELECT 1"},
        {.sql = "SELECT generate_series(1, 3)"},
        {.sql = "SELECT current_setting('application_name') || ' ' || "
                "current_setting('client_encoding')"},
    };
    start_and_wait();
    assert_int_equal(ask(&asked, statements, 3), 0);
    assert_int_equal(asked.calls, 0);
    wait_for(asked.calls);
    assert_text(&asked, "jobqd test UTF8");
    assert_int_equal(asked.n_results, 3);
    assert_false(pgconn_pooled(world.conn));
    assert_int_equal(pgconn_server_version(world.conn), PQserverVersion(world.admin));
    assert_int_equal(ask(&asked, NULL, 0), 0); /* of nothing, but in its turn */
    wait_for(asked.calls);
    assert_int_equal(asked.code, 0);
}

static void
a_batch_is_one_transaction(void **state)
{
    (void)state;
    struct asked asked;
    const struct pgconn_statement statements[] = {
        {.sql = "CREATE TABLE public.conn_test_one (n int)"},
        {.sql = "INSERT INTO public.conn_test_one VALUES (1)"},
        {.sql = "SELECT 1 / 0"},
        {.sql = "SELECT 'never reached'"},
    };
    start_and_wait();
    assert_int_equal(ask(&asked, statements, 4), 0);
    wait_for(asked.calls);
    assert_failed(&asked, "22012");
    assert_string_equal(asked.message, "division by zero");
    assert_string_equal(admin("SELECT to_regclass('public.conn_test_one')"), "");
    assert_int_equal(ask(&asked, statements, 2), 0);
    wait_for(asked.calls);
    assert_int_equal(asked.code, 0);
    assert_string_equal(admin("SELECT count(*) FROM public.conn_test_one"), "1");
    admin("DROP TABLE public.conn_test_one");
    assert_int_equal(world.lost, 0);
}

/* Each third one fails, at one of its three statements. */
static void
many_batches_are_under_way(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct asked asked[N];
    start_and_wait();
    for (int i = 0; i < N; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const char *values[] = {number};
        const Oid types[] = {23};
        const struct pgconn_statement good = {.name = "good",
                                              .sql =
                                                  "SELECT $1 FROM generate_series(1, 20)",
                                              .n_params = 1,
                                              .types = types,
                                              .values = values};
        struct pgconn_statement statements[] = {good, good, good};
        if (i % 3 == 2)
            statements[i / 3 % 3] = (struct pgconn_statement){
                .name = "bad", .sql = "SELECT 1 / (random()::int * 0)"};
        assert_int_equal(ask(&asked[i], statements, 3), 0);
        memset(number, 'x', sizeof number); /* everything was copied */
    }
    assert_int_equal(world.completed, 0);
    wait_for(world.completed == N);
    for (int i = 0; i < N; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        if (i % 3 == 2)
            assert_failed(&asked[i], "22012");
        else
            assert_text(&asked[i], number);
        assert_int_equal(asked[i].order, i);
    }
    assert_int_equal(world.lost, 0);
}

/* Both directions are full at once: neither side may wait for the other. */
static void
large_values_both_ways(void **state)
{
    (void)state;
    enum { N = 20, SIZE = 3000000 };
    static struct asked asked[N];
    char *large = malloc(SIZE + 1);
    assert_non_null(large);
    memset(large, 'x', SIZE);
    large[SIZE] = '\0';
    const char *values[] = {large};
    const struct pgconn_statement statement = {
        .name = "echo", .sql = "SELECT $1::text", .n_params = 1, .values = values};
    start_and_wait();
    for (int i = 0; i < N; i++)
        assert_int_equal(ask(&asked[i], &statement, 1), 0);
    wait_for(world.completed == N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(asked[i].code, 0);
        assert_int_equal(asked[i].rows, 1);
    }
    free(large);
}

/* ---- prepared statements ---- */

static void
a_statement_is_prepared_once(void **state)
{
    (void)state;
    struct asked asked[4];
    const struct pgconn_statement statements[] = {{.name = "a", .sql = "SELECT 1"},
                                                  {.name = "b", .sql = "SELECT 2"},
                                                  {.name = "a", .sql = "SELECT 1"}};
    start_and_wait();
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(&asked[i], statements, 3), 0);
    ask_sql(&asked[3],
            "SELECT string_agg(name, ',' ORDER BY name) FROM pg_prepared_statements");
    wait_for(world.completed == 4);
    assert_text(&asked[2], "1");
    assert_text(&asked[3], "a,b");
}

/* What was sent behind it fails with it, and it is prepared again when it is used again.
 */
static void
a_statement_that_cannot_be_prepared(void **state)
{
    (void)state;
    struct asked bad;
    struct asked behind;
    struct asked other;
    const struct pgconn_statement three[] = {
        {.name = "x", .sql = "SELECT 'x'"},
        {.name = "absent", .sql = "SELECT count(*) FROM public.conn_test_absent"},
        {.name = "y", .sql = "SELECT 'y'"},
    };
    admin("DROP TABLE IF EXISTS public.conn_test_absent");
    start_and_wait();
    assert_int_equal(ask(&bad, three, 3), 0);
    assert_int_equal(ask(&behind, three, 3), 0);
    ask_sql(&other, "SELECT 'well'");
    wait_for(world.completed == 3);
    assert_failed(&bad, "42P01");
    assert_string_equal(bad.message,
                        "relation \"public.conn_test_absent\" does not exist");
    assert_failed(&behind, "26000");
    assert_text(&other, "well");
    admin("CREATE TABLE public.conn_test_absent (n int)");
    assert_int_equal(ask(&bad, three, 3), 0);
    ask_named(&other, "y", "SELECT 'y'");
    wait_for(world.completed == 5);
    assert_text(&bad, "y");
    assert_text(&other, "y");
    admin("DROP TABLE public.conn_test_absent");
    assert_int_equal(world.lost, 0);
}

/* A session whose prepared statements are not what we think is given up. */
static void
deallocated_statements_are_prepared_anew(void **state)
{
    (void)state;
    struct asked asked[3];
    start_and_wait();
    ask_named(&asked[0], "a", "SELECT 'a'");
    ask_sql(&asked[1], "DEALLOCATE ALL");
    ask_named(&asked[2], "a", "SELECT 'a'");
    wait_for(world.completed == 3);
    assert_text(&asked[0], "a");
    assert_lost(&asked[2], true);
    assert_string_equal(asked[2].sqlstate, "26000");
    wait_for(world.ready == 2);
    ask_named(&asked[0], "a", "SELECT 'a'");
    wait_for(asked[0].calls);
    assert_text(&asked[0], "a");
}

static void
a_statement_whose_result_has_changed(void **state)
{
    (void)state;
    struct asked asked;
    admin("CREATE TABLE IF NOT EXISTS public.conn_test_wide (n int)");
    start_and_wait();
    ask_named(&asked, "wide", "SELECT * FROM public.conn_test_wide");
    wait_for(asked.calls);
    assert_int_equal(asked.code, 0);
    admin("ALTER TABLE public.conn_test_wide ADD m int");
    ask_named(&asked, "wide", "SELECT * FROM public.conn_test_wide");
    wait_for(asked.calls);
    assert_lost(&asked, true);
    wait_for(world.ready == 2);
    ask_named(&asked, "wide", "SELECT * FROM public.conn_test_wide");
    wait_for(asked.calls);
    assert_int_equal(asked.code, 0);
    admin("DROP TABLE public.conn_test_wide");
}

/* ---- set-up and notifications ---- */

static void
the_session_is_set_up(void **state)
{
    (void)state;
    struct asked asked;
    world.options.setup =
        "SET work_mem = '7MB'; SET extra_float_digits = 1; LISTEN jobq_test";
    world.options.batch_setup = "'not sent without a pooler'";
    start_and_wait();
    ask_sql(&asked, "SELECT current_setting('work_mem')");
    wait_for(asked.calls);
    assert_text(&asked, "7MB");
    assert_int_equal(asked.n_results, 1);
    ask_sql(&asked, "SHOW search_path");
    wait_for(asked.calls);
    assert_text(&asked, "pg_catalog, pg_temp");
    admin("NOTIFY jobq_test, 'while idle'");
    wait_for(world.notified == 1);
    assert_string_equal(world.payload, "while idle");
    terminate(); /* and the next session again */
    wait_for(world.ready == 2);
    ask_sql(&asked, "SELECT current_setting('work_mem')");
    wait_for(asked.calls);
    assert_text(&asked, "7MB");
    admin("NOTIFY jobq_test, 'again'");
    wait_for(world.notified == 2);
}

static void
notifications_arrive_while_it_is_busy(void **state)
{
    (void)state;
    static struct asked asked[200];
    world.options.setup = "LISTEN jobq_test";
    start_and_wait();
    for (int i = 0; i < 200; i++)
        ask_sql(&asked[i], i % 2
                               ? "SELECT pg_notify('jobq_test', 'from within')"
                               : "SELECT repeat('x', 1000) FROM generate_series(1, 100)");
    for (int i = 0; i < 20; i++)
        admin("NOTIFY jobq_test, 'from outside'");
    wait_for(world.completed == 200 && world.notified == 120);
    for (int i = 0; i < 200; i++)
        assert_int_equal(asked[i].code, 0);
}

static void
a_set_up_that_fails_is_a_failed_try(void **state)
{
    (void)state;
    world.options.setup = "SET work_mem = '7MB'; SETT x";
    start();
    wait_for(world.lost >= 2);
    assert_int_equal(world.ready, 0);
    assert_string_equal(world.why.sqlstate, "42601");
    assert_non_null(strstr(world.why.message, "SETT"));
}

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
reset(void)
{
    pgconn_reset(world.conn);
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
        test(a_batch_gives_its_results),
        test(a_batch_is_one_transaction),
        test(many_batches_are_under_way),
        test(large_values_both_ways),
        test(a_statement_is_prepared_once),
        test(a_statement_that_cannot_be_prepared),
        test(deallocated_statements_are_prepared_anew),
        test(a_statement_whose_result_has_changed),
        test(the_session_is_set_up),
        test(notifications_arrive_while_it_is_busy),
        test(a_set_up_that_fails_is_a_failed_try),
        test(a_batch_while_away_fails_at_once),
        test(nobody_listens),
        test(the_server_refuses_the_login),
        test(an_unreadable_connection_string),
        test(the_session_is_terminated_with_batches_queued),
        test(an_idle_session_is_terminated),
        test(a_read_only_server_is_left),
        test(a_copy_cannot_be_taken),
        test(a_reset_connects_anew),
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
