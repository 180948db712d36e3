/* poolbench.h: what the tests of the pool share. A bench owns a real pool on a real loop,
 * gives it jobs and records each verdict. Its processes are real too, and misbehave:
 * rude_worker (its table of kinds says what each kind of job does) or a shell script. */
#ifndef TESTS_POOLBENCH_H
#define TESTS_POOLBENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <uv.h>

#include "jobqd/pool/pool.h"

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

/* ---- from a bench to its end ---- */

/* What main calls first. */
void bench_prepare(void);

/* A bench without a pool, so that a test can change its queue before start. The workers
 * are rude_workers with this argument (NULL: none). */
struct bench *bench_new(int concurrency, const char *mode);

void start(struct bench *b);

/* A pool of rude_workers, all ready. */
struct bench *started(int concurrency);

/* A pool of mode exec: each job runs `sh -c script`. */
struct bench *shell(int concurrency, const char *script);

/* A pool whose only worker is being forked: the forkserver's answer is in its socket and
 * has not been read. */
struct bench *being_forked(void);

/* Drains the pool if it still runs; each job must have come back exactly once, and no
 * handle of the loop may be left. Frees the bench. */
void finish(struct bench *b);

/* ---- jobs ---- */

/* Both return the job's id. */
int64_t give(struct bench *b, const char *kind);
int64_t give_args(struct bench *b, const char *kind, const char *args);

/* Gives a job and waits until all jobs have come back. */
const struct record *result_of(struct bench *b, const char *kind);

int count_kind(const struct bench *b, enum verdict_kind kind);

/* ---- waiting ---- */

/* Runs the loop until the condition holds; fails after LIMIT_MS. */
void run_until(struct bench *b, bool (*condition)(const struct bench *b));

/* Runs the loop until the process has ended; fails after LIMIT_MS. */
void run_until_gone(struct bench *b, pid_t pid);

/* Conditions. */
bool all_returned(const struct bench *b);
bool one_is_left(const struct bench *b); /* all jobs but one have come back */
bool all_ready(const struct bench *b);
bool someone_is_busy(const struct bench *b);
bool is_backing_off(const struct bench *b);
bool is_not_backing_off(const struct bench *b);
bool is_stopped(const struct bench *b);

/* ---- looking ---- */

struct pool_status status_of(const struct bench *b);

/* The pids of this process's children, zombies among them; returns how many. */
size_t children(pid_t *out, size_t most);

bool is_alive(pid_t pid);

/* The path of a program that is built beside this one. */
void find_program(char *out, size_t size, const char *name);

#endif
