/* cmd_steer.c: `cancel`, `retry`, `delete` and `purge`: single jobs by their ids, or many
 * by what they are like. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/commands/commands.h"
#include "jobqd/commands/jobs_filter.h"
#include "jobqd/db/query.h"
#include "jobqd/cli/session.h"
#include "libjobq/error.h"
#include "libjobq/json.h"

extern const char sql_job_cancel[], sql_job_retry[], sql_job_delete[], sql_jobs_many[],
    sql_jobs_purge[], sql_steer_begin[], sql_steer_end[];

/* Runs a statement that changes jobs, in a transaction of its own. id: the job, for the
 * words on a lock; NULL: many. */
static int
act(struct session *session, const char *sql, int n, const char *const *params,
    const char *id, PGresult **out, jobq_error *err)
{
    PGresult *begun = NULL;
    char patience[32] = "?";
    int rc = query_begin(session->conn, "ISOLATION LEVEL READ COMMITTED", err);
    if (rc == 0)
        rc = session_query(session, sql_steer_begin, 0, NULL, &begun, err);
    if (rc == 0)
        snprintf(patience, sizeof patience, "%s", PQgetvalue(begun, 0, 0));
    PQclear(begun);
    if (rc == 0)
        rc = session_query(session, sql, n, params, out, err);
    jobq_error ignored;
    int ended = session_query(session, sql_steer_end, 0, NULL, NULL, rc ? &ignored : err);
    if (rc == 0 && ended != 0) {
        PQclear(*out);
        *out = NULL;
        rc = ended;
    }
    if (rc != 0 && id && strcmp(err->sqlstate, "55P03") == 0)
        rc =
            jobq__error(err, JOBQ_ESTATE,
                        "job %s: another session has locked it for more than %s; nothing "
                        "was changed",
                        id, patience);
    return rc;
}

/* ---- single ones ---- */

/* What a job is told, and how to say what has become of it. */
struct steering {
    const char *sql;
    const char *verb;
    const char *done;    /* its state then */
    const char *running; /* what happens to one that runs; NULL: that is not allowed */
    const char *many;    /* what has become of many */
    const char *states;  /* of many, where none are named; NULL: any */
    bool careful;        /* many only with --yes */
    bool retried;        /* one that the database refuses is tried again */
};

/* The ids for --json, as lists. */
struct steered {
    cJSON *answer;
    cJSON *done;
    cJSON *running; /* NULL until there is one */
};

static void
note(struct steered *steered, bool done, const char *id)
{
    if (!done && !steered->running)
        steered->running = tree_add_list(steered->answer, "stopping");
    tree_add_raw(done ? steered->done : steered->running, NULL,
                 id + strspn(id, "0")); /* JSON's numbers do not begin with one */
}

/* One job. JOBQ_ESTATE when its state does not allow it. */
static int
steer(struct session *session, const struct steering *how, const char *id, bool json,
      struct steered *steered, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = act(session, how->sql, 1, &id, id, &result, err);
    if (rc != 0)
        return rc;
    bool done = *PQgetvalue(result, 0, 0) == 't';
    const char *state = PQgetvalue(result, 0, 1);
    bool running = how->running && strcmp(state, "executing") == 0;
    if (!done && how->retried && !running)
        rc = jobq__error(err, JOBQ_ESTATE,
                         "job %s: the database refused to %s it now; jobqd will try "
                         "again, and until then the job may run (it is %s)",
                         id, how->verb, state);
    else if (!done && !running)
        rc = jobq__error(err, JOBQ_ESTATE, "job %s: cannot %s it: it is %s", id,
                         how->verb, state);
    else if (json)
        note(steered, done, id);
    else
        printf("job %s: %s\n", id, done ? how->done : how->running);
    PQclear(result);
    return rc;
}

/* Each id by itself: one that cannot be done does not keep the others from it. The exit
 * code is the last failure's.
 */
