/* cmd_jobs.c: `jobs`, `job`, `cancel` and `retry`: to look at jobs, and to steer single
 * ones. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/commands/commands.h"
#include "jobqd/cli/session.h"
#include "jobqd/cli/table.h"
#include "libjobq/buf.h"
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
        printf("  attempt %s  %s  ", PQgetvalue(result, row, 0),
               PQgetvalue(result, row, 1));
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

/* What a job is told, and how to say what has become of it. */
struct steering {
    const char *sql;
    const char *verb;
    const char *done;    /* its state then */
    const char *running; /* what happens to one that runs; NULL: that is not allowed */
};

/* The ids for --json, as lists. */
struct steered {
    struct jobq__buf done;
    struct jobq__buf running;
};

static void
note(struct jobq__buf *ids, const char *id)
{
    if (ids->len > 0)
        jobq__buf_addc(ids, ',');
    jobq__buf_adds(ids, id);
}

/* One job. JOBQ_ESTATE when its state does not allow it. */
static int
steer(struct session *session, const struct steering *how, const char *id, bool json,
      struct steered *steered, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = session_query(session, how->sql, 1, &id, &result, err);
    if (rc != 0)
        return rc;
    bool done = *PQgetvalue(result, 0, 0) == 't';
    const char *state = PQgetvalue(result, 0, 1);
    bool running = how->running && strcmp(state, "executing") == 0;
    if (!done && !running)
        rc = jobq__error(err, JOBQ_ESTATE, "job %s: cannot %s it: it is %s", id,
                         how->verb, state);
    else if (json)
        note(done ? &steered->done : &steered->running, id);
    else
        printf("job %s: %s\n", id, done ? how->done : how->running);
    PQclear(result);
    return rc;
}

/* {"cancelled":[1,2],"stopping":[3]}; the second list only when there is any. */
static void
print_steered(const struct steering *how, struct steered *steered)
{
    const char *done = jobq__buf_cstr(&steered->done);
    const char *running = jobq__buf_cstr(&steered->running);
    printf("{\"%s\":[%s]", how->done, done ? done : "");
    if (steered->running.len > 0 && running)
        printf(",\"stopping\":[%s]", running);
    puts("}");
}

/* Each id by itself: one that cannot be done does not keep the others from it. The exit
 * code is the last failure's.
 */
static int
steer_all(struct cli *cli, const struct steering *how)
{
    struct session session = {0};
    struct steered steered = {{0}, {0}};
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
    for (int i = 0; i < cli->n_args; i++) {
        int rc = steer(&session, how, cli->args[i], cli->json, &steered, &err);
        if (rc != 0)
            code = cli_fail(cli, &err);
        if (rc == JOBQ_ECONN)
            break;
    }
    if (cli->json)
        print_steered(how, &steered);
    jobq__buf_clear(&steered.done);
    jobq__buf_clear(&steered.running);
    session_close(&session);
    return code;
}

static int
run_cancel(struct cli *cli)
{
    static const struct steering how = {sql_job_cancel, "cancel", "cancelled",
                                        "runs, its node is asked to stop it"};
    return steer_all(cli, &how);
}

static int
run_retry(struct cli *cli)
{
    static const struct steering how = {sql_job_retry, "retry", "available", NULL};
    return steer_all(cli, &how);
}

const struct command command_cancel = {
    .name = "cancel",
    .args = "ID...",
    .summary = "Ends jobs: those that wait at once, those that run are told to stop",
    .details =
        "A running job is told to stop; after stop_grace its process gets SIGTERM, "
        "after that\nonce more SIGKILL. It ends as cancelled, or as completed if "
        "it is done before that.\nEach job by itself: the exit code says whether "
        "all of them could be cancelled.\n",
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
               "none is left,\nand crashes are counted anew for max_crashes.\n",
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = -1,
    .run = run_retry};
