/* workerpeer.h: what the tests of the worker side share: jobq_worker_run in a thread, at one
 * end of a socket pair, and the test in jobqd's place at the other. */
#ifndef TESTS_WORKERPEER_H
#define TESTS_WORKERPEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jobq/worker.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_S = 60 };

static struct {
    int fd;      /* jobqd's end */
    int gate[2]; /* a handler that waits reads one byte from it */
    char inbox[1 << 20];
    size_t inbox_len;
    pthread_t thread;
    bool started;
    jobq_worker_options options;
    int rc;
    jobq_error err;
    int peer; /* the worker's end */
} peer;

/* ---- handlers ---- */

static int
on_ok(jobq_work *work, void *data)
{
    (void)work;
    return *(int *)data;
}

static int
on_result(jobq_work *work, void *data)
{
    (void)data;
    assert_int_equal(jobq_work_args_len(work), strlen(jobq_work_args(work)));
    return jobq_work_ok(work, jobq_work_args(work), NULL);
}

/* All that a handler can ask, as its result. */
static int
on_describe(jobq_work *work, void *data)
{
    char text[512];
    (void)data;
    snprintf(text, sizeof text, "[%lld, %d, %d, \"%s\", \"%s\", %s, %s, %lld]",
             (long long)jobq_work_id(work), jobq_work_attempt(work),
             jobq_work_max_attempts(work), jobq_work_queue(work), jobq_work_kind(work),
             jobq_work_args(work), jobq_work_meta(work),
             (long long)jobq_work_timeout_ms(work));
    return jobq_work_ok(work, text, NULL);
}

static int
on_error(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_error(work, "two\nlines", "a\ntrace", 5000, NULL);
}

static int
on_bare_error(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_error(work, NULL, NULL, -1, NULL);
}

static int
on_snooze(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_snooze(work, 60000, NULL);
}

static int
on_discard(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_discard(work, "bad \"data\"", NULL);
}

static int
on_cancel(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_cancel(work, NULL, NULL);
}

/* Answers a second time in every way; the first one counts. */
static int
on_twice(jobq_work *work, void *data)
{
    jobq_error err[6];
    int refused = 0;
    (void)data;
    jobq_work_ok(work, NULL, NULL);
    refused += jobq_work_ok(work, NULL, &err[0]) == JOBQ_ESTATE;
    refused += jobq_work_error(work, "x", NULL, -1, &err[1]) == JOBQ_ESTATE;
    refused += jobq_work_snooze(work, 1, &err[2]) == JOBQ_ESTATE;
    refused += jobq_work_discard(work, NULL, &err[3]) == JOBQ_ESTATE;
    refused += jobq_work_cancel(work, NULL, &err[4]) == JOBQ_ESTATE;
    refused += jobq_work_progress(work, 1, NULL, &err[5]) == JOBQ_ESTATE;
    fprintf(stderr, "%d refused: %s\n", refused, err[0].message);
    if (refused != 6 ||
        strcmp(err[0].message, "jobq_work_ok: job 7 was already answered") != 0)
        abort();
    return 1;
}

/* Answers with data as the result, which is wrong, and says nothing else. */
static int
on_wrong_result(jobq_work *work, void *data)
{
    jobq_error err;
    int rc = jobq_work_ok(work, data, &err);
    if (rc != JOBQ_EINVAL)
        abort();
    return 0;
}

static int
on_wrong_then_right(jobq_work *work, void *data)
{
    (void)data;
    if (jobq_work_ok(work, "nil", NULL) != JOBQ_EINVAL ||
        jobq_work_error(work, "x", NULL, -2, NULL) != JOBQ_EINVAL ||
        jobq_work_snooze(work, -1, NULL) != JOBQ_EINVAL ||
        jobq_work_progress(work, 1.01, NULL, NULL) != JOBQ_EINVAL)
        abort();
    return jobq_work_ok(work, " [ 1.10 ,\n \"a b\" ] ", NULL);
}

static int
on_progress(jobq_work *work, void *data)
{
    (void)data;
    /* The first is sent at once, those that follow at once are dropped. */
    for (int i = 0; i < 1000; i++)
        if (jobq_work_progress(work, 0.25, "a\nnote", NULL) != 0)
            abort();
    return 0;
}

