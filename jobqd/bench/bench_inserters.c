/* bench_inserters.c: see bench_inserters.h. The processes start together, and share a
 * page of memory for their counts. */
#include "jobqd/bench/bench_inserters.h"

#include <errno.h>
#include <jobq/job.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/base/sqltext.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

enum { WARM_UP_MS = 500, POLL_US = 1000 };

/* One connection's share of the page. */
struct inserter {
    int64_t jobs; /* while it counted */
    int64_t ns;
    jobq_error error;
};

struct inserters {
    _Atomic size_t ready;
    _Atomic bool go;
    _Atomic bool stop;
    struct inserter each[INSERTERS_MAX];
};

extern const char sql_bench_insert[], sql_bench_enqueue[], sql_bench_enqueue_many[];

static const struct {
    const char *name;
    size_t jobs;
    const char *sql;
} ways[] = {
#define X(id, name, jobs, sql) [id] = {name, jobs, sql},
    INSERT_WAYS(X)
#undef X
};

const char *
insert_way_name(enum insert_way way)
{
    return ways[way].name;
}

/* ---- In a child ---- */

/* The connection, and what is given to it again and again. */
struct source {
    enum insert_way way;
    PGconn *conn;
    char *text;
    struct jobq__buf argument; /* of the statement */
    jobq_job *jobs;            /* or of libjobq's function */
};

static int
put_argument(struct source *source)
{
    struct jobq__buf *buf = &source->argument;
    size_t n = ways[source->way].jobs;
    if (n == 1) {
        jobq__buf_adds(buf, "{\"n\": 123}");
    } else if (n > 1) {
        cJSON *jobs = cJSON_CreateArray();
        for (size_t i = 0; i < n; i++) {
            cJSON *job = tree_add_object(jobs, NULL);
            tree_add_text(job, "kind", "noop");
            tree_add_text(job, "queue", "bench");
            tree_add_int(tree_add_object(job, "args"), "n", (int64_t)i);
        }
        tree_put(buf, jobs);
    }
    return jobq__buf_cstr(buf) != NULL ? 0 : JOBQ_ENOMEM;
}

static int
put_jobs(struct source *source, const char *schema)
{
    size_t n = ways[source->way].jobs;
    source->jobs = calloc(n, sizeof *source->jobs);
    for (size_t i = 0; source->jobs != NULL && i < n; i++) {
        const jobq_job job = JOBQ_JOB_INIT;
        source->jobs[i] = job;
        source->jobs[i].schema = schema;
        source->jobs[i].kind = "noop";
        source->jobs[i].queue = "bench";
        source->jobs[i].args = "{\"n\": 123}";
    }
    return source->jobs != NULL ? 0 : JOBQ_ENOMEM;
}

static int
check(PGconn *conn, PGresult *result, jobq_error *err)
{
    ExecStatusType status = PQresultStatus(result);
    int rc = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
                 ? 0
                 : jobq__error(err, JOBQ_EDB, "%s", PQerrorMessage(conn));
    PQclear(result);
    return rc;
}

static int
open_source(struct source *source, const struct bench *bench, jobq_error *err)
{
    const char *sql = ways[source->way].sql;
    int rc = bench_connect(bench, &source->conn, err);
    if (rc == 0 && sql != NULL)
        rc = sqltext_expand(sql, bench->schema, &source->text, err);
    if (rc == 0 && sql != NULL)
        rc = check(source->conn, PQprepare(source->conn, "insert", source->text, 0, NULL),
                   err);
    if (rc == 0 && (sql != NULL ? put_argument(source) : put_jobs(source, bench->schema)))
        rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
    return rc;
}

static void
close_source(struct source *source)
{
    PQfinish(source->conn);
    jobq__buf_clear(&source->argument);
    free(source->text);
    free(source->jobs);
}