static int
steer_all(struct cli *cli, const struct steering *how)
{
    struct session session = {0};
    struct steered steered = {0};
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
    steered.answer = cli->json ? cJSON_CreateObject() : NULL;
    steered.done = tree_add_list(steered.answer, how->done);
    for (int i = 0; i < cli->n_args; i++) {
        int rc = steer(&session, how, cli->args[i], cli->json, &steered, &err);
        if (rc != 0)
            code = cli_fail(cli, &err);
        if (rc == JOBQ_ECONN)
            break;
    }
    if (cli->json)
        tree_print(steered.answer);
    session_close(&session);
    return code;
}

/* ---- many ---- */

static void
print_count(const struct cli *cli, const char *count, const char *become)
{
    if (!cli->json) {
        printf("%s job%s: %s\n", count, strcmp(count, "1") == 0 ? "" : "s", become);
        return;
    }
    cJSON *answer = cJSON_CreateObject();
    tree_add_raw(answer, "count", count);
    tree_print(answer);
}

static int
steer_many(struct cli *cli, const struct steering *how, struct jobs_filter *filter)
{
    const char *values[JOBS_FILTER_PARAMS + 1];
    struct session session = {0};
    PGresult *result = NULL;
    jobq_error err = {0};
    if (!filter->values[JOBS_FILTER_STATE])
        filter->values[JOBS_FILTER_STATE] = how->states;
    memcpy(values, filter->values, sizeof filter->values);
    values[JOBS_FILTER_PARAMS] = how->verb;
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && (jobs_filter_check_state(filter, &session, &err) != 0 ||
                          act(&session, sql_jobs_many, JOBS_FILTER_PARAMS + 1, values,
                              NULL, &result, &err) != 0))
        code = cli_fail(cli, &err);
    if (code == EX_OK)
        print_count(cli, PQgetvalue(result, 0, 0), how->many);
    PQclear(result);
    session_close(&session);
    return code;
}

static int
usage(const struct cli *cli, const char *what)
{
    jobq_error err = {0};
    jobq__error(&err, JOBQ_EINVAL, "%s", what);
    return cli_fail_as(cli, EX_USAGE, &err);
}

