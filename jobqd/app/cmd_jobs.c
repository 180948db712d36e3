/* cmd_jobs.c: `jobs`, `job`, `cancel` and `retry`: to look at jobs, and to steer single
 * ones. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/app/commands.h"
#include "jobqd/app/session.h"
#include "jobqd/app/table.h"
#include "libjobq/error.h"

extern const char sql_jobs_list[], sql_job_states[], sql_job_show[], sql_job_errors[],
    sql_job_cancel[], sql_job_retry[];

/* ---- jobs ---- */

/* A state that is none is told with the list of those that are. */
static int
check_state(struct session *session, const char *state, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = session_query(session, sql_job_states, 1, &state, &result, err);
    if (rc != 0)
        return rc;
    if (*PQgetvalue(result, 0, 1) != 't')
        rc = jobq__error(err, JOBQ_EINVAL, "--state: \"%s\" is not allowed: %s", state,
                         PQgetvalue(result, 0, 0));
    PQclear(result);
    return rc;
}

static int
list(struct session *session, const struct cli *cli, const char *limit, jobq_error *err)
{
    const char *params[] = {cli_get(cli, "state"), cli_get(cli, "queue"),
                            cli_get(cli, "kind"), limit};
    PGresult *result = NULL;
    int rc = params[0] != NULL ? check_state(session, params[0], err) : 0;
    if (rc == 0)
        rc = session_query(session, sql_jobs_list, 4, params, &result, err);
    if (rc != 0)
        return rc;
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
    jobq_error err = {0};
    int64_t limit = 20;
    char text[32];
    if (cli_get_int(cli, "limit", 1, 100000, &limit, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    snprintf(text, sizeof text, "%lld", (long long)limit);
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && list(&session, cli, text, &err) != 0)
        code = cli_fail(cli, &err);
    session_close(&session);
    return code;
}

static const struct cli_option jobs_options[] = {
    {"state", "STATE",
     "only those in this state: scheduled, available, executing, retryable, suspended, "
     "completed, cancelled or discarded"},
    {"queue", "QUEUE", "only those of this queue"},
    {"kind", "KIND", "only those of this kind"},
    {"limit", "N", "how many, the newest first (1 to 100000; default: 20)"},
    {0}};

const struct command command_jobs = {
    .name = "jobs",
    .args = "",
    .summary = "Lists jobs, waiting, running and ended, the newest first",
    .details = "AT is when the job ended, or when its attempt began, or when it was or "
               "is due.\n",
    .options = jobs_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .run = run_jobs};

/* ---- job ---- */

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
        printf("  attempt %s  %s  ", PQgetvalue(result, row, 0),
               PQgetvalue(result, row, 1));
        table_print_value(stdout, PQgetvalue(result, row, 2), NULL);
        fputs(": ", stdout);
        table_print_value(stdout, PQgetvalue(result, row, 3), NULL);
        putchar('\n');
        print_block("detail", result, row, 4);
        print_block("output", result, row, 5);
        print_block("more", result, row, 6);
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
    if (rc == 0 && cli->json)
        printf("%s\n", PQgetvalue(facts, 0, 2));
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
run_job(struct cli *cli)
{
    struct session session = {0};
    jobq_error err = {0};
    if (cli_job_id(cli->args[0], &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && show(&session, cli, &err) != 0)
        code = cli_fail(cli, &err);
    session_close(&session);
    return code;
}

const struct command command_job = {.name = "job",
                                    .args = "ID",
                                    .summary =
                                        "Shows one job: what it is, where it stands, and "
                                        "what went wrong, attempt by attempt",
                                    .flags = CLI_DATABASE_FLAGS,
                                    .json = true,
                                    .min_args = 1,
                                    .max_args = 1,
                                    .run = run_job};

/* ---- cancel and retry ---- */

/* One job; done is what has become of it. JOBQ_ESTATE when its state does not allow it.
 */
static int
steer(struct session *session, const char *sql, const char *verb, const char *done,
      const char *id, bool json, bool first, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = session_query(session, sql, 1, &id, &result, err);
    if (rc != 0)
        return rc;
    if (*PQgetvalue(result, 0, 0) != 't')
        rc = jobq__error(err, JOBQ_ESTATE, "job %s: cannot %s it: it is %s", id, verb,
                         PQgetvalue(result, 0, 1));
    else if (json)
        printf("%s%s", first ? "" : ",", id);
    else
        printf("job %s: %s\n", id, done);
    PQclear(result);
    return rc;
}

/* Each id by itself: one that cannot be done does not keep the others from it. The exit
 * code is the last failure's.
 */
static int
steer_all(struct cli *cli, const char *sql, const char *verb, const char *done)
{
    struct session session = {0};
    jobq_error err = {0};
    for (int i = 0; i < cli->n_args; i++) {
        if (cli_job_id(cli->args[i], &err) != 0)
            return cli_fail_as(cli, EX_USAGE, &err);
    }
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code != EX_OK) {
        session_close(&session);
        return code;
    }
    bool first = true;
    if (cli->json)
        printf("{\"%s\":[", done);
    for (int i = 0; i < cli->n_args; i++) {
        int rc = steer(&session, sql, verb, done, cli->args[i], cli->json, first, &err);
        if (rc == 0)
            first = false;
        else
            code = cli_fail(cli, &err);
        if (rc == JOBQ_ECONN)
            break;
    }
    if (cli->json)
        puts("]}");
    session_close(&session);
    return code;
}

static int
run_cancel(struct cli *cli)
{
    return steer_all(cli, sql_job_cancel, "cancel", "cancelled");
}

static int
run_retry(struct cli *cli)
{
    return steer_all(cli, sql_job_retry, "retry", "available");
}

const struct command command_cancel = {
    .name = "cancel",
    .args = "ID...",
    .summary = "Ends jobs that wait: they will not run",
    .details = "Each job by itself: the exit code says whether all of them could be "
               "cancelled.\n",
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = -1,
    .run = run_cancel};

const struct command command_retry = {
    .name = "retry",
    .args = "ID...",
    .summary = "Makes jobs available that have ended or wait for their time",
    .details = "The attempts so far and their errors are kept; max_attempts is raised if "
               "none is left.\n",
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = -1,
    .run = run_retry};
