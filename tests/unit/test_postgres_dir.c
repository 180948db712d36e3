/* The embedded database's directory: what is accepted, what is refused and left alone,
 * who holds it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/embedded/postgres_binaries.h"
#include "jobqd/embedded/postgres_dir.h"
#include "jobqd/embedded/postgres_launch.h"

static char base[64];

static int
remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static int
make_base(void **state)
{
    (void)state;
    strcpy(base, "/tmp/jobq-test-XXXXXX");
    assert_non_null(mkdtemp(base));
    return chmod(base, 0755);
}

static int
remove_base(void **state)
{
    (void)state;
    return nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *
under_base(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", base, name);
    return path;
}

static void
make_file(const char *name, const char *text)
{
    FILE *file = fopen(under_base(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void
make_folder(const char *name)
{
    assert_int_equal(mkdir(under_base(name), 0755), 0);
}

/* DIR of ours, with a cluster that claims to be of `version`. */
static void
make_cluster(const char *version)
{
    make_folder("db");
    make_file("db/jobq.lock", "");
    make_folder("db/data");
    make_file("db/data/PG_VERSION", version);
    make_folder("db/data/global");
    make_file("db/data/global/pg_control", "x");
    if (geteuid() == 0)
        assert_int_equal(chown(under_base("db/data"), 1, 1),
                         0); /* root's own are refused */
}

static int
inspect(const char *name, char *message)
{
    struct postgres_dir dir;
    jobq_error err = {0};
    int code = postgres_dir_inspect(&dir, under_base(name), &err);
    postgres_dir_clear(&dir);
    if (message)
        strcpy(message, err.message);
    return code;
}

static void
new_and_empty_directories_are_accepted(void **state)
{
    (void)state;
    struct postgres_dir dir;
    jobq_error err;
    assert_int_equal(postgres_dir_inspect(&dir, under_base("new"), &err), 0);
    assert_false(dir.exists);
    assert_false(dir.cluster);
    assert_int_not_equal(dir.user.uid, 0);
    postgres_dir_clear(&dir);
    assert_int_equal(access(under_base("new"), F_OK), -1); /* it only looked */

    make_folder("empty");
    assert_int_equal(inspect("empty", NULL), 0);
    assert_int_equal(inspect("empty/", NULL), 0);
}

static void
foreign_directories_are_refused_and_left_alone(void **state)
{
    (void)state;
    char message[512];
    make_folder("photos");
    make_file("photos/cat.jpg", "");
    assert_int_equal(inspect("photos", message), JOBQ_EINVAL);
    assert_non_null(strstr(message, "not empty (it holds cat.jpg)"));
    assert_int_equal(access(under_base("photos/jobq.lock"), F_OK), -1);

    make_folder("pgdata");
    make_file("pgdata/PG_VERSION", "15\n");
    assert_int_equal(inspect("pgdata", message), JOBQ_EINVAL);
    assert_non_null(
        strstr(message, "a Postgres data directory that jobqd did not create"));

    make_file("file", "");
    assert_int_equal(inspect("file", message), JOBQ_EINVAL);
    assert_non_null(strstr(message, "not a directory"));
    assert_int_equal(inspect("file/below", message), JOBQ_EINVAL);
    assert_int_equal(inspect("no/such/folder", message), JOBQ_EINVAL);
    assert_non_null(strstr(message, "cannot use its parent folder"));

    struct postgres_dir dir;
    jobq_error err;
    assert_int_equal(postgres_dir_inspect(&dir, "", &err), JOBQ_EINVAL);
    postgres_dir_clear(&dir);
}

static void
broken_clusters_are_refused_and_left_alone(void **state)
{
    (void)state;
    char message[512];
    make_cluster("15\n");
    assert_int_equal(inspect("db", NULL), 0);

    unlink(under_base("db/data/global/pg_control"));
    assert_int_equal(inspect("db", message), JOBQ_EINVAL);
    assert_non_null(strstr(message, "no global/pg_control"));

    make_file("db/data/PG_VERSION", "rubbish");
    assert_int_equal(inspect("db", message), JOBQ_EINVAL);
    assert_non_null(strstr(message, "PG_VERSION is missing or reads \"rubbish\""));

    unlink(under_base("db/data/PG_VERSION"));
    assert_int_equal(inspect("db", message), JOBQ_EINVAL);
    assert_non_null(strstr(message, "PG_VERSION is missing or reads nothing"));
    assert_int_equal(access(under_base("db/data/global"), F_OK), 0);
}

