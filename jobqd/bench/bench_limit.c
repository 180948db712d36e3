/* bench_limit.c: `jobqd bench limit`: the claim and ack statements from one bare
 * connection, without workers and without jobqd's loop: what Postgres alone can do.
 *
 * One round trip claims a batch and acknowledges the one before, as jobqd's cycle does:
 * same texts, parameters, session settings and pipeline mode.
 */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/bench/bench_private.h"
#include "jobqd/db/store_private.h"
#include "libjobq/error.h"

extern const char sql_work_setup[], sql_bench_node[];

/* The connection and what a round trip needs. */
struct limit {
    PGconn *conn;
    struct store_sql sql;
    const char *claim; /* the prepared statement's name */
    bool keep;
    int64_t node;
    int64_t cursors[CURSOR_PRIORITIES];
    int64_t ids[STORE_MAX_CLAIM]; /* claimed, to be acknowledged */
    int64_t attempts[STORE_MAX_CLAIM];
    size_t n;
    struct jobq__array arrays[3];
};

static int
fail(const struct limit *limit, const PGresult *result, jobq_error *err)
{
    const char *message = result != NULL ? PQresultErrorMessage(result) : "";
    if (*message == '\0')
        message = PQerrorMessage(limit->conn);
    return jobq__error(err, JOBQ_EDB, "%.*s", (int)strcspn(message, "\n"), message);
}

static int
send_statement(struct limit *limit, const char *name, const struct jobq__params *params,
               jobq_error *err)
{
    if (params->failed)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    return PQsendQueryPrepared(limit->conn, name, params->n, params->values,
                               params->lengths, params->formats, 1) == 1
               ? 0
               : fail(limit, NULL, err);
}

static int
send_ack(struct limit *limit, jobq_error *err)
{
    struct jobq__params params = {0};
    struct jobq__array *attempts = &limit->arrays[1];
    jobq__params_int8_array(&params, &limit->arrays[0], limit->ids, limit->n);
    jobq__array_begin(attempts, JOBQ__INT4);
    for (size_t i = 0; i < limit->n; i++)
        jobq__array_add_int4(attempts, (int32_t)limit->attempts[i]);
    jobq__params_array(&params, JOBQ__INT4_ARRAY, attempts);
    jobq__params_int8(&params, limit->node);
    return send_statement(limit, "ack", &params, err);
}

static int
send_claim(struct limit *limit, jobq_error *err)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, "bench");
    jobq__params_int8_array(&params, &limit->arrays[2], limit->cursors,
                            CURSOR_PRIORITIES);
    jobq__params_int8(&params, limit->node);
    jobq__params_int8(&params, 0);
    return send_statement(limit, limit->claim, &params, err);
}

/* The next result that the server sends: NULL on an error, which err tells. */
static PGresult *
receive(struct limit *limit, ExecStatusType wanted, jobq_error *err)
{
    PGresult *result = PQgetResult(limit->conn);
    if (PQresultStatus(result) != wanted) {
        fail(limit, result, err);
        PQclear(result);
        return NULL;
    }
    if (wanted != PGRES_PIPELINE_SYNC)
        PQclear(PQgetResult(limit->conn)); /* the NULL that ends a statement */
    return result;
}

static int
receive_ack(struct limit *limit, jobq_error *err)
{
    PGresult *result = receive(limit, PGRES_COMMAND_OK, err);
    if (!result)
        return JOBQ_EDB;
    size_t acked = jobq__affected(result);
    PQclear(result);
    return acked == limit->n ? 0
                             : jobq__error(err, JOBQ_EDB, "%zu of %zu acks were accepted",
                                           acked, limit->n);
}

