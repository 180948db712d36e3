/* The embedded database, alive: a real cluster on a loop of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <libpq-fe.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "jobqd/embedded/postgres.h"
#include "jobqd/embedded/postgres_dir.h"

#define LIMIT_MS 60000 /* for anything that is waited for */

static char base[64];
static char path[128]; /* DIR: base/db */

/* What the events have told so far. */
static struct {
    uv_loop_t loop;
    struct embedded *embedded;
    int ready;
    int down;
    int failed;
    int stopped;
    jobq_error error;
    char uri[256];
    uv_timer_t limit;
} seen;

static void
on_ready(void *owner, const char *uri)
{
    assert_ptr_equal(owner, &seen);
    seen.ready++;
    snprintf(seen.uri, sizeof seen.uri, "%s", uri);
    uv_stop(&seen.loop);
}

static void
on_down(void *owner, const char *why)
{
    (void)owner;
    assert_non_null(strstr(why, "signal 9"));
    seen.down++;
    uv_stop(&seen.loop);
}

static void
on_failed(void *owner, const jobq_error *error)
{
    (void)owner;
    seen.failed++;
    seen.error = *error;
    uv_stop(&seen.loop);
}

static void
on_stopped(void *owner)
{
    (void)owner;
    seen.stopped++;
    uv_stop(&seen.loop);
}

static void
on_limit(uv_timer_t *timer)
{
    (void)timer;
    fail_msg("waited for %d s in state %s: ready %d, down %d, failed %d (%s), stopped %d",
             LIMIT_MS / 1000, embedded_state_name(embedded_state(seen.embedded)),
             seen.ready, seen.down, seen.failed, seen.error.message, seen.stopped);
}

static int
begin(const char *const *settings, jobq_error *err)
{
    const struct embedded_options options = {.dir = path, .settings = settings};
    const struct embedded_events events = {.on_ready = on_ready,
                                           .on_down = on_down,
                                           .on_failed = on_failed,
                                           .on_stopped = on_stopped};
    return embedded_new(&seen.embedded, &seen.loop, &options, &events, &seen, err);
}

static void
start(const char *const *settings)
{
    jobq_error err;
    if (begin(settings, &err) != 0)
        fail_msg("%s", err.message);
}

/* The events stop the loop, so that it does not block between an event and this look. */
static void
wait_for(const int *counter, int value)
{
    assert_int_equal(uv_timer_start(&seen.limit, on_limit, LIMIT_MS, 0), 0);
    while (*counter < value)
        uv_run(&seen.loop, UV_RUN_ONCE);
    uv_timer_stop(&seen.limit);
    assert_int_equal(*counter, value);
}

/* Turns the loop without blocking, so that no state is passed over inside one turn. */
static void
wait_for_state(enum embedded_state state)
{
    assert_int_equal(uv_timer_start(&seen.limit, on_limit, LIMIT_MS, 0), 0);
    while (embedded_state(seen.embedded) != state)
        uv_run(&seen.loop, UV_RUN_NOWAIT);
    uv_timer_stop(&seen.limit);
}

static void
end(void)
{
    int before = seen.stopped;
    embedded_stop(seen.embedded, false);
    assert_int_equal(seen.stopped, before); /* never from inside */
    wait_for(&seen.stopped, before + 1);
    assert_int_equal(embedded_state(seen.embedded), EMBEDDED_STOPPED);
    embedded_free(seen.embedded);
    seen.embedded = NULL;
}

/* The first column of the first row. */
static const char *
query(const char *uri, const char *sql)
{
    static char value[256];
    PGconn *conn = PQconnectdb(uri);
    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(conn));
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) != PGRES_TUPLES_OK &&
        PQresultStatus(result) != PGRES_COMMAND_OK)
        fail_msg("%s", PQerrorMessage(conn));
    snprintf(value, sizeof value, "%s",
             PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    PQfinish(conn);
    return value;
}

static struct postgres_processes
processes(void)
{
    struct postgres_dir dir;
    struct postgres_processes found;
    jobq_error err;
    assert_int_equal(postgres_dir_inspect(&dir, path, &err), 0);
    postgres_dir_processes(&dir, &found);
    postgres_dir_clear(&dir);
    return found;
}

static int
remove_entry(const char *name, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(name);
}

