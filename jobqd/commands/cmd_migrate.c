/* cmd_migrate.c: `migrate`: the schema's version, from the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/commands/commands.h"
#include "jobqd/cli/migrate.h"
#include "jobqd/cli/session.h"
#include "libjobq/backoff.h"
#include "libjobq/error.h"

#define DOWN_ONE (-1)
#define LOCK_WAIT_MOST_MS ((int64_t)7 * 24 * 3600 * 1000)

extern const char sql_migrate_history[];

enum action { ACTION_UP, ACTION_DOWN, ACTION_STATUS, ACTION_PRINT };

static const char *const action_names[] = {"up", "down", "status", "print"};

struct printer {
    bool json;
    bool first;
};

static void
on_step(void *data, int version, const char *name, bool up)
{
    struct printer *printer = data;
    if (printer->json)
        printf("%s{\"version\":%d,\"name\":\"%s\",\"applied\":%s}",
               printer->first ? "" : ",", version, name, up ? "true" : "false");
    else
        printf("%04d %s: %s\n", version, name, up ? "applied" : "taken back");
    printer->first = false;
}

static int
move(struct session *session, const struct cli *cli, enum action action, int to,
     int64_t lock_wait_ms, jobq_error *err)
{
    struct printer printer = {.json = cli->json, .first = true};
    const char *schema = session->config->schema;
    int version = 0;
    if (cli->json)
        fputs("{\"steps\":[", stdout);
    int rc = action == ACTION_UP
                 ? migrate_apply(session->conn, schema, to, lock_wait_ms, on_step,
                                 &printer, err)
                 : migrate_revert(session->conn, schema, to, cli_has(cli, "force"),
                                  lock_wait_ms, on_step, &printer, err);
    if (cli->json)
        puts("]}");
    else if (rc == 0 && printer.first &&
             (rc = migrate_version(session->conn, schema, &version, err)) == 0)
        printf("schema %s has version %d: nothing to do\n", schema, version);
    return rc;
}

/* Known migrations, and when each was applied. */
static int
status(struct session *session, const struct cli *cli, jobq_error *err)
{
    int version = 0;
    PGresult *history = NULL;
    const char *schema = session->config->schema;
    int rc = migrate_version(session->conn, schema, &version, err);
    if (rc == 0 && version > 0)
        rc = session_query(session, sql_migrate_history, 0, NULL, &history, err);
    if (rc != 0)
        return rc;
    int rows = history != NULL ? PQntuples(history) : 0;
    if (cli->json)
        printf("{\"schema\":\"%s\",\"version\":%d,\"needs\":%d,\"migrations\":[", schema,
               version, migrate_latest());
    else
        printf("schema %s has version %d, this jobqd needs %d\n", schema, version,
               migrate_latest());
    for (int i = 0; i < rows || i < migrate_latest(); i++) {
        const char *name = i < rows ? PQgetvalue(history, i, 1) : migrate_name(i + 1);
        const char *at = i < rows ? PQgetvalue(history, i, 2) : NULL;
        if (cli->json)
            printf("%s{\"version\":%d,\"name\":\"%s\",\"applied_at\":%s%s%s}",
                   i > 0 ? "," : "", i + 1, name, at != NULL ? "\"" : "",
                   at != NULL ? at : "null", at != NULL ? "\"" : "");
        else
            printf("%04d %-20s %s\n", i + 1, name, at != NULL ? at : "not applied");
    }
    if (cli->json)
        puts("]}");
    PQclear(history);
    return 0;
}

