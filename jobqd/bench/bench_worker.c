/* bench_worker.c: `jobqd bench worker`, the worker whose jobs do nothing, so that what is
 * measured is jobq. */
#include <jobq/worker.h>
#include <unistd.h>

#include "jobqd/bench/bench_private.h"

static int
do_nothing(jobq_work *work, void *data)
{
    struct bench_shared *shared = data;
    (void)work;
    if (atomic_load_explicit(&shared->stamp, memory_order_relaxed)) {
        atomic_store(&shared->latest_ns, bench_now_ns());
        sem_post(&shared->begun);
    }
    if (atomic_fetch_add(&shared->started, 1) == 0)
        atomic_store(&shared->first_ns, bench_now_ns());
    return 0;
}

static int
run(struct cli *cli)
{
    struct bench_shared *shared = NULL;
    jobq_error err = {0};
    int rc = bench_shared_join(&shared, &err);
    if (rc == 0) {
        size_t nth = atomic_fetch_add(&shared->n_workers, 1);
        if (nth < BENCH_WORKERS)
            shared->workers[nth] = getpid();
        const jobq_worker_kind kinds[] = {{NULL, do_nothing, shared}};
        jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
        options.kinds = kinds;
        options.n_kinds = 1;
        rc = jobq_worker_run(&options, &err);
    }
    bench_shared_unmap(shared);
    return rc == 0 ? 0 : cli_fail(cli, &err);
}

const struct command bench_worker = {
    .name = "bench worker",
    .args = "",
    .summary = "The worker that bench starts: answers every job with ok",
    .flags = CLI_NO_FLAGS,
    .run = run};
