/* test_limits.c: what a queue's processes are confined to, looked up and tried out, and
 * what is said of what cannot be had. That they hold is test_spawn.c's. */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "jobqd/proc/limits.h"

#define S(text) ((char[]){text})

static char *program[] = {(char[]){"/bin/true"}, NULL};

static int64_t patience_ms = 60000;

/* A folder on a server that is away. Its file system does not answer. */
#define DEAD_FOLDER "/a-folder-on-a-dead-server"

/* In the place of the C library's, for limits.c. */
int
chdir(const char *path)
{
    if (strcmp(path, DEAD_FOLDER) == 0)
        raise(SIGSTOP); /* whoever waits for it has to do without */
    return (int)syscall(SYS_chdir, path);
}

static int64_t
clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

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
        rc = limits_probe(&limits, NULL, clock_ms() + patience_ms, &step, &err);
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

/* tests/harness/tally.py leaves it out of what an ordinary user's run counts. */
static void
only_for_root(void)
{
    if (geteuid() != 0)
        skip();
}

static void
what_can_be_had_is_not_complained_of(void **state)
{
    (void)state;
    only_for_root();
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
    assert_string_equal(
        said_of(&queue),
        "user: user 54321 has no name and therefore no group: set group too");
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

/* It exits with 0 if all is well there. */
static void
in_a_process(bool (*check)(void))
{
    pid_t pid = fork();
    int status = 0;
    if (pid == 0)
        _exit(check() ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool
become_nobody(void)
{
    return setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0;
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
    if (!become_nobody() ||
        !is_said(&queue, "user: taking on the groups of user \"daemon\": Operation not "
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
    return become_nobody() && is_said(&queue, "");
}

static void
without_root_it_is_said_what_needs_it(void **state)
{
    (void)state;
    only_for_root();
    in_a_process(nobody_is_told);
    in_a_process(ones_own_user_needs_no_root);
}

static void
a_program_that_the_user_may_not_run_is_said(void **state)
{
    (void)state;
    only_for_root();
    char folder[] = "/tmp/jobq-test-limits-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder)); /* 0700 */
    snprintf(path, sizeof path, "%s/program", folder);
    assert_int_equal(symlink("/bin/true", path), 0);
    char *argv[] = {path, NULL};
    char expected[256];
    snprintf(expected, sizeof expected, "exec: cannot run %s: Permission denied", path);
    struct queue_config queue = {.mode = QUEUE_EXEC, .argv = argv};
    assert_string_equal(said_of(&queue), "");
    queue.user = S("daemon");
    assert_string_equal(said_of(&queue), expected);
    unlink(path);
    rmdir(folder);
}

static void
a_folder_that_does_not_answer_is_not_waited_for(void **state)
{
    (void)state;
    struct queue_config queue = {.argv = program, .working_directory = S(DEAD_FOLDER)};
    patience_ms = 50;
    assert_string_equal(said_of(&queue),
                        "working_directory: " DEAD_FOLDER
                        " did not answer in time; is its file system hanging?");
    patience_ms = 60000;
    /* The process is not left: it is dead, and for whoever takes the ends of strays. */
    while (waitpid(-1, NULL, 0) > 0)
        continue;
    assert_int_equal(errno, ECHILD);
}

static bool
a_user_that_cannot_be_killed_is_told(void)
{
    struct queue_config queue = {.argv = program, .user = S("daemon")};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &header, sets) < 0)
        return false;
    sets[0].effective &= ~(1u << CAP_KILL);
    if (syscall(SYS_capset, &header, sets) < 0)
        return false;
    return is_said(&queue, "user: jobqd may not kill processes of user \"daemon\": it "
                           "would need CAP_KILL");
}

static void
who_could_not_be_killed_is_not_started(void **state)
{
    (void)state;
    only_for_root();
    in_a_process(a_user_that_cannot_be_killed_is_told);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers_are_found),
        cmocka_unit_test(what_can_be_had_is_not_complained_of),
        cmocka_unit_test(what_there_is_not_is_said),
        cmocka_unit_test(a_folder_that_does_not_answer_is_not_waited_for),
        cmocka_unit_test(who_could_not_be_killed_is_not_started),
        cmocka_unit_test(without_root_it_is_said_what_needs_it),
        cmocka_unit_test(a_program_that_the_user_may_not_run_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
