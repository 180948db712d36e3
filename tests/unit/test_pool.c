/* test_pool.c: a real pool on a real loop, with real processes that misbehave. The
 * programs are rude_worker (see there what each kind does) and shell scripts. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "jobqd/pool/pool_private.h"
#include "jobqd/pool/forkserver_private.h"

enum { MAX_JOBS = 4096, LIMIT_MS = 60000 };

/* What came back for a job; the index is the job's id. */
struct record {
    bool given;
    int times; /* verdicts: must end as 1 */
    enum verdict_kind kind;
    int exit_code;
    int signal;
    int64_t delay_ms;
    int64_t run_us;
    int64_t cpu_us;
    int64_t max_rss_kb;
    char result[8192];
    char error[600];
    char detail[64];
    char output[2100];
};

struct bench {
    uv_loop_t loop;
    uv_timer_t tick; /* so that run_until looks at its condition and its limit */
    struct pool *pool;
    struct queue_config queue;
    char *argv[4];
    char program[4096];
    struct job jobs[MAX_JOBS];
    struct record *records;
    int64_t given; /* ids are 1 … given */
    int64_t returned;
    int rooms;
    int progresses;
    bool stopped;
};

/* ---- the owner of the pool ---- */

static void
keep(char *to, size_t size, const char *from, size_t len)
{
    if (len >= size)
        len = size - 1;
    if (from)
        memcpy(to, from, len);
    to[from ? len : 0] = '\0';
}

static void
on_verdict(void *owner, struct job *job, const struct verdict *v)
{
    struct bench *b = owner;
    struct record *r = &b->records[job->id];
    assert_true(r->given);
    r->times++;
    r->kind = v->kind;
    r->exit_code = v->exit_code;
    r->signal = v->signal;
    r->delay_ms = v->delay_ms;
    r->run_us = v->run_us;
    r->cpu_us = v->cpu_us;
    r->max_rss_kb = v->max_rss_kb;
    keep(r->result, sizeof r->result, v->result, v->result_len);
    keep(r->error, sizeof r->error, v->error, v->error ? strlen(v->error) : 0);
    keep(r->detail, sizeof r->detail, v->detail, v->detail ? strlen(v->detail) : 0);
    keep(r->output, sizeof r->output, v->output, v->output ? strlen(v->output) : 0);
    b->returned++;
}

static void
on_progress(void *owner, const struct job *job, double done, const char *note)
{
    struct bench *b = owner;
    (void)job;
    (void)done;
    (void)note;
    b->progresses++;
}

static void
on_room(void *owner)
{
    struct bench *b = owner;
    b->rooms++;
}

static void
on_stopped(void *owner)
{
    struct bench *b = owner;
    b->stopped = true;
    pool_free(b->pool);
    b->pool = NULL;
}

static const struct pool_events events = {.on_verdict = on_verdict,
                                          .on_progress = on_progress,
                                          .on_room = on_room,
                                          .on_stopped = on_stopped};

/* ---- the loop ---- */

static void
on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static void
run_until(struct bench *b, bool (*condition)(const struct bench *b))
{
    uint64_t limit = uv_hrtime() + (uint64_t)LIMIT_MS * 1000000u;
    while (!condition(b)) {
        uv_run(&b->loop, UV_RUN_ONCE);
        if (uv_hrtime() > limit)
            fail_msg("waited %d ms: %" PRId64 " of %" PRId64 " jobs came back", LIMIT_MS,
                     b->returned, b->given);
    }
}

static bool
all_returned(const struct bench *b)
{
    return b->returned == b->given;
}

static bool
is_stopped(const struct bench *b)
{
    return b->stopped;
}

static struct pool_status
status_of(const struct bench *b)
{
    struct pool_status status;
    pool_status(b->pool, &status);
    return status;
}

static bool
all_ready(const struct bench *b)
{
    return status_of(b).ready == b->queue.concurrency;
}

static bool
is_backing_off(const struct bench *b)
{
    return status_of(b).backing_off;
}

static bool
is_not_backing_off(const struct bench *b)
{
    return !status_of(b).backing_off;
}

static bool
someone_is_busy(const struct bench *b)
{
    return status_of(b).busy > 0;
}

static bool
one_is_left(const struct bench *b)
{
    return b->returned == b->given - 1;
}

static bool
one_has_crashed(const struct bench *b)
{
    return status_of(b).crashes == 1;
}

static bool
two_have_crashed(const struct bench *b)
{
    return status_of(b).crashes == 2;
}

/* ---- set-up ---- */

/* A program beside this one. */
static void
find_program(char *out, size_t size, const char *name)
{
    ssize_t len = readlink("/proc/self/exe", out, size - 1);
    assert_true(len > 0);
    out[len] = '\0';
    char *slash = strrchr(out, '/');
    assert_non_null(slash);
    snprintf(slash + 1, size - (size_t)(slash + 1 - out), "%s", name);
}

static struct bench *
bench_new(int concurrency, const char *mode)
{
    static char name[] = "test";
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->records = calloc(MAX_JOBS, sizeof b->records[0]);
    assert_non_null(b->records);
    find_program(b->program, sizeof b->program, "rude_worker");
    b->argv[0] = b->program;
    b->argv[1] = (char *)(uintptr_t)mode;
    b->queue = (struct queue_config){.name = name,
                                     .mode = QUEUE_COMMAND,
                                     .argv = b->argv,
                                     .concurrency = concurrency,
                                     .timeout_ms = 600000,
                                     .stop_grace_ms = 20000,
                                     .boot_timeout_ms = 20000,
                                     .max_restarts = 1000,
                                     .max_seconds_ms = 10000};
    assert_int_equal(uv_loop_init(&b->loop), 0);
    uv_timer_init(&b->loop, &b->tick);
    uv_timer_start(&b->tick, on_tick, 20, 20);
    return b;
}

static void
start(struct bench *b)
{
    assert_int_equal(pool_new(&b->pool, &b->loop, &b->queue, (size_t)1 << 20, &events, b),
                     0);
}

static struct bench *
started(int concurrency)
{
    struct bench *b = bench_new(concurrency, NULL);
    start(b);
    run_until(b, all_ready);
    return b;
}

static struct bench *
shell(int concurrency, const char *script)
{
    static char sh[] = "/bin/sh";
    static char c[] = "-c";
    struct bench *b = bench_new(concurrency, NULL);
    b->queue.mode = QUEUE_EXEC;
    b->argv[0] = sh;
    b->argv[1] = c;
    b->argv[2] = (char *)(uintptr_t)script;
    start(b);
    return b;
}

/* Returns the id. */
static int64_t
give_args(struct bench *b, const char *kind, const char *args)
{
    int64_t id = ++b->given;
    assert_true(id < MAX_JOBS);
    struct job *job = &b->jobs[id];
    *job = (struct job){.id = id,
                        .attempt = 2,
                        .max_attempts = 20,
                        .kind = kind,
                        .args = args,
                        .args_len = strlen(args),
                        .meta = "{}",
                        .meta_len = 2};
    list_init(&job->link);
    b->records[id].given = true;
    pool_give(b->pool, job);
    return id;
}

static int64_t
give(struct bench *b, const char *kind)
{
    return give_args(b, kind, "{}");
}

static const struct record *
result_of(struct bench *b, const char *kind)
{
    int64_t id = give(b, kind);
    run_until(b, all_returned);
    return &b->records[id];
}

static void
finish(struct bench *b)
{
    if (b->pool) {
        pool_stop(b->pool, 20000);
        run_until(b, is_stopped);
    }
    for (int64_t id = 1; id <= b->given; id++)
        assert_int_equal(b->records[id].times, 1);
    uv_close((uv_handle_t *)&b->tick, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&b->loop), 0); /* no handle was forgotten */
    free(b->records);
    free(b);
}

