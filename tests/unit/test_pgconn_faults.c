/* The connection, while the network is not well: silence, cuts at every byte, hosts that
 * are not there, a pooler in between. */
#include "tests/unit/pgworld.h"

#include <signal.h>
#include <sys/stat.h>
#include <pwd.h>

/* ---- the proxy, a program beside us ---- */

static struct {
    pid_t pid;
    FILE *to;
    FILE *from;
    int port;
} proxy;

/* Python's part of the network: see tests/faultproxy.py. Returns its answer. */
static const char *
tell(const char *command)
{
    static char answer[256];
    fprintf(proxy.to, "%s\n", command);
    fflush(proxy.to);
    if (!fgets(answer, sizeof answer, proxy.from) || strncmp(answer, "ok", 2) != 0)
        fail_msg("%s: the proxy answers %s", command, answer);
    return answer;
}

static long
bytes(const char *way)
{
    const char *at = strstr(tell("counts"), way);
    return at ? strtol(at + strlen(way) + strlen("\": "), NULL, 10) : -1;
}

static void
close_proxy(void)
{
    if (proxy.pid == 0)
        return;
    fclose(proxy.to);
    fclose(proxy.from);
    waitpid(proxy.pid, NULL, 0);
    proxy.pid = 0;
}

static void
open_proxy(void)
{
    int to[2];
    int from[2];
    char server[256];
    const char *host = PQhost(world.admin);
    snprintf(server, sizeof server, host[0] == '/' ? "%s/.s.PGSQL.%s" : "%s:%s", host,
             PQport(world.admin));
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    proxy.pid = fork();
    assert_true(proxy.pid >= 0);
    if (proxy.pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        close(to[1]); /* so that the end of our side is the end of its input */
        close(from[0]);
        unsetenv("LD_PRELOAD");
        execl("/usr/bin/python3", "python3", FAULTPROXY, server, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    proxy.to = fdopen(to[1], "w");
    proxy.from = fdopen(from[0], "r");
    char line[64];
    if (!fgets(line, sizeof line, proxy.from))
        fail_msg("the proxy " FAULTPROXY " did not start");
    proxy.port = atoi(line);
}

static char conninfo[512];

/* Through the proxy; host and more as libpq takes them. */
static void
go_through_proxy(const char *host, const char *more)
{
    snprintf(conninfo, sizeof conninfo, "host=%s port=%d user=%s dbname=%s %s", host,
             proxy.port, PQuser(world.admin), PQdb(world.admin), more);
    world.options.conninfo = conninfo;
}

static int
begin_with_proxy(void **state)
{
    if (begin_world(state) != 0)
        return -1;
    signal(SIGPIPE, SIG_IGN);
    open_proxy();
    go_through_proxy("127.0.0.1", "");
    return 0;
}

static int
end_with_proxy(void **state)
{
    close_proxy();
    return end_world(state);
}

/* ---- silence ---- */

static void
a_connection_that_hangs_is_given_up(void **state)
{
    (void)state;
    struct asked asked[3];
    world.options.dead_after_ms = 300;
    start_and_wait();
    tell("stall");
    uint64_t begun = uv_hrtime();
    for (int i = 0; i < 3; i++)
        ask_sql(&asked[i], "SELECT 1");
    wait_for(world.lost == 1);
    assert_true(uv_hrtime() - begun >= 290 * 1000000ULL);
    for (int i = 0; i < 3; i++)
        assert_lost(&asked[i], true);
    assert_string_equal(world.why.message, "no answer from the database for 300 ms");
    tell("resume");
    wait_for(world.ready == 2);
}

static void
a_half_open_connection_is_given_up(void **state)
{
    (void)state;
    struct asked asked;
    world.options.dead_after_ms = 300;
    start_and_wait();
    tell("half_open"); /* the server has forgotten us, and nobody says so */
    ask_sql(&asked, "SELECT 1");
    wait_for(world.lost == 1);
    assert_lost(&asked, true);
    wait_for(world.ready == 2);
}

enum { SLOW = 8, GIVE_UP_MS = 1000, TRIES = 20 };

/* Whether there were answers to all, each of which is a sign of life. If not, there must
 * have been none for as long as a connection is believed: the machine is busy, and
 * slower than what is slow here. */
static bool
answers(struct asked *asked, size_t n, uint64_t since_ms)
{
    for (size_t i = 0; i < n; i++) {
        wait_for(asked[i].calls);
        if (asked[i].code != 0) {
            assert_lost(&asked[i], true);
            assert_true(asked[i].at_ms >= since_ms + GIVE_UP_MS);
            wait_for(asked[n - 1].calls);
            return false;
        }
        since_ms = asked[i].at_ms;
    }
    return true;
}

/* Answers that come slowly, but come. */
static bool
a_slow_connection(void)
{
    struct asked asked[SLOW + 1];
    uv_update_time(&world.loop);
    uint64_t begun_ms = uv_now(&world.loop);
    for (int i = 0; i < SLOW; i++)
        ask_sql(&asked[i], "SELECT pg_sleep(0.3)");
    if (!answers(asked, SLOW, begun_ms))
        return false;
    assert_true(asked[SLOW - 1].at_ms > begun_ms + 2 * GIVE_UP_MS);
    tell("delay 30");
    uv_update_time(&world.loop);
    ask_sql(&asked[SLOW], "SELECT 'late'");
    if (!answers(&asked[SLOW], 1, uv_now(&world.loop)))
        return false;
    assert_text(&asked[SLOW], "late");
    assert_int_equal(world.lost, 0);
    return true;
}

static void
a_slow_connection_is_kept(void **state)
{
    (void)state;
    world.options.dead_after_ms = GIVE_UP_MS;
    start_and_wait();
    for (int i = 0; i < TRIES && !a_slow_connection(); i++) {
        assert_true(i + 1 < TRIES);
        tell("delay 0");
        wait_for(pgconn_state(world.conn) == PGCONN_READY);
        world.completed = world.lost = 0;
    }
}

/* It was we who were stopped: the answer waits in the socket. */
static void
a_loop_that_was_held_up_looks_first(void **state)
{
    (void)state;
    struct asked asked;
    world.options.dead_after_ms = 200;
    start_and_wait();
    ask_sql(&asked, "SELECT 'there'");
    assert_string_equal(admin("SELECT pg_sleep(0.5)"), ""); /* blocks us */
    wait_for(asked.calls);
    assert_text(&asked, "there");
    assert_int_equal(world.lost, 0);
}

static void
a_silent_host_is_given_up(void **state)
{
    (void)state;
    tell("stall");
    go_through_proxy("127.0.0.1", "connect_timeout=1");
    start();
    wait_for(world.lost == 1);
    assert_non_null(strstr(world.why.message, "127.0.0.1"));
    assert_non_null(strstr(world.why.message, "did not answer within 1 s"));
    tell("resume");
    wait_for(world.ready == 1);
}

/* The second host is the same server, without the silent network before it. */
static void
a_silent_host_is_passed_by(void **state)
{
    (void)state;
    struct asked asked;
    tell("stall");
    snprintf(conninfo, sizeof conninfo,
             "host=127.0.0.1,%s port=%d,%s user=%s dbname=%s connect_timeout=1 "
             "target_session_attrs=read-write",
             PQhost(world.admin), proxy.port, PQport(world.admin), PQuser(world.admin),
             PQdb(world.admin));
    world.options.conninfo = conninfo;
    start();
    wait_for(world.ready == 1);
    assert_int_equal(world.lost, 1);
    ask_sql(&asked, "SELECT 'there'");
    wait_for(asked.calls);
    assert_text(&asked, "there");
    terminate();
    wait_for(world.ready == 2); /* straight to the good one */
    assert_int_equal(world.lost, 2);
    assert_string_equal(world.why.sqlstate, "57P01");
}

/* ---- names ---- */

static void
a_name_is_looked_up(void **state)
{
    (void)state;
    struct asked asked;
    go_through_proxy("localhost", ""); /* ::1 comes first, where nobody listens */
    start_and_wait();
    ask_sql(&asked, "SELECT 'there'");
    wait_for(asked.calls);
    assert_text(&asked, "there");
    assert_int_equal(world.lost, 0);
}

static void
a_name_that_does_not_exist(void **state)
{
    (void)state;
    go_through_proxy("no-such-host.invalid", "");
    start();
    wait_for(world.lost == 2);
    assert_non_null(strstr(world.why.message,
                           "could not look up host name \"no-such-host.invalid\""));
    close_conn(false);
    /* beside one that does: left out; and a folder's place stays as it is */
    go_through_proxy("no-such-host.invalid,/nonexistent,localhost", "");
    world.lost = 0;
    start();
    wait_for(world.ready == 1);
    assert_int_equal(world.lost, 0);
}

/* ---- refusal and cuts ---- */

static void
a_host_that_refuses_comes_back(void **state)
{
    (void)state;
    start_and_wait();
    tell("refuse");
    tell("cut");
    wait_for(world.lost == 3);
    assert_non_null(strstr(world.why.message, "Connection refused"));
    assert_int_equal(world.ready, 1);
    tell("accept");
    wait_for(world.ready == 2);
}

/* A round of work: what is asked, and what must be true of it whatever happened. */
enum { ROUND = 5 };

static void
begin_round(struct asked *asked)
{
    world.completed = 0;
    ask_named(&asked[0], "one", "SELECT 'one'");
    ask_sql(&asked[1], "SELECT pg_notify('jobq_test', 'x')");
    ask_sql(&asked[2], "SELECT 1 / 0");
    ask_named(&asked[3], "rows", "SELECT generate_series(1, 20)");
    ask_named(&asked[4], "one", "SELECT 'one'");
}

static void
check_round(const struct asked *asked)
{
    bool lost = false;
    for (int i = 0; i < ROUND; i++) {
        assert_int_equal(asked[i].calls, 1);
        assert_int_equal(asked[i].order, i);
        assert_false(asked[i].too_early);
        if (lost) /* nothing succeeds behind a loss */
            assert_int_equal(asked[i].code, JOBQ_ECONN);
        lost = asked[i].code == JOBQ_ECONN;
        if (!lost)
            assert_int_equal(asked[i].code, i == 2 ? JOBQ_EDB : 0);
    }
}

/* Ends a loop's turn: all is well again, which also resets the back-off. */
static void
check_recovery(void)
{
    struct asked asked;
    wait_for(pgconn_state(world.conn) == PGCONN_READY);
    ask_sql(&asked, "SELECT 'well'");
    wait_for(asked.calls);
    assert_text(&asked, "well");
}

/* Cuts after each byte of the answers, gently and with a reset. */
static void
cut_at_each_byte_of_a_round(void **state)
{
    (void)state;
    struct asked asked[ROUND];
    world.options.setup = "LISTEN jobq_test";
    start_and_wait();
    long before = bytes("down");
    begin_round(asked);
    wait_for(world.completed == ROUND && world.notified == 1);
    check_round(asked);
    long length = bytes("down") - before;
    assert_true(length > 200);
    for (long at = 1; at <= length; at++) {
        char command[64];
        snprintf(command, sizeof command, "cut_after %ld down %s", at,
                 at % 2 ? "rst" : "");
        int lost = world.lost;
        tell(command);
        begin_round(asked);
        wait_for(world.completed == ROUND && world.lost == lost + 1);
        check_round(asked);
        check_recovery();
    }
}

static void
cut_at_bytes_of_what_is_sent(void **state)
{
    (void)state;
    struct asked asked[ROUND];
    start_and_wait();
    long before = bytes("up");
    begin_round(asked);
    wait_for(world.completed == ROUND);
    long length = bytes("up") - before;
    assert_true(length > 200);
    pgconn_reset(world.conn); /* so that everything is prepared anew, as in each turn */
    wait_for(world.ready == 2);
    for (long at = 1; at < length; at += 3) {
        char command[64];
        snprintf(command, sizeof command, "cut_after %ld up %s", at, at % 2 ? "rst" : "");
        int lost = world.lost;
        tell(command);
        begin_round(asked);
        wait_for(world.completed == ROUND && world.lost == lost + 1);
        check_round(asked);
        assert_int_equal(asked[ROUND - 1].code, JOBQ_ECONN);
        check_recovery();
    }
}

/* From the first byte of a connection to the last of its set-up. */
static void
cut_at_bytes_of_a_beginning(void **state)
{
    (void)state;
    struct asked asked;
    world.options.setup = "SET work_mem = '7MB'; LISTEN jobq_test";
    start_and_wait();
    long length = bytes("down");
    for (long at = 1; at < length; at += 9) {
        char command[64];
        snprintf(command, sizeof command, "cut_after %ld down", at);
        tell(command);
        int ready = world.ready;
        int lost = world.lost;
        pgconn_reset(world.conn);
        wait_for(world.ready == ready + 1);
        assert_in_range(world.lost, lost + 1, lost + 2); /* the reset, and the cut try */
        ask_sql(&asked, "SELECT current_setting('work_mem')");
        wait_for(asked.calls);
        assert_text(&asked, "7MB");
    }
}

/* ---- a pooler ---- */

static struct {
    char folder[64];
    pid_t pid;
} bouncer;

static void
write_file(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", bouncer.folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int
begin_with_bouncer(void **state)
{
    char text[1024];
    char ini[128];
    if (begin_world(state) != 0)
        return -1;
    strcpy(bouncer.folder, "/tmp/jobq-pgb-XXXXXX");
    assert_non_null(mkdtemp(bouncer.folder));
    snprintf(text, sizeof text,
             "[databases]\n* = host=%s port=%s user=%s\n"
             "[pgbouncer]\nlisten_addr =\nunix_socket_dir = %s\nlisten_port = 6432\n"
             "auth_type = any\npool_mode = transaction\nlogfile = %s/log\n"
             "default_pool_size = 2\nverbose = 0\n",
             PQhost(world.admin), PQport(world.admin), PQuser(world.admin),
             bouncer.folder, bouncer.folder);
    write_file("ini", text);
    snprintf(ini, sizeof ini, "%s/ini", bouncer.folder);
    bouncer.pid = fork();
    assert_true(bouncer.pid >= 0);
    if (bouncer.pid == 0) {
        const struct passwd *other = getpwnam("postgres"); /* it refuses to run as root */
        if (!freopen("/dev/null", "w", stderr))
            _exit(126);
        if (geteuid() == 0 &&
            (!other || chown(bouncer.folder, other->pw_uid, other->pw_gid) ||
             setgid(other->pw_gid) || setuid(other->pw_uid)))
            _exit(126);
        execlp("pgbouncer", "pgbouncer", ini, (char *)NULL);
        execl("/usr/sbin/pgbouncer", "pgbouncer", ini, (char *)NULL);
        _exit(127);
    }
    snprintf(conninfo, sizeof conninfo, "host=%s port=6432 user=%s dbname=%s",
             bouncer.folder, PQuser(world.admin), PQdb(world.admin));
    world.options.conninfo = conninfo;
    return 0;
}

static int
end_with_bouncer(void **state)
{
    static const char *const names[] = {"ini", "log", ".s.PGSQL.6432",
                                        ".s.PGSQL.6432.lock"};
    int rc = end_world(state);
    kill(bouncer.pid, SIGTERM);
    waitpid(bouncer.pid, NULL, 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", bouncer.folder, names[i]);
        unlink(path);
    }
    rmdir(bouncer.folder);
    return rc;
}

static void
it_works_through_a_pooler(void **state)
{
    (void)state;
    enum { N = 300 };
    static struct asked asked[N];
    world.options.setup = "SELECT 1 / 0"; /* skipped, or it would fail */
    world.options.batch_setup = "pg_catalog.set_config('work_mem', '7MB', true)";
    start();
    wait_for(world.ready == 1); /* after a few tries, while the pooler starts */
    assert_true(pgconn_pooled(world.conn));
    for (int i = 0; i < N; i++) {
        const struct pgconn_statement statements[] = {
            {.name = "a", .sql = "SELECT 'a'"},
            i % 3 == 2
                ? (struct pgconn_statement){.sql = "SELECT 1 / 0"}
                : (struct pgconn_statement){.name = "setting",
                                            .sql = "SELECT current_setting('work_mem')"}};
        assert_int_equal(ask(&asked[i], statements, 2), 0);
    }
    wait_for(world.completed == N);
    for (int i = 0; i < N; i++) {
        if (i % 3 == 2) {
            assert_failed(&asked[i], "22012");
        } else {
            assert_text(&asked[i], "7MB");
            assert_int_equal(asked[i].n_results, 2);
        }
        assert_int_equal(asked[i].order, i);
    }
    ask_sql(&asked[0], "SELECT count(*) FROM pg_prepared_statements");
    wait_for(asked[0].calls);
    assert_text(&asked[0], "0");
    ask_sql(&asked[0], "SHOW search_path");
    wait_for(asked[0].calls);
    assert_text(&asked[0], "pg_catalog, pg_temp");
    int lost = world.lost;
    ask_sql(&asked[0], "SELECT pg_terminate_backend(pg_backend_pid())");
    wait_for(world.lost > lost);
    assert_lost(&asked[0], true);
    wait_for(world.ready == 2);
}

#define through_proxy(name)                                                              \
    cmocka_unit_test_setup_teardown(name, begin_with_proxy, end_with_proxy)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        through_proxy(a_connection_that_hangs_is_given_up),
        through_proxy(a_half_open_connection_is_given_up),
        through_proxy(a_slow_connection_is_kept),
        through_proxy(a_loop_that_was_held_up_looks_first),
        through_proxy(a_silent_host_is_given_up),
        through_proxy(a_silent_host_is_passed_by),
        through_proxy(a_name_is_looked_up),
        through_proxy(a_name_that_does_not_exist),
        through_proxy(a_host_that_refuses_comes_back),
        through_proxy(cut_at_each_byte_of_a_round),
        through_proxy(cut_at_bytes_of_what_is_sent),
        through_proxy(cut_at_bytes_of_a_beginning),
        cmocka_unit_test_setup_teardown(it_works_through_a_pooler, begin_with_bouncer,
                                        end_with_bouncer),
    };
    return cmocka_run_group_tests(tests, find_database, NULL);
}