static int
set_up(void **state)
{
    (void)state;
    memset(&seen, 0, sizeof seen);
    strcpy(base, "/tmp/jobq-test-XXXXXX");
    if (!mkdtemp(base) || chmod(base, 0755) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/db", base);
    return uv_loop_init(&seen.loop) || uv_timer_init(&seen.loop, &seen.limit);
}

static int
tear_down(void **state)
{
    (void)state;
    uv_close((uv_handle_t *)&seen.limit, NULL);
    uv_run(&seen.loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&seen.loop) != 0) /* a handle was left open */
        return -1;
    return nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void
it_is_made_started_stopped_and_started_again(void **state)
{
    (void)state;
    static const char *const settings[] = {"work_mem=5MB", NULL};
    start(settings);
    wait_for(&seen.ready, 1);
    assert_string_equal(seen.uri, embedded_connection_uri(seen.embedded));
    assert_string_equal(query(seen.uri, "SELECT current_user"), "jobq");
    assert_string_equal(query(seen.uri, "SELECT pg_is_in_recovery()"), "f");
    assert_string_equal(query(seen.uri, "SHOW work_mem"), "5MB");
    assert_string_equal(query(seen.uri, "SHOW listen_addresses"), "");
    assert_string_equal(query(seen.uri, "SHOW archive_mode"), "on");
    assert_string_equal(query(seen.uri, "SHOW fsync"), "on");
    assert_string_equal(query(seen.uri, "SHOW data_checksums"), "on");
    query(seen.uri, "CREATE TABLE kept AS SELECT 7 AS n");
    assert_true(processes().count > 1);
    end();
    assert_int_equal(processes().count, 0);

    start(NULL);
    wait_for(&seen.ready, 2);
    assert_string_equal(query(seen.uri, "SELECT n FROM kept"), "7");
    assert_string_equal(query(seen.uri, "SHOW work_mem"), "4MB");
    end();
    assert_int_equal(seen.down + seen.failed, 0);
}

static void
the_users_own_settings_come_last(void **state)
{
    (void)state;
    char file[160];
    start(NULL);
    wait_for(&seen.ready, 1);
    end();
    snprintf(file, sizeof file, "%s/custom.conf", path);
    FILE *custom = fopen(file, "w");
    assert_non_null(custom);
    fputs("jit = on\nport = 9999\n", custom); /* the port is not theirs to set */
    fclose(custom);
    start(NULL);
    wait_for(&seen.ready, 2);
    assert_string_equal(query(seen.uri, "SHOW jit"), "on");
    end();

    custom = fopen(file, "w");
    assert_non_null(custom);
    fputs("no such thing\n", custom);
    fclose(custom);
    start(NULL);
    wait_for(&seen.failed, 1);
    assert_int_equal(embedded_state(seen.embedded), EMBEDDED_FAILED);
    assert_non_null(strstr(seen.error.message, "postgres does not start"));
    assert_non_null(strstr(seen.error.message, "custom.conf"));
    end();
}

static void
a_crash_is_healed(void **state)
{
    (void)state;
    start(NULL);
    for (int i = 1; i <= 2; i++) {
        wait_for(&seen.ready, i);
        query(seen.uri, "CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS n");
        pid_t postmaster = processes().postmaster;
        assert_int_not_equal(postmaster, 0);
        assert_int_equal(kill(postmaster, SIGKILL), 0);
        wait_for(&seen.down, i);
    }
    wait_for(&seen.ready, 3);
    assert_string_equal(query(seen.uri, "SELECT n FROM kept"), "7");
    end();
}

static void
a_busy_backend_of_a_killed_server_is_ousted(void **state)
{
    (void)state;
    start(NULL);
    wait_for(&seen.ready, 1);
    PGconn *conn = PQconnectdb(seen.uri);
    assert_int_equal(PQstatus(conn), CONNECTION_OK);
    /* Computes without looking up, so that it does not notice its server's death. */
    assert_int_equal(PQsendQuery(conn,
                                 "SELECT count(*) FROM generate_series(1, 1000000) a, "
                                 "generate_series(1, 1000000) b"),
                     1);
    assert_int_equal(PQflush(conn), 0);
    assert_int_equal(kill(processes().postmaster, SIGKILL), 0);
    wait_for(&seen.ready, 2);
    PQfinish(conn);
    end();
}

static void
it_stops_in_every_state(void **state)
{
    (void)state;
    start(NULL); /* before its first step */
    end();
    start(NULL);
    wait_for_state(EMBEDDED_INITIALIZING);
    end();
    start(NULL);
    wait_for_state(EMBEDDED_STARTING);
    end();
    start(NULL);
    wait_for_state(EMBEDDED_PROBING);
    end();
    start(NULL);
    wait_for(&seen.ready, 1);
    embedded_stop(seen.embedded, false);
    end(); /* twice is harmless */
    start(NULL);
    wait_for(&seen.ready, 2);
    embedded_stop(seen.embedded, true); /* at once: the next start recovers */
    end();
    start(NULL);
    wait_for(&seen.ready, 3);
    end();
    assert_int_equal(processes().count, 0);
    assert_int_equal(seen.failed, 0);
}

static void
two_on_one_directory_are_refused(void **state)
{
    (void)state;
    jobq_error err;
    start(NULL);
    wait_for(&seen.ready, 1);
    struct embedded *first = seen.embedded;
    assert_int_equal(begin(NULL, &err), JOBQ_ESTATE);
    assert_non_null(strstr(err.message, "another jobqd"));
    assert_ptr_equal(seen.embedded, first); /* untouched on failure */
    end();
}

/* A process of its own runs the cluster until it is killed. Its postmaster has to go with
 * it, and the next one on the same directory to start while the old one still shuts down.
 */
static void
it_dies_with_its_parent_and_starts_again_at_once(void **state)
{
    (void)state;
    int told[2];
    char byte;
    assert_int_equal(pipe(told), 0);
    pid_t parent = fork();
    if (parent == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (uv_loop_init(&seen.loop) || uv_timer_init(&seen.loop, &seen.limit))
            _exit(1);
        start(NULL);
        wait_for(&seen.ready, 1);
        if (write(told[1], "r", 1) == 1)
            uv_run(&seen.loop, UV_RUN_DEFAULT);
        _exit(1);
    }
    assert_true(parent > 0);
    assert_int_equal(read(told[0], &byte, 1), 1);
    assert_true(processes().count > 1);
    assert_int_equal(kill(parent, SIGKILL), 0);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    start(NULL);
    wait_for(&seen.ready, 1);
    assert_string_equal(query(seen.uri, "SELECT 1"), "1");
    end();
    assert_int_equal(processes().count, 0);
    close(told[0]);
    close(told[1]);
}

static void
commands_use_the_running_one_or_start_their_own(void **state)
{
    (void)state;
    struct embedded_session *session = NULL;
    const char *uri = NULL;
    char *running = NULL;
    jobq_error err;
    assert_int_equal(embedded_uri(path, &running, &err), JOBQ_ESTATE);
    assert_non_null(strstr(err.message, "is not running"));
    assert_int_equal(access(path, F_OK), -1); /* asking makes nothing */

    if (embedded_run_for_command(path, &session, &uri, &err) != 0)
        fail_msg("%s", err.message);
    assert_string_equal(query(uri, "SELECT 1"), "1");
    assert_int_equal(embedded_uri(path, &running, &err), 0);
    assert_string_equal(running, uri);
    free(running);
    embedded_end_for_command(session);
    assert_int_equal(processes().count, 0);

    start(NULL);
    wait_for(&seen.ready, 1);
    assert_int_equal(embedded_run_for_command(path, &session, &uri, &err), 0);
    assert_string_equal(uri, seen.uri);
    embedded_end_for_command(session);
    assert_string_equal(query(seen.uri, "SELECT 1"), "1"); /* not theirs to stop */
    end();

    snprintf(path, sizeof path, "%s/no/such", base);
    assert_int_equal(embedded_run_for_command(path, &session, &uri, &err), JOBQ_EINVAL);
    embedded_end_for_command(NULL);
}

static void
initdb_that_fails_is_told_with_its_words(void **state)
{
    (void)state;
    char file[160];
    char bindir[128];
    snprintf(bindir, sizeof bindir, "%s/bin", base);
    assert_int_equal(mkdir(bindir, 0755), 0);
    static const char *const programs[] = {"postgres", "initdb"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%s", bindir, programs[i]);
        FILE *script = fopen(file, "w");
        assert_non_null(script);
        fputs("#!/bin/sh\n"
              "case $1 in --version) echo 'x (PostgreSQL) 15.1'; exit;; esac\n"
              "echo 'initdb: error: no room on the disk' >&2\nexit 3\n",
              script);
        fclose(script);
        assert_int_equal(chmod(file, 0755), 0);
    }
    assert_int_equal(setenv("JOBQ_PG_BINDIR", bindir, 1), 0);
    start(NULL);
    unsetenv("JOBQ_PG_BINDIR");
    wait_for(&seen.failed, 1);
    assert_string_equal(seen.error.message,
                        "initdb exited with code 3: initdb: error: no room on the disk");
    end();
    start(NULL); /* what it left behind is in nobody's way */
    wait_for(&seen.ready, 1);
    end();
}

static void
a_folder_above_that_is_closed_to_the_user_is_named(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(base, 0700), 0);
    start(NULL);
    wait_for(&seen.failed, 1);
    assert_non_null(
        strstr(seen.error.message, "are the folders above it open to everyone?"));
    end();
}

#define LIVE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(it_is_made_started_stopped_and_started_again),
        LIVE(the_users_own_settings_come_last),
        LIVE(a_crash_is_healed),
        LIVE(a_busy_backend_of_a_killed_server_is_ousted),
        LIVE(it_stops_in_every_state),
        LIVE(two_on_one_directory_are_refused),
        LIVE(it_dies_with_its_parent_and_starts_again_at_once),
        LIVE(commands_use_the_running_one_or_start_their_own),
        LIVE(initdb_that_fails_is_told_with_its_words),
        LIVE(a_folder_above_that_is_closed_to_the_user_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
