/* bench.h: jobq-bench, which `jobqd bench` executes: measures that jobqd, as a process
 * with real worker processes, on a database of its own.
 *
 *     bench.c            the measurements
 *     bench_options.c    the options that several share
 *     bench_cluster.c    the database, the schema and the temporary directory
 *     bench_daemon.c     the jobqd under test, and what it used
 *     bench_shared.c     a page of memory that bench and the workers share
 *     bench_worker.c     the worker that does nothing
 *     bench_inserters.c  many connections that insert at once
 *     bench_report.c     what is printed
 *     bench_drain.c, _limit.c, _explain.c, _memory.c, _latency.c, _enqueue.c, _wakeup.c
 *                        the measurements
 */
#ifndef JOBQD_BENCH_H
#define JOBQD_BENCH_H

#include "jobqd/cli/cli.h"

/* argv[1] is the measurement. Returns the exit code. JOBQ_BENCH_JOBQD in the environment
 * is the path of the jobqd to be measured. */
int bench_main(int argc, char **argv);

#endif
