/* pool_rate: how many jobs a second a pool passes through no-op workers, without a
 * database. A measurement, not a test: pool_rate PROGRAM [workers] [jobs] [mailbox]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

#include "jobqd/pool/pool.h"

struct measurement {
    struct pool *pool;
    struct job *jobs; /* a ring, each given again when it has come back */
    struct list free_jobs;
    size_t left;     /* to give */
    size_t expected; /* to come back */
    size_t bad;
    uint64_t began_ns;
    double seconds;
};

enum { RING = 8192 };

static void
give(struct measurement *m)
{
    size_t room = pool_room(m->pool);
    if (m->began_ns == 0 && room > 0)
        m->began_ns = uv_hrtime();
    while (room-- > 0 && m->left > 0 && !list_empty(&m->free_jobs)) {
        struct job *job = list_entry(list_pop(&m->free_jobs), struct job, link);
        m->left--;
        pool_give(m->pool, job);
    }
}

static void
on_verdict(void *owner, struct job *job, const struct verdict *verdict)
{
    struct measurement *m = owner;
    m->bad += verdict->kind != VERDICT_OK;
    list_push(&m->free_jobs, &job->link);
    if (--m->expected == 0) {
        m->seconds = (double)(uv_hrtime() - m->began_ns) / 1e9;
        pool_stop(m->pool, 5000);
    }
}

static void
on_room(void *owner)
{
    give(owner);
}

static void
on_stopped(void *owner)
{
    struct measurement *m = owner;
    pool_free(m->pool);
}

static const struct pool_events events = {
    .on_verdict = on_verdict, .on_room = on_room, .on_stopped = on_stopped};

static double
cpu_s(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
make_jobs(struct measurement *m)
{
    static const char args[] = "{\"n\": 12345, \"file\": \"some/path/to/a/file.jpg\"}";
    m->jobs = calloc(RING, sizeof m->jobs[0]);
    if (!m->jobs)
        exit(1);
    list_init(&m->free_jobs);
    for (int i = 0; i < RING; i++) {
        struct job *job = &m->jobs[i];
        *job = (struct job){.id = 1000000 + i,
                            .attempt = 1,
                            .max_attempts = 20,
                            .kind = "noop",
                            .args = args,
                            .args_len = sizeof args - 1,
                            .meta = "{}",
                            .meta_len = 2};
        list_push(&m->free_jobs, &job->link);
    }
}

int
main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: pool_rate PROGRAM [workers] [jobs] [mailbox]\n");
        return 2;
    }
    char *command[] = {argv[1], NULL};
    char name[] = "rate";
    struct queue_config queue = {.name = name,
                                 .mode = QUEUE_COMMAND,
                                 .argv = command,
                                 .concurrency = argc > 2 ? atoi(argv[2]) : 2,
                                 .mailbox = argc > 4 ? atoi(argv[4]) : 0,
                                 .timeout_ms = 1800000,
                                 .stop_grace_ms = 5000,
                                 .boot_timeout_ms = 10000,
                                 .max_restarts = 5,
                                 .max_seconds_ms = 10000};
    struct measurement m = {0};
    m.left = m.expected = argc > 3 ? (size_t)atol(argv[3]) : 2000000;
    size_t n = m.left;
    make_jobs(&m);
    log_setup(&(struct log_options){.level = LOG_LEVEL_WARNING});
    uv_loop_t *loop = uv_default_loop();
    if (pool_new(&m.pool, loop, &queue, (size_t)4 << 20, &events, &m) < 0)
        return 1;
    uv_run(loop, UV_RUN_DEFAULT);
    printf("%zu jobs, %d workers: %.0f jobs/s; %.2f us of daemon CPU a job, %.2f us of "
           "workers' CPU a job; "
           "%zu not ok\n",
           n, queue.concurrency, (double)n / m.seconds,
           cpu_s(RUSAGE_SELF) * 1e6 / (double)n, cpu_s(RUSAGE_CHILDREN) * 1e6 / (double)n,
           m.bad);
    free(m.jobs);
    return uv_loop_close(loop) != 0 || m.bad != 0;
}