static void
a_cluster_of_root_is_refused(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    char message[512];
    make_cluster("15\n");
    assert_int_equal(chown(under_base("db/data"), 0, 0), 0);
    assert_int_equal(inspect("db", message), JOBQ_EINVAL);
    assert_non_null(strstr(message, "belongs to root"));
}

static void
a_socket_path_that_is_too_long_or_odd_goes_elsewhere(void **state)
{
    (void)state;
    char name[128];
    struct postgres_dir dir;
    jobq_error err;

    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    assert_string_equal(dir.sockets, under_base("db/run"));
    snprintf(name, sizeof name,
             "postgresql://jobq@%%2Ftmp%%2F%s%%2Fdb%%2Frun:5432/postgres",
             base + strlen("/tmp/"));
    assert_string_equal(dir.uri, name);
    postgres_dir_clear(&dir);

    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(postgres_dir_inspect(&dir, under_base(name), &err), 0);
    assert_true(strlen(dir.sockets) <= 93);
    assert_null(strstr(dir.sockets, "xxx"));
    char *first = strdup(dir.sockets);
    assert_non_null(first);
    postgres_dir_clear(&dir);
    assert_int_equal(postgres_dir_inspect(&dir, under_base(name), &err), 0);
    assert_string_equal(dir.sockets, first); /* the same at each start */
    postgres_dir_clear(&dir);
    free(first);

    assert_int_equal(postgres_dir_inspect(&dir, under_base("a,b &c"), &err), 0);
    assert_null(strpbrk(dir.uri, ",& ?"));
    postgres_dir_clear(&dir);
}

static void
only_one_holds_the_lock(void **state)
{
    (void)state;
    struct postgres_dir first;
    struct postgres_dir second;
    enum postgres_holder holder = HOLDER_NONE;
    jobq_error err;
    char expected[256];
    assert_int_equal(postgres_dir_inspect(&first, under_base("db"), &err), 0);
    assert_int_equal(postgres_dir_holder(&first), HOLDER_NONE);
    assert_int_equal(postgres_dir_lock(&first, HOLDER_DAEMON, NULL, &err), 0);

    assert_int_equal(postgres_dir_inspect(&second, under_base("db"), &err), 0);
    assert_int_equal(postgres_dir_lock(&second, HOLDER_COMMAND, &holder, &err),
                     JOBQ_ESTATE);
    assert_int_equal(holder, HOLDER_DAEMON);
    snprintf(expected, sizeof expected,
             "embedded = %s/db: another jobqd (process %d) is running this database",
             base, (int)getpid());
    assert_string_equal(err.message, expected);
    assert_int_equal(postgres_dir_holder(&second), HOLDER_DAEMON);

    postgres_dir_clear(&first);
    assert_int_equal(postgres_dir_holder(&second), HOLDER_NONE);
    assert_int_equal(postgres_dir_lock(&second, HOLDER_COMMAND, NULL, &err), 0);
    assert_int_equal(postgres_dir_holder(&second), HOLDER_COMMAND);
    postgres_dir_clear(&second);
}

