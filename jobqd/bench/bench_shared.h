/* bench_shared.h: a page of memory that bench and its workers share, so that a worker
 * tells what it does without a system call that would be measured. It is a file in the
 * temporary directory, named to the workers in the environment. */
#ifndef JOBQD_BENCH_SHARED_H
#define JOBQD_BENCH_SHARED_H

#include <jobq/error.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_SHARED_VARIABLE "JOBQ_BENCH_SHARED"

enum { BENCH_WORKERS = 1000 };

struct bench_shared {
    _Atomic int64_t started;  /* handlers that began since the last reset */
    _Atomic int64_t first_ns; /* when the first of them did; 0: none yet */
    _Atomic bool stamp;       /* each handler notes its start and posts begun */
    _Atomic int64_t latest_ns;
    sem_t begun;
    _Atomic size_t n_workers;
    pid_t workers[BENCH_WORKERS]; /* that said hello, dead ones too */
};

/* CLOCK_MONOTONIC, the same in all processes of the machine. */
int64_t bench_now_ns(void);

/* Makes the file and maps it. */
int bench_shared_create(const char *path, struct bench_shared **out, jobq_error *err);
/* Maps the file that the environment names. */
int bench_shared_join(struct bench_shared **out, jobq_error *err);
void bench_shared_unmap(struct bench_shared *shared); /* NULL is harmless */

/* No handlers and no workers yet. */
void bench_shared_reset(struct bench_shared *shared, bool stamp);

#endif
