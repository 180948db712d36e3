/* test_kept.c: many jobs at a time in one thread: jobq_worker_open, _step and
 * jobq_work_keep. The test is the event loop, and jobqd at the other end of the socket.
 */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <jobq/worker.h>

enum { MAX = 64 };

static struct {
    int fds[2]; /* jobqd's, the worker's */
    jobq_worker *worker;
    jobq_work *kept[MAX];
    int n_kept;
    int64_t stopped[MAX];
    int n_stopped;
    bool answers_stop;
} it;

/* ---- the program ---- */

static int
on_keep(jobq_work *work, void *data)
{
    jobq_error err;
    (void)data;
    assert_int_equal(jobq_work_keep(work, &it.kept[it.n_kept++], &err), JOBQ_OK);
    return 0;
}

static int
on_keep_twice(jobq_work *work, void *data)
{
    jobq_work *second = NULL;
    jobq_error err;
    on_keep(work, data);
    assert_int_equal(jobq_work_keep(work, &second, &err), JOBQ_ESTATE);
    assert_string_equal(err.message, "jobq_work_keep: job 1 was already kept");
    assert_null(second);
    assert_int_equal(jobq_work_ok(work, NULL, &err), JOBQ_ESTATE);
    assert_string_equal(err.message, "jobq_work_ok: job 1 was already kept");
    return 7;
}

static int
on_answer(jobq_work *work, void *data)
{
    jobq_work *kept = NULL;
    jobq_error err;
    (void)data;
    assert_int_equal(jobq_work_ok(work, "1", &err), JOBQ_OK);
    assert_int_equal(jobq_work_keep(work, &kept, &err), JOBQ_ESTATE);
    assert_string_equal(err.message, "jobq_work_keep: job 1 was already answered");
    return 0;
}

static void
on_stop(jobq_work *work, void *data)
{
    assert_ptr_equal(data, &it);
    it.stopped[it.n_stopped++] = jobq_work_id(work);
    if (it.answers_stop)
        assert_int_equal(jobq_work_cancel(work, NULL, NULL), JOBQ_OK);
}

static const jobq_worker_kind kinds[] = {{"keep", on_keep, NULL},
                                         {"keep_twice", on_keep_twice, NULL},
                                         {"answer", on_answer, NULL}};

/* ---- jobqd ---- */

static void
say(const char *line)
{
    assert_int_equal(write(it.fds[0], line, strlen(line)), strlen(line));
}

static void
say_job(int64_t id, const char *kind)
{
    char line[256];
    snprintf(line, sizeof line,
             "{\"t\":\"job\",\"id\":%lld,\"attempt\":1,\"max_attempts\":20,\"queue\":"
             "\"q\",\"kind\":\"%s\",\"args\":{\"id\":%lld}}\n",
             (long long)id, kind, (long long)id);
    say(line);
}

/* All that the worker has said since the last call. */
static const char *
heard(void)
{
    static char text[4096];
    ssize_t n = recv(it.fds[0], text, sizeof text - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* ---- the loop ---- */

static bool
is_ready(void)
{
    struct pollfd wait = {.fd = jobq_worker_fd(it.worker), .events = POLLIN};
    return poll(&wait, 1, 0) == 1;
}

/* Until there is nothing to do. Returns what the last step did, 1 when there was none. */
static int
turn(void)
{
    jobq_error err = {0};
    int rc = 1;
    for (int i = 0; rc == 1 && is_ready(); i++) {
        assert_true(i < 100); /* it would spin */
        rc = jobq_worker_step(it.worker, &err);
    }
    return rc;
}

static int
set_up(void **state)
{
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    static jobq_worker_options kept_options;
    jobq_error err = {0};
    (void)state;
    memset(&it, 0, sizeof it);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, it.fds) != 0)
        return -1;
    options.kinds = kinds;
    options.n_kinds = sizeof kinds / sizeof kinds[0];
    options.fd = it.fds[1];
    options.concurrency = 3;
    options.on_stop = on_stop;
    options.hook_data = &it;
    kept_options = options;
    assert_int_equal(jobq_worker_open(&it.worker, &kept_options, &err), JOBQ_OK);
    assert_string_equal(heard(), "{\"t\":\"hello\",\"protocol\":1,\"concurrency\":3,"
                                 "\"kinds\":[\"keep\",\"keep_twice\",\"answer\"]}\n");
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    jobq_worker_close(it.worker);
    close(it.fds[0]);
    close(it.fds[1]);
    return 0;
}

