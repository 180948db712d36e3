/* test_spawn.c: what a child finds when it begins, and how its end is seen. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "jobqd/proc/spawn.h"

enum { LIMIT_MS = 30000 };

static void
wait_readable(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    int n;
    while ((n = poll(&wait, 1, LIMIT_MS)) < 0 && errno == EINTR)
        continue;
    assert_int_equal(n, 1);
}

static struct child
spawn_argv(char *const *argv, int stdin_fd, bool channel)
{
    static char path[] = "PATH=/usr/local/bin:/usr/bin:/bin";
    static char *environment[] = {path, NULL};
    struct child child;
    jobq_error err;
    int rc = spawn_child(&child,
                         &(struct spawn_options){.argv = argv,
                                                 .environment = environment,
                                                 .stdin_fd = stdin_fd,
                                                 .channel = channel},
                         &err);
    if (rc < 0)
        fail_msg("%s", err.message);
    return child;
}

static struct child
spawn_script(const char *script, int stdin_fd, bool channel)
{
    char *argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
                    (char *)(uintptr_t)script, NULL};
    return spawn_argv(argv, stdin_fd, channel);
}

/* Waits for the end and takes it. */
static struct child_end
end_of(struct child *child)
{
    struct child_end end;
    wait_readable(child->pidfd);
    assert_true(child_has_ended(child));
    assert_int_equal(child_reap(child, &end, NULL), 0);
    child_close(child);
    return end;
}

/* Everything that the child prints. */
static void
read_output(struct child *child, char *out, size_t size)
{
    size_t len = 0;
    ssize_t n;
    while (len < size - 1 && (n = read(child->output_fd, out + len, size - 1 - len)) > 0)
        len += (size_t)n;
    out[len] = '\0';
}

static void
output_is(const char *script, const char *expected)
{
    char out[1024];
    struct child child = spawn_script(script, -1, false);
    read_output(&child, out, sizeof out);
    assert_int_equal(end_of(&child).exit_code, 0);
    assert_string_equal(out, expected);
}

static bool
is_alive(pid_t pid)
{
    char path[64];
    char state = 'X';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    fclose(file);
    return state != 'Z' && state != 'X';
}

static void
wait_until_dead(pid_t pid)
{
    for (int i = 0; i < LIMIT_MS && is_alive(pid); i++)
        poll(NULL, 0, 1);
    assert_false(is_alive(pid));
}

/* ---- ends ---- */

static void
an_exit_code_is_seen(void **state)
{
    (void)state;
    struct child child = spawn_script("exit 7", -1, false);
    struct child_end end = end_of(&child);
    assert_int_equal(end.exit_code, 7);
    assert_int_equal(end.signal, 0);
    assert_true(end.cpu_us > 0);
}

/* The kernel counts the process from its fork on, when it is a copy of ours. */
static void
the_peak_is_the_programs_not_ours(void **state)
{
    (void)state;
    const size_t ours = (size_t)64 << 20;
    char *much = malloc(ours);
    assert_non_null(much);
    memset(much, 1, ours);
    struct child small = spawn_script("exit 3", -1, false);
    assert_int_equal(end_of(&small).max_rss_kb, -1);
    struct child large =
        spawn_script("exec dd if=/dev/zero of=/dev/null bs=100M count=1", -1, false);
    assert_in_range(end_of(&large).max_rss_kb, 100 * 1024, 130 * 1024);
    /* One that runs already is known for what it is, too. */
    struct child heard = spawn_script("echo up; exit 3", -1, false);
    wait_readable(heard.output_fd);
    child_started(&heard);
    assert_int_equal(end_of(&heard).max_rss_kb, -1);
    assert_int_equal(much[ours - 1], 1);
    free(much);
}

static void
a_signal_is_seen(void **state)
{
    (void)state;
    struct child child = spawn_script("kill -ABRT $$", -1, false);
    struct child_end end = end_of(&child);
    assert_int_equal(end.exit_code, -1);
    assert_int_equal(end.signal, SIGABRT);
}

static void
ignored_sigchld_does_not_lose_the_end(void **state)
{
    (void)state;
    signal(SIGCHLD, SIG_IGN);
    struct child child = spawn_script("exit 5", -1, false);
    assert_int_equal(end_of(&child).exit_code, 5);
}

/* ---- programs that cannot be executed ---- */

static int
exec_error_of(const char *path)
{
    char *argv[] = {(char *)(uintptr_t)path, NULL};
    struct child child = spawn_argv(argv, -1, true);
    wait_readable(child.pidfd);
    struct child_failure failure = child_failure(&child);
    assert_int_equal(failure.step, LIMITS_EXEC);
    assert_int_equal(end_of(&child).exit_code, 127);
    return failure.why;
}