static int
count_kind(const struct bench *b, enum verdict_kind kind)
{
    int n = 0;
    for (int64_t id = 1; id <= b->given; id++)
        n += b->records[id].times == 1 && b->records[id].kind == kind;
    return n;
}

static int
count_descriptors(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* The pids of our children, zombies among them. */
static size_t
children(pid_t *out, size_t most)
{
    char path[64];
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    int pid;
    while (n < most && fscanf(file, "%d", &pid) == 1)
        out[n++] = pid;
    fclose(file);
    return n;
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

/* ---- answers ---- */

static void
each_answer_becomes_its_verdict(void **state)
{
    (void)state;
    struct bench *b = started(1);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    int64_t id = give_args(b, "result", "{\"n\":123456789012345678,\"x\":0.1}");
    run_until(b, all_returned);
    const struct record *r = &b->records[id];
    assert_int_equal(r->kind, VERDICT_OK);
    assert_string_equal(r->result, "{\"n\":123456789012345678,\"x\":0.1}");
    assert_true(r->run_us >= 0);
    r = result_of(b, "error");
    assert_int_equal(r->kind, VERDICT_ERROR);
    assert_string_equal(r->error, "no \"luck\"");
    assert_string_equal(r->detail, "a\ntrace");
    assert_int_equal(r->delay_ms, 1234);
    r = result_of(b, "snooze");
    assert_int_equal(r->kind, VERDICT_SNOOZE);
    assert_int_equal(r->delay_ms, 777);
    r = result_of(b, "discard");
    assert_int_equal(r->kind, VERDICT_DISCARD);
    assert_string_equal(r->error, "bad data");
    assert_int_equal(result_of(b, "cancel")->kind, VERDICT_CANCELLED);
    assert_int_equal(result_of(b, "progress")->kind, VERDICT_OK);
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

static void
many_jobs_flow_through_few_workers(void **state)
{
    (void)state;
    struct bench *b = started(3);
    for (int i = 0; i < 2000; i++)
        give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 2000);
    assert_true(b->rooms > 0);
    assert_true(b->rooms < 2000);
    finish(b);
}

static void
big_args_pass_through_a_full_socket(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 100;
    start(b);
    run_until(b, all_ready);
    static char args[300 * 1024];
    memset(args, 'x', sizeof args - 1);
    args[0] = args[sizeof args - 2] = '"';
    for (int i = 0; i < 60; i++)
        give_args(b, "ok", args);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 60);
    finish(b);
}

static void
args_that_fit_into_no_frame_are_refused(void **state)
{
    (void)state;
    struct bench *b = started(1);
    char *args = malloc(((size_t)1 << 20) + 3);
    assert_non_null(args);
    memset(args, 'x', (size_t)1 << 20);
    args[0] = args[(size_t)1 << 20] = '"';
    args[((size_t)1 << 20) + 1] = '\0';
    int64_t id = give_args(b, "ok", args);
    run_until(b, all_returned);
    assert_int_equal(b->records[id].kind, VERDICT_DISCARD);
    assert_string_equal(b->records[id].error, "its args and meta of 1048579 bytes do not "
                                              "fit into a frame: max_frame is 1048576");
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    finish(b);
    free(args);
}

static void
kinds_that_the_program_does_not_list_are_unhandled(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, "kinds");
    start(b);
    const struct record *r = result_of(b, "c");
    assert_int_equal(r->kind, VERDICT_UNHANDLED);
    assert_non_null(strstr(r->error, "no handler for kind \"c\""));
    assert_int_equal(result_of(b, "a")->kind, VERDICT_OK);
    finish(b);
}

/* ---- who gets a job ---- */

static void
a_slow_job_does_not_idle_its_neighbours(void **state)
{
    (void)state;
    struct bench *b = started(2);
    for (int i = 0; i < 200; i++) /* the mailbox learns that jobs are short */
        give(b, "ok");
    run_until(b, all_returned);
    int64_t slow = give_args(b, "sleep", "1500");
    while (!someone_is_busy(b))
        uv_run(&b->loop, UV_RUN_ONCE);
    int64_t first = b->given + 1;
    for (int i = 0; i < 20; i++)
        give_args(b, "sleep", "20");
    /* Those that the other worker had to do all alone take 400 ms; the slow one is not
     * done by then. */
    int64_t waiting = 0;
    while (b->records[slow].times == 0) {
        uv_run(&b->loop, UV_RUN_ONCE);
        waiting = 0;
        for (int64_t id = first; id <= b->given; id++)
            waiting += b->records[id].times == 0;
    }
    assert_true(waiting <= 10);
    run_until(b, all_returned);
    finish(b);
}

static void
jobs_are_spread_over_idle_workers(void **state)
{
    (void)state;
    struct bench *b = started(4);
    for (int i = 0; i < 400; i++)
        give(b, "ok");
    run_until(b, all_returned);
    for (int i = 0; i < 4; i++)
        give_args(b, "sleep", "200");
    while (status_of(b).busy < 4 && !all_returned(b))
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_int_equal(status_of(b).busy, 4);
    run_until(b, all_returned);
    finish(b);
}

/* ---- crashes ---- */

static void
a_crash_is_charged_to_the_head_alone(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 64;
    start(b);
    run_until(b, all_ready);
    int64_t before = give(b, "ok");
    int64_t crash = give(b, "segv");
    int64_t after = 0;
    for (int i = 0; i < 20; i++)
        after = give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(b->records[before].kind, VERDICT_OK);
    const struct record *r = &b->records[crash];
    assert_int_equal(r->kind, VERDICT_CRASH);
    assert_int_equal(r->signal, SIGSEGV);
    assert_int_equal(r->exit_code, -1);
    assert_string_equal(r->error,
                        "was killed by signal 11 (SIGSEGV) while it held the job");
    assert_non_null(strstr(r->output, "about to crash in job 2\n"));
    assert_true(r->cpu_us >= 0 && r->max_rss_kb > 0 && r->run_us >= 0);
    assert_int_equal(b->records[after].kind, VERDICT_OK);
    assert_int_equal(count_kind(b, VERDICT_OK), 21);
    assert_int_equal(status_of(b).restarts, 1);
    assert_int_equal(status_of(b).crashes, 1);
    finish(b);
}

static void
an_answer_before_the_crash_counts(void **state)
{
    (void)state;
    struct bench *b = started(1);
    for (int i = 0; i < 20; i++)
        assert_int_equal(result_of(b, "ok_and_kill")->kind, VERDICT_OK);
    finish(b);
}

static void
an_exit_with_a_job_is_a_crash(void **state)
{
    (void)state;
    struct bench *b = started(1);
    const struct record *r = result_of(b, "exit");
    assert_int_equal(r->kind, VERDICT_CRASH);
    assert_int_equal(r->exit_code, 3);
    assert_int_equal(r->signal, 0);
    r = result_of(b, "exit_0");
    assert_int_equal(r->kind, VERDICT_CRASH);
    assert_int_equal(r->exit_code, 0);
    finish(b);
}

static void
an_idle_worker_that_is_killed_charges_nobody(void **state)
{
    (void)state;
    struct bench *b = started(2);
    pid_t pids[8];
    for (int round = 0; round < 50; round++) {
        size_t n = children(pids, 8);
        assert_true(n > 0);
        kill(pids[(size_t)round % n], SIGKILL);
        give(b, "ok"); /* before the loop has seen it */
        run_until(b, all_returned);
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 50);
    finish(b);
}

/* Kills a random worker every few jobs. Each crash is charged at most once, everything
 * else is done. */