/* ---- tests ---- */

static void
answers_come_in_any_order(void **state)
{
    (void)state;
    for (int64_t id = 1; id <= 3; id++)
        say_job(id, "keep");
    assert_int_equal(turn(), 1);
    assert_int_equal(it.n_kept, 3);
    assert_string_equal(heard(), "");
    /* Each has its own copy of what it is. */
    assert_string_equal(jobq_work_args(it.kept[0]), "{\"id\":1}");
    assert_string_equal(jobq_work_args(it.kept[2]), "{\"id\":3}");
    assert_string_equal(jobq_work_kind(it.kept[1]), "keep");
    assert_string_equal(jobq_work_queue(it.kept[1]), "q");
    assert_string_equal(jobq_work_meta(it.kept[1]), "{}");
    assert_int_equal(jobq_work_progress(it.kept[1], 0.5, NULL, NULL), JOBQ_OK);
    assert_string_equal(heard(), "{\"t\":\"progress\",\"id\":2,\"done\":0.5}\n");
    assert_int_equal(jobq_work_ok(it.kept[2], "[3]", NULL), JOBQ_OK);
    assert_string_equal(heard(), "{\"t\":\"ok\",\"id\":3,\"result\":[3]}\n");
    assert_int_equal(jobq_work_error(it.kept[0], "no", NULL, -1, NULL), JOBQ_OK);
    assert_int_equal(jobq_work_snooze(it.kept[1], 5, NULL), JOBQ_OK);
    assert_string_equal(heard(), "{\"t\":\"error\",\"id\":1,\"error\":\"no\"}\n"
                                 "{\"t\":\"snooze\",\"id\":2,\"in_ms\":5}\n");
    say("{\"t\":\"stop\"}\n");
    assert_int_equal(turn(), 0);
}

static void
no_more_than_concurrency_are_kept(void **state)
{
    (void)state;
    for (int64_t id = 1; id <= 5; id++)
        say_job(id, "keep");
    say("{\"t\":\"stop\"}\n");
    assert_int_equal(turn(), 1);
    assert_int_equal(it.n_kept, 3);
    assert_false(is_ready());
    for (int i = 0; i < 5; i++) {
        assert_int_equal(jobq_work_ok(it.kept[i], NULL, NULL), JOBQ_OK);
        assert_true(is_ready());
        assert_int_equal(turn(), i < 4);
        assert_int_equal(it.n_kept, i < 2 ? 4 + i : 5);
    }
}

static void
an_answer_that_was_refused_may_be_given_again(void **state)
{
    jobq_error err;
    (void)state;
    say_job(1, "keep");
    turn();
    assert_int_equal(jobq_work_ok(it.kept[0], "{nope", &err), JOBQ_EINVAL);
    assert_string_equal(heard(), "");
    assert_int_equal(jobq_work_discard(it.kept[0], "no result", &err), JOBQ_OK);
    assert_string_equal(heard(),
                        "{\"t\":\"discard\",\"id\":1,\"reason\":\"no result\"}\n");
}

static void
kept_or_answered_once(void **state)
{
    (void)state;
    say_job(1, "keep_twice");
    assert_int_equal(turn(), 1);
    assert_string_equal(heard(), "");
    assert_int_equal(jobq_work_ok(it.kept[0], NULL, NULL), JOBQ_OK);
    say_job(1, "answer");
    turn();
    assert_string_equal(heard(), "{\"t\":\"ok\",\"id\":1}\n"
                                 "{\"t\":\"ok\",\"id\":1,\"result\":1}\n");
}