/* Begins, says so by progress, and waits for the gate. */
static int
on_gate(jobq_work *work, void *data)
{
    char byte;
    (void)data;
    if (jobq_work_progress(work, 0, NULL, NULL) != 0)
        abort();
    while (read(peer.gate[0], &byte, 1) < 0 && errno == EINTR)
        ;
    return 0;
}

/* Begins, says so by progress, runs until it should stop, and answers with how. */
static int
on_until_stop(jobq_work *work, void *data)
{
    int stop;
    char text[16];
    (void)data;
    if (jobq_work_progress(work, 0, NULL, NULL) != 0)
        abort();
    while ((stop = jobq_work_should_stop(work)) == JOBQ_STOP_NO)
        poll(NULL, 0, 1);
    snprintf(text, sizeof text, "%d", stop);
    return stop == JOBQ_STOP_CANCEL ? jobq_work_cancel(work, "as asked", NULL)
                                    : jobq_work_ok(work, text, NULL);
}

/* How a child of the handler's takes SIGTERM, and whether the worker heard of it. */
static int
on_child(jobq_work *work, void *data)
{
    int status = 0;
    char text[32];
    (void)data;
    pid_t pid = fork();
    if (pid == 0) {
        for (;;)
            pause();
    }
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    snprintf(text, sizeof text, "[%d,%d]", WIFSIGNALED(status) ? WTERMSIG(status) : 0,
             jobq_work_should_stop(work));
    return jobq_work_ok(work, text, NULL);
}

static int
on_no_result(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_ok_without_result(work, "two\nlines", NULL);
}

/* Three times what fits, of characters of two bytes. */
static int
on_long_trace(jobq_work *work, void *data)
{
    static char trace[3 * 65536 + 1];
    (void)data;
    for (size_t i = 0; i < sizeof trace - 1; i += 2)
        memcpy(trace + i, "\xC3\xA5", 2);
    memcpy(trace, "begin:", 6);
    memcpy(trace + sizeof trace - 7, ":ended", 6);
    return jobq_work_error(work, "x", trace, -1, NULL);
}