static void
random_kills_lose_nothing(void **state)
{
    (void)state;
    struct bench *b = started(4);
    pid_t pids[16];
    uint32_t random = 12345;
    int kills = 0;
    while (b->given < 3000) {
        random = random * 1664525u + 1013904223u;
        for (uint32_t i = 0; i < 1 + (random >> 8) % 30; i++)
            give(b, "ok");
        size_t n = children(pids, 16);
        if (n > 0) {
            kill(pids[(random >> 16) % n], (random >> 4) % 2 ? SIGKILL : SIGSEGV);
            kills++;
        }
        for (uint32_t i = 0; i < (random >> 12) % 8; i++)
            uv_run(&b->loop, UV_RUN_NOWAIT);
        if ((random >> 20) % 4 == 0)
            run_until(b, all_returned);
    }
    run_until(b, all_returned);
    int crashed = count_kind(b, VERDICT_CRASH);
    assert_int_equal(count_kind(b, VERDICT_OK) + crashed, b->given);
    assert_true(crashed <= kills);
    print_message("%d kills, %d jobs charged\n", kills, crashed);
    finish(b);
}

static void
five_hundred_crashes_leak_nothing(void **state)
{
    (void)state;
    pid_t pids[16];
    struct bench *b = bench_new(2, NULL);
    int descriptors = count_descriptors();
    size_t mine = children(pids, 16);
    start(b);
    run_until(b, all_ready);
    while (b->given < 500) {
        for (int i = 0; i < 10; i++)
            give(b, "kill");
        run_until(b, all_returned);
    }
    assert_int_equal(count_kind(b, VERDICT_CRASH), 500);
    run_until(b, all_ready);
    assert_int_equal(children(pids, 16), mine + 2);
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    assert_int_equal(children(pids, 16), mine);
    assert_int_equal(count_descriptors(), descriptors);
    finish(b);
}

static void
grandchildren_go_with_their_worker(void **state)
{
    (void)state;
    struct bench *b = started(1);
    pid_t grandchild = (pid_t)atoi(result_of(b, "grandchild")->result);
    assert_true(is_alive(grandchild));
    result_of(b, "segv");
    uint64_t limit = uv_hrtime() + (uint64_t)LIMIT_MS * 1000000u;
    while (is_alive(grandchild) && uv_hrtime() < limit)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_false(is_alive(grandchild));
    grandchild = (pid_t)atoi(result_of(b, "grandchild")->result);
    assert_true(is_alive(grandchild));
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    while (is_alive(grandchild) && uv_hrtime() < limit)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_false(is_alive(grandchild));
    finish(b);
}

/* ---- the protocol ---- */

static void
each_breach_of_the_protocol_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        const char *error; /* a part of it */
    } breaches[] = {
        {"garbage", ""},
        {"binary", ""},
        {"empty_line", ""},
        {"array", ""},
        {"unknown_type", "done"},
        {"no_id", "id"},
        {"two_objects", ""},
        {"wrong_id", "which it does not hold"},
        {"job_back", "sent a \"job\" message, which only jobqd sends"},
        {"stop_back", "sent a \"stop\" message, which only jobqd sends"},
        {"hello_again", "said hello twice"},
        {"long_line", "sent a line longer than 1048576 bytes (max_frame)"},
        {"half_line", "closed the connection in the middle of a line"},
    };
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 8;
    start(b);
    run_until(b, all_ready);
    for (size_t i = 0; i < sizeof breaches / sizeof breaches[0]; i++) {
        int64_t id = give(b, breaches[i].kind);
        int64_t behind = give(b, "ok");
        run_until(b, all_returned);
        const struct record *r = &b->records[id];
        print_message("%s: %s\n", breaches[i].kind, r->error);
        assert_int_equal(r->kind, VERDICT_PROTOCOL);
        assert_true(strlen(r->error) > 0);
        assert_non_null(strstr(r->error, breaches[i].error));
        assert_int_equal(b->records[behind].kind, VERDICT_OK);
        assert_int_equal(status_of(b).crashes, i + 1);
    }
    finish(b);
}

static void
a_breach_without_a_job_charges_none(void **state)
{
    (void)state;
    struct bench *b = started(1);
    assert_int_equal(result_of(b, "answer_twice")->kind, VERDICT_OK);
    run_until(b, one_has_crashed);
    assert_int_equal(result_of(b, "progress_of_nothing")->kind, VERDICT_OK);
    run_until(b, two_have_crashed);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    finish(b);
}

static void
killed_within_a_line_is_a_crash(void **state)
{
    (void)state;
    struct bench *b = started(1);
    assert_int_equal(result_of(b, "half_line_and_kill")->kind, VERDICT_CRASH);
    finish(b);
}

static void
a_closed_socket_is_not_waited_for_for_ever(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.stop_grace_ms = 50;
    start(b);
    const struct record *r = result_of(b, "close");
    assert_int_equal(r->kind, VERDICT_PROTOCOL);
    assert_string_equal(r->error, "closed its socket but did not exit");
    finish(b);
}

/* ---- deadlines ---- */

static struct bench *
hasty(void)
{
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 100;
    b->queue.stop_grace_ms = 100;
    b->queue.mailbox = 4;
    start(b);
    run_until(b, all_ready);
    return b;
}

static void
a_late_job_is_stopped_then_terminated_then_killed(void **state)
{
    (void)state;
    struct bench *b = hasty();
    const struct record *r = result_of(b, "hang");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_int_equal(r->signal, SIGKILL);
    assert_true(r->run_us >= 300000);
    assert_string_equal(
        r->error,
        "ran longer than its timeout of 100 ms and was killed by signal 9 (SIGKILL)");
    r = result_of(b, "hang_until_term");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_int_equal(r->signal, SIGTERM);
    assert_true(r->run_us >= 200000);
    finish(b);
}

static void
jobs_behind_a_late_one_are_not_to_blame(void **state)
{
    (void)state;
    struct bench *b = hasty();
    int64_t late = give(b, "hang");
    for (int i = 0; i < 3; i++)
        give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(b->records[late].kind, VERDICT_TIMEOUT);
    assert_int_equal(count_kind(b, VERDICT_OK), 3);
    finish(b);
}

static void
an_answer_after_the_deadline_counts_if_it_is_ok(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 50;
    start(b);
    pid_t before[4], after[4];
    run_until(b, all_ready);
    size_t n = children(before, 4);
    assert_int_equal(result_of(b, "late_ok")->kind, VERDICT_OK);
    const struct record *r = result_of(b, "late_error");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_string_equal(
        r->error, "ran longer than its timeout of 50 ms and then said: interrupted");
    r = result_of(b, "obey");
    assert_int_equal(r->kind, VERDICT_TIMEOUT);
    assert_string_equal(r->error, "ran longer than its timeout of 50 ms");
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    /* It obeyed each time: nobody killed it. */
    assert_int_equal(children(after, 4), n);
    assert_memory_equal(before, after, n * sizeof before[0]);
    finish(b);
}

static void
a_job_may_have_a_timeout_of_its_own(void **state)
{
    (void)state;
    struct bench *b = started(1);
    int64_t id = give(b, "obey");
    b->jobs[id].timeout_ms = 60;
    run_until(b, all_returned);
    assert_int_equal(b->records[id].kind, VERDICT_TIMEOUT);
    assert_non_null(strstr(b->records[id].error, "60 ms"));
    finish(b);
}

static void
waiting_behind_another_job_is_not_running(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 400;
    b->queue.mailbox = 10;
    start(b);
    for (int i = 0; i < 8; i++)
        give_args(b, "sleep", "100");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 8);
    finish(b);
}

/* ---- many at a time ---- */

static struct bench *
many(int mailbox)
{
    struct bench *b = bench_new(1, "many");
    b->queue.mailbox = mailbox;
    b->queue.stop_grace_ms = 200;
    start(b);
    run_until(b, all_ready);
    return b;
}

static bool
three_are_held(const struct bench *b)
{
    return b->progresses == 3;
}

static bool
one_is_held(const struct bench *b)
{
    return b->progresses >= 1;
}

