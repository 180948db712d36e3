/* bench_explain.c: `jobqd bench explain`: the claim's plan, and what it reads, when few
 * and when many jobs wait. The statement is prepared once, while the table is empty: the
 * worst moment for a plan that stays. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/bench/bench_private.h"
#include "jobqd/db/query.h"
#include "jobqd/db/store_private.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

extern const char sql_work_setup[], sql_bench_node[], sql_bench_explain[];

enum { FEW = 1000, CLAIM_512 = 9 };

static int
put_plan(struct bench *bench, const PGresult *rows, int64_t jobs, jobq_error *err)
{
    char name[64];
    struct jobq__buf text = {0};
    for (int row = 0; row < PQntuples(rows); row++) {
        if (row > 0)
            jobq__buf_addc(&text, '\n');
        jobq__buf_adds(&text, PQgetvalue(rows, row, 0));
    }
    const char *whole = jobq__buf_cstr(&text);
    snprintf(name, sizeof name, "claim_512_of_%" PRId64 "_available", jobs);
    if (whole != NULL)
        report_text(&bench->report, name, whole);
    jobq__buf_clear(&text);
    return whole != NULL ? 0 : jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

/* In a transaction that is taken back: the jobs stay available. */
static int
explain(struct bench *bench, PGconn *conn, int64_t jobs, jobq_error *err)
{
    PGresult *rows = NULL;
    const char *schema = bench->schema;
    int rc = query_begin(conn, "", err);
    if (rc == 0)
        rc = query(conn, schema, sql_bench_node, 0, NULL, NULL, err);
    if (rc == 0)
        rc = query(conn, schema, sql_bench_explain, 0, NULL, &rows, err);
    if (rc == 0)
        rc = put_plan(bench, rows, jobs, err);
    PQclear(rows);
    int ended = query(conn, schema, "ROLLBACK", 0, NULL, NULL, rc == 0 ? err : NULL);
    return rc == 0 ? ended : rc;
}

static int
prepare(struct bench *bench, PGconn *conn, jobq_error *err)
{
    struct store_sql sql;
    int rc = query(conn, bench->schema, sql_work_setup, 0, NULL, NULL, err);
    if (rc == 0)
        rc = store_sql_init(&sql, bench->schema, err);
    if (rc != 0)
        return rc;
    PGresult *result =
        PQprepare(conn, sql.claim_names[CLAIM_512], sql.claims[CLAIM_512], 0, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        rc = jobq__error(err, JOBQ_EDB, "%s", PQresultErrorMessage(result));
    PQclear(result);
    store_sql_clear(&sql);
    return rc;
}

int
bench_explain_claim(struct bench *bench, int64_t most, jobq_error *err)
{
    PGconn *conn = NULL;
    int rc = bench_fresh_schema(bench, err);
    if (rc == 0)
        rc = bench_connect(bench, &conn, err);
    if (rc == 0)
        rc = prepare(bench, conn, err);
    if (rc == 0)
        rc = explain(bench, conn, 0, err);
    if (rc == 0)
        rc = bench_preload(bench, FEW, err);
    if (rc == 0)
        rc = explain(bench, conn, FEW, err);
    if (rc == 0 && most > FEW)
        rc = bench_preload(bench, most - FEW, err);
    if (rc == 0 && most > FEW)
        rc = explain(bench, conn, most, err);
    PQfinish(conn);
    return rc;
}

static int
run(struct cli *cli)
{
    struct bench bench;
    int64_t most = 1000000;
    jobq_error err = {0};
    if (cli_get_int(cli, "jobs", FEW, 100000000, &most, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = bench_open(&bench, cli);
    if (code == EX_OK && bench_explain_claim(&bench, most, &err) != 0)
        code = cli_fail(cli, &err);
    return bench_close(&bench, code);
}

static const struct cli_option options_table[] = {
    {"jobs", "N", "the largest backlog (default: 1000000)"}, BENCH_OPTIONS};

const struct command bench_explain = {
    .name = "bench explain",
    .args = "",
    .summary = "The claim's EXPLAIN (ANALYZE, BUFFERS) at 0, 1,000 and 1,000,000 jobs",
    .options = options_table,
    .flags = CLI_DATABASE_FLAGS,
    .named_file_only = true, /* else it would measure the host's own database */
    .json = true,
    .run = run};
