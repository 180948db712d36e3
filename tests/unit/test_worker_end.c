/* test_worker_end.c: how a worker ends: a stop message, SIGTERM, a lost or wrong jobqd; and
 * what its handlers' children and signals have to do with it. */
#include "tests/unit/workerpeer.h"

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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stop_lets_all_that_came_before_it_end),
        TEST(sigterm_gives_back_what_has_not_begun),
        TEST(sigterm_wakes_an_idle_worker),
        TEST(a_child_of_a_handler_dies_of_sigterm),
        TEST(a_child_that_returns_is_no_second_worker),
        TEST(a_handler_of_the_programs_own_stays),
        TEST(a_daemon_that_is_gone_ends_the_worker),
        TEST(what_is_no_frame_of_jobqds_ends_the_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