static bool
one_has_returned(const struct bench *b)
{
    return b->returned == 1;
}

static void
a_worker_runs_as_many_as_it_says(void **state)
{
    (void)state;
    struct bench *b = many(1);
    assert_int_equal(pool_room(b->pool), 3);
    for (int i = 0; i < 3; i++)
        give(b, "hold");
    run_until(b, three_are_held);
    assert_int_equal(pool_room(b->pool), 0);
    pool_kill(b->pool);
    finish(b);

    b = many(3); /* two wait behind the three that run */
    assert_int_equal(pool_room(b->pool), 5);
    assert_int_equal(pool_idle(b->pool), 3);
    give(b, "hold");
    assert_int_equal(pool_idle(b->pool), 2);
    give(b, "hold");
    give(b, "answer_held");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 3);
    assert_int_equal(b->records[1].times, 1);
    assert_int_equal(b->records[1].cpu_us, -1);
    finish(b);
}

/* The socket takes more at once than jobs are made into frames. */
static void
all_that_it_may_run_are_sent(void **state)
{
    (void)state;
    struct bench *b = many(1);
    int size = 200 * 1024; /* the kernel doubles it */
    assert_int_equal(setsockopt(b->pool->slots[0]->worker->channel.fd, SOL_SOCKET,
                                SO_SNDBUF, &size, sizeof size),
                     0);
    static char args[300 * 1024];
    memset(args, 'x', sizeof args - 1);
    args[0] = args[sizeof args - 2] = '"';
    for (int i = 0; i < 3; i++)
        give_args(b, "hold", args);
    run_until(b, three_are_held);
    pool_kill(b->pool);
    finish(b);
}

static void
a_crash_is_charged_to_all_that_run(void **state)
{
    (void)state;
    struct bench *b = many(20);
    give(b, "hold");
    give(b, "hold");
    run_until(b, one_is_held);
    int64_t crash = give(b, "segv");
    for (int i = 0; i < 10; i++)
        give(b, "ok");
    run_until(b, all_returned);
    for (int64_t id = 1; id <= crash; id++) {
        assert_int_equal(b->records[id].kind, VERDICT_CRASH);
        assert_string_equal(
            b->records[id].error,
            "was killed by signal 11 (SIGSEGV) while it held the job and 2 others");
        assert_int_equal(b->records[id].cpu_us, -1);
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 10);
    assert_int_equal(status_of(b).crashes, 1);
    finish(b);
}

static void
each_has_a_deadline_of_its_own(void **state)
{
    (void)state;
    struct bench *b = many(1);
    int64_t other = give(b, "hold");
    int64_t late = give(b, "hold");
    b->jobs[late].timeout_ms = 60;
    run_until(b, one_has_returned);
    assert_int_equal(b->records[late].kind, VERDICT_TIMEOUT);
    assert_string_equal(b->records[late].error, "ran longer than its timeout of 60 ms");
    give(b, "answer_held");
    run_until(b, all_returned);
    assert_int_equal(b->records[other].kind, VERDICT_OK);
    assert_int_equal(status_of(b).restarts, 0);
    finish(b);
}

static void
the_end_for_a_late_job_gives_the_others_back(void **state)
{
    (void)state;
    struct bench *b = many(1);
    int64_t other = give(b, "hold");
    int64_t late = give(b, "hold_on");
    int64_t cancelled = give(b, "hold_on");
    b->jobs[late].timeout_ms = 60;
    run_until(b, three_are_held);
    pool_cancel(b->pool, &b->jobs[cancelled]);
    run_until(b, all_returned);
    assert_int_equal(b->records[late].kind, VERDICT_TIMEOUT);
    assert_int_equal(b->records[cancelled].kind, VERDICT_ABORTED);
    assert_int_equal(b->records[other].kind, VERDICT_RELEASED);
    finish(b);
}

static void
cpu_limit_is_for_one_at_a_time(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "many");
    b->queue.cpu_limit_ms = 1000;
    b->queue.max_restarts = 1;
    start(b);
    run_until(b, is_backing_off);
    finish(b);
}

/* ---- output ---- */

static void
a_flood_of_output_is_survived(void **state)
{
    (void)state;
    struct bench *b = started(2);
    int64_t flood = give(b, "flood");
    for (int i = 0; i < 200; i++)
        give(b, "ok");
    while (b->returned < 100)
        uv_run(&b->loop, UV_RUN_ONCE);
    run_until(b, all_returned);
    assert_int_equal(b->records[flood].kind, VERDICT_OK);
    finish(b);
}

static void
the_end_of_the_output_is_kept(void **state)
{
    (void)state;
    struct bench *b = started(1);
    const struct record *r = result_of(b, "long_output");
    size_t len = strlen(r->output);
    assert_true(len > 1900 && len <= 2048);
    assert_string_equal(r->output + len - strlen("line 1999 \xc3\xa5\xc3\xa4\xc3\xb6\n"),
                        "line 1999 \xc3\xa5\xc3\xa4\xc3\xb6\n");
    finish(b);
}

/* ---- booting ---- */

static void
a_worker_that_cannot_start_puts_its_pool_into_backoff(void **state)
{
    (void)state;
    static const char *const modes[] = {"exit", "silent", "twice", "future", "early"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        struct bench *b = bench_new(2, modes[i]);
        b->queue.max_restarts = 3;
        b->queue.boot_timeout_ms = 100;
        start(b);
        run_until(b, is_backing_off);
        struct pool_status status = status_of(b);
        assert_true(status.backoff_ms_left > 0 && status.backoff_ms_left <= 1000);
        assert_true(status.crashes >= 4);
        finish(b);
    }
}

static bool
is_looked_at_often(const struct bench *b)
{
    return b->pool->slots[0]->worker->watched.busy;
}

static void
what_a_boot_uses_is_looked_at_like_a_job(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "slow");
    b->queue.max_memory_hard = (size_t)1 << 40;
    start(b);
    while (status_of(b).booting < 1)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_true(is_looked_at_often(b));
    run_until(b, all_ready);
    assert_false(is_looked_at_often(b));
    give_args(b, "sleep", "50");
    run_until(b, is_looked_at_often);
    run_until(b, all_returned);
    assert_false(is_looked_at_often(b));
    finish(b);
}

static void
a_missing_program_is_a_boot_failure(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    static char missing[] = "/nonexistent/worker";
    b->argv[0] = missing;
    b->queue.max_restarts = 2;
    start(b);
    run_until(b, is_backing_off);
    assert_true(status_of(b).crashes >= 3);
    /* It tries again when the pause is over, and pauses again. */
    uint64_t crashes = status_of(b).crashes;
    run_until(b, is_not_backing_off);
    run_until(b, is_backing_off);
    assert_true(status_of(b).crashes > crashes);
    assert_true(status_of(b).backoff_ms_left > 1000);
    /* Nobody will come for this one: another node may have it. */
    int64_t id = give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(b->records[id].kind, VERDICT_RELEASED);
    finish(b);
}

/* No process can be started: the pool pauses, and recovers when there are descriptors
 * again. */
static void
without_descriptors_a_pool_backs_off_and_recovers(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.max_restarts = 3;
    start(b);
    run_until(b, all_ready);
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    give(b, "segv");
    run_until(b, is_backing_off);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    finish(b);
}

static void
a_worker_that_goes_after_its_job_is_replaced(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "leave");
    b->queue.max_restarts = 0;
    start(b);
    for (int i = 0; i < 5; i++)
        assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

/* ---- stopping ---- */

