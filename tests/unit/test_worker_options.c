/* test_worker_options.c: options of jobq_worker_run: what is refused with which words, what
 * an older struct does, and what comes from the environment. */
#include "tests/unit/workerpeer.h"

static int
abort_hook(void *data)
{
    (void)data;
    abort();
}

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
    const struct CMUnitTest tests[] = {
        TEST(wrong_kinds_are_refused),
        TEST(wrong_sockets_and_sizes_are_refused),
        TEST(an_older_struct_of_options_will_do),
        TEST(the_environment_names_the_socket_as_jobqd_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
