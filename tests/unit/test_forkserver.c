/* test_forkserver.c: a worker is forked by a forkserver (libjobq/forkserver.c) and becomes our
 * child (jobqd/proc/fork_handoff.c); and what is no such child is found out. This file is jobqd,
 * without a loop. */
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
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <jobq/worker.h>

#include "jobqd/proc/fork_handoff.h"
#include "jobqd/proc/reaper.h"

enum { LIMIT_MS = 60000, THE_FD = 3 };

/* What the processes tell each other. */
static struct progress_buffer {
    int preloads;
    int forks; /* not atomic: one at a time */
    int preloaded_by;
    int fork_pid[16];
} * progress_buffer;

static struct bench {
    int fd; /* our end of the forkserver's socket */
    pid_t pid;
    int64_t serial;
    char line[4096];
} bench;

/* ---- the program ---- */

static int
on_preload(void *data)
{
    (void)data;
    progress_buffer->preloads++;
    progress_buffer->preloaded_by = getpid();
    return 0;
}

static int
on_fork(void *data)
{
    (void)data;
    progress_buffer->fork_pid[progress_buffer->forks++] = getpid();
    return 0;
}

static int
fails(void *data)
{
    (void)data;
    return 7;
}

/* Facts about the process that does the job, as its result. */
static int
on_facts(jobq_work *work, void *data)
{
    char text[256], input[64] = "";
    int death = 0;
    struct stat_of {
        int parent, group, self;
    } now = {getppid(), getpgrp(), getpid()};
    (void)data;
    prctl(PR_GET_PDEATHSIG, &death);
    ssize_t n = readlink("/proc/self/fd/0", input, sizeof input - 1);
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    snprintf(text, sizeof text,
             "{\"parent\":%d,\"group\":%d,\"self\":%d,\"death\":%d,\"input\":\"%s\","
             "\"blocked\":%d,\"forkserver\":%s}",
             now.parent, now.group, now.self, death, n > 0 ? input : "",
             sigismember(&mask, SIGTERM), getenv("JOBQ_PRELOAD") ? "true" : "false");
    printf("said by %d\n", getpid());
    fflush(stdout);
    return jobq_work_ok(work, text, NULL);
}

static int
on_spawn(jobq_work *work, void *data)
{
    (void)data;
    pid_t pid = fork();
    if (pid == 0) {
        setsid(); /* so that it outlives its worker */
        raise(SIGSTOP);
        _exit(0);
    }
    char text[32];
    snprintf(text, sizeof text, "%d", (int)pid);
    return jobq_work_ok(work, text, NULL);
}

static _Noreturn void
run_program(int fd, bool broken_hook)
{
    static const jobq_worker_kind kinds[] = {{"facts", on_facts, NULL},
                                             {"spawn", on_spawn, NULL}};
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_error err;
    char number[16];
    setpgid(0, 0);
    snprintf(number, sizeof number, "%d", fd);
    setenv("JOBQ_FD", number, 1);
    setenv("JOBQ_PRELOAD", "1", 1);
    options.kinds = kinds;
    options.n_kinds = 2;
    options.preload = on_preload;
    options.on_fork = broken_hook ? fails : on_fork;
    printf("not flushed");
    int rc = jobq_worker_run(&options, &err);
    if (rc != 0)
        fprintf(stderr, "%s\n", err.message);
    fflush(stderr);
    _exit(rc != 0);
}

/* ---- our side ---- */

static void
wait_readable(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    int n;
    while ((n = poll(&wait, 1, LIMIT_MS)) < 0 && errno == EINTR)
        continue;
    assert_int_equal(n, 1);
}

/* The next line of a socket; "" at its end. */
static const char *
hear(int fd)
{
    size_t len = 0;
    for (;;) {
        wait_readable(fd);
        ssize_t n = recv(fd, bench.line + len, 1, 0);
        if (n <= 0 || bench.line[len] == '\n')
            break;
        assert_true(++len < sizeof bench.line);
    }
    bench.line[len] = '\0';
    return bench.line;
}