static void
a_drain_lets_the_running_job_finish(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 2;
    start(b);
    run_until(b, all_ready);
    int64_t running = give_args(b, "sleep", "300");
    int64_t sent = give(b, "ok");
    int64_t waiting = give(b, "ok");
    run_until(b, someone_is_busy);
    for (int i = 0; i < 5; i++)
        uv_run(&b->loop, UV_RUN_NOWAIT);
    pool_stop(b->pool, 20000);
    assert_int_equal(pool_room(b->pool), 0);
    run_until(b, is_stopped);
    assert_int_equal(b->records[running].kind, VERDICT_OK);
    /* This worker does not give it back, so it may as well do it. */
    assert_true(b->records[sent].kind == VERDICT_OK ||
                b->records[sent].kind == VERDICT_RELEASED);
    assert_int_equal(b->records[waiting].kind, VERDICT_RELEASED);
    finish(b);
}

/* A worker of libjobq's gives back what it has not begun, however long that would take.
 */
static void
a_drain_asks_back_what_has_not_begun(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    find_program(b->program, sizeof b->program, "fault_worker");
    b->queue.mailbox = 5;
    start(b);
    run_until(b, all_ready);
    int64_t running = give_args(b, "sleep", "{\"ms\": 400}");
    for (int i = 0; i < 4; i++)
        give_args(b, "sleep", "{\"ms\": 600000}");
    run_until(b, someone_is_busy);
    for (int i = 0; i < 5; i++)
        uv_run(&b->loop, UV_RUN_ONCE);
    pool_stop(b->pool, 50000);
    run_until(b, is_stopped);
    assert_int_equal(b->records[running].kind, VERDICT_OK);
    assert_int_equal(count_kind(b, VERDICT_RELEASED), 4);
    finish(b);
}

static void
a_drain_ends_with_its_grace(void **state)
{
    (void)state;
    struct bench *b = started(2);
    int64_t id = give(b, "hang");
    run_until(b, someone_is_busy);
    pool_stop(b->pool, 60000);
    uv_run(&b->loop, UV_RUN_NOWAIT);
    uint64_t began = uv_hrtime();
    pool_stop(b->pool, 100);   /* a smaller grace counts, … */
    pool_stop(b->pool, 60000); /* … a larger one does not */
    run_until(b, is_stopped);
    assert_true(uv_hrtime() - began < 20000000000u);
    assert_int_equal(b->records[id].kind, VERDICT_RELEASED);
    finish(b);
}

static void
a_deaf_worker_is_terminated_and_killed_when_it_drains(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, "deaf");
    b->queue.stop_grace_ms = 50;
    start(b);
    run_until(b, all_ready);
    pool_stop(b->pool, 50000);
    run_until(b, is_stopped);
    finish(b);
}

static void
a_pool_can_stop_while_it_boots(void **state)
{
    (void)state;
    struct bench *b = bench_new(3, "slow");
    start(b);
    pool_stop(b->pool, 20000); /* nothing has been started */
    run_until(b, is_stopped);
    finish(b);
    b = bench_new(3, "silent");
    start(b);
    while (status_of(b).booting < 3)
        uv_run(&b->loop, UV_RUN_ONCE);
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    finish(b);
}

static void
a_kill_gives_everything_back(void **state)
{
    (void)state;
    struct bench *b = started(2);
    for (int i = 0; i < 10; i++)
        give(b, "hang");
    run_until(b, someone_is_busy);
    pool_kill(b->pool);
    assert_int_equal(b->returned, 0); /* no call-back from inside */
    run_until(b, is_stopped);
    assert_int_equal(count_kind(b, VERDICT_RELEASED), 10);
    finish(b);
}

static void
an_unused_pool_stops(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    start(b);
    pool_kill(b->pool);
    pool_stop(b->pool, 0);
    run_until(b, is_stopped);
    finish(b);
}

/* ---- one worker for another ---- */

/* What the pool is configured with next: the same with other arguments. */
struct change {
    struct queue_config queue;
    char *argv[4];
};

static void
configure(struct bench *b, struct change *change, const char *mode)
{
    change->queue = b->queue;
    change->queue.argv = change->argv;
    change->argv[0] = b->argv[0];
    change->argv[1] = (char *)(uintptr_t)mode;
    change->argv[2] = NULL;
    assert_int_equal(pool_configure(b->pool, &change->queue, (size_t)1 << 20), 0);
}

static bool
nobody_is_outdated(const struct bench *b)
{
    struct pool_status status = status_of(b);
    return status.outdated == 0 && status.surge == 0 && status.stopping == 0 &&
           status.ready == status.wanted;
}

static bool
is_well_composed(const struct bench *b)
{
    pid_t pids[64];
    return children(pids, 64) <= (size_t)b->queue.concurrency + 1 &&
           status_of(b).busy <= b->queue.concurrency;
}

/* A few changes, one before the last is through, in a stream of jobs. */
static void
a_new_configuration_brings_new_workers(void **state)
{
    (void)state;
    struct bench *b = started(4);
    struct change changes[10];
    pid_t before[8], after[8];
    assert_int_equal(children(before, 8), 4);
    for (int i = 0; i < 2000; i++) {
        give(b, "ok");
        if (i % 200 == 0)
            configure(b, &changes[i / 200], NULL);
        if (i % 3 == 0)
            uv_run(&b->loop, UV_RUN_NOWAIT);
        assert_true(is_well_composed(b));
    }
    while (!all_returned(b) || !nobody_is_outdated(b)) {
        uv_run(&b->loop, UV_RUN_ONCE);
        assert_true(is_well_composed(b));
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 2000);
    assert_int_equal(children(after, 8), 4);
    for (int i = 0; i < 16; i++)
        assert_int_not_equal(before[i / 4], after[i % 4]);
    assert_int_equal(status_of(b).restarts, 0);
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

static void
a_replacement_waits_for_the_running_job(void **state)
{
    (void)state;
    struct bench *b = started(1);
    struct change change;
    int64_t slow = give_args(b, "sleep", "700");
    run_until(b, someone_is_busy);
    configure(b, &change, NULL);
    int64_t next = give_args(b, "sleep", "0");
    while (b->records[slow].times == 0) {
        uv_run(&b->loop, UV_RUN_ONCE);
        assert_true(is_well_composed(b));
        assert_int_equal(b->records[next].times, 0);
    }
    run_until(b, all_returned);
    run_until(b, nobody_is_outdated);
    assert_int_equal(b->records[slow].kind, VERDICT_OK);
    finish(b);
}

/* A worker whose job ends goes, though another one was to: nobody waits for a long job
 * but the worker that runs it. */
static void
a_long_job_holds_up_its_own_worker_alone(void **state)
{
    (void)state;
    struct bench *b = started(3);
    struct change change;
    int64_t slow = give_args(b, "hang", "{}");
    run_until(b, someone_is_busy);
    configure(b, &change, NULL);
    while (status_of(b).outdated > 1 || status_of(b).surge == 0) {
        give_args(b, "sleep", "10");
        run_until(b, one_is_left);
    }
    assert_int_equal(b->records[slow].times, 0);
    pool_kill(b->pool);
    run_until(b, is_stopped);
    assert_int_equal(b->records[slow].kind, VERDICT_RELEASED);
    finish(b);
}

static bool
a_surge_has_failed(const struct bench *b)
{
    return status_of(b).crashes > 0 && status_of(b).surge == 0;
}

static void
a_replacement_that_fails_leaves_all_as_it_was(void **state)
{
    (void)state;
    struct bench *b = started(2);
    struct change broken, good;
    configure(b, &broken, "exit");
    run_until(b, a_surge_has_failed);
    assert_int_equal(status_of(b).outdated, 2);
    assert_int_equal(status_of(b).ready, 2);
    assert_false(status_of(b).backing_off);
    for (int i = 0; i < 20; i++)
        give(b, "ok");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 20);
    result_of(b, "segv"); /* the old program takes that place as well */
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "ok")->kind, VERDICT_OK);
    configure(b, &good, NULL);
    run_until(b, nobody_is_outdated);
    finish(b);
}

