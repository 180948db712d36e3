/* bench_latency.c: `jobqd bench latency`: how soon a job starts on an idle system: from
 * the return of the insert's commit in this process to the handler's start in a worker
 * process, on one clock (CLOCK_MONOTONIC). One job at a time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "jobqd/app/bench_private.h"
#include "jobqd/app/query.h"
#include "jobqd/base/sqltext.h"
#include "libjobq/error.h"

extern const char sql_bench_enqueue[];

enum { LATE_MS = 100, STUCK_S = 60 };

struct latency_options {
    int64_t jobs;
    int64_t workers;
    int64_t pause_ms; /* at most; 0: none */
};

static int
prepare(struct bench *bench, jobq_error *err)
{
    char *text = NULL;
    int rc = sqltext_expand(sql_bench_enqueue, bench->schema, &text, err);
    if (rc != 0)
        return rc;
    PGresult *result = PQprepare(bench->conn, "enqueue", text, 0, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        rc = jobq__error(err, JOBQ_EDB, "%s", PQresultErrorMessage(result));
    PQclear(result);
    free(text);
    return rc;
}

/* The wait is in the kernel: it takes no time from jobqd. */
static int
wait_begun(struct bench *bench, struct bench_daemon *daemon, jobq_error *err)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STUCK_S;
    while (sem_timedwait(&bench->shared->begun, &until) != 0) {
        if (errno != EINTR && errno != ETIMEDOUT)
            return jobq__error(err, JOBQ_EIO, "sem_timedwait: %s", strerror(errno));
        bool late = errno == ETIMEDOUT;
        int rc = bench_daemon_check(daemon, err);
        if (rc == 0)
            rc = bench_pause_us(0, err);
        if (rc == 0 && late)
            rc =
                jobq__error(err, JOBQ_ESTATE, "a job did not start within %d s", STUCK_S);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Of each job: how long the insert took, which waits for the disk as the claim does, and
 * how much later the handler began. */
struct samples {
    int64_t *insert_ns;
    int64_t *start_ns;
};

/* One job, alone; its start may be a little below 0: the worker may begin before the
 * commit's answer is read here. */
static int
sample(struct bench *bench, struct bench_daemon *daemon, const struct samples *samples,
       int64_t nth, jobq_error *err)
{
    static const char *const args[] = {"{\"n\": 123}"};
    int64_t begun_ns = bench_now_ns();
    PGresult *result = PQexecPrepared(bench->conn, "enqueue", 1, args, NULL, NULL, 0);
    int64_t committed_ns = bench_now_ns();
    int rc = PQresultStatus(result) == PGRES_TUPLES_OK
                 ? 0
                 : jobq__error(err, JOBQ_EDB, "%s", PQerrorMessage(bench->conn));
    PQclear(result);
    if (rc == 0)
        rc = wait_begun(bench, daemon, err);
    samples->insert_ns[nth] = committed_ns - begun_ns;
    samples->start_ns[nth] = atomic_load(&bench->shared->latest_ns) - committed_ns;
    return rc;
}

/* 1 to pause_ms, even. */
static int64_t
random_pause_us(const struct latency_options *options, unsigned *seed)
{
    if (options->pause_ms == 0)
        return 0;
    return 1000 + rand_r(seed) % (options->pause_ms * 1000 - 999);
}

static int
take_samples(struct bench *bench, struct bench_daemon *daemon,
             const struct latency_options *options, const struct samples *samples,
             jobq_error *err)
{
    unsigned seed = 1;
    int rc = prepare(bench, err);
    /* The first jobs, which are overwritten, find the workers still starting, and no
     * statement prepared. */
    for (int i = 0; rc == 0 && i < 20; i++)
        rc = sample(bench, daemon, samples, 0, err);
    for (int64_t i = 0; rc == 0 && i < options->jobs; i++) {
        rc = bench_pause_us(random_pause_us(options, &seed), err);
        if (rc == 0)
            rc = sample(bench, daemon, samples, i, err);
    }
    return rc;
}

static void
report_samples(struct report *report, const struct latency_options *options,
               const struct samples *samples)
{
    int64_t late = 0;
    for (int64_t i = 0; i < options->jobs; i++)
        late += samples->start_ns[i] > LATE_MS * INT64_C(1000000);
    report_int(report, "jobs", options->jobs);
    report_int(report, "workers", options->workers);
    report_int(report, "pause_at_most_ms", options->pause_ms);
    report_percentiles(report, "insert_and_commit", samples->insert_ns,
                       (size_t)options->jobs);
    report_percentiles(report, "commit_to_start", samples->start_ns,
                       (size_t)options->jobs);
    report_int(report, "later_than_100_ms", late);
}

static int
measure(struct bench *bench, const struct latency_options *options, jobq_error *err)
{
    struct bench_daemon daemon = {0};
    size_t n = (size_t)options->jobs;
    int64_t *both = calloc(2 * n, sizeof *both);
    if (both == NULL)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    const struct samples samples = {.insert_ns = both, .start_ns = both + n};
    bench_shared_reset(bench->shared, true);
    int rc =
        bench_daemon_start(&daemon, bench,
                           &(struct bench_daemon_options){
                               .workers = options->workers, .keep = true, .notify = true},
                           err);
    if (rc == 0) {
        rc = take_samples(bench, &daemon, options, &samples, err);
        if (rc != 0)
            bench_daemon_tell(&daemon);
    }
    int stopped = bench_daemon_stop(&daemon, rc == 0 ? err : NULL);
    if (rc == 0 && stopped == 0)
        report_samples(&bench->report, options, &samples);
    free(both);
    return rc == 0 ? stopped : rc;
}

static int
run(struct cli *cli)
{
    struct latency_options options = {.jobs = 20000, .pause_ms = 10};
    struct bench bench;
    jobq_error err = {0};
    int rc = cli_get_int(cli, "jobs", 1, 100000000, &options.jobs, &err);
    if (rc == 0)
        rc = cli_get_int(cli, "pause-ms", 0, 60000, &options.pause_ms, &err);
    if (rc == 0)
        rc = bench_get_workers(cli, &options.workers, &err);
    if (rc != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = bench_open(&bench, cli);
    if (code == EX_OK && measure(&bench, &options, &err) != 0)
        code = cli_fail(cli, &err);
    return bench_close(&bench, code);
}

static const struct cli_option options_table[] = {
    {"jobs", "N", "how many jobs, one after the other (20000)"},
    {"pause-ms", "N",
     "before each a random pause of 1 to N ms, so that jobqd is idle; 0: none (10)"},
    {"workers", "N", "worker processes (as many as processors)"},
    BENCH_OPTIONS};

const struct command bench_latency = {
    .name = "bench latency",
    .args = "",
    .summary = "From an insert's commit to the handler's start, on an idle system",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .run = run};