static void
say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static long
number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    assert_non_null(at);
    return strtol(at + strlen(name), NULL, 10);
}

static void
start_forkserver(bool broken_hook)
{
    int ends[2];
    memset(progress_buffer, 0, sizeof *progress_buffer);
    bench.serial = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    bench.fd = ends[0];
    fflush(NULL);
    bench.pid = fork();
    if (bench.pid == 0) {
        close(ends[0]);
        run_program(ends[1], broken_hook);
    }
    reaper_note(bench.pid);
    close(ends[1]);
    setpgid(bench.pid, bench.pid);
    assert_string_equal(hear(bench.fd),
                        "{\"t\":\"hello\",\"protocol\":1,\"forkserver\":true}");
}

static int
exit_code_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    reaper_forget(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void
ask(struct fork_handoff *fork_handoff)
{
    char line[128];
    jobq_error err;
    int len = snprintf(line, sizeof line, "{\"t\":\"fork\",\"id\":%lld,\"parent\":%d}\n",
                       (long long)++bench.serial, (int)getpid());
    if (fork_handoff_ask(fork_handoff, bench.fd, line, (size_t)len, &err) < 0)
        fail_msg("%s", err.message);
}

static pid_t
forked(void)
{
    const char *answer = hear(bench.fd);
    assert_non_null(strstr(answer, "\"forked\""));
    assert_int_equal(number_after(answer, "\"id\":"), bench.serial);
    return (pid_t)number_after(answer, "\"pid\":");
}

static struct child
born(void)
{
    struct fork_handoff fork_handoff;
    struct child child;
    jobq_error err;
    ask(&fork_handoff);
    if (fork_handoff_take(&fork_handoff, forked(), &child, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(fork_handoff.channel_fd, -1);
    return child;
}

static struct child
started(void)
{
    struct child child = born();
    say(child.channel_fd, "{\"t\":\"start\"}\n");
    assert_non_null(strstr(hear(child.channel_fd), "\"hello\""));
    return child;
}

static struct child_end
end_of(struct child *child)
{
    struct child_end end;
    jobq_error err;
    wait_readable(child->pidfd);
    if (child_reap(child, &end, &err) < 0)
        fail_msg("%s", err.message);
    child_close(child);
    return end;
}

static const char *
result_of(const struct child *child, const char *kind)
{
    char job[256];
    snprintf(job, sizeof job,
             "{\"t\":\"job\",\"id\":1,\"attempt\":1,\"max_attempts\":1,\"queue\":\"q\","
             "\"kind\":\"%s\",\"args\":{}}\n",
             kind);
    say(child->channel_fd, job);
    return hear(child->channel_fd);
}

static void
stop(struct child *child)
{
    say(child->channel_fd, "{\"t\":\"stop\"}\n");
    assert_int_equal(end_of(child).exit_code, 0);
}

static void
end_forkserver(void)
{
    say(bench.fd, "{\"t\":\"stop\"}\n");
    assert_int_equal(exit_code_of(bench.pid), 0);
    close(bench.fd);
}

/* ---- the tests ---- */

static void
a_forked_worker_is_our_child(void **state)
{
    (void)state;
    start_forkserver(false);
    struct child child = started();
    const char *facts = result_of(&child, "facts");
    assert_int_equal(number_after(facts, "\"parent\":"), getpid());
    assert_int_equal(number_after(facts, "\"self\":"), child.pid);
    assert_int_equal(number_after(facts, "\"group\":"), child.pid);
    assert_int_equal(number_after(facts, "\"death\":"), SIGKILL);
    assert_int_equal(number_after(facts, "\"blocked\":"), 0);
    assert_non_null(strstr(facts, "\"input\":\"/dev/null\""));
    assert_non_null(strstr(facts, "\"forkserver\":false"));

    char printed[64] = "", expected[64];
    wait_readable(child.output_fd);
    assert_true(read(child.output_fd, printed, sizeof printed - 1) > 0);
    /* and not what the forkserver had not flushed */
    snprintf(expected, sizeof expected, "said by %d\n", (int)child.pid);
    assert_string_equal(printed, expected);
    stop(&child);
    end_forkserver();
}

static void
the_hooks_are_called_once_each(void **state)
{
    (void)state;
    start_forkserver(false);
    assert_int_equal(progress_buffer->preloads, 1);
    assert_int_equal(progress_buffer->preloaded_by, bench.pid);
    assert_int_equal(progress_buffer->forks, 0);
    for (int i = 0; i < 3; i++) {
        struct child child = started();
        assert_int_equal(progress_buffer->forks, i + 1);
        assert_int_equal(progress_buffer->fork_pid[i], child.pid);
        stop(&child);
    }
    assert_int_equal(progress_buffer->preloads, 1);
    end_forkserver();
}

static void
a_hook_that_fails_ends_the_worker(void **state)
{
    (void)state;
    start_forkserver(true);
    struct child child = born();
    say(child.channel_fd, "{\"t\":\"start\"}\n");
    assert_string_equal(hear(child.channel_fd), "");
    char printed[128] = "";
    wait_readable(child.output_fd);
    assert_true(read(child.output_fd, printed, sizeof printed - 1) > 0);
    assert_string_equal(printed, "worker: on_fork returned 7\n");
    assert_int_equal(end_of(&child).exit_code, 1);
    end_forkserver();
}

/* Until it is told to start it runs nothing of the program's, and is gone with its
 * socket. */
static void
a_worker_that_nobody_takes_exits(void **state)
{
    (void)state;
    struct fork_handoff fork_handoff;
    start_forkserver(false);
    ask(&fork_handoff);
    pid_t pid = forked();
    fork_handoff_drop(&fork_handoff);
    assert_int_equal(exit_code_of(pid), 127);
    assert_int_equal(progress_buffer->forks, 0);
    end_forkserver();
}

static void
a_worker_dies_with_the_template_until_it_is_taken(void **state)
{
    (void)state;
    struct fork_handoff fork_handoff;
    struct child child;
    start_forkserver(false);
    struct child earlier = born();
    ask(&fork_handoff);
    pid_t pid = forked();
    kill(-bench.pid, SIGKILL);
    assert_int_equal(exit_code_of(pid), -SIGKILL);
    assert_int_equal(exit_code_of(bench.pid), -SIGKILL);
    jobq_error err;
    assert_int_equal(fork_handoff_take(&fork_handoff, pid, &child, &err), JOBQ_EINVAL);
    fork_handoff_drop(&fork_handoff);
    /* The one that was taken goes on. */
    say(earlier.channel_fd, "{\"t\":\"start\"}\n");
    assert_non_null(strstr(hear(earlier.channel_fd), "\"hello\""));
    stop(&earlier);
    close(bench.fd);
}

static void
a_worker_outlives_its_template(void **state)
{
    (void)state;
    start_forkserver(false);
    struct child child = started();
    end_forkserver();
    assert_non_null(strstr(result_of(&child, "facts"), "\"ok\""));
    stop(&child);
}

static void
sigterm_ends_the_template_alone(void **state)
{
    (void)state;
    start_forkserver(false);
    struct child child = started();
    kill(bench.pid, SIGTERM);
    assert_int_equal(exit_code_of(bench.pid), 0);
    assert_non_null(strstr(result_of(&child, "facts"), "\"ok\""));
    kill(child.pid, SIGTERM);
    assert_int_equal(end_of(&child).exit_code, 0);
    close(bench.fd);
}

static void
what_is_no_child_of_ours_is_refused(void **state)
{
    (void)state;
    struct fork_handoff fork_handoff = FORK_HANDOFF_NONE;
    struct child child;
    jobq_error err;
    assert_int_equal(fork_handoff_take(&fork_handoff, 1, &child, &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "process 1 is not jobqd's child: fork twice, and "
                                     "answer after the intermediate process has exited");
    assert_int_equal(fork_handoff_take(&fork_handoff, getpid(), &child, &err),
                     JOBQ_EINVAL);
}

static void
wrong_messages_end_the_template(void **state)
{
    (void)state;
    static const char *const wrong[] = {"{\"t\":\"start\"}\n",
                                        "{\"t\":\"ok\",\"id\":1}\n", "what?\n",
                                        "{\"t\":\"fork\",\"id\":1}\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        start_forkserver(false);
        say(bench.fd, wrong[i]);
        assert_int_equal(exit_code_of(bench.pid), 1);
        close(bench.fd);
    }
    start_forkserver(false);
    say(bench.fd, "{\"t\":\"fork\",\"id\":1,\"parent\":1}\n");
    assert_non_null(strstr(hear(bench.fd), "two descriptors did not arrive"));
    close(bench.fd); /* jobqd is gone */
    assert_int_equal(exit_code_of(bench.pid), 1);
}

static void
orphans_are_reaped_and_others_left_alone(void **state)
{
    (void)state;
    start_forkserver(false);
    struct child child = started();
    pid_t orphan = (pid_t)number_after(result_of(&child, "spawn"), "\"result\":");
    stop(&child);
    /* Its worker is gone: it is ours now, and nobody waits for it. */
    kill(orphan, SIGKILL);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)orphan, &info, WEXITED | WNOWAIT), 0);
    reaper_hold();
    assert_int_equal(reaper_reap_orphans(), 0);
    reaper_release();
    assert_int_equal(waitpid(orphan, NULL, WNOHANG), -1);
    /* The forkserver is noted: its end is left to us. */
    say(bench.fd, "{\"t\":\"stop\"}\n");
    assert_int_equal(waitid(P_PID, (id_t)bench.pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(reaper_reap_orphans(), 0);
    assert_int_equal(exit_code_of(bench.pid), 0);
    close(bench.fd);
}

static void
without_jobqd_a_program_starts_as_it_always_did(void **state)
{
    (void)state;
    int ends[2];
    memset(progress_buffer, 0, sizeof *progress_buffer);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        static const jobq_worker_kind kinds[] = {{"facts", on_facts, NULL}};
        jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
        close(ends[0]);
        options.kinds = kinds;
        options.n_kinds = 1;
        options.fd = ends[1];
        options.preload = on_preload;
        options.on_fork = on_fork;
        _exit(jobq_worker_run(&options, NULL) != 0);
    }
    close(ends[1]);
    assert_non_null(strstr(hear(ends[0]), "\"kinds\""));
    assert_int_equal(progress_buffer->preloads, 1);
    assert_int_equal(progress_buffer->forks, 1);
    say(ends[0], "{\"t\":\"stop\"}\n");
    assert_int_equal(exit_code_of(pid), 0);
    close(ends[0]);
}

static int
make_progress_buffer(void **state)
{
    (void)state;
    progress_buffer = mmap(NULL, sizeof *progress_buffer, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    reaper_adopt();
    return progress_buffer == MAP_FAILED;
}

static int
leave(void **state)
{
    (void)state;
    reaper_leave();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forked_worker_is_our_child),
        cmocka_unit_test(the_hooks_are_called_once_each),
        cmocka_unit_test(a_hook_that_fails_ends_the_worker),
        cmocka_unit_test(a_worker_that_nobody_takes_exits),
        cmocka_unit_test(a_worker_dies_with_the_template_until_it_is_taken),
        cmocka_unit_test(a_worker_outlives_its_template),
        cmocka_unit_test(sigterm_ends_the_template_alone),
        cmocka_unit_test(what_is_no_child_of_ours_is_refused),
        cmocka_unit_test(wrong_messages_end_the_template),
        cmocka_unit_test(orphans_are_reaped_and_others_left_alone),
        cmocka_unit_test(without_jobqd_a_program_starts_as_it_always_did),
    };
    return cmocka_run_group_tests(tests, make_progress_buffer, leave);
}