static void
a_worker_goes_after_max_jobs(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    b->queue.max_jobs = 10;
    b->queue.mailbox = 1;
    start(b);
    run_until(b, all_ready);
    pid_t seen[64];
    size_t n_seen = 0;
    for (int i = 0; i < 40; i++) {
        for (int n = 0; n < 20; n++)
            give(b, "ok");
        run_until(b, all_returned);
        run_until(b, nobody_is_outdated);
        assert_true(is_well_composed(b));
        pid_t now[8];
        size_t n_now = children(now, 8);
        for (size_t k = 0; k < n_now && n_seen < 64; k++) {
            size_t at = 0;
            while (at < n_seen && seen[at] != now[k])
                at++;
            seen[at] = now[k];
            n_seen += at == n_seen;
        }
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 800);
    assert_true(n_seen > 10);
    assert_int_equal(status_of(b).restarts, 0);
    finish(b);
}

static void
a_pool_grows_and_shrinks(void **state)
{
    (void)state;
    struct bench *b = started(2);
    pool_resize(b->pool, 5);
    b->queue.concurrency = 5;
    run_until(b, all_ready);
    for (int i = 0; i < 5; i++)
        give_args(b, "sleep", "300");
    while (status_of(b).busy < 5)
        uv_run(&b->loop, UV_RUN_ONCE);
    pool_resize(b->pool, 1);
    assert_int_equal(status_of(b).wanted, 1);
    assert_int_equal(b->returned, 0);
    run_until(b, all_returned);
    run_until(b, nobody_is_outdated);
    pid_t pids[8];
    assert_int_equal(children(pids, 8), 1);
    assert_int_equal(count_kind(b, VERDICT_OK), 5);
    finish(b);
}

static void
a_pool_stops_while_it_replaces(void **state)
{
    (void)state;
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        struct bench *b = started(2);
        struct change change;
        for (int i = 0; i < 10; i++)
            give(b, "ok");
        configure(b, &change, "slow");
        while (status_of(b).surge == 0)
            uv_run(&b->loop, UV_RUN_ONCE);
        if (kill_it)
            pool_kill(b->pool);
        else
            pool_stop(b->pool, 20000);
        run_until(b, is_stopped);
        finish(b);
    }
}

/* ---- exec ---- */

static void
exit_codes_are_answers(void **state)
{
    (void)state;
    static const struct {
        const char *args;
        enum verdict_kind kind;
        int exit_code;
        int signal;
    } cases[] = {
        {"exit 0", VERDICT_OK, 0, 0},
        {"exit 65", VERDICT_DISCARD, 65, 0},
        {"exit 75", VERDICT_SNOOZE, 75, 0},
        {"exit 1", VERDICT_ERROR, 1, 0},
        {"exit 255", VERDICT_ERROR, 255, 0},
        {"kill -SEGV $$", VERDICT_CRASH, -1, SIGSEGV},
        {"kill -KILL $$", VERDICT_CRASH, -1, SIGKILL},
    };
    struct bench *b = shell(2, "read command; echo out; echo err >&2; eval \"$command\"");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t id = give_args(b, "script", cases[i].args);
        run_until(b, all_returned);
        const struct record *r = &b->records[id];
        assert_int_equal(r->kind, cases[i].kind);
        assert_int_equal(r->exit_code, cases[i].exit_code);
        assert_int_equal(r->signal, cases[i].signal);
        assert_true(r->cpu_us >= 0 && r->max_rss_kb != 0 && r->run_us > 0);
        if (r->kind != VERDICT_OK && r->kind != VERDICT_SNOOZE)
            assert_string_equal(r->output, "out\nerr\n");
    }
    assert_int_equal(b->records[3].delay_ms, 60000);
    assert_int_equal(status_of(b).restarts, 0);
    assert_false(status_of(b).backing_off);
    finish(b);
}

static void
a_program_finds_its_job_around_itself(void **state)
{
    (void)state;
    struct bench *b = shell(
        1,
        "test \"$(cat)\" = '{\"a\": 1}' || exit 10\n"
        "test \"$JOBQ_JOB_ID $JOBQ_KIND $JOBQ_QUEUE $JOBQ_ATTEMPT $JOBQ_MAX_ATTEMPTS\" = "
        "'1 script test 2 20' || exit 11\n"
        "now=$(date +%s000)\n"
        "test $JOBQ_DEADLINE_MS -gt $now -a $JOBQ_DEADLINE_MS -lt $((now + 700000)) || "
        "exit 12\n"
        "test -z \"$JOBQ_FD$PGPASSWORD$DATABASE_URL$JOBQ_DATABASE\" || exit 13\n"
        "test -e /proc/self/fd/3 && exit 14\n"
        "exit 0\n");
    int64_t id = give_args(b, "script", "{\"a\": 1}");
    run_until(b, all_returned);
    assert_int_equal(b->records[id].exit_code, 0);
    finish(b);
}

static void
a_program_need_not_read_its_args(void **state)
{
    (void)state;
    static char args[900 * 1024];
    memset(args, 'x', sizeof args - 1);
    struct bench *b = shell(2, "exec 0<&-; exit 0");
    for (int i = 0; i < 10; i++)
        give_args(b, "script", args);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 10);
    finish(b);
}

static void
no_more_programs_than_slots_run_at_once(void **state)
{
    (void)state;
    struct bench *b = shell(3, "sleep 0.05");
    assert_int_equal(pool_room(b->pool), 3);
    pid_t pids[32];
    for (int i = 0; i < 12; i++)
        give(b, "script");
    assert_int_equal(pool_room(b->pool), 0);
    while (!all_returned(b)) {
        uv_run(&b->loop, UV_RUN_ONCE);
        assert_true(children(pids, 32) <= 3);
    }
    assert_int_equal(count_kind(b, VERDICT_OK), 12);
    finish(b);
}

static void
a_late_program_is_terminated_then_killed(void **state)
{
    (void)state;
    struct bench *b =
        shell(2, "read how; test $how = deaf && trap '' TERM; sleep 100; sleep 100");
    b->queue.timeout_ms = 100;
    b->queue.stop_grace_ms = 100;
    int64_t polite = give_args(b, "script", "polite");
    int64_t deaf = give_args(b, "script", "deaf");
    run_until(b, all_returned);
    assert_int_equal(b->records[polite].kind, VERDICT_TIMEOUT);
    assert_int_equal(b->records[polite].signal, SIGTERM);
    assert_int_equal(b->records[deaf].kind, VERDICT_TIMEOUT);
    assert_int_equal(b->records[deaf].signal, SIGKILL);
    finish(b);
}

static void
what_a_program_leaves_behind_is_killed(void **state)
{
    (void)state;
    struct bench *b = shell(1, "sleep 1000 & echo $!; exit 9");
    int64_t id = give(b, "script");
    run_until(b, all_returned);
    pid_t left = (pid_t)atoi(b->records[id].output);
    assert_true(left > 0);
    uint64_t limit = uv_hrtime() + (uint64_t)LIMIT_MS * 1000000u;
    while (is_alive(left) && uv_hrtime() < limit)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_false(is_alive(left));
    finish(b);
}

static void
a_missing_exec_program_backs_off_and_releases(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    static char missing[] = "/nonexistent/script";
    b->queue.mode = QUEUE_EXEC;
    b->queue.max_restarts = 3;
    b->argv[0] = missing;
    start(b);
    for (int i = 0; i < 20; i++)
        give(b, "script");
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_RELEASED), 20);
    assert_true(status_of(b).backing_off);
    assert_int_equal(pool_room(b->pool), 0);
    /* When the pause is over there is room again. */
    int rooms = b->rooms;
    run_until(b, is_not_backing_off);
    while (b->rooms == rooms)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_int_equal(pool_room(b->pool), 2);
    finish(b);
}

