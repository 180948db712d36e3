/* noop_worker: answers every job of every kind with ok. What is left is jobq's own cost,
 * which is what `jobqd bench` measures. */
#include <jobq/worker.h>
#include <stdio.h>

static int
do_nothing(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    return 0;
}

int
main(void)
{
    const jobq_worker_kind kinds[] = {{NULL, do_nothing, NULL}};
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_error err;
    options.kinds = kinds;
    options.n_kinds = 1;
    if (jobq_worker_run(&options, &err) != 0) {
        fprintf(stderr, "noop_worker: %s\n", err.message);
        return 1;
    }
    return 0;
}