/* The child answers the job, too, and returns into the worker's loop. */
static int
on_falls_out(jobq_work *work, void *data)
{
    int status = 0;
    char text[16];
    (void)data;
    pid_t pid = fork();
    if (pid == 0) {
        jobq_work_progress(work, 0.5, NULL, NULL);
        return jobq_work_ok(work, "\"the child's\"", NULL);
    }
    waitpid(pid, &status, 0);
    snprintf(text, sizeof text, "%d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return jobq_work_ok(work, text, NULL);
}

static int
on_run_again(jobq_work *work, void *data)
{
    jobq_error err;
    (void)data;
    if (jobq_worker_run(&peer.options, &err) != JOBQ_ESTATE)
        abort();
    return jobq_work_error(work, err.message, NULL, -1, NULL);
}

static int zero = 0, seven = 7;
static char nil[] = "{\"a\": nil}", nul[] = "\"\\u0000\"", large[5000];

static const jobq_worker_kind kinds[] = {
    {"ok", on_ok, &zero},
    {"fails", on_ok, &seven},
    {"result", on_result, NULL},
    {"describe", on_describe, NULL},
    {"error", on_error, NULL},
    {"bare_error", on_bare_error, NULL},
    {"snooze", on_snooze, NULL},
    {"discard", on_discard, NULL},
    {"cancel", on_cancel, NULL},
    {"twice", on_twice, NULL},
    {"no_json", on_wrong_result, nil},
    {"no_jsonb", on_wrong_result, nul},
    {"too_large", on_wrong_result, large},
    {"no_result", on_no_result, NULL},
    {"long_trace", on_long_trace, NULL},
    {"falls_out", on_falls_out, NULL},
    {"wrong_then_right", on_wrong_then_right, NULL},
    {"progress", on_progress, NULL},
    {"gate", on_gate, NULL},
    {"until_stop", on_until_stop, NULL},
    {"child", on_child, NULL},
    {"run_again", on_run_again, NULL},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

/* ---- jobqd's place ---- */

static void
say(const char *text)
{
    size_t len = strlen(text), sent = 0;
    while (sent < len) {
        ssize_t n = send(peer.fd, text + sent, len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            fail_msg("send: %s", strerror(errno));
        sent += n > 0 ? (size_t)n : 0;
    }
}

static const char *
job(int id, const char *kind, const char *args)
{
    static char lines[8][8192];
    static unsigned turn;
    char *line = lines[turn++ % 8];
    snprintf(line, sizeof lines[0],
             "{\"t\":\"job\",\"id\":%d,\"attempt\":2,\"max_attempts\":20,\"queue\":"
             "\"default\",\"kind\":\"%s\",\"args\":%s}\n",
             id, kind, args);
    return line;
}

/* Reads until there is a line; NULL at the end of the socket. */
static const char *
hear(void)
{
    static char line[1 << 20];
    for (;;) {
        char *newline = memchr(peer.inbox, '\n', peer.inbox_len);
        if (newline) {
            size_t len = (size_t)(newline - peer.inbox);
            memcpy(line, peer.inbox, len);
            line[len] = '\0';
            peer.inbox_len -= len + 1;
            memmove(peer.inbox, newline + 1, peer.inbox_len);
            return line;
        }
        struct pollfd fd = {.fd = peer.fd, .events = POLLIN};
        int ready = poll(&fd, 1, LIMIT_S * 1000);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0)
            fail_msg("waited in vain for a line");
        ssize_t n = recv(peer.fd, peer.inbox + peer.inbox_len,
                         sizeof peer.inbox - peer.inbox_len, 0);
        if (n <= 0)
            return NULL;
        peer.inbox_len += (size_t)n;
    }
}

#define hears(expected)                                                                  \
    do {                                                                                 \
        const char *line_ = hear();                                                      \
        assert_non_null(line_);                                                          \
        assert_string_equal(line_, expected);                                            \
    } while (0)

static void *
run(void *unused)
{
    (void)unused;
    pid_t pid = getpid();
    peer.rc = jobq_worker_run(&peer.options, &peer.err);
    if (getpid() != pid) /* a second call would find the socket that JOBQ_FD names */
        _exit(peer.rc == JOBQ_ESTATE &&
                      jobq_worker_run(&peer.options, NULL) == JOBQ_ESTATE
                  ? 42
                  : 43);
    close(peer.peer);
    return NULL;
}

static int
open_peer(void **state)
{
    int fds[2];
    (void)state;
    memset(large, '7', sizeof large - 1);
    memset(&peer, 0, sizeof peer);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0 || pipe(peer.gate) != 0)
        return -1;
    peer.fd = fds[0];
    peer.peer = fds[1];
    peer.options = (jobq_worker_options)JOBQ_WORKER_OPTIONS_INIT;
    peer.options.kinds = kinds;
    peer.options.n_kinds = N_KINDS;
    peer.options.fd = fds[1];
    peer.options.max_frame = 4096;
    return 0;
}

static void
start(void)
{
    assert_int_equal(pthread_create(&peer.thread, NULL, run, NULL), 0);
    peer.started = true;
    const char *hello = hear();
    assert_non_null(hello);
    assert_int_equal(strncmp(hello, "{\"t\":\"hello\",\"protocol\":1", 25), 0);
}

/* Waits until jobq_worker_run has returned. */
static void
expect_end(int rc, const char *message)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += LIMIT_S;
    assert_int_equal(pthread_timedjoin_np(peer.thread, NULL, &limit), 0);
    peer.started = false;
    assert_int_equal(peer.rc, rc);
    if (rc != 0)
        assert_string_equal(peer.err.message, message);
}

static int
close_peer(void **state)
{
    (void)state;
    if (peer.started) {
        shutdown(peer.fd, SHUT_RDWR);
        pthread_join(peer.thread, NULL);
    }
    close(peer.fd);
    close(peer.gate[0]);
    close(peer.gate[1]);
    return 0;
}

static void
stop(void)
{
    say("{\"t\":\"stop\"}\n");
    expect_end(0, NULL);
    assert_null(hear());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_peer, close_peer)

#endif