static void
a_drain_lets_programs_finish_and_a_kill_does_not(void **state)
{
    (void)state;
    struct bench *b = shell(1, "sleep 0.2; exit 0");
    int64_t running = give(b, "script");
    int64_t waiting = give(b, "script");
    run_until(b, someone_is_busy);
    pool_stop(b->pool, 20000);
    run_until(b, is_stopped);
    assert_int_equal(b->records[running].kind, VERDICT_OK);
    assert_int_equal(b->records[waiting].kind, VERDICT_RELEASED);
    finish(b);
    b = shell(1, "sleep 100");
    give(b, "script");
    run_until(b, someone_is_busy);
    pool_kill(b->pool);
    run_until(b, is_stopped);
    assert_int_equal(b->records[1].kind, VERDICT_RELEASED);
    finish(b);
}

/* ---- what reaches a worker ---- */

static void
secrets_do_not_reach_a_worker(void **state)
{
    (void)state;
    setenv("PGPASSWORD", "hush", 1);
    setenv("DATABASE_URL", "postgresql://hush@h/d", 1);
    setenv("JOBQ_DATABASE", "postgresql://hush@h/d", 1);
    setenv("NOTIFY_SOCKET", "/run/hush", 1);
    setenv("APP_SETTING", "stays", 1);
    struct bench *b = started(1);
    const struct record *r = result_of(b, "environment");
    assert_int_equal(r->kind, VERDICT_OK);
    assert_null(strstr(r->result, "hush"));
    assert_non_null(strstr(r->result, "\"APP_SETTING=stays\""));
    assert_non_null(strstr(r->result, "\"JOBQ_QUEUE=test\""));
    assert_non_null(strstr(r->result, "\"JOBQ_FD=3\""));
    finish(b);
}

/* ---- workers of a forkserver ---- */

static bool
fork_is_under_way(const struct bench *b)
{
    const struct worker_program *program = b->pool->program;
    return b->pool->n_filled > 0 && b->pool->slots[0]->worker->state == WORKER_UNFORKED &&
           !forkserver_is_awaited(program->forkserver);
}

static bool
came_or_went(const struct bench *b)
{
    return b->pool->n_lives == 0 || b->pool->slots[0]->worker->said_hello;
}

static bool
is_forked_or_in_the_making(const struct bench *b)
{
    return fork_is_under_way(b) || all_ready(b);
}

/* The news of a worker's fork_handoff is there, and has not been read. One turn of the loop may ask
 * for the worker and read the answer: when more than a turn's share of time went by between,
 * on a busy machine. Then it is too late to look at the state between, and another pool is
 * made. The forkserver's socket is polled, not the loop's descriptor, which does not know of a
 * socket that is watched from the next turn on. */
static struct bench *
being_forked(void)
{
    static char log[] = "/dev/null", megabytes[] = "0";
    for (int tries = 0; tries < 100; tries++) {
        struct bench *b = bench_new(1, NULL);
        find_program(b->program, sizeof b->program, "preload_worker");
        b->argv[1] = log;
        b->argv[2] = megabytes;
        b->queue.preload = true;
        start(b);
        run_until(b, is_forked_or_in_the_making);
        if (fork_is_under_way(b)) {
            struct pollfd news = {.fd = b->pool->program->forkserver->channel.fd,
                                  .events = POLLIN};
            assert_int_equal(poll(&news, 1, LIMIT_MS), 1);
            return b;
        }
        finish(b);
    }
    fail_msg("in 100 pools each worker was there before it could be seen in the making");
    return NULL;
}

static void
who_is_let_go_while_it_is_born_takes_no_job(void **state)
{
    (void)state;
    struct bench *b = being_forked();
    pool_resize(b->pool, 0);
    run_until(b, came_or_went);
    assert_int_equal(b->pool->n_lives, 0);
    assert_int_equal(result_of(b, "facts")->kind, VERDICT_RELEASED);
    pool_resize(b->pool, 1);
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "facts")->kind, VERDICT_OK);
    finish(b);
}

static void
a_pool_that_ends_while_a_worker_is_born_ends(void **state)
{
    (void)state;
    struct bench *b = being_forked();
    pool_kill(b->pool);
    run_until(b, is_stopped);
    finish(b);
    b = being_forked();
    finish(b); /* a drain */
}

/* ---- answers that are not read ---- */

static bool
is_behind(const struct bench *b, int slot)
{
    const struct worker *worker = b->pool->slots[slot]->worker;
    return worker && channel_is_behind(&worker->channel);
}

static bool
the_first_is_behind(const struct bench *b)
{
    return is_behind(b, 0);
}

static bool
both_are_behind(const struct bench *b)
{
    return is_behind(b, 0) && is_behind(b, 1);
}

/* The looks at a deadline while answers are held, and much more. */
static void
turn_for_ms(struct bench *b, uint64_t ms)
{
    uint64_t until = uv_hrtime() + ms * 1000000u;
    while (uv_hrtime() < until)
        uv_run(&b->loop, UV_RUN_ONCE);
}

static void
held_answers_wait_in_the_sockets(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    b->queue.mailbox = 8;
    start(b);
    pool_hold_answers(b->pool, true);
    run_until(b, all_ready); /* hellos are read */
    for (int i = 0; i < 10; i++)
        give(b, i % 2 ? "ok" : "error");
    run_until(b, both_are_behind);
    turn_for_ms(b, 50);
    assert_int_equal(b->returned, 0);
    pool_hold_answers(b->pool, false);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_OK), 5);
    assert_int_equal(count_kind(b, VERDICT_ERROR), 5);
    finish(b);
}

static void
answers_count_though_their_worker_died_while_they_were_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.mailbox = 8;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    give(b, "ok");
    give(b, "error");
    give(b, "kill");
    give(b, "ok"); /* for its successor */
    run_until(b, one_is_left);
    assert_int_equal(b->records[1].kind, VERDICT_OK);
    assert_int_equal(b->records[2].kind, VERDICT_ERROR);
    assert_int_equal(b->records[3].kind, VERDICT_CRASH);
    run_until(b, the_first_is_behind);
    assert_int_equal(b->returned, 3);
    pool_hold_answers(b->pool, false);
    run_until(b, all_returned);
    assert_int_equal(b->records[4].kind, VERDICT_OK);
    finish(b);
}

static void
a_job_is_not_late_whose_answer_is_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(2, NULL);
    b->queue.timeout_ms = 400;
    b->queue.mailbox = 1;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    give(b, "long_error");
    give(b, "long_error");
    run_until(b, both_are_behind);
    turn_for_ms(b, 1200); /* beyond its timeout, which is when it is looked at */
    assert_int_equal(b->returned, 0);
    assert_int_equal(status_of(b).stopping, 0);
    pool_hold_answers(b->pool, false);
    run_until(b, all_returned);
    assert_int_equal(count_kind(b, VERDICT_ERROR), 2); /* an ok would count when late */
    assert_int_equal(status_of(b).crashes, 0);
    finish(b);
}

static void
a_deadline_hears_a_short_answer_that_is_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 200;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    assert_int_equal(result_of(b, "error")->kind, VERDICT_ERROR);
    finish(b);
}

static void
a_late_job_is_stopped_while_answers_are_held(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 200;
    b->queue.stop_grace_ms = 100;
    start(b);
    run_until(b, all_ready);
    pool_hold_answers(b->pool, true);
    assert_int_equal(result_of(b, "hang")->kind, VERDICT_TIMEOUT);
    run_until(b, all_ready);
    assert_int_equal(result_of(b, "progress_and_hang")->kind, VERDICT_TIMEOUT);
    run_until(b, all_ready);
    give(b, "obey");
    run_until(b, someone_is_busy);
    pool_cancel(b->pool, &b->jobs[b->given]);
    run_until(b, all_returned);
    assert_int_equal(b->records[b->given].kind, VERDICT_CANCELLED);
    finish(b);
}

