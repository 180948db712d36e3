/* bench_inserters.h: many connections, a process each, that insert jobs for a while. */
#ifndef JOBQD_BENCH_INSERTERS_H
#define JOBQD_BENCH_INSERTERS_H

#include <jobq/error.h>
#include <stddef.h>

#include "jobqd/bench/bench_cluster.h"

/* X(enumerator, its name in the report, jobs a call and transaction, its statement; NULL:
 * libjobq's function) */
#define INSERT_WAYS(X)                                                                   \
    X(INSERT_LIBJOBQ, "jobq_enqueue", 1, NULL)                                           \
    X(INSERT_LIBJOBQ_MANY, "jobq_enqueue_many_of_1000", 1000, NULL)                      \
    X(INSERT_PLAIN, "sql_insert", 1, sql_bench_insert)                                   \
    X(INSERT_ENQUEUE, "sql_enqueue", 1, sql_bench_enqueue)                               \
    X(INSERT_MANY, "sql_enqueue_many_of_1000", 1000, sql_bench_enqueue_many)

enum insert_way {
#define X(id, name, jobs, sql) id,
    INSERT_WAYS(X)
#undef X
        INSERT_WAY_COUNT
};

enum { INSERTERS_MAX = 64 };

const char *insert_way_name(enum insert_way way);

/* Jobs a second of all connections together, over `seconds`, after half a second that
 * does not count. */
int bench_insert(struct bench *bench, enum insert_way way, size_t connections,
                 double seconds, double *rate, jobq_error *err);

#endif
