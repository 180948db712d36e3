/* test_pgconn.c: the connection while all is well: batches, prepared statements, set-up and
 * notifications. */
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
    };
    return cmocka_run_group_tests(tests, find_database, NULL);
}
