/* testing.h (internal): a handler run without a socket, for testing.c (one, by hand) and
 * testing_drain.c (jobs of a queue). */
#ifndef JOBQ__TESTING_H
#define JOBQ__TESTING_H

#include <jobq/testing.h>

#include "libjobq/wire.h"

/* Runs one job through the worker's own code: its frame is written, read, handled and
 * answered as in a worker, only that nothing is sent. job: as for jobq__frame_put_job.
 * stop: what jobq_work_should_stop is to say. */
int jobq__testing_run(const jobq_worker_kind *kinds, size_t n_kinds, int stop,
                      const struct jobq__frame *job, jobq_testing_outcome **out,
                      jobq_error *err);

#endif
