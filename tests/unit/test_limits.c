/* test_limits.c: what a queue's processes are confined to, looked up and tried out, and
 * what is said of what cannot be had. That they hold is test_spawn.c's. */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "jobqd/io/limits.h"

#define S(text) ((char[]){text})

static char *program[] = {(char[]){"/bin/true"}, NULL};

/* Resolves and tries; returns what is said, "" for nothing. The option to blame is put in
 * front. */
static const char *
said_of(const struct queue_config *queue)
{
    static char text[1024];
    struct limits limits;
    enum limits_step step;
    jobq_error err = {0};
    int rc = limits_resolve(&limits, queue, &step, &err);
    if (rc == 0)
        rc = limits_probe(&limits, &step, &err);
    if (rc == 0)
        text[0] = '\0';
    else
        snprintf(text, sizeof text, "%s: %s", limits_option(&limits, step), err.message);
    limits_clear(&limits);
    return text;
}

static void
names_and_numbers_are_found(void **state)
{
    (void)state;
    struct queue_config queue = {.argv = program, .user = S("daemon")};
    struct limits limits;
    enum limits_step step;
    jobq_error err;
    assert_int_equal(limits_resolve(&limits, &queue, &step, &err), 0);
    assert_true(limits.changes_user && limits.changes_group);
    assert_int_equal(limits.uid, 1);
    assert_int_equal(limits.gid, 1);
    assert_true(limits.n_groups >= 1);
    assert_string_equal(limits.account[0], "HOME=/usr/sbin");
    assert_string_equal(limits.account[1], "USER=daemon");
    limits_clear(&limits);
    queue = (struct queue_config){.argv = program, .group = S("daemon")};
    assert_int_equal(limits_resolve(&limits, &queue, &step, &err), 0);
    assert_false(limits.changes_user);
    assert_int_equal(limits.gid, 1);
    assert_null(limits.account[0]);
    limits_clear(&limits);
}

static void
what_can_be_had_is_not_complained_of(void **state)
{
    (void)state;
    struct queue_config queue = {.argv = program,
                                 .user = S("daemon"),
                                 .group = S("nogroup"),
                                 .nofile = 64,
                                 .nice = -1,
                                 .no_new_privs = true,
                                 .working_directory = S("/tmp")};
    assert_string_equal(said_of(&queue), "");
    queue = (struct queue_config){.argv = program};
    assert_string_equal(said_of(&queue), "");
}

static void
what_there_is_not_is_said(void **state)
{
    (void)state;
    struct queue_config queue = {.argv = program, .user = S("nobody-of-that-name")};
    assert_string_equal(said_of(&queue),
                        "user: there is no user \"nobody-of-that-name\"");
    queue = (struct queue_config){.argv = program, .group = S("no-such-group")};
    assert_string_equal(said_of(&queue), "group: there is no group \"no-such-group\"");
    queue = (struct queue_config){.argv = program, .user = S("54321")};
    assert_string_equal(said_of(&queue),
                        "user: user 54321 has no name, and so no group: set group too");
    queue =
        (struct queue_config){.argv = program, .working_directory = S("/nonexistent")};
    assert_string_equal(said_of(&queue),
                        "working_directory: entering its working_directory /nonexistent: "
                        "No such file or directory");
    queue.working_directory = S("/bin/true");
    assert_string_equal(
        said_of(&queue),
        "working_directory: entering its working_directory /bin/true: Not "
        "a directory");
}

/* Runs check in a process that is not root; it exits with 0 if all is well there. */
static void
as_nobody(bool (*check)(void))
{
    pid_t pid = fork();
    int status = 0;
    if (pid == 0) {
        bool done = setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0;
        _exit(done && check() ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool
is_said(const struct queue_config *queue, const char *expected)
{
    const char *said = said_of(queue);
    if (strcmp(said, expected) != 0)
        fprintf(stderr, "said: %s\n", said);
    return strcmp(said, expected) == 0;
}

static bool
nobody_is_told(void)
{
    struct queue_config queue = {.argv = program, .user = S("daemon")};
    if (!is_said(&queue, "user: taking on the groups of user \"daemon\": Operation not "
                         "permitted: jobqd would have to run as root"))
        return false;
    queue = (struct queue_config){.argv = program, .nice = -5};
    char expected[128];
    snprintf(expected, sizeof expected,
             "nice: setting its nice value to %d: Permission denied: jobqd would have to "
             "run as root",
             getpriority(PRIO_PROCESS, 0) - 5);
    if (!is_said(&queue, expected))
        return false;
    queue = (struct queue_config){.argv = program, .nofile = 1 << 20};
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max < 1 << 20 &&
        !is_said(&queue, "nofile: setting its nofile limit to 1048576: Operation not "
                         "permitted: jobqd would have to run as root"))
        return false;
    queue = (struct queue_config){.argv = program, .working_directory = S("/root")};
    return is_said(&queue, "working_directory: entering its working_directory /root: "
                           "Permission denied");
}

/* As a hardened service would be: nothing is asked for that is not so already. */
static bool
ones_own_user_needs_no_root(void)
{
    struct queue_config queue = {.argv = program, .user = S("nobody")};
    return is_said(&queue, "");
}

static void
without_root_it_is_said_what_needs_it(void **state)
{
    (void)state;
    if (geteuid() != 0)
        fail_msg("this test needs root");
    as_nobody(nobody_is_told);
    as_nobody(ones_own_user_needs_no_root);
}

static void
a_program_that_the_user_may_not_run_is_said(void **state)
{
    (void)state;
    char folder[] = "/tmp/jobq-test-limits-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder)); /* 0700 */
    snprintf(path, sizeof path, "%s/program", folder);
    assert_int_equal(symlink("/bin/true", path), 0);
    char *argv[] = {path, NULL};
    char expected[256];
    snprintf(expected, sizeof expected, "exec: executing %s: Permission denied", path);
    struct queue_config queue = {.mode = QUEUE_EXEC, .argv = argv};
    assert_string_equal(said_of(&queue), "");
    queue.user = S("daemon");
    assert_string_equal(said_of(&queue), expected);
    unlink(path);
    rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers_are_found),
        cmocka_unit_test(what_can_be_had_is_not_complained_of),
        cmocka_unit_test(what_there_is_not_is_said),
        cmocka_unit_test(without_root_it_is_said_what_needs_it),
        cmocka_unit_test(a_program_that_the_user_may_not_run_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
