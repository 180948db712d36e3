/* cmd_steer.c: `cancel`, `retry`, `delete` and `purge`: single jobs by their ids, or many
 * by what they are like. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/commands/commands.h"
#include "jobqd/commands/jobs_filter.h"
#include "jobqd/cli/session.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/json.h"

extern const char sql_job_cancel[], sql_job_retry[], sql_job_delete[], sql_jobs_many[],
    sql_jobs_purge[];

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
    jobq__buf_adds(ids, id + strspn(id, "0")); /* JSON's numbers do not begin with one */
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

/* ---- many ---- */

static void
print_count(const struct cli *cli, const char *count, const char *become)
{
    if (cli->json)
        printf("{\"count\":%s}\n", count);
    else
        printf("%s job%s: %s\n", count, strcmp(count, "1") == 0 ? "" : "s", become);
}

static int
steer_many(struct cli *cli, const struct steering *how, struct jobs_filter *filter)
{
    const char *values[JOBS_FILTER_PARAMS + 1];
    struct session session = {0};
    PGresult *result = NULL;
    jobq_error err = {0};
    if (filter->values[JOBS_FILTER_STATE] == NULL)
        filter->values[JOBS_FILTER_STATE] = how->states;
    memcpy(values, filter->values, sizeof filter->values);
    values[JOBS_FILTER_PARAMS] = how->verb;
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && (jobs_filter_check_state(filter, &session, &err) != 0 ||
                          session_query(&session, sql_jobs_many, JOBS_FILTER_PARAMS + 1,
                                        values, &result, &err) != 0))
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
        return usage(cli, "jobs are named by their ids, or by options: not by both");
    if (cli->n_args > 0)
        return steer_all(cli, how);
    if (!many)
        return usage(cli, "which jobs? Give their ids, or options such as --queue; --all "
                          "means every job");
    if (how->careful && !cli_has(cli, "yes"))
        return usage(cli, "many jobs are deleted only with --yes; `jobqd jobs` shows "
                          "which they are");
    return steer_many(cli, how, &filter);
}

static int
run_cancel(struct cli *cli)
{
    static const struct steering how = {.sql = sql_job_cancel,
                                        .verb = "cancel",
                                        .done = "cancelled",
                                        .running = "runs, its node is asked to stop it",
                                        .many =
                                            "cancelled, or asked to stop where they run"};
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
        .running = "runs, its node is asked to stop it, and it is forgotten then",
        .many = "deleted, or asked to stop where they run, and forgotten then",
        .careful = true};
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
    if (values[0] == NULL)
        return usage(cli, "whose jobs? Give --args, an object that their args contain");
    if (jobq__json_check_object(values[0], strlen(values[0]), "--args", &err) != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    if (!cli_has(cli, "yes"))
        return usage(cli, "jobs are deleted only with --yes; `jobqd jobs` shows which "
                          "they are");
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK &&
        session_query(&session, sql_jobs_purge, 3, values, &result, &err) != 0)
        code = cli_fail(cli, &err);
    if (code == EX_OK)
        print_count(cli, PQgetvalue(result, 0, 0),
                    "deleted, or asked to stop where they run, and forgotten then");
    PQclear(result);
    session_close(&session);
    return code;
}

#define MANY_OPTIONS                                                                     \
    JOBS_FILTER_OPTIONS, {"limit", "N", "at most so many, those with the smallest ids"}, \
    {                                                                                    \
        "all", NULL, "every job, where no other option says which"                       \
    }

static const struct cli_option many_options[] = {MANY_OPTIONS, {0}};

static const struct cli_option delete_options[] = {
    MANY_OPTIONS, {"yes", NULL, "needed where options say which"}, {0}};

static const struct cli_option purge_options[] = {
    {"args", "JSON", "an object that their args contain; {} is refused"},
    {"kind", "KIND", "only those of this kind"},
    {"queue", "QUEUE", "only those of this queue"},
    {"yes", NULL, "needed"},
    {0}};

const struct command command_cancel = {
    .name = "cancel",
    .args = "[ID...]",
    .summary = "Ends jobs: those that wait at once, those that run are told to stop",
    .details =
        "A running job is told to stop; after stop_grace its process gets SIGTERM, "
        "after that\nonce more SIGKILL. It ends as cancelled, or as completed if "
        "it is done before that.\nWith ids each job by itself: the exit code says "
        "whether "
        "all of them could be cancelled.\nWith options all live jobs that are so.\n",
    .options = many_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = -1,
    .run = run_cancel};

const struct command command_retry = {
    .name = "retry",
    .args = "[ID...]",
    .summary = "Makes jobs available that have ended or wait for their time",
    .details =
        "The attempts so far and their errors are kept; max_attempts is raised if "
        "none is left,\nand crashes are counted anew for max_crashes.\nWith options "
        "those that are retryable, cancelled or discarded, unless --state says\n"
        "otherwise. Jobs that have used all 1000 attempts, or whose unique key a "
        "live job holds,\nare passed over then.\n",
    .options = many_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = -1,
    .run = run_retry};

const struct command command_delete = {
    .name = "delete",
    .args = "[ID...]",
    .summary = "Deletes jobs, live and ended, so that no trace is left",
    .details = "A running job is told to stop as by cancel, and forgotten when it has "
               "ended, however it did.\nWhich jobs, options alone may say only together "
               "with --yes.\n",
    .options = delete_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = -1,
    .run = run_delete};

const struct command command_purge = {
    .name = "purge",
    .args = "--args JSON --yes",
    .summary =
        "Deletes a user's data: the jobs, live and ended, whose args contain an object",
    .details = "As delete does. It reads all jobs through, unless there is an index on "
               "args.\n",
    .options = purge_options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 0,
    .max_args = 0,
    .run = run_purge};
