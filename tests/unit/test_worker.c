/* The worker side over a socket pair: jobq_worker_run in a thread, this file in jobqd's
 * place. */
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

static int
abort_hook(void *data)
{
    (void)data;
    abort();
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

/* ---- jobs and answers ---- */

static void
hello_lists_the_kinds(void **state)
{
    (void)state;
    static const jobq_worker_kind two[] = {{"resize", on_ok, &zero},
                                           {"a\"b\xC3\xA5", on_ok, &zero}};
    peer.options.kinds = two;
    peer.options.n_kinds = 2;
    assert_int_equal(pthread_create(&peer.thread, NULL, run, NULL), 0);
    peer.started = true;
    hears("{\"t\":\"hello\",\"protocol\":1,\"kinds\":[\"resize\",\"a\\\"b\xC3\xA5\"]}");
    stop();
}

static void
one_row_takes_every_other_kind(void **state)
{
    (void)state;
    static const jobq_worker_kind rows[] = {{NULL, on_describe, NULL},
                                            {"ok", on_ok, &zero}};
    peer.options.kinds = rows;
    peer.options.n_kinds = 2;
    assert_int_equal(pthread_create(&peer.thread, NULL, run, NULL), 0);
    peer.started = true;
    hears("{\"t\":\"hello\",\"protocol\":1}");
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    say(job(2, "else", "{}"));
    hears("{\"t\":\"ok\",\"id\":2,\"result\":[2,2,20,\"default\",\"else\",{},{},0]}");
    stop();
}

static void
a_handler_sees_the_job(void **state)
{
    (void)state;
    start();
    say("{\"t\":\"job\",\"id\":9007199254740993,\"attempt\":3,\"max_attempts\":4,"
        "\"queue\":\"m\xC3\xA5il\",\"kind\":\"describe\",\"args\":{\"n\": "
        "123456789012345678, "
        "\"x\":1.10},\"meta\":{\"a\":[]},\"timeout_ms\":1800000}\n");
    hears("{\"t\":\"ok\",\"id\":9007199254740993,\"result\":[9007199254740993,3,4,"
          "\"m\xC3\xA5il\",\"describe\",{\"n\":123456789012345678,\"x\":1.10},{\"a\":[]},"
          "1800000]}");
    stop();
}

static void
each_answer_is_sent(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        const char *args;
        const char *answer;
    } rows[] = {
        {"ok", "{}", "{\"t\":\"ok\",\"id\":7}"},
        {"fails", "{}",
         "{\"t\":\"error\",\"id\":7,\"error\":\"the handler returned 7 without an "
         "answer\"}"},
        {"result", "{\"n\": 123456789012345678, \"x\": [0.1, 1.10]}",
         "{\"t\":\"ok\",\"id\":7,\"result\":{\"n\":123456789012345678,\"x\":[0.1,1.10]}"
         "}"},
        {"error", "{}",
         "{\"t\":\"error\",\"id\":7,\"error\":\"two lines\",\"detail\":\"a\\ntrace\","
         "\"retry_in_ms\":5000}"},
        {"bare_error", "{}", "{\"t\":\"error\",\"id\":7,\"error\":\"no reason given\"}"},
        {"snooze", "{}", "{\"t\":\"snooze\",\"id\":7,\"in_ms\":60000}"},
        {"discard", "{}", "{\"t\":\"discard\",\"id\":7,\"reason\":\"bad \\\"data\\\"\"}"},
        {"cancel", "{}", "{\"t\":\"cancel\",\"id\":7}"},
        {"twice", "{}", "{\"t\":\"ok\",\"id\":7}"},
        {"no_json", "{}",
         "{\"t\":\"ok\",\"id\":7,\"error\":\"the result was left out: result: expected a "
         "value at byte 7, "
         "found 'n'\"}"},
        {"no_jsonb", "{}",
         "{\"t\":\"ok\",\"id\":7,\"error\":\"the result was left out: result: expected "
         "no \\\\u0000, which "
         "jsonb cannot hold, at byte 2, found '\\\\'\"}"},
        {"too_large", "{}",
         "{\"t\":\"ok\",\"id\":7,\"error\":\"the result was left out: jobq_work_ok: the "
         "answer takes 5026 "
         "bytes, at most 4096 are allowed\"}"},
        {"no_result", "{}", "{\"t\":\"ok\",\"id\":7,\"error\":\"two lines\"}"},
        {"wrong_then_right", "{}", "{\"t\":\"ok\",\"id\":7,\"result\":[1.10,\"a b\"]}"},
        {"run_again", "{}",
         "{\"t\":\"error\",\"id\":7,\"error\":\"worker: another worker is already "
         "running in this process\"}"},
    };
    start();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        say(job(7, rows[i].kind, rows[i].args));
        hears(rows[i].answer);
    }
    stop();
}