static void
a_cancelled_one_is_told_once(void **state)
{
    (void)state;
    for (int64_t id = 1; id <= 4; id++)
        say_job(id, "keep");
    turn();
    assert_int_equal(jobq_work_should_stop(it.kept[1]), JOBQ_STOP_NO);
    say("{\"t\":\"cancel\",\"id\":2}\n{\"t\":\"cancel\",\"id\":4}\n");
    turn();
    assert_int_equal(it.n_stopped, 1);
    assert_int_equal(it.stopped[0], 2);
    assert_int_equal(jobq_work_should_stop(it.kept[1]), JOBQ_STOP_CANCEL);
    assert_int_equal(jobq_work_should_stop(it.kept[0]), JOBQ_STOP_NO);
    assert_int_equal(jobq_work_cancel(it.kept[1], NULL, NULL), JOBQ_OK);
    turn();
    /* 4 had not begun. */
    assert_string_equal(heard(),
                        "{\"t\":\"cancel\",\"id\":2}\n{\"t\":\"cancel\",\"id\":4,"
                        "\"reason\":\"cancelled before it began\"}\n");
    assert_int_equal(it.n_kept, 3);
    assert_int_equal(it.n_stopped, 1);
    say_job(2, "keep"); /* again: nothing is left of the first time */
    turn();
    assert_int_equal(it.n_kept, 4);
    assert_int_equal(jobq_work_should_stop(it.kept[3]), JOBQ_STOP_NO);
}

static void
what_should_stop_has_read_is_not_lost(void **state)
{
    (void)state;
    say_job(1, "keep");
    turn();
    say_job(2, "keep");
    assert_int_equal(jobq_work_should_stop(it.kept[0]), JOBQ_STOP_NO);
    assert_true(is_ready());
    turn();
    assert_int_equal(it.n_kept, 2);
}

static void
sigterm_tells_all(void **state)
{
    (void)state;
    it.answers_stop = true;
    for (int64_t id = 1; id <= 4; id++)
        say_job(id, "keep");
    turn();
    raise(SIGTERM);
    assert_true(is_ready());
    assert_int_equal(turn(), 0);
    assert_int_equal(it.n_stopped, 3);
    assert_non_null(strstr(heard(), "{\"t\":\"snooze\",\"id\":4,\"in_ms\":0}\n"));
}

static void
sigterm_lets_them_end(void **state)
{
    (void)state;
    say_job(1, "keep");
    turn();
    raise(SIGTERM);
    assert_int_equal(turn(), 1);
    assert_int_equal(jobq_work_should_stop(it.kept[0]), JOBQ_STOP_NOW);
    assert_false(is_ready()); /* nothing spins until it ends */
    assert_int_equal(jobq_work_ok(it.kept[0], NULL, NULL), JOBQ_OK);
    assert_int_equal(turn(), 0);
    assert_string_equal(heard(), "{\"t\":\"ok\",\"id\":1}\n");
}

static void
jobqd_is_gone(void **state)
{
    jobq_error err;
    (void)state;
    say_job(1, "keep");
    say_job(2, "keep");
    turn();
    shutdown(it.fds[0], SHUT_RDWR);
    assert_int_equal(jobq_worker_step(it.worker, &err), JOBQ_EIO);
    assert_string_equal(err.message, "worker: jobqd is gone: it closed the socket");
    assert_int_equal(it.n_stopped, 2);
    assert_int_equal(jobq_work_should_stop(it.kept[0]), JOBQ_STOP_NOW);
    assert_int_equal(jobq_work_ok(it.kept[0], NULL, &err), JOBQ_EIO); /* and is gone */
}

static void
one_worker_a_process(void **state)
{
    jobq_worker *second = NULL;
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_error err;
    (void)state;
    assert_int_equal(jobq_worker_open(&second, &options, &err), JOBQ_ESTATE);
    assert_null(second);
    say_job(1, "keep"); /* the first one goes on */
    turn();
    assert_int_equal(it.n_kept, 1);
}

