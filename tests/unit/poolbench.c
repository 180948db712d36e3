/* poolbench.c: see poolbench.h. */
#include "tests/unit/poolbench.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "jobqd/pool/pool_private.h"
#include "jobqd/pool/forkserver_private.h"

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

/* ---- waiting ---- */

static void
on_tick(uv_timer_t *timer)
{
    (void)timer;
}

void
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

void
run_until_gone(struct bench *b, pid_t pid)
{
    uint64_t limit = uv_hrtime() + (uint64_t)LIMIT_MS * 1000000u;
    while (is_alive(pid) && uv_hrtime() < limit)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_false(is_alive(pid));
}

bool
all_returned(const struct bench *b)
{
    return b->returned == b->given;
}

bool
one_is_left(const struct bench *b)
{
    return b->returned == b->given - 1;
}

bool
all_ready(const struct bench *b)
{
    return status_of(b).ready == b->queue.concurrency;
}

bool
someone_is_busy(const struct bench *b)
{
    return status_of(b).busy > 0;
}

bool
is_backing_off(const struct bench *b)
{
    return status_of(b).backing_off;
}

bool
is_not_backing_off(const struct bench *b)
{
    return !status_of(b).backing_off;
}

bool
is_stopped(const struct bench *b)
{
    return b->stopped;
}

/* ---- from a bench to its end ---- */

void
bench_prepare(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_setup(&(struct log_options){.level = LOG_LEVEL_ERROR});
}

struct bench *
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

void
start(struct bench *b)
{
    assert_int_equal(pool_new(&b->pool, &b->loop, &b->queue, (size_t)1 << 20, &events, b),
                     0);
}

struct bench *
started(int concurrency)
{
    struct bench *b = bench_new(concurrency, NULL);
    start(b);
    run_until(b, all_ready);
    return b;
}

struct bench *
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

static bool
fork_is_under_way(const struct bench *b)
{
    const struct worker_program *program = b->pool->program;
    return b->pool->n_filled > 0 && b->pool->slots[0]->worker->state == WORKER_UNFORKED &&
           !forkserver_is_awaited(program->forkserver);
}

static bool
is_forked_or_in_the_making(const struct bench *b)
{
    return fork_is_under_way(b) || all_ready(b);
}

/* On a busy machine, one turn of the loop may both ask for the worker and read the answer.
 * Then it is too late to see the state in between, and another pool is made. The poll is
 * on the forkserver's socket, not on the loop's descriptor: libuv adds a new socket to
 * that one only in its next turn. */
struct bench *
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

void
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

/* ---- jobs ---- */

int64_t
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

int64_t
give(struct bench *b, const char *kind)
{
    return give_args(b, kind, "{}");
}

const struct record *
result_of(struct bench *b, const char *kind)
{
    int64_t id = give(b, kind);
    run_until(b, all_returned);
    return &b->records[id];
}

int
count_kind(const struct bench *b, enum verdict_kind kind)
{
    int n = 0;
    for (int64_t id = 1; id <= b->given; id++)
        n += b->records[id].times == 1 && b->records[id].kind == kind;
    return n;
}

/* ---- looking ---- */

struct pool_status
status_of(const struct bench *b)
{
    struct pool_status status;
    pool_status(b->pool, &status);
    return status;
}

size_t
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

bool
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

void
find_program(char *out, size_t size, const char *name)
{
    ssize_t len = readlink("/proc/self/exe", out, size - 1);
    assert_true(len > 0);
    out[len] = '\0';
    char *slash = strrchr(out, '/');
    assert_non_null(slash);
    snprintf(slash + 1, size - (size_t)(slash + 1 - out), "%s", name);
}