static void
an_unknown_kind_is_an_error_that_names_the_known(void **state)
{
    (void)state;
    peer.options.n_kinds = 2;
    start();
    say(job(8, "mai\\u006c", "{}"));
    hears("{\"t\":\"error\",\"id\":8,\"error\":\"no handler for kind \\\"mail\\\"; this "
          "worker handles ok, fails\"}");
    say(job(9, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":9}");
    stop();
}

static void
args_that_nest_too_deep_are_discarded(void **state)
{
    (void)state;
    char args[400], line[600];
    size_t depth = 150;
    memset(args, '[', depth);
    memset(args + depth, ']', depth);
    args[2 * depth] = '\0';
    start();
    const char *deep = job(8, "ok", args);
    say(deep);
    size_t byte = (size_t)(strchr(deep, '[') - deep) + 128 + 1;
    snprintf(
        line, sizeof line,
        "{\"t\":\"discard\",\"id\":8,\"reason\":\"frame: expected at most 128 levels "
        "of nesting at byte %zu, found '['\"}",
        byte);
    hears(line);
    say(job(9, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":9}");
    stop();
}

static void
progress_is_thinned_out(void **state)
{
    (void)state;
    start();
    say(job(7, "progress", "{}"));
    int lines = 0;
    const char *line;
    while ((line = hear()) && strncmp(line, "{\"t\":\"progress\"", 15) == 0) {
        assert_string_equal(
            line, "{\"t\":\"progress\",\"id\":7,\"done\":0.25,\"note\":\"a note\"}");
        lines++;
    }
    assert_in_range(lines, 1, 500);
    assert_string_equal(line, "{\"t\":\"ok\",\"id\":7}");
    stop();
}

/* ---- the order of things ---- */

static void
an_answer_is_out_before_the_next_handler_begins(void **state)
{
    (void)state;
    char lines[4096];
    start();
    snprintf(lines, sizeof lines, "%s%s%s%s", job(1, "ok", "{}"), job(2, "gate", "{}"),
             job(3, "nobody's", "{}"), job(4, "gate", "{}"));
    say(lines);
    hears("{\"t\":\"ok\",\"id\":1}");
    hears("{\"t\":\"progress\",\"id\":2,\"done\":0}");
    assert_int_equal(peer.inbox_len, 0);
    assert_int_equal(write(peer.gate[1], "", 1), 1);
    hears("{\"t\":\"ok\",\"id\":2}");
    assert_non_null(strstr(hear(), "no handler for kind"));
    hears("{\"t\":\"progress\",\"id\":4,\"done\":0}");
    assert_int_equal(write(peer.gate[1], "", 1), 1);
    hears("{\"t\":\"ok\",\"id\":4}");
    stop();
}

static void
lines_may_come_in_any_pieces(void **state)
{
    (void)state;
    start();
    const char *line = job(1, "result", "{\"a\": \"b\"}");
    for (const char *at = line; *at; at++)
        say((char[]){*at, '\0'});
    hears("{\"t\":\"ok\",\"id\":1,\"result\":{\"a\":\"b\"}}");
    char *many = malloc(400 * 300);
    assert_non_null(many);
    size_t len = 0;
    for (int i = 1; i <= 400; i++)
        len += (size_t)sprintf(many + len, "%s", job(i, "result", "{}"));
    say(many);
    free(many);
    for (int i = 1; i <= 400; i++) {
        char answer[64];
        snprintf(answer, sizeof answer, "{\"t\":\"ok\",\"id\":%d,\"result\":{}}", i);
        hears(answer);
    }
    stop();
}

static void
a_running_job_sees_that_it_is_cancelled(void **state)
{
    (void)state;
    char lines[2048];
    start();
    snprintf(lines, sizeof lines, "%s%s%s", job(1, "until_stop", "{}"),
             job(2, "ok", "{}"), job(3, "ok", "{}"));
    say(lines);
    hears("{\"t\":\"progress\",\"id\":1,\"done\":0}");
    say("{\"t\":\"cancel\",\"id\":2}\n{\"t\":\"cancel\",\"id\":1}\n");
    hears("{\"t\":\"cancel\",\"id\":1,\"reason\":\"as asked\"}");
    hears("{\"t\":\"cancel\",\"id\":2,\"reason\":\"cancelled before it began\"}");
    hears("{\"t\":\"ok\",\"id\":3}");
    /* The next attempt of the same job is another matter. */
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    stop();
}

static void
cancelling_what_has_ended_is_harmless(void **state)
{
    (void)state;
    start();
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    say("{\"t\":\"cancel\",\"id\":1}\n");
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    for (int i = 0; i < 10000; i++)
        say("{\"t\":\"cancel\",\"id\":77}\n{\"t\":\"cancel\",\"id\":78}\n");
    say(job(79, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":79}");
    stop();
}

/* ---- the end ---- */

static void
stop_lets_all_that_came_before_it_end(void **state)
{
    (void)state;
    char lines[2048];
    start();
    snprintf(lines, sizeof lines, "%s%s{\"t\":\"stop\"}\n", job(1, "until_stop", "{}"),
             job(2, "ok", "{}"));
    say(lines);
    hears("{\"t\":\"progress\",\"id\":1,\"done\":0}");
    hears("{\"t\":\"ok\",\"id\":1,\"result\":1}"); /* JOBQ_STOP_DRAIN */
    hears("{\"t\":\"ok\",\"id\":2}");
    expect_end(0, NULL);
    assert_null(hear());
}

static void
sigterm_gives_back_what_has_not_begun(void **state)
{
    (void)state;
    char lines[2048];
    start();
    snprintf(lines, sizeof lines, "%s%s%s", job(1, "until_stop", "{}"),
             job(2, "ok", "{}"), job(3, "ok", "{}"));
    say(lines);
    hears("{\"t\":\"progress\",\"id\":1,\"done\":0}");
    kill(getpid(), SIGTERM);
    hears("{\"t\":\"ok\",\"id\":1,\"result\":3}"); /* JOBQ_STOP_NOW */
    hears("{\"t\":\"snooze\",\"id\":2,\"in_ms\":0}");
    hears("{\"t\":\"snooze\",\"id\":3,\"in_ms\":0}");
    expect_end(0, NULL);
    assert_null(hear());
    struct sigaction now;
    sigaction(SIGTERM, NULL, &now);
    assert_ptr_equal(now.sa_handler, SIG_DFL);
}

static void
sigterm_wakes_an_idle_worker(void **state)
{
    (void)state;
    start();
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    kill(getpid(), SIGTERM);
    expect_end(0, NULL);
}

static void
a_child_of_a_handler_dies_of_sigterm(void **state)
{
    (void)state;
    start();
    say(job(1, "child", "{}"));
    hears("{\"t\":\"ok\",\"id\":1,\"result\":[15,0]}");
    say("{\"t\":\"stop\"}\n");
    expect_end(0, NULL);
}

static volatile sig_atomic_t caught;

static void
catch_it(int number)
{
    caught = number;
}

static void
a_child_that_returns_is_no_second_worker(void **state)
{
    (void)state;
    start();
    say(job(7, "falls_out", "{}"));
    say(job(8, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":7,\"result\":42}");
    hears("{\"t\":\"ok\",\"id\":8}");
    stop();
}

static void
a_long_trace_keeps_both_ends(void **state)
{
    (void)state;
    peer.options.max_frame = 1 << 20;
    start();
    say(job(7, "long_trace", "{}"));
    const char *line = hear();
    assert_non_null(line);
    assert_in_range(strlen(line), 65000, 65536 + 100);
    assert_non_null(strstr(line, "\"detail\":\"begin:\xC3\xA5"));
    assert_non_null(
        strstr(line, "\xC3\xA5\\n[... 131136 bytes are left out ...]\\n\xC3\xA5"));
    assert_non_null(strstr(line, "\xC3\xA5:ended\"}"));
    stop();
}

static void
a_handler_of_the_programs_own_stays(void **state)
{
    (void)state;
    struct sigaction mine = {.sa_handler = catch_it}, found;
    sigaction(SIGTERM, &mine, NULL);
    start();
    kill(getpid(), SIGTERM);
    say(job(1, "ok", "{}"));
    hears("{\"t\":\"ok\",\"id\":1}");
    stop();
    sigaction(SIGTERM, NULL, &found);
    signal(SIGTERM, SIG_DFL);
    assert_int_equal(caught, SIGTERM);
    assert_ptr_equal(found.sa_handler, catch_it);
}

static void
a_daemon_that_is_gone_ends_the_worker(void **state)
{
    (void)state;
    char lines[2048];
    start();
    snprintf(lines, sizeof lines, "%s%s", job(1, "until_stop", "{}"),
             job(2, "gate", "{}"));
    say(lines);
    hears("{\"t\":\"progress\",\"id\":1,\"done\":0}");
    shutdown(peer.fd, SHUT_RDWR);
    expect_end(JOBQ_EIO, "worker: jobqd is gone: it closed the socket");
}

static void
what_is_no_frame_of_jobqds_ends_the_worker(void **state)
{
    static const struct {
        const char *line;
        const char *message;
    } rows[] = {
        {"hello\n", "frame: expected an object at byte 1, found 'h'"},
        {"\n", "frame: expected an object at byte 1, found the end"},
        {"{\"t\":\"job\",\"id\":7}\n", "job frame: \"attempt\" is missing"},
        {"{\"t\":\"cancel\"}\n", "cancel frame: \"id\" is missing"},
        {"{\"t\":\"pause\"}\n", "frame: unknown type \"pause\" at byte 6; known are job, "
                                "cancel, stop, hello, ok, error, snooze, discard, "
                                "progress, fork, forked and start"},
        {"{\"t\":\"hello\",\"protocol\":1}\n",
         "worker: jobqd sent a frame that a worker does not take: "
         "{\"t\":\"hello\",\"protocol\":1}"},
        {"{\"t\":\"ok\",\"id\":7}\n",
         "worker: jobqd sent a frame that a worker does not take: "
         "{\"t\":\"ok\",\"id\":7}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        start();
        say(rows[i].line);
        expect_end(JOBQ_EPROTO, rows[i].message);
        close_peer(state);
        open_peer(state);
    }
    start();
    char line[5000];
    memset(line, ' ', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    say(line);
    expect_end(JOBQ_EPROTO, "worker: the daemon sent a line of more than 4096 bytes");
}

/* ---- wrong options ---- */

static char name129[130];

static void
expect_refused(const jobq_worker_options *options, const char *message)
{
    jobq_error err = {0};
    int rc = jobq_worker_run(options, &err);
    assert_string_equal(err.message, message);
    assert_int_equal(rc, JOBQ_EINVAL);
    assert_int_equal(jobq_worker_run(options, NULL), JOBQ_EINVAL);
}

static void
wrong_kinds_are_refused(void **state)
{
    (void)state;
    memset(name129, 'a', 129);
    static const struct {
        jobq_worker_kind kinds[3];
        size_t n;
        const char *message;
    } rows[] = {
        {{{NULL, NULL, NULL}}, 0, "worker: kinds must have at least one row"},
        {{{"", on_ok, NULL}}, 1, "worker: kinds[0].kind must be 1 to 128 bytes, got 0"},
        {{{"a", on_ok, NULL}, {name129, on_ok, NULL}},
         2,
         "worker: kinds[1].kind must be 1 to 128 bytes, got more"},
        {{{"a", on_ok, NULL}, {"b", NULL, NULL}}, 2, "worker: kinds[1].handler is NULL"},
        {{{"a", on_ok, NULL}, {"b", on_ok, NULL}, {"a", on_ok, NULL}},
         3,
         "worker: kinds[0] and kinds[2] are both a"},
        {{{NULL, on_ok, NULL}, {NULL, on_ok, NULL}},
         2,
         "worker: kinds[0] and kinds[1] are both for every other kind"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        peer.options.kinds = rows[i].kinds;
        peer.options.n_kinds = rows[i].n;
        expect_refused(&peer.options, rows[i].message);
    }
    peer.options.kinds = NULL;
    expect_refused(&peer.options, "worker: kinds must have at least one row");
}

static void
wrong_sockets_and_sizes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *fd;
        const char *message;
    } rows[] = {
        {"", "worker: JOBQ_FD must be the number of a socket, got \"\""},
        {"-1", "worker: JOBQ_FD must be the number of a socket, got \"-1\""},
        {"3x", "worker: JOBQ_FD must be the number of a socket, got \"3x\""},
        {"99999999999",
         "worker: JOBQ_FD must be the number of a socket, got \"99999999999\""},
        {"999999", "worker: JOBQ_FD: 999999 is not an open socket"},
    };
    jobq_worker_options options = peer.options;
    options.fd = -1;
    unsetenv("JOBQ_FD");
    expect_refused(&options,
                   "worker: JOBQ_FD is not set: this program is a worker, which jobqd "
                   "must start (command = \xE2\x80\xA6 in a [queue \xE2\x80\xA6])");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        setenv("JOBQ_FD", rows[i].fd, 1);
        expect_refused(&options, rows[i].message);
    }
    unsetenv("JOBQ_FD");
    options.fd = peer.gate[0];
    char message[100];
    snprintf(message, sizeof message, "worker: JOBQ_FD: %d is not an open socket",
             options.fd);
    expect_refused(&options, message);
    options.max_frame = 100;
    expect_refused(&options, "worker: max_frame must be 1024 to 67108864, got 100");
    options.max_frame = 0;
    setenv("JOBQ_MAX_FRAME", "100", 1);
    expect_refused(&options, "worker: max_frame must be 1024 to 67108864, got 100");
    setenv("JOBQ_MAX_FRAME", "4M", 1);
    expect_refused(&options,
                   "worker: JOBQ_MAX_FRAME must be a number of bytes, got \"4M\"");
    unsetenv("JOBQ_MAX_FRAME");
    options.size = 3;
    expect_refused(
        &options, "worker: options.size must be 80: start from JOBQ_WORKER_OPTIONS_INIT");
    expect_refused(
        NULL, "worker: options.size must be 80: start from JOBQ_WORKER_OPTIONS_INIT");
}

/* As a program has it that was built with the first header: it lacks the hooks. What lies
 * behind its struct is not ours to read. */
static void
an_older_struct_of_options_will_do(void **state)
{
    (void)state;
    peer.options.size = offsetof(jobq_worker_options, preload);
    peer.options.preload = abort_hook;
    peer.options.on_fork = abort_hook;
    start();
    stop();
}

static void
the_environment_names_the_socket_as_jobqd_does(void **state)
{
    (void)state;
    char number[16];
    snprintf(number, sizeof number, "%d", peer.peer);
    setenv("JOBQ_FD", number, 1);
    setenv("JOBQ_MAX_FRAME", "2048", 1);
    peer.options.fd = -1;
    peer.options.max_frame = 0;
    start();
    assert_true(fcntl(peer.peer, F_GETFD) & FD_CLOEXEC);
    say(job(7, "too_large", "{}"));
    hears("{\"t\":\"ok\",\"id\":7,\"error\":\"the result was left out: jobq_work_ok: the "
          "answer takes 5026 "
          "bytes, at most 2048 are allowed\"}");
    stop();
    unsetenv("JOBQ_FD");
    unsetenv("JOBQ_MAX_FRAME");
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_peer, close_peer)
    const struct CMUnitTest tests[] = {
        TEST(hello_lists_the_kinds),
        TEST(one_row_takes_every_other_kind),
        TEST(a_handler_sees_the_job),
        TEST(each_answer_is_sent),
        TEST(an_unknown_kind_is_an_error_that_names_the_known),
        TEST(args_that_nest_too_deep_are_discarded),
        TEST(progress_is_thinned_out),
        TEST(an_answer_is_out_before_the_next_handler_begins),
        TEST(lines_may_come_in_any_pieces),
        TEST(a_running_job_sees_that_it_is_cancelled),
        TEST(cancelling_what_has_ended_is_harmless),
        TEST(stop_lets_all_that_came_before_it_end),
        TEST(sigterm_gives_back_what_has_not_begun),
        TEST(sigterm_wakes_an_idle_worker),
        TEST(a_child_of_a_handler_dies_of_sigterm),
        TEST(a_child_that_returns_is_no_second_worker),
        TEST(a_long_trace_keeps_both_ends),
        TEST(a_handler_of_the_programs_own_stays),
        TEST(a_daemon_that_is_gone_ends_the_worker),
        TEST(what_is_no_frame_of_jobqds_ends_the_worker),
        TEST(wrong_kinds_are_refused),
        TEST(wrong_sockets_and_sizes_are_refused),
        TEST(an_older_struct_of_options_will_do),
        TEST(the_environment_names_the_socket_as_jobqd_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
