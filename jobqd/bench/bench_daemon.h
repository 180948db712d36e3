/* bench_daemon.h: the jobqd under test: this program's own file, run as a child, with
 * real worker processes. And what processes used of the machine. */
#ifndef JOBQD_BENCH_DAEMON_H
#define JOBQD_BENCH_DAEMON_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "jobqd/bench/bench_cluster.h"

struct bench_daemon {
    const struct bench *bench;
    pid_t pid; /* 0: not running */
    char log[PATH_MAX];
};

struct bench_daemon_options {
    const char *command; /* a worker of somebody else's; NULL: `jobqd bench worker` */
    int64_t workers;
    bool keep;
    bool notify;
};

/* Starts it on the queue `bench` and returns when it says that it is ready. */
int bench_daemon_start(struct bench_daemon *daemon, const struct bench *bench,
                       const struct bench_daemon_options *options, jobq_error *err);
/* 0 while it runs; else how it ended. */
int bench_daemon_check(struct bench_daemon *daemon, jobq_error *err);
/* TERM, and waits for the end (KILL after a minute). Harmless when it does not run. */
int bench_daemon_stop(struct bench_daemon *daemon, jobq_error *err);
/* The end of its log, on stderr: for when something failed (not: bench was told to stop).
 */
void bench_daemon_tell(const struct bench_daemon *daemon);

/* Resident memory now and at its peak, KiB. */
int bench_memory_kb(pid_t pid, int64_t *now, int64_t *peak, jobq_error *err);
/* Processor time, user and system; 0 when the process is none of this machine. */
double bench_cpu_s(pid_t pid);
double bench_workers_cpu_s(const struct bench_shared *shared);

#endif