/* A job taken is one kept: no handler of the kind is called. */
static void
jobs_are_taken_one_by_one(void **state)
{
    jobq_work *work[3] = {NULL};
    jobq_error err = {0};
    (void)state;
    assert_int_equal(jobq_worker_take(it.worker, &work[0], &err), 1);
    assert_null(work[0]);
    say_job(1, "keep");
    say_job(2, "answer");
    say_job(3, "unknown");
    say("{\"t\":\"stop\"}\n");
    assert_int_equal(jobq_worker_take(it.worker, &work[0], &err), 1);
    assert_int_equal(jobq_work_id(work[0]), 1);
    assert_int_equal(jobq_worker_take(it.worker, &work[1], &err), 1);
    assert_int_equal(jobq_work_id(work[1]), 2);
    assert_int_equal(jobq_work_ok(work[0], NULL, NULL), JOBQ_OK);
    assert_int_equal(jobq_worker_take(it.worker, &work[2], &err), 1);
    assert_null(work[2]); /* one is left to be answered */
    assert_int_equal(jobq_work_ok(work[1], NULL, NULL), JOBQ_OK);
    assert_int_equal(jobq_worker_take(it.worker, &work[2], &err), 0);
    assert_int_equal(it.n_kept, 0);
    assert_string_equal(
        heard(), "{\"t\":\"ok\",\"id\":1}\n"
                 "{\"t\":\"error\",\"id\":3,\"error\":\"no handler for kind "
                 "\\\"unknown\\\"; this worker handles keep, keep_twice, answer\"}\n"
                 "{\"t\":\"ok\",\"id\":2}\n");
}

/* What the other process says must not reach jobqd, and what it reads must not be lost.
 */
static int
refused_in_a_child(void)
{
    jobq_work *work = it.kept[0], *other = NULL;
    int codes[] = {jobq_work_ok(work, NULL, NULL),
                   jobq_work_ok_without_result(work, "x", NULL),
                   jobq_work_error(work, "x", NULL, -1, NULL),
                   jobq_work_snooze(work, 0, NULL),
                   jobq_work_discard(work, NULL, NULL),
                   jobq_work_cancel(work, NULL, NULL),
                   jobq_work_progress(work, 0.5, NULL, NULL),
                   jobq_worker_step(it.worker, NULL),
                   jobq_worker_take(it.worker, &other, NULL)};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i] != JOBQ_ESTATE)
            return (int)i + 1;
    return jobq_work_should_stop(work) == JOBQ_STOP_NO ? 0 : 100;
}

static void
a_forked_child_is_refused_everywhere(void **state)
{
    int status = -1;
    (void)state;
    say_job(1, "keep");
    turn();
    say("{\"t\":\"cancel\",\"id\":1}\n");
    pid_t pid = fork();
    if (pid == 0) {
        int code = refused_in_a_child();
        jobq_worker_close(it.worker);
        _exit(code);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    assert_string_equal(heard(), "");
    assert_int_equal(jobq_work_should_stop(it.kept[0]), JOBQ_STOP_CANCEL);
    assert_int_equal(turn(), 1);
    assert_int_equal(jobq_work_ok(it.kept[0], NULL, NULL), JOBQ_OK);
    assert_string_equal(heard(), "{\"t\":\"ok\",\"id\":1}\n");
}

static void
concurrency_is_checked(void **state)
{
    static const struct {
        int given;
        const char *message;
    } rows[] = {
        {-1, "worker: concurrency must be 1 to 1000, or 0 for 1, got -1"},
        {1001, "worker: concurrency must be 1 to 1000, or 0 for 1, got 1001"},
    };
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_worker *worker = NULL;
    jobq_error err;
    (void)state;
    options.kinds = kinds;
    options.n_kinds = 1;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        options.concurrency = rows[i].given;
        assert_int_equal(jobq_worker_open(&worker, &options, &err), JOBQ_EINVAL);
        assert_string_equal(err.message, rows[i].message);
        assert_int_equal(jobq_worker_run(&options, &err), JOBQ_EINVAL);
    }
    options.concurrency = 2;
    assert_int_equal(jobq_worker_run(&options, &err), JOBQ_EINVAL);
    assert_string_equal(err.message,
                        "worker: jobq_worker_run runs one job at a time, but concurrency "
                        "is 2: use jobq_worker_open for more");
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(answers_come_in_any_order),
        TEST(no_more_than_concurrency_are_kept),
        TEST(an_answer_that_was_refused_may_be_given_again),
        TEST(kept_or_answered_once),
        TEST(a_cancelled_one_is_told_once),
        TEST(what_should_stop_has_read_is_not_lost),
        TEST(sigterm_tells_all),
        TEST(sigterm_lets_them_end),
        TEST(jobqd_is_gone),
        TEST(one_worker_a_process),
        TEST(jobs_are_taken_one_by_one),
        TEST(a_forked_child_is_refused_everywhere),
        cmocka_unit_test(concurrency_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