static int
parse_action(const struct cli *cli, enum action *action, int *to, jobq_error *err)
{
    const char *name = cli->n_args > 0 ? cli->args[0] : "up";
    int nth = 0;
    while (nth < 4 && strcmp(action_names[nth], name) != 0)
        nth++;
    if (nth == 4)
        return jobq__error(err, JOBQ_EINVAL,
                           "\"%s\" is not allowed: up, down, status or print", name);
    *action = (enum action)nth;
    *to = *action == ACTION_DOWN ? DOWN_ONE : 0;
    if (cli->n_args < 2)
        return 0;
    char *end = NULL;
    long number = strtol(cli->args[1], &end, 10);
    int min = *action == ACTION_DOWN ? 0 : 1;
    if (*action == ACTION_STATUS)
        return jobq__error(err, JOBQ_EINVAL, "unexpected argument %s", cli->args[1]);
    if (end == cli->args[1] || *end != '\0' || number < min || number > migrate_latest())
        return jobq__error(err, JOBQ_EINVAL, "\"%s\" is no version: %d to %d are known",
                           cli->args[1], min, migrate_latest());
    *to = (int)number;
    return 0;
}

static int
parse_lock_wait(const struct cli *cli, enum action action, int64_t *ms, jobq_error *err)
{
    const char *text = cli_get(cli, "lock-wait");
    jobq_error why = {0};
    *ms = MIGRATE_LOCK_WAIT_MS;
    if (text == NULL)
        return 0;
    if (action != ACTION_UP && action != ACTION_DOWN)
        return jobq__error(err, JOBQ_EINVAL, "--lock-wait belongs to up and down");
    int rc = jobq__duration_parse(text, ms, &why);
    if (rc != 0)
        return jobq__error(err, rc, "--lock-wait: %s", why.message);
    if (*ms > LOCK_WAIT_MOST_MS)
        return jobq__error(err, JOBQ_EINVAL,
                           "--lock-wait: \"%s\" is not allowed: 0 to 7d", text);
    return 0;
}

/* The script needs no database: it is for one that we may not connect to. */
static int
print(const struct cli *cli, int to)
{
    struct config *config = NULL;
    jobq_error err = {0};
    int code = session_load(&config, cli);
    if (code == EX_OK && migrate_print(stdout, config->schema, 0, to, &err) != 0)
        code = cli_fail(cli, &err);
    config_free(config);
    return code;
}

static int
run(struct cli *cli)
{
    struct session session = {0};
    jobq_error err = {0};
    enum action action = ACTION_UP;
    int64_t lock_wait_ms = 0;
    int to = 0;
    int rc = parse_action(cli, &action, &to, &err);
    if (rc == 0)
        rc = parse_lock_wait(cli, action, &lock_wait_ms, &err);
    if (rc == 0 && cli_has(cli, "force") && action != ACTION_DOWN)
        rc = jobq__error(&err, JOBQ_EINVAL, "--force belongs to down");
    if (rc == 0 && cli->json && action == ACTION_PRINT)
        rc = jobq__error(&err, JOBQ_EINVAL, "print prints SQL: it has no --json");
    if (rc != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    if (action == ACTION_PRINT)
        return print(cli, to);
    int code = session_open(&session, cli, SESSION_ANY_SCHEMA);
    if (code == EX_OK) {
        rc = action == ACTION_STATUS
                 ? status(&session, cli, &err)
                 : move(&session, cli, action, to, lock_wait_ms, &err);
        if (rc != 0)
            code = cli_fail(cli, &err);
    }
    session_close(&session);
    return code;
}

static const struct cli_option options[] = {
    {"force", NULL, "down: even while nodes run, and though live jobs are lost"},
    {"lock-wait", "TIME", "how long to wait for locks that others hold (60s)"},
    {0}};

const struct command command_migrate = {
    .name = "migrate",
    .args = "[up [TO] | down [TO] | status | print [TO]]",
    .summary =
        "Brings the database's schema to the version that this jobqd needs, or back",
    .details =
        "up (the default) applies what is missing, each step in one transaction. down "
        "takes back one\n"
        "step, or all above TO; below version 1 all jobs and the history are gone. It "
        "asks nothing, but refuses\n"
        "while nodes run or live jobs would be lost, unless --force is given. Jobs can "
        "be enqueued all the\n"
        "while: a step that needs a table for itself waits for it 0.3 s at a time, and "
        "says whom it waits for.\n"
        "print writes the SQL of up for psql, for those who may not connect: it begins "
        "with an empty database.\n",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .max_args = 2,
    .run = run};