static void
why_a_program_cannot_be_executed_is_told(void **state)
{
    (void)state;
    assert_int_equal(exec_error_of("/nonexistent/program"), ENOENT);
    assert_int_equal(exec_error_of("/etc/passwd"), EACCES);
    assert_int_equal(exec_error_of("/tmp"), EACCES);
    struct child child = spawn_script("exit 127", -1, false);
    wait_readable(child.pidfd);
    assert_int_equal(child_failure(&child).step, LIMITS_DONE);
    end_of(&child);
}

/* ---- what a child finds ---- */

static void
stdout_and_stderr_are_one_pipe(void **state)
{
    (void)state;
    output_is("echo one; echo two >&2; echo three", "one\ntwo\nthree\n");
}

static void
stdin_is_empty_or_what_was_given(void **state)
{
    (void)state;
    output_is("cat", "");
    output_is("readlink /proc/self/fd/0", "/dev/null\n");
    char out[64];
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], "given", 5), 5);
    close(pipe_fds[1]);
    struct child child = spawn_script("cat", pipe_fds[0], false);
    close(pipe_fds[0]);
    read_output(&child, out, sizeof out);
    end_of(&child);
    assert_string_equal(out, "given");
}

static void
no_other_descriptor_is_open(void **state)
{
    (void)state;
    int leaky = open("/dev/null", O_RDONLY); /* not close-on-exec */
    assert_true(leaky >= 0);
    assert_true(dup2(leaky, 77) == 77);
    /* The one that ls opens for itself is the next free one. */
    output_is("ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 ");
    char out[64];
    struct child child = spawn_script("ls /proc/self/fd | tr '\\n' ' '", -1, true);
    read_output(&child, out, sizeof out);
    end_of(&child);
    assert_string_equal(out, "0 1 2 3 4 ");
    close(leaky);
    close(77);
}

static void
the_channel_goes_both_ways(void **state)
{
    (void)state;
    char line[16] = "";
    struct child child = spawn_script("read line <&3; echo \"got $line\" >&3", -1, true);
    assert_int_equal(send(child.channel_fd, "x\n", 2, 0), 2);
    wait_readable(child.channel_fd);
    assert_int_equal(recv(child.channel_fd, line, sizeof line - 1, 0), 6);
    assert_string_equal(line, "got x\n");
    assert_int_equal(end_of(&child).exit_code, 0);
}