/* One call, one transaction. */
static int
insert(struct source *source, jobq_error *err)
{
    const char *const params[] = {source->argument.data};
    size_t n = ways[source->way].jobs;
    if (ways[source->way].sql != NULL)
        return check(source->conn,
                     PQexecPrepared(source->conn, "insert", 1, params, NULL, NULL, 0),
                     err);
    return n == 1 ? jobq_enqueue(source->conn, source->jobs, NULL, err)
                  : jobq_enqueue_many(source->conn, source->jobs, n, NULL, err);
}

/* Inserts until the time is over; counts after the warming up. */
static int
insert_for(struct source *source, double seconds, const struct inserters *all,
           struct inserter *mine)
{
    int64_t now_ns = bench_now_ns();
    int64_t from_ns = now_ns + WARM_UP_MS * INT64_C(1000000);
    int64_t to_ns = from_ns + (int64_t)(seconds * 1e9);
    int64_t counted_ns = 0;
    int rc = 0;
    while (rc == 0 && now_ns < to_ns && !atomic_load(&all->stop)) {
        rc = insert(source, &mine->error);
        now_ns = bench_now_ns();
        if (counted_ns == 0 && now_ns >= from_ns)
            counted_ns = now_ns;
        else if (counted_ns != 0)
            mine->jobs += (int64_t)ways[source->way].jobs;
    }
    mine->ns = counted_ns != 0 ? now_ns - counted_ns : 0;
    return rc;
}

static int
work(const struct bench *bench, enum insert_way way, double seconds,
     struct inserters *all, struct inserter *mine)
{
    struct source source = {.way = way};
    int rc = open_source(&source, bench, &mine->error);
    atomic_fetch_add(&all->ready, 1);
    while (rc == 0 && !atomic_load(&all->go))
        usleep(POLL_US);
    if (rc == 0)
        rc = insert_for(&source, seconds, all, mine);
    close_source(&source);
    return rc;
}

/* ---- In bench ---- */

static int
start(struct bench *bench, enum insert_way way, size_t n, double seconds,
      struct inserters *all, pid_t pids[], jobq_error *err)
{
    fflush(stdout);
    for (size_t i = 0; i < n; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            signal(SIGINT, SIG_IGN); /* bench tells it */
            /* _exit: bench's own connections are not ours to close. */
            _exit(work(bench, way, seconds, all, &all->each[i]) == 0 ? 0 : 1);
        }
        if (pids[i] < 0)
            return jobq__error(err, JOBQ_EIO, "cannot fork: %s", strerror(errno));
    }
    int rc = 0;
    while (rc == 0 && atomic_load(&all->ready) < n)
        rc = bench_pause_us(POLL_US, err);
    return rc;
}

/* Waits for all; the first one's error is told. */
static int
collect(struct inserters *all, size_t n, const pid_t pids[], double *rate,
        jobq_error *err)
{
    int rc = 0;
    *rate = 0;
    for (size_t i = 0; i < n && pids[i] > 0; i++) {
        int status = 0;
        while (waitpid(pids[i], &status, 0) < 0 && errno == EINTR) {
            if (bench_pause_us(0, NULL) != 0)
                atomic_store(&all->stop, true);
        }
        const struct inserter *each = &all->each[i];
        if (rc == 0 && each->error.code != 0)
            rc = jobq__error(err, each->error.code, "%s", each->error.message);
        else if (rc == 0 && status != 0)
            rc = jobq__error(err, JOBQ_EIO, "an inserting process died");
        if (each->ns > 0)
            *rate += (double)each->jobs * 1e9 / (double)each->ns;
    }
    return rc == 0 ? bench_pause_us(0, err) : rc;
}

int
bench_insert(struct bench *bench, enum insert_way way, size_t connections, double seconds,
             double *rate, jobq_error *err)
{
    pid_t pids[INSERTERS_MAX] = {0};
    struct inserters *all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    int rc = start(bench, way, connections, seconds, all, pids, err);
    if (rc != 0)
        atomic_store(&all->stop, true);
    atomic_store(&all->go, true);
    int collected = collect(all, connections, pids, rate, rc == 0 ? err : NULL);
    munmap(all, sizeof *all);
    return rc == 0 ? collected : rc;
}
