/* bench_private.h: what the files of bench share: the sub-commands, and measurements that
 * are parts of others. Not for anybody else. */
#ifndef JOBQD_BENCH_PRIVATE_H
#define JOBQD_BENCH_PRIVATE_H

#include "jobqd/bench/bench_cluster.h"
#include "jobqd/bench/bench_daemon.h"
#include "jobqd/bench/bench_report.h"
#include "jobqd/bench/bench_shared.h"
#include "jobqd/cli/cli.h"

/* One a file: bench_NAME.c. */
extern const struct command bench_drain;
extern const struct command bench_limit;
extern const struct command bench_explain;
extern const struct command bench_memory;
extern const struct command bench_latency;
extern const struct command bench_enqueue;
extern const struct command bench_wakeup;
extern const struct command bench_worker;

/* The last rows of every sub-command's table of options. */
#define BENCH_OPTIONS                                                                    \
    {"force", NULL, "drop the schema if it exists"},                                     \
    {                                                                                    \
        0                                                                                \
    }

/* --keep: all (the default) or none. */
int bench_get_keep(const struct cli *cli, bool *keep, jobq_error *err);
/* --workers: worker processes; by default as many as there are processors. */
int bench_get_workers(const struct cli *cli, int64_t *workers, jobq_error *err);

/* What one connection can do at most: bench_limit.c. */
struct bench_limit_options {
    int64_t jobs;
    int64_t batch; /* a power of two */
    bool keep;
};
struct bench_limit_result {
    double seconds;
    double wal_bytes;
    double backend_cpu_s;
};
int bench_limit_round(struct bench *bench, const struct bench_limit_options *options,
                      struct bench_limit_result *out, jobq_error *err);

/* The claim's plan at several table sizes, into the report: bench_explain.c. */
int bench_explain_claim(struct bench *bench, int64_t most, jobq_error *err);

/* Waits until the workers have begun `jobs` jobs and none is left; *end_ns is when the
 * last ack was seen to be committed. bench_drain.c. */
int bench_wait_drained(struct bench *bench, struct bench_daemon *daemon, int64_t jobs,
                       int64_t *end_ns, jobq_error *err);

#endif