static void
the_files_name_the_socket_and_who_may_connect(void **state)
{
    (void)state;
    struct postgres_dir dir;
    jobq_error err;
    char text[1024];
    struct stat info;
    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    assert_int_equal(postgres_dir_lock(&dir, HOLDER_DAEMON, NULL, &err), 0);
    assert_int_equal(postgres_dir_write_files(&dir, &err), 0);
    assert_int_equal(postgres_dir_write_files(&dir, &err), 0); /* at each start */

    FILE *file = fopen(under_base("db/uri"), "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    assert_string_equal(text, dir.uri);

    file = fopen(under_base("db/pg_ident.conf"), "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_non_null(strstr(text, "jobq \"root\" jobq\n"));
    char user[128];
    snprintf(user, sizeof user, "jobq \"%s\" jobq\n", dir.user.name);
    assert_non_null(strstr(text, user));

    assert_int_equal(stat(dir.sockets, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(info.st_uid, dir.user.uid);
    assert_int_equal(chmod(dir.sockets, 0777), 0); /* as somebody else's would be */
    assert_int_equal(postgres_dir_write_files(&dir, &err), JOBQ_ESTATE);
    postgres_dir_clear(&dir);
}

static void
the_log_is_quoted_and_kept_small(void **state)
{
    (void)state;
    struct postgres_dir dir;
    jobq_error err;
    int fd = -1;
    off_t from = -1;
    char tail[64];
    struct stat info;
    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    assert_int_equal(postgres_dir_lock(&dir, HOLDER_DAEMON, NULL, &err), 0);
    postgres_dir_log_tail(&dir, 0, tail, sizeof tail);
    assert_string_equal(tail, "");
    assert_int_equal(postgres_dir_open_log(&dir, &fd, &from, &err), 0);
    assert_int_equal(from, 0);
    assert_int_equal(write(fd, "an older start\n", 15), 15);
    assert_int_equal(write(fd, "one\ntwo\nthree\nfour\n", 19), 19);
    postgres_dir_log_tail(&dir, 15, tail, sizeof tail);
    assert_string_equal(tail, "two | three | four");
    postgres_dir_log_tail(&dir, 15 + 14, tail, sizeof tail);
    assert_string_equal(tail, "four");
    postgres_dir_log_tail(&dir, 1000, tail, sizeof tail);
    assert_string_equal(tail, "");

    assert_int_equal(ftruncate(fd, (off_t)65 * 1024 * 1024), 0);
    assert_int_equal(write(fd, "the end\n", 8), 8);
    postgres_dir_trim_log(&dir);
    assert_int_equal(stat(dir.log, &info), 0);
    assert_int_equal(info.st_size, 0);
    assert_int_equal(write(fd, "goes on\n", 8),
                     8); /* the server's descriptor still works */
    postgres_dir_log_tail(&dir, 0, tail, sizeof tail);
    assert_string_equal(tail, "goes on");
    close(fd);
    postgres_dir_clear(&dir);
}

static void
what_an_interrupted_initdb_left_is_removed(void **state)
{
    (void)state;
    struct postgres_dir dir;
    jobq_error err;
    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    assert_int_equal(postgres_dir_lock(&dir, HOLDER_DAEMON, NULL, &err), 0);
    make_file("precious", "kept");
    make_folder("db/data.new");
    make_folder("db/data.new/base");
    make_file("db/data.new/base/1", "");
    char target[128];
    snprintf(target, sizeof target, "%s/precious", base);
    assert_int_equal(symlink(target, under_base("db/data.new/link")), 0);
    assert_int_equal(postgres_dir_prepare_fresh(&dir, &err), 0);
    assert_int_equal(access(under_base("db/data.new/base"), F_OK), -1);
    assert_int_equal(access(under_base("precious"), F_OK), 0);

    assert_int_equal(postgres_dir_adopt_fresh(&dir, 15, &err), 0);
    assert_true(dir.cluster);
    assert_int_equal(access(under_base("db/data"), F_OK), 0);
    postgres_dir_clear(&dir);
}

/* As a server does whose initdb was killed: files come and go until it ends. */
static _Noreturn void
litter(const char *folder)
{
    if (chdir(folder) != 0)
        _exit(1);
    for (unsigned i = 0; i < 150; i++) {
        char name[32];
        snprintf(name, sizeof name, "%u", i);
        int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            _exit(errno == ENOENT ? 0 : 2); /* the folder is gone */
        close(fd);
        if (i % 3 == 0)
            unlink(name);
    }
    _exit(0);
}

static void
a_server_that_still_ends_in_there_is_no_hindrance(void **state)
{
    (void)state;
    struct postgres_dir dir;
    jobq_error err;
    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    assert_int_equal(postgres_dir_lock(&dir, HOLDER_DAEMON, NULL, &err), 0);
    for (int round = 0; round < 20; round++) {
        make_folder("db/data.new");
        pid_t pid = fork();
        if (pid == 0)
            litter(under_base("db/data.new"));
        assert_true(pid > 0);
        while (access(under_base("db/data.new/65"), F_OK) != 0)
            sched_yield();
        if (postgres_dir_prepare_fresh(&dir, &err) != 0)
            fail_msg("%s", err.message);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_int_equal(rmdir(under_base("db/data.new")), 0); /* and it is empty */
    }
    postgres_dir_clear(&dir);
}

static void
postmaster_pid_is_read_whole_or_not_at_all(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
        bool ready;
    } rows[] = {
        {"4711\n/x\n1\n5432\n/run\n\n12 34\nready   \n", 0, true},
        {"4711\n/x\n1\n5432\n/run\n\n12 34\nstarting\n", 0, false},
        {"4711\n/x\n1\n5432\n/run\n\n12 34\nstandby \n", 0, false},
        {"4711\n/x\n", 0, false},
        {"", JOBQ_ENOTFOUND, false},
        {"ready\n", JOBQ_ENOTFOUND, false},
        {"-4711\n", JOBQ_ENOTFOUND, false},
        {"99999999999999\n", JOBQ_ENOTFOUND, false},
    };
    make_cluster("15\n");
    struct postgres_dir dir;
    struct postgres_pidfile file;
    jobq_error err;
    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    assert_int_equal(postgres_dir_read_pidfile(&dir, &file, &err), JOBQ_ENOTFOUND);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        make_file("db/data/postmaster.pid", rows[i].text);
        assert_int_equal(postgres_dir_read_pidfile(&dir, &file, &err), rows[i].code);
        if (rows[i].code == 0) {
            assert_int_equal(file.pid, 4711);
            assert_int_equal(file.ready, rows[i].ready);
        }
    }
    postgres_dir_clear(&dir);
}