static int
receive_claim(struct limit *limit, jobq_error *err)
{
    PGresult *rows = receive(limit, PGRES_TUPLES_OK, err);
    if (!rows)
        return JOBQ_EDB;
    limit->n = (size_t)PQntuples(rows);
    for (size_t i = 0; i < limit->n; i++) {
        int64_t position = 0;
        jobq__field_int(rows, (int)i, 0, &limit->ids[i]);
        jobq__field_int(rows, (int)i, 1, &position);
        jobq__field_int(rows, (int)i, 3, &limit->attempts[i]);
        if (position > limit->cursors[0])
            limit->cursors[0] = position;
    }
    PQclear(rows);
    return 0;
}

/* One transaction: acknowledges what was claimed in the last one, and claims. */
static int
cycle(struct limit *limit, jobq_error *err)
{
    bool acks = limit->n > 0;
    int rc = acks ? send_ack(limit, err) : 0;
    if (rc == 0)
        rc = send_claim(limit, err);
    if (rc == 0 && PQpipelineSync(limit->conn) != 1)
        rc = fail(limit, NULL, err);
    if (rc == 0 && acks)
        rc = receive_ack(limit, err);
    if (rc == 0)
        rc = receive_claim(limit, err);
    if (rc == 0) {
        PGresult *sync = receive(limit, PGRES_PIPELINE_SYNC, err);
        rc = sync != NULL ? 0 : JOBQ_EDB;
        PQclear(sync);
    }
    return rc;
}

static int
prepare(struct limit *limit, const char *name, const char *text, jobq_error *err)
{
    PGresult *result = PQprepare(limit->conn, name, text, 0, NULL);
    int rc = PQresultStatus(result) == PGRES_COMMAND_OK ? 0 : fail(limit, result, err);
    PQclear(result);
    return rc;
}

/* A node to claim for, the session as the work connection has it, the statements. */
static int
set_up(struct limit *limit, struct bench *bench,
       const struct bench_limit_options *options, jobq_error *err)
{
    size_t size = store_claim_size((size_t)options->batch);
    int rc = bench_value(bench, sql_bench_node, NULL, &limit->node, err);
    if (rc == 0)
        rc = bench_connect(bench, &limit->conn, err);
    if (rc == 0)
        rc = store_sql_init(&limit->sql, bench->schema, err);
    if (rc != 0)
        return rc;
    PGresult *result = PQexec(limit->conn, sql_work_setup);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        rc = fail(limit, result, err);
    PQclear(result);
    limit->claim = limit->sql.claim_names[size];
    limit->keep = options->keep;
    if (rc == 0)
        rc = prepare(limit, limit->claim, limit->sql.claims[size], err);
    if (rc == 0)
        rc = prepare(limit, "ack",
                     limit->sql.texts[options->keep ? STATEMENT_ack : STATEMENT_ack_drop],
                     err);
    if (rc == 0 && PQenterPipelineMode(limit->conn) != 1)
        rc = fail(limit, NULL, err);
    return rc;
}

static int
drain(struct limit *limit, int64_t jobs, double *seconds, jobq_error *err)
{
    int64_t claimed = 0;
    int64_t start_ns = bench_now_ns();
    int rc = 0;
    do {
        rc = cycle(limit, err);
        claimed += (int64_t)limit->n;
        if (rc == 0)
            rc = bench_pause_us(0, err);
    } while (rc == 0 && limit->n > 0);
    *seconds = (double)(bench_now_ns() - start_ns) / 1e9;
    if (rc == 0 && claimed != jobs)
        rc = jobq__error(err, JOBQ_EDB, "%lld of %lld jobs were claimed",
                         (long long)claimed, (long long)jobs);
    return rc;
}

