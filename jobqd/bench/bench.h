/* bench.h: `jobqd bench`: measures this jobqd, as a process with real worker processes,
 * on a database of its own.
 *
 *     bench.c            the sub-commands
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

extern const struct command command_bench;

/* argv[0] is "bench". Returns the exit code. */
int cmd_bench(int argc, char **argv);

#endif