static void
a_pid_that_was_used_again_does_not_count_as_a_server(void **state)
{
    (void)state;
    make_cluster("15\n");
    struct postgres_dir dir;
    struct postgres_processes found;
    jobq_error err;
    char text[32];
    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    snprintf(text, sizeof text, "%d\n", (int)getpid()); /* we are no postgres */
    make_file("db/data/postmaster.pid", text);
    postgres_dir_processes(&dir, &found);
    assert_int_equal(found.count, 0);
    assert_int_equal(found.postmaster, 0);
    postgres_dir_remove_stale_pidfile(&dir);
    assert_int_equal(access(under_base("db/data/postmaster.pid"), F_OK), -1);

    make_file("db/data/postmaster.pid",
              "2147483646\n"); /* dead: postgres copes by itself */
    postgres_dir_remove_stale_pidfile(&dir);
    assert_int_equal(access(under_base("db/data/postmaster.pid"), F_OK), 0);
    postgres_dir_clear(&dir);
}

/* In the child: the cluster's owner, as whom jobqd would be where it is not root. */
static pid_t
fork_owner(void)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0 && geteuid() == 0 && (setgid(1) != 0 || setuid(1) != 0))
        _exit(2);
    return pid;
}

/* In a container jobqd's guard may well have the number that the postmaster had before
 * the restart. */
static void
a_pid_that_jobqd_or_its_guard_has_now_does_not_count_either(void **state)
{
    (void)state;
    make_cluster("15\n");
    struct postgres_dir dir;
    jobq_error err;
    char text[32], said;
    int ready[2], status;
    assert_int_equal(postgres_dir_inspect(&dir, under_base("db"), &err), 0);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t hidden = fork_owner();
    if (hidden == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_DUMPABLE, 0);
        ssize_t n = write(ready[1], "x", 1);
        for (;; (void)n)
            pause();
    }
    assert_int_equal(read(ready[0], &said, 1), 1);
    snprintf(text, sizeof text, "%d\n", (int)hidden);
    make_file("db/data/postmaster.pid", text);
    pid_t looks = fork_owner();
    if (looks == 0) {
        postgres_dir_remove_stale_pidfile(&dir);
        _exit(0);
    }
    assert_int_equal(waitpid(looks, &status, 0), looks);
    assert_int_equal(status, 0);
    assert_int_equal(access(under_base("db/data/postmaster.pid"), F_OK), -1);
    kill(hidden, SIGKILL);
    waitpid(hidden, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    postgres_dir_clear(&dir);
}

/* ---- binaries, settings, words ---- */

static void
make_binaries(const char *name, const char *version)
{
    char path[128];
    char script[256];
    make_folder(name);
    snprintf(script, sizeof script, "#!/bin/sh\necho '%s'\n", version);
    snprintf(path, sizeof path, "%s/postgres", name);
    make_file(path, script);
    assert_int_equal(chmod(under_base(path), 0755), 0);
    snprintf(path, sizeof path, "%s/initdb", name);
    make_file(path, script);
    assert_int_equal(chmod(under_base(path), 0755), 0);
}