int
bench_limit_round(struct bench *bench, const struct bench_limit_options *options,
                  struct bench_limit_result *out, jobq_error *err)
{
    int64_t wal_before = 0, wal_after = 0;
    struct limit *limit = calloc(1, sizeof *limit);
    if (!limit)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    int rc = bench_fresh_schema(bench, err);
    if (rc == 0)
        rc = bench_preload(bench, options->jobs, err);
    if (rc == 0)
        rc = set_up(limit, bench, options, err);
    if (rc == 0)
        rc = bench_wal(bench, &wal_before, err);
    if (rc == 0)
        rc = drain(limit, options->jobs, &out->seconds, err);
    if (rc == 0)
        rc = bench_wal(bench, &wal_after, err);
    if (rc == 0)
        out->backend_cpu_s = bench_cpu_s(PQbackendPID(limit->conn));
    out->wal_bytes = (double)(wal_after - wal_before);
    for (size_t i = 0; i < 3; i++)
        jobq__array_clear(&limit->arrays[i]);
    store_sql_clear(&limit->sql);
    PQfinish(limit->conn);
    free(limit);
    return rc;
}

/* ---- The command ---- */

static int
parse(const struct cli *cli, struct bench_limit_options *options, int64_t *rounds,
      jobq_error *err)
{
    *options = (struct bench_limit_options){.jobs = 200000, .batch = 512};
    *rounds = 1;
    int rc = cli_get_int(cli, "jobs", 1, 100000000, &options->jobs, err);
    if (rc == 0)
        rc = cli_get_int(cli, "batch", 1, STORE_MAX_CLAIM, &options->batch, err);
    if (rc == 0 && (options->batch & (options->batch - 1)) != 0)
        rc = jobq__error(err, JOBQ_EINVAL,
                         "--batch: \"%lld\" is not allowed: a power of two",
                         (long long)options->batch);
    if (rc == 0)
        rc = cli_get_int(cli, "rounds", 1, 1000, rounds, err);
    return rc == 0 ? bench_get_keep(cli, &options->keep, err) : rc;
}

static int
measure(struct bench *bench, const struct bench_limit_options *options, int64_t rounds,
        jobq_error *err)
{
    double *rates = calloc((size_t)rounds, sizeof *rates);
    int rc = rates != NULL ? 0 : jobq__error(err, JOBQ_ENOMEM, "out of memory");
    report_int(&bench->report, "jobs", options->jobs);
    report_int(&bench->report, "batch", options->batch);
    report_list(&bench->report, "rounds");
    for (int64_t i = 0; rc == 0 && i < rounds; i++) {
        struct bench_limit_result result = {0};
        rc = bench_limit_round(bench, options, &result, err);
        if (rc != 0)
            break;
        rates[i] = (double)options->jobs / result.seconds;
        report_item(&bench->report);
        report_real(&bench->report, "jobs_per_s", rates[i], 0);
        report_real(&bench->report, "wal_bytes_per_job",
                    result.wal_bytes / (double)options->jobs, 0);
        report_real(&bench->report, "backend_cpu_us_per_job",
                    result.backend_cpu_s * 1e6 / (double)options->jobs, 2);
        report_close(&bench->report);
    }
    report_close(&bench->report);
    if (rc == 0)
        report_rates(&bench->report, "best_jobs_per_s", "median_jobs_per_s", rates,
                     (size_t)rounds);
    free(rates);
    return rc;
}

static int
run(struct cli *cli)
{
    struct bench_limit_options options;
    struct bench bench;
    int64_t rounds = 0;
    jobq_error err = {0};
    if (parse(cli, &options, &rounds, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = bench_open(&bench, cli);
    if (code == EX_OK && measure(&bench, &options, rounds, &err) != 0)
        code = cli_fail(cli, &err);
    return bench_close(&bench, code);
}

static const struct cli_option options_table[] = {
    {"jobs", "N", "how many jobs (default: 200000)"},
    {"batch", "N", "jobs per round trip, a power of two up to 1024 (default: 512)"},
    {"keep", "WORD",
     "whether completed jobs go to the history: all or none (default: all)"},
    {"rounds", "N", "how many rounds to measure, each on a fresh schema (default: 1)"},
    BENCH_OPTIONS};

const struct command bench_limit = {
    .name = "bench limit",
    .args = "",
    .summary = "Jobs per second of only the claim and ack statements, on one connection",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .named_file_only = true, /* else it would measure the host's own database */
    .json = true,
    .run = run};