/* A daemon may be started with 0, 1 and 2 closed: then our own ends get these numbers. */
static void
low_descriptors_of_ours_do_no_harm(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 0; fd < 10; fd++)
            close(fd);
        char answer[8];
        struct child child = spawn_script("echo out; echo 'yes' >&3", -1, true);
        struct pollfd wait = {.fd = child.channel_fd, .events = POLLIN};
        bool fine = poll(&wait, 1, LIMIT_MS) == 1 &&
                    recv(child.channel_fd, answer, sizeof answer, 0) == 4 &&
                    memcmp(answer, "yes\n", 4) == 0;
        wait = (struct pollfd){.fd = child.output_fd, .events = POLLIN};
        fine = fine && poll(&wait, 1, LIMIT_MS) == 1 &&
               read(child.output_fd, answer, sizeof answer) == 4;
        _exit(fine ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
signals_are_as_if_nobody_had_touched_them(void **state)
{
    (void)state;
    sigset_t some, before;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    sigemptyset(&some);
    sigaddset(&some, SIGTERM);
    sigaddset(&some, SIGCHLD);
    sigprocmask(SIG_BLOCK, &some, &before);
    output_is("grep -E 'SigBlk|SigIgn' /proc/self/status",
              "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    sigset_t now;
    sigprocmask(SIG_SETMASK, &before, &now);
    assert_true(sigismember(&now, SIGTERM)); /* ours were not changed by it */
    assert_false(sigismember(&now, SIGINT));
    signal(SIGPIPE, SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
}

static void
the_file_limit_is_raised_for_us_alone(void **state)
{
    (void)state;
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before;
    limit.rlim_cur = 300;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    spawn_prepare();
    spawn_prepare();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(limit.rlim_cur, limit.rlim_max);
    output_is("ulimit -S -n", "300\n");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* ---- nothing is left ---- */

static void
a_child_leads_its_own_group_which_ends_with_it(void **state)
{
    (void)state;
    char out[32];
    struct child child =
        spawn_script("trap '' TERM; sleep 1000 & echo $!; exit 0", -1, false);
    wait_readable(child.output_fd);
    ssize_t n = read(child.output_fd, out, sizeof out - 1);
    assert_true(n > 0);
    out[n] = '\0';
    pid_t grandchild = (pid_t)atoi(out);
    wait_readable(child.pidfd);
    assert_true(is_alive(grandchild));
    assert_int_equal(getpgid(grandchild), child.pid);
    assert_int_equal(end_of(&child).exit_code, 0);
    wait_until_dead(grandchild);
}

static void
a_signal_reaches_the_whole_group(void **state)
{
    (void)state;
    char out[32];
    struct child child = spawn_script("sleep 1000 & echo $!; wait", -1, false);
    wait_readable(child.output_fd);
    ssize_t n = read(child.output_fd, out, sizeof out - 1);
    assert_true(n > 0);
    out[n] = '\0';
    assert_false(child_has_ended(&child));
    child_signal(&child, SIGTERM);
    wait_until_dead((pid_t)atoi(out));
    assert_int_equal(end_of(&child).signal, SIGTERM);
}

static void
a_kill_reaches_who_has_left_the_group(void **state)
{
    (void)state;
    char out[64] = "";
    /* A session of its own, and a child in a third one below it. */
    struct child child = spawn_script(
        "setsid sh -c 'setsid sleep 1000 & echo $$ $!; wait' & wait", -1, false);
    wait_readable(child.output_fd);
    assert_true(read(child.output_fd, out, sizeof out - 1) > 0);
    char *second = NULL;
    pid_t left = (pid_t)strtol(out, &second, 10);
    pid_t far = (pid_t)strtol(second, NULL, 10);
    assert_int_equal(getsid(left), left);
    child_signal(&child, SIGKILL);
    assert_int_equal(end_of(&child).signal, SIGKILL);
    wait_until_dead(left);
    wait_until_dead(far);
}

static void
a_child_dies_with_its_parent(void **state)
{
    (void)state;
    int report[2];
    assert_int_equal(pipe(report), 0);
    /* Orphans come to us, so that we see that it has died and not merely gone elsewhere.
     */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t parent = fork();
    if (parent == 0) {
        char up;
        struct child child =
            spawn_script("trap '' TERM HUP INT; echo; exec sleep 1000", -1, true);
        ssize_t n = read(child.output_fd, &up, 1); /* it executes: see the test below */
        n = write(report[1], &child.pid, sizeof child.pid);
        (void)n;
        raise(SIGKILL);
    }
    pid_t child;
    assert_int_equal(read(report[0], &child, sizeof child), sizeof child);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    close(report[0]);
    close(report[1]);
}

/* Dead before it could ask to be told of its parent's death, it asks who its parent is.
 */
static void
a_child_whose_parent_is_gone_does_not_begin(void **state)
{
    (void)state;
    int report[2];
    assert_int_equal(pipe(report), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t parent = fork();
    if (parent == 0) {
        struct child child = spawn_script("exec sleep 1000", -1, true);
        ssize_t n = write(report[1], &child.pid, sizeof child.pid);
        (void)n;
        raise(SIGKILL);
    }
    pid_t child;
    assert_int_equal(read(report[0], &child, sizeof child), sizeof child);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 127);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    close(report[0]);
    close(report[1]);
}

static void
a_discarded_child_is_gone(void **state)
{
    (void)state;
    struct child child = spawn_script("sleep 1000", -1, true);
    pid_t pid = child.pid;
    child_discard(&child);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(child.pidfd, -1);
}

/* ---- limits ---- */

static struct child
spawn_confined(const char *script, const struct queue_config *queue, int stdin_fd)
{
    static char path[] = "PATH=/usr/local/bin:/usr/bin:/bin";
    static char *environment[] = {path, NULL};
    char *argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
                    (char *)(uintptr_t)script, NULL};
    struct limits limits;
    enum limits_step step;
    struct child child = {0};
    jobq_error err;
    if (limits_resolve(&limits, queue, &step, &err) < 0 ||
        spawn_child(&child,
                    &(struct spawn_options){.argv = argv,
                                            .environment = environment,
                                            .stdin_fd = stdin_fd,
                                            .limits = &limits},
                    &err) < 0)
        fail_msg("%s", err.message);
    limits_clear(&limits);
    return child;
}

static void
confined_output_is(const char *script, const struct queue_config *queue,
                   const char *expected)
{
    char out[1024];
    struct child child = spawn_confined(script, queue, -1);
    read_output(&child, out, sizeof out);
    struct child_end end = end_of(&child);
    assert_string_equal(out, expected);
    assert_int_equal(end.exit_code, 0);
}

static void
limits_are_set_before_the_program_runs(void **state)
{
    (void)state;
    struct queue_config queue = {.mode = QUEUE_EXEC,
                                 .nofile = 100,
                                 .nice = 3,
                                 .cpu_limit_ms = 2500,
                                 .stop_grace_ms = 2000,
                                 .no_new_privs = true,
                                 .working_directory = (char *)(uintptr_t) "/usr"};
    char expected[128];
    snprintf(expected, sizeof expected, "100\n100\n3\n6\n%d\n/usr\nNoNewPrivs:\t1\n",
             getpriority(PRIO_PROCESS, 0) + 3);
    confined_output_is("ulimit -n; ulimit -H -n; ulimit -t; ulimit -H -t; nice; pwd;"
                       "grep NoNewPrivs /proc/self/status",
                       &queue, expected);
}

static void
nothing_is_limited_that_is_not_asked_for(void **state)
{
    (void)state;
    struct queue_config queue = {.mode = QUEUE_EXEC};
    char expected[128];
    snprintf(expected, sizeof expected, "unlimited\n%d\nNoNewPrivs:\t0\n",
             getpriority(PRIO_PROCESS, 0));
    confined_output_is("ulimit -t; nice; grep NoNewPrivs /proc/self/status", &queue,
                       expected);
}

static void
another_user_has_its_own_groups_and_dies_with_us_all_the_same(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct queue_config queue = {.mode = QUEUE_EXEC,
                                 .user = (char *)(uintptr_t) "daemon",
                                 .group = (char *)(uintptr_t) "4242"};
    /* No capability is left, it may write to its own stderr by name, and the parent's
     * death is still told: prctl(PR_GET_PDEATHSIG). */
    confined_output_is(
        "id -u; id -g; id -G | grep -c ' 0\\|^0'; grep CapEff /proc/self/status;"
        "echo by name >/dev/stderr;"
        "exec python3 -c 'import ctypes; n = ctypes.c_int();"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)'",
        &queue, "1\n4242\n0\nCapEff:\t0000000000000000\nby name\n9\n");
    queue = (struct queue_config){.mode = QUEUE_EXEC,
                                  .user = (char *)(uintptr_t) "54321",
                                  .group = (char *)(uintptr_t) "54322"};
    confined_output_is("id -u; id -g; id -G", &queue, "54321\n54322\n54322\n");
}

static void
which_step_failed_is_told(void **state)
{
    (void)state;
    struct queue_config queue = {.mode = QUEUE_EXEC,
                                 .working_directory = (char *)(uintptr_t) "/nonexistent"};
    struct child child = spawn_confined("true", &queue, -1);
    wait_readable(child.pidfd);
    struct child_failure failure = child_failure(&child);
    assert_int_equal(failure.step, LIMITS_DIRECTORY);
    assert_int_equal(failure.why, ENOENT);
    assert_int_equal(end_of(&child).exit_code, 127);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_exit_code_is_seen),
        cmocka_unit_test(the_peak_is_the_programs_not_ours),
        cmocka_unit_test(a_signal_is_seen),
        cmocka_unit_test(ignored_sigchld_does_not_lose_the_end),
        cmocka_unit_test(why_a_program_cannot_be_executed_is_told),
        cmocka_unit_test(stdout_and_stderr_are_one_pipe),
        cmocka_unit_test(stdin_is_empty_or_what_was_given),
        cmocka_unit_test(no_other_descriptor_is_open),
        cmocka_unit_test(the_channel_goes_both_ways),
        cmocka_unit_test(low_descriptors_of_ours_do_no_harm),
        cmocka_unit_test(signals_are_as_if_nobody_had_touched_them),
        cmocka_unit_test(the_file_limit_is_raised_for_us_alone),
        cmocka_unit_test(a_child_leads_its_own_group_which_ends_with_it),
        cmocka_unit_test(a_signal_reaches_the_whole_group),
        cmocka_unit_test(a_kill_reaches_who_has_left_the_group),
        cmocka_unit_test(a_child_dies_with_its_parent),
        cmocka_unit_test(a_child_whose_parent_is_gone_does_not_begin),
        cmocka_unit_test(a_discarded_child_is_gone),
        cmocka_unit_test(limits_are_set_before_the_program_runs),
        cmocka_unit_test(nothing_is_limited_that_is_not_asked_for),
        cmocka_unit_test(another_user_has_its_own_groups_and_dies_with_us_all_the_same),
        cmocka_unit_test(which_step_failed_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