static void
binaries_are_taken_by_version(void **state)
{
    (void)state;
    struct postgres_binaries found;
    jobq_error err;
    make_binaries("old", "postgres (PostgreSQL) 12.4");
    make_binaries("beta", "postgres (PostgreSQL) 18beta1 (Debian 18)");
    make_binaries("rubbish", "hello");
    make_folder("none");

    assert_int_equal(setenv("JOBQ_PG_BINDIR", under_base("beta"), 1), 0);
    assert_int_equal(postgres_binaries_find(&found, 0, &err), 0);
    assert_int_equal(found.major, 18);
    assert_non_null(strstr(found.postgres, "/beta/postgres"));
    postgres_binaries_clear(&found);
    assert_int_equal(postgres_binaries_find(&found, 18, &err), 0);
    postgres_binaries_clear(&found);
    assert_int_equal(postgres_binaries_find(&found, 15, &err), JOBQ_ESTATE);
    assert_non_null(strstr(err.message, "of PostgreSQL 15 (found there: 18 in"));

    assert_int_equal(setenv("JOBQ_PG_BINDIR", under_base("old"), 1), 0);
    assert_int_equal(postgres_binaries_find(&found, 0, &err), JOBQ_ESTATE);
    assert_non_null(strstr(err.message, "of PostgreSQL 14 or later (found there: 12 in"));
    assert_int_equal(setenv("JOBQ_PG_BINDIR", under_base("rubbish"), 1), 0);
    assert_int_equal(postgres_binaries_find(&found, 0, &err), JOBQ_ESTATE);
    assert_int_equal(setenv("JOBQ_PG_BINDIR", under_base("none"), 1), 0);
    assert_int_equal(postgres_binaries_find(&found, 0, &err), JOBQ_ESTATE);
    assert_non_null(strstr(err.message, "(found there: none)"));

    unsetenv("JOBQ_PG_BINDIR");
    assert_int_equal(postgres_binaries_find(&found, 0, &err), 0); /* the installed ones */
    assert_true(found.major >= 13);
    postgres_binaries_clear(&found);
    assert_int_equal(postgres_binaries_find(&found, 99, &err), JOBQ_ESTATE);
    assert_non_null(strstr(err.message, "no server binaries of PostgreSQL 99"));
    assert_non_null(strstr(err.message, "never upgrades a cluster by itself"));
}

static void
settings_are_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"shared_buffers=1GB", "a.b=", "jit=off", NULL};
    static const char *const bad[] = {"",
                                      "shared_buffers",
                                      "=1",
                                      "-c x=1",
                                      "a b=1",
                                      "port=1",
                                      "PORT=1",
                                      "data_directory=/",
                                      "listen_addresses=*"};
    jobq_error err;
    assert_int_equal(postgres_settings_check(NULL, &err), 0);
    assert_int_equal(postgres_settings_check(good, &err), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *const one[] = {bad[i], NULL};
        assert_int_equal(postgres_settings_check(one, &err), JOBQ_EINVAL);
    }
}

static void
an_end_is_described(void **state)
{
    (void)state;
    char text[80];
    postgres_child_describe(W_EXITCODE(1, 0), text, sizeof text);
    assert_string_equal(text, "exited with code 1");
    postgres_child_describe(W_EXITCODE(0, 9), text, sizeof text);
    assert_string_equal(text, "was killed by signal 9 (Killed)");
}

#define IN_BASE(test) cmocka_unit_test_setup_teardown(test, make_base, remove_base)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        IN_BASE(new_and_empty_directories_are_accepted),
        IN_BASE(foreign_directories_are_refused_and_left_alone),
        IN_BASE(broken_clusters_are_refused_and_left_alone),
        IN_BASE(a_cluster_of_root_is_refused),
        IN_BASE(a_socket_path_that_is_too_long_or_odd_goes_elsewhere),
        IN_BASE(only_one_holds_the_lock),
        IN_BASE(the_files_name_the_socket_and_who_may_connect),
        IN_BASE(the_log_is_quoted_and_kept_small),
        IN_BASE(what_an_interrupted_initdb_left_is_removed),
        IN_BASE(a_server_that_still_ends_in_there_is_no_hindrance),
        IN_BASE(postmaster_pid_is_read_whole_or_not_at_all),
        IN_BASE(a_pid_that_was_used_again_does_not_count_as_a_server),
        IN_BASE(a_pid_that_jobqd_or_its_guard_has_now_does_not_count_either),
        IN_BASE(binaries_are_taken_by_version),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(an_end_is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
