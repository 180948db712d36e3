/* cmd_jobs.c: `jobs` and `job`: to look at jobs. */
#include <jobq/job.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/commands/commands.h"
#include "jobqd/commands/jobs_filter.h"
#include "jobqd/base/escape.h"
#include "jobqd/cli/session.h"
#include "jobqd/cli/table.h"
#include "libjobq/backoff.h"
#include "libjobq/error.h"

extern const char sql_jobs_list[], sql_job_show[], sql_job_errors[];

/* ---- jobs ---- */

static int
list(struct session *session, const struct cli *cli, const struct jobs_filter *filter,
     jobq_error *err)
{
    PGresult *result = NULL;
    const char *values[JOBS_FILTER_PARAMS + 1];
    memcpy(values, filter->values, sizeof filter->values);
    values[JOBS_FILTER_PARAMS] = cli->json ? "true" : "false";
    int rc = jobs_filter_check_state(filter, session, err);
    if (rc == 0)
        rc = session_query(session, sql_jobs_list, JOBS_FILTER_PARAMS + 1, values,
                           &result, err);
    if (rc != 0)
        return jobs_filter_time_fault(filter, rc, err);
    if (cli->json) {
        table_print_json(stdout, result, PQnfields(result) - 1);
        putchar('\n');
    } else {
        table_print(stdout, result, PQnfields(result) - 1);
    }
    PQclear(result);
    return 0;
}

static int
run_jobs(struct cli *cli)
{
    struct session session = {0};
    struct jobs_filter filter;
    jobq_error err = {0};
    if (jobs_filter_read(&filter, cli, 100000, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    if (!filter.values[JOBS_FILTER_LIMIT])
        filter.values[JOBS_FILTER_LIMIT] = "20";
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && list(&session, cli, &filter, &err) != 0)
        code = cli_fail(cli, &err);
    session_close(&session);
    return code;
}

static const struct cli_option jobs_options[] = {
    JOBS_FILTER_OPTIONS,
    {"limit", "N", "how many to list, newest first (1 to 100000; default: 20)"},
    {0}};

const struct command command_jobs = {
    .name = "jobs",
    .role = "jobq_viewer",
    .args = "",
    .summary = "List waiting, running and ended jobs, newest first",
    .details = "AT is a time in UTC: when the job finished; if it is running, when its "
               "attempt started; otherwise when it was or is due.",
    .examples = "jobqd jobs --queue mail --state retryable\n"
                "jobqd jobs --older-than 1h --state available,executing\n"
                "jobqd jobs --limit 100 --json",
    .options = jobs_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .run = run_jobs};

/* ---- job ---- */

static void
print_line(const PGresult *result, int row, int column)
{
    if (PQgetisnull(result, row, column))
        return;
    fputs("    ", stdout);
    table_print_value(stdout, PQgetvalue(result, row, column), NULL);
    putchar('\n');
}

static void
print_block(const char *label, const PGresult *result, int row, int column)
{
    if (PQgetisnull(result, row, column))
        return;
    printf("    %s:\n      ", label);
    table_print_value(stdout, PQgetvalue(result, row, column), "      ");
    putchar('\n');
}

static void
print_errors(const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        fputs("  attempt ", stdout);
        table_print_value(stdout, PQgetvalue(result, row, 0), NULL);
        fputs("  ", stdout);
        table_print_value(stdout, PQgetvalue(result, row, 1), NULL);
        fputs("  ", stdout);
        table_print_value(stdout, PQgetvalue(result, row, 2), NULL);
        fputs(": ", stdout);
        table_print_value(stdout, PQgetvalue(result, row, 3), NULL);
        putchar('\n');
        print_line(result, row, 4);
        print_block("detail", result, row, 5);
        print_block("output", result, row, 6);
        print_line(result, row, 7);
        print_block("more", result, row, 8);
    }
}

static int
show(struct session *session, const struct cli *cli, jobq_error *err)
{
    PGresult *facts = NULL, *errors = NULL;
    const char *id = cli->args[0];
    int rc = session_query(session, sql_job_show, 1, &id, &facts, err);
    if (rc == 0 && PQntuples(facts) == 0)
        rc = jobq__error(err, JOBQ_ENOTFOUND, "no job has the id %s", id);
    if (rc == 0 && cli->json) {
        escape_print_json(stdout, PQgetvalue(facts, 0, 2));
        putchar('\n');
    }
    if (rc == 0 && !cli->json)
        rc = session_query(session, sql_job_errors, 1, &id, &errors, err);
    if (rc == 0 && !cli->json) {
        printf("job %s\n", id);
        for (int row = 0; row < PQntuples(facts); row++) {
            printf("  %-11s ", PQgetvalue(facts, row, 0));
            table_print_value(stdout, PQgetvalue(facts, row, 1), NULL);
            putchar('\n');
        }
        if (PQntuples(errors) > 0)
            puts("errors");
        print_errors(errors);
    }
    PQclear(errors);
    PQclear(facts);
    return rc;
}

static int
read_wait(const struct cli *cli, int64_t *ms, jobq_error *err)
{
    const char *text = cli_get(cli, "wait");
    jobq_error why = {0};
    if (!text)
        return 0;
    int rc = jobq__duration_parse(text, ms, &why);
    return rc == 0 ? 0 : jobq__error(err, rc, "--wait: %s", why.message);
}

/* Waits for its end. The time may be over first: then it is shown as it is, and the exit
 * code tells. */
static int
wait_for_end(const struct session *session, const struct cli *cli, int64_t ms,
             jobq_error *err)
{
    jobq_job_info *info = NULL;
    int rc = jobq_job_wait(session->conn, session->config->schema,
                           strtoll(cli->args[0], NULL, 10), ms, &info, err);
    if (rc == 0)
        jobq_job_info_free(info);
    return rc;
}

static int
run_job(struct cli *cli)
{
    struct session session = {0};
    jobq_error err = {0}, late = {0};
    int64_t wait_ms = -1;
    int waited = 0;
    if (cli_job_id(cli->args[0], &err) != 0 || read_wait(cli, &wait_ms, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && wait_ms >= 0)
        waited = wait_for_end(&session, cli, wait_ms, &late);
    if (waited < 0 && waited != JOBQ_ETIMEOUT)
        code = cli_fail(cli, &late);
    if (code == EX_OK && show(&session, cli, &err) != 0)
        code = cli_fail(cli, &err);
    if (code == EX_OK && waited < 0)
        code = cli_fail(cli, &late);
    session_close(&session);
    return code;
}

static const struct cli_option job_options[] = {
    {"wait", "TIME",
     "wait up to this long for the job to finish before showing it: 90s, 5m"},
    {0}};

const struct command command_job = {
    .name = "job",
    .role = "jobq_viewer",
    .args = "ID",
    .summary = "Show one job: its details, its state, and the error of each attempt",
    .details = "If the job has not finished when --wait times out, its current state is "
               "shown, and the exit code is 75.",
    .examples = "jobqd job 42\n"
                "jobqd job 42 --wait 5m",
    .options = job_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = 1,
    .run = run_job};