static int
steer_jobs(struct cli *cli, const struct steering *how)
{
    struct jobs_filter filter;
    jobq_error err = {0};
    if (jobs_filter_read(&filter, cli, INT32_MAX, &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    bool many = filter.given || cli_has(cli, "all");
    if (cli->n_args > 0 && (many || filter.values[JOBS_FILTER_LIMIT] != NULL))
        return usage(cli, "give either ids or options that select jobs, not both");
    if (cli->n_args > 0)
        return steer_all(cli, how);
    if (!many)
        return usage(
            cli,
            "which jobs? Give ids, or options such as --queue, or --all for every job");
    if (how->careful && !cli_has(cli, "yes"))
        return usage(
            cli,
            "deleting jobs that options select needs --yes; `jobqd jobs` lists them");
    return steer_many(cli, how, &filter);
}

static int
run_cancel(struct cli *cli)
{
    static const struct steering how = {.sql = sql_job_cancel,
                                        .verb = "cancel",
                                        .done = "cancelled",
                                        .running =
                                            "running; its node was asked to stop it",
                                        .many = "cancelled, or asked to stop if running"};
    return steer_jobs(cli, &how);
}

static int
run_retry(struct cli *cli)
{
    static const struct steering how = {.sql = sql_job_retry,
                                        .verb = "retry",
                                        .done = "available",
                                        .many = "available",
                                        .states = "retryable,cancelled,discarded"};
    return steer_jobs(cli, &how);
}

static int
run_delete(struct cli *cli)
{
    static const struct steering how = {
        .sql = sql_job_delete,
        .verb = "delete",
        .done = "deleted",
        .running = "running; its node was asked to stop it, then it is deleted",
        .many = "deleted, or asked to stop if running and then deleted",
        .careful = true,
        .retried = true};
    return steer_jobs(cli, &how);
}

static int
run_purge(struct cli *cli)
{
    const char *values[] = {cli_get(cli, "args"), cli_get(cli, "kind"),
                            cli_get(cli, "queue")};
    struct session session = {0};
    PGresult *result = NULL;
    jobq_error err = {0};
    if (!values[0])
        return usage(cli, "--args is required: an object that the jobs' args contain");
    if (jobq__json_check_object(values[0], strlen(values[0]), "--args", &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    if (!cli_has(cli, "yes"))
        return usage(cli, "deleting jobs needs --yes; `jobqd jobs --args` lists them");
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK &&
        act(&session, sql_jobs_purge, 3, values, NULL, &result, &err) != 0)
        code = cli_fail(cli, &err);
    if (code == EX_OK)
        print_count(cli, PQgetvalue(result, 0, 0),
                    "deleted, or asked to stop if running and then deleted");
    PQclear(result);
    session_close(&session);
    return code;
}

#define MANY_OPTIONS                                                                     \
    JOBS_FILTER_OPTIONS,                                                                 \
        {"limit", "N", "at most this many jobs, those with the smallest ids"},           \
    {                                                                                    \
        "all", NULL, "select every job; needed if no other option selects jobs"          \
    }

static const struct cli_option many_options[] = {MANY_OPTIONS, {0}};

static const struct cli_option delete_options[] = {
    MANY_OPTIONS, {"yes", NULL, "required if options select the jobs"}, {0}};

static const struct cli_option purge_options[] = {
    {"args", "JSON", "the jobs' args must contain this object; {} is refused (required)"},
    {"kind", "KIND", "only jobs of this kind"},
    {"queue", "QUEUE", "only jobs in this queue"},
    {"yes", NULL, "delete them (required)"},
    {0}};

const struct command command_cancel = {
    .name = "cancel",
    .role = "jobq_operator",
    .args = "[ID...]",
    .summary = "Cancel jobs: waiting ones at once, running ones by stopping them",
    .details = "A running job is asked to stop. If it has not stopped after stop_grace, "
               "its process gets SIGTERM; after another stop_grace, SIGKILL. The job "
               "ends as cancelled, or as completed if it finishes first. With ids each "
               "job is cancelled separately, and the exit code is 0 only if none of them "
               "failed. With options every matching job that has not finished is "
               "cancelled.",
    .examples = "jobqd cancel 42\n"
                "jobqd cancel --queue mail --older-than 1d",
    .options = many_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = -1,
    .run = run_cancel};

const struct command command_retry = {
    .name = "retry",
    .role = "jobq_operator",
    .args = "[ID...]",
    .summary = "Run finished or scheduled jobs again, now",
    .details =
        "Earlier attempts and their errors are kept. If no attempt is left, max_attempts "
        "is raised. The crash count for max_crashes restarts at zero. With options it "
        "retries matching jobs that are retryable, cancelled or discarded, unless "
        "--state says otherwise. It then skips jobs that have used all 1000 attempts, "
        "and jobs whose unique key belongs to an unfinished job. A retry ignores "
        "unique_by.",
    .examples = "jobqd retry 42\n"
                "jobqd retry --state discarded --kind mail --limit 100",
    .options = many_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = -1,
    .run = run_retry};

const struct command command_delete = {
    .name = "delete",
    .role = "jobq_operator",
    .args = "[ID...]",
    .summary = "Delete jobs permanently, finished or not, with no record left",
    .details = "A running job is asked to stop, as with cancel, and is deleted once it "
               "has stopped, whatever its outcome. Selecting jobs with options requires "
               "--yes.",
    .examples = "jobqd delete 42\n"
                "jobqd delete --queue old --state completed --yes",
    .options = delete_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = -1,
    .run = run_delete};

const struct command command_purge = {
    .name = "purge",
    .role = "jobq_operator",
    .args = "--args JSON --yes",
    .summary = "Delete a user's data: all jobs whose args contain a given object",
    .details = "It deletes jobs in the same way as delete. Without an index on args it "
               "reads every job, which may take long.",
    .examples = "jobqd purge --args '{\"user\": 7}' --yes",
    .options = purge_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = 0,
    .run = run_purge};