/* ---- a loop that stood still ---- */

/* Nobody sees to anything for so long. */
static void
stand_still_for_ms(int ms)
{
    poll(NULL, 0, ms);
}

static void
what_was_in_time_is_not_late_though_the_loop_was(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, NULL);
    b->queue.timeout_ms = 500;
    b->queue.stop_grace_ms = 100;
    start(b);
    run_until(b, all_ready);
    give(b, "error_soon");
    run_until(b, someone_is_busy);
    stand_still_for_ms(1000);
    run_until(b, all_returned);
    assert_int_equal(b->records[b->given].kind, VERDICT_ERROR);
    finish(b);
    b = bench_new(1, NULL);
    b->queue.timeout_ms = 500;
    b->queue.stop_grace_ms = 100;
    b->queue.mode = QUEUE_EXEC;
    static char sh[] = "/bin/sh", c[] = "-c", script[] = "exit 65";
    b->argv[0] = sh;
    b->argv[1] = c;
    b->argv[2] = script;
    start(b);
    give(b, "any");
    run_until(b, someone_is_busy);
    stand_still_for_ms(1000);
    run_until(b, all_returned);
    assert_int_equal(b->records[b->given].kind, VERDICT_DISCARD);
    finish(b);
}

static void
programs_and_workers_of_a_template_are_held_too(void **state)
{
    (void)state;
    struct bench *b = shell(2, "exit 65");
    pool_hold_answers(b->pool, true);
    assert_int_equal(result_of(b, "any")->kind, VERDICT_DISCARD);
    finish(b);
    b = being_forked();
    pool_hold_answers(b->pool, true);
    run_until(b, all_ready);
    give(b, "facts");
    run_until(b, the_first_is_behind);
    turn_for_ms(b, 50);
    assert_int_equal(b->returned, 0);
    pool_kill(b->pool);
    run_until(b, is_stopped);
    assert_int_equal(b->records[b->given].kind, VERDICT_OK); /* read before its end */
    finish(b);
}

static void
a_pool_without_wanted_workers_has_no_room(void **state)
{
    (void)state;
    struct bench *b = started(2);
    assert_int_equal(pool_idle(b->pool), 2);
    pool_resize(b->pool, 0);
    assert_int_equal(pool_room(b->pool), 0); /* before any of them was told */
    assert_int_equal(pool_idle(b->pool), 0);
    finish(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_answer_becomes_its_verdict),
        cmocka_unit_test(many_jobs_flow_through_few_workers),
        cmocka_unit_test(big_args_pass_through_a_full_socket),
        cmocka_unit_test(args_that_fit_into_no_frame_are_refused),
        cmocka_unit_test(kinds_that_the_program_does_not_list_are_unhandled),
        cmocka_unit_test(a_slow_job_does_not_idle_its_neighbours),
        cmocka_unit_test(jobs_are_spread_over_idle_workers),
        cmocka_unit_test(a_crash_is_charged_to_the_head_alone),
        cmocka_unit_test(an_answer_before_the_crash_counts),
        cmocka_unit_test(an_exit_with_a_job_is_a_crash),
        cmocka_unit_test(an_idle_worker_that_is_killed_charges_nobody),
        cmocka_unit_test(random_kills_lose_nothing),
        cmocka_unit_test(five_hundred_crashes_leak_nothing),
        cmocka_unit_test(grandchildren_go_with_their_worker),
        cmocka_unit_test(each_breach_of_the_protocol_is_named),
        cmocka_unit_test(a_breach_without_a_job_charges_none),
        cmocka_unit_test(killed_within_a_line_is_a_crash),
        cmocka_unit_test(a_closed_socket_is_not_waited_for_for_ever),
        cmocka_unit_test(a_late_job_is_stopped_then_terminated_then_killed),
        cmocka_unit_test(jobs_behind_a_late_one_are_not_to_blame),
        cmocka_unit_test(an_answer_after_the_deadline_counts_if_it_is_ok),
        cmocka_unit_test(a_job_may_have_a_timeout_of_its_own),
        cmocka_unit_test(waiting_behind_another_job_is_not_running),
        cmocka_unit_test(a_worker_runs_as_many_as_it_says),
        cmocka_unit_test(all_that_it_may_run_are_sent),
        cmocka_unit_test(a_crash_is_charged_to_all_that_run),
        cmocka_unit_test(each_has_a_deadline_of_its_own),
        cmocka_unit_test(the_end_for_a_late_job_gives_the_others_back),
        cmocka_unit_test(cpu_limit_is_for_one_at_a_time),
        cmocka_unit_test(a_flood_of_output_is_survived),
        cmocka_unit_test(the_end_of_the_output_is_kept),
        cmocka_unit_test(a_worker_that_cannot_start_puts_its_pool_into_backoff),
        cmocka_unit_test(what_a_boot_uses_is_looked_at_like_a_job),
        cmocka_unit_test(a_missing_program_is_a_boot_failure),
        cmocka_unit_test(without_descriptors_a_pool_backs_off_and_recovers),
        cmocka_unit_test(a_worker_that_goes_after_its_job_is_replaced),
        cmocka_unit_test(a_drain_lets_the_running_job_finish),
        cmocka_unit_test(a_drain_asks_back_what_has_not_begun),
        cmocka_unit_test(a_drain_ends_with_its_grace),
        cmocka_unit_test(a_deaf_worker_is_terminated_and_killed_when_it_drains),
        cmocka_unit_test(a_pool_can_stop_while_it_boots),
        cmocka_unit_test(a_kill_gives_everything_back),
        cmocka_unit_test(an_unused_pool_stops),
        cmocka_unit_test(a_new_configuration_brings_new_workers),
        cmocka_unit_test(a_replacement_waits_for_the_running_job),
        cmocka_unit_test(a_long_job_holds_up_its_own_worker_alone),
        cmocka_unit_test(a_replacement_that_fails_leaves_all_as_it_was),
        cmocka_unit_test(a_worker_goes_after_max_jobs),
        cmocka_unit_test(a_pool_grows_and_shrinks),
        cmocka_unit_test(a_pool_stops_while_it_replaces),
        cmocka_unit_test(exit_codes_are_answers),
        cmocka_unit_test(a_program_finds_its_job_around_itself),
        cmocka_unit_test(a_program_need_not_read_its_args),
        cmocka_unit_test(no_more_programs_than_slots_run_at_once),
        cmocka_unit_test(a_late_program_is_terminated_then_killed),
        cmocka_unit_test(what_a_program_leaves_behind_is_killed),
        cmocka_unit_test(a_missing_exec_program_backs_off_and_releases),
        cmocka_unit_test(a_drain_lets_programs_finish_and_a_kill_does_not),
        cmocka_unit_test(secrets_do_not_reach_a_worker),
        cmocka_unit_test(who_is_let_go_while_it_is_born_takes_no_job),
        cmocka_unit_test(a_pool_that_ends_while_a_worker_is_born_ends),
        cmocka_unit_test(a_pool_without_wanted_workers_has_no_room),
        cmocka_unit_test(held_answers_wait_in_the_sockets),
        cmocka_unit_test(answers_count_though_their_worker_died_while_they_were_held),
        cmocka_unit_test(a_job_is_not_late_whose_answer_is_held),
        cmocka_unit_test(a_deadline_hears_a_short_answer_that_is_held),
        cmocka_unit_test(a_late_job_is_stopped_while_answers_are_held),
        cmocka_unit_test(programs_and_workers_of_a_template_are_held_too),
        cmocka_unit_test(what_was_in_time_is_not_late_though_the_loop_was),
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_setup(&(struct log_options){.level = LOG_LEVEL_ERROR});
    return cmocka_run_group_tests(tests, NULL, NULL);
}
