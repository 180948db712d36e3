/* bench_cluster.h: where a measurement takes place: a temporary directory, a database
 * (private unless the command line names one), and a schema that is made for it and
 * dropped after it. */
#ifndef JOBQD_BENCH_CLUSTER_H
#define JOBQD_BENCH_CLUSTER_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "jobqd/bench/bench_report.h"
#include "jobqd/bench/bench_shared.h"
#include "jobqd/cli/cli.h"
#include "jobqd/embedded/postgres.h"
#include "jobqd/cli/session.h"

struct bench {
    const struct cli *cli;
    char dir[PATH_MAX / 2];            /* the temporary directory; "" until it is made */
    struct session session;            /* of the database that the command line names */
    struct embedded_session *embedded; /* else the private one */
    char *uri;                         /* NULL: libpq's environment names it */
    const char *schema;                /* jobq_bench… */
    bool owns_schema;                  /* made here, so to be dropped */
    PGconn *conn;                      /* bench's own; never measured */
    struct bench_shared *shared;
    struct report report;
};

/* Brings everything up: an empty, migrated schema and a begun report. Returns the exit
 * code, having told on stderr what is wrong. bench_close also after a failure. */
int bench_open(struct bench *bench, const struct cli *cli);
/* Ends the report when code is 0, and takes everything down. Returns code. */
int bench_close(struct bench *bench, int code);

/* Drops the schema and makes it anew. */
int bench_fresh_schema(struct bench *bench, jobq_error *err);

/* Statements on bench's own connection. bench_value: the first column of the first row.
 */
int bench_run(struct bench *bench, const char *sql, const int64_t *param, PGresult **out,
              jobq_error *err);
int bench_value(struct bench *bench, const char *sql, const int64_t *param, int64_t *out,
                jobq_error *err);
/* Another connection to the same database; the caller's to PQfinish. */
int bench_connect(const struct bench *bench, PGconn **out, jobq_error *err);

/* Adds n jobs to the queue `bench`, and lets Postgres count them. */
int bench_preload(struct bench *bench, int64_t n, jobq_error *err);
/* The log's position, in bytes: differences count. */
int bench_wal(struct bench *bench, int64_t *out, jobq_error *err);

/* Sleeps; JOBQ_ESTATE when bench was told to stop (INT, TERM) meanwhile or before. */
int bench_pause_us(int64_t us, jobq_error *err);

#endif
