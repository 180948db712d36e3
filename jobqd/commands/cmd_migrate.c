/* cmd_migrate.c: `migrate`: the schema's version, from the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/commands/commands.h"
#include "jobqd/base/jsontree.h"
#include "jobqd/db/migrate.h"
#include "jobqd/cli/session.h"
#include "jobqd/cli/table.h"
#include "libjobq/backoff.h"
#include "libjobq/error.h"

#define DOWN_ONE (-1)
#define LOCK_WAIT_MAX_MS ((int64_t)7 * 24 * 3600 * 1000)

extern const char sql_migrate_history[];

enum action { ACTION_UP, ACTION_DOWN, ACTION_STATUS, ACTION_PRINT, ACTION_GRANT };

static const char *const action_names[] = {"up", "down", "status", "print", "grant"};
#define N_ACTIONS (sizeof action_names / sizeof action_names[0])

struct printer {
    bool json;
    cJSON *steps; /* with --json */
    bool any;
};

static void
add_step(cJSON *steps, int version, const char *name, bool applied)
{
    tree_add_int(steps, "version", version);
    tree_add_text(steps, "name", name);
    tree_add_bool(steps, "applied", applied);
}

static void
on_step(void *data, int version, const char *name, bool up)
{
    struct printer *printer = data;
    if (printer->json)
        add_step(tree_add_object(printer->steps, NULL), version, name, up);
    else
        printf("%04d %s: %s\n", version, name, up ? "applied" : "reverted");
    printer->any = true;
}

static int
move(struct session *session, const struct cli *cli, enum action action, int to,
     int64_t lock_wait_ms, jobq_error *err)
{
    cJSON *answer = cli->json ? cJSON_CreateObject() : NULL;
    struct printer printer = {.json = cli->json, .steps = tree_add_list(answer, "steps")};
    const char *schema = session->config->schema;
    int version = 0;
    int rc = action == ACTION_UP
                 ? migrate_apply(session->conn, schema, to, lock_wait_ms, on_step,
                                 &printer, err)
                 : migrate_revert(session->conn, schema, to, cli_has(cli, "force"),
                                  lock_wait_ms, on_step, &printer, err);
    if (cli->json)
        tree_print(answer);
    else if (rc == 0 && !printer.any &&
             (rc = migrate_version(session->conn, schema, &version, err)) == 0)
        printf("schema %s has version %d: nothing to do\n", schema, version);
    return rc;
}

/* Known migrations, and when each was applied: schema_version has no row of a step that a
 * dump of the schema alone brought here. Name and time are the database's word. */
static void
print_step(cJSON *steps, int step, int version, const char *name, const char *at)
{
    if (!steps) {
        printf("%04d ", step);
        table_print_value(stdout, name, NULL);
        printf("%*s", 20 - (int)strlen(name) > 0 ? 20 - (int)strlen(name) : 0, "");
        putchar(' ');
        table_print_value(stdout,
                          step > version ? "not applied"
                          : at != NULL   ? at
                                         : "applied, at an unknown time",
                          NULL);
        putchar('\n');
        return;
    }
    cJSON *known = tree_add_object(steps, NULL);
    add_step(known, step, name, step <= version);
    tree_add_text(known, "applied_at", at);
}

static int
status(struct session *session, const struct cli *cli, jobq_error *err)
{
    int version = 0;
    char number[16];
    PGresult *history = NULL;
    const char *schema = session->config->schema;
    const char *params[] = {number};
    int rc = migrate_version(session->conn, schema, &version, err);
    int steps = version > migrate_latest() ? version : migrate_latest();
    snprintf(number, sizeof number, "%d", steps);
    if (rc == 0 && version > 0)
        rc = session_query(session, sql_migrate_history, 1, params, &history, err);
    if (rc != 0)
        return rc;
    cJSON *answer = cli->json ? cJSON_CreateObject() : NULL;
    tree_add_text(answer, "schema", schema);
    tree_add_int(answer, "version", version);
    tree_add_int(answer, "needs", migrate_latest());
    cJSON *listed = tree_add_list(answer, "migrations");
    if (!cli->json)
        printf("schema %s has version %d, this jobqd needs %d\n", schema, version,
               migrate_latest());
    for (int i = 0; i < steps; i++) {
        bool noted = history != NULL && !PQgetisnull(history, i, 0);
        print_step(listed, i + 1, version,
                   noted ? PQgetvalue(history, i, 0) : migrate_name(i + 1),
                   noted ? PQgetvalue(history, i, 1) : NULL);
    }
    if (cli->json)
        tree_print(answer);
    PQclear(history);
    return 0;
}

/* ---- grant ---- */

static bool
is_missing(const PGresult *rows, int row)
{
    return PQgetisnull(rows, row, 1);
}

static int
count_missing(const PGresult *rows)
{
    int n = 0;
    for (int i = 0; i < PQntuples(rows); i++)
        n += is_missing(rows, i);
    return n;
}

static void
print_grants_json(const PGresult *before, const PGresult *after)
{
    cJSON *answer = cJSON_CreateObject();
    cJSON *roles = tree_add_list(answer, "roles");
    for (int i = 0; i < PQntuples(before); i++) {
        if (is_missing(before, i))
            continue;
        cJSON *role = tree_add_object(roles, NULL);
        tree_add_text(role, "role", PQgetvalue(before, i, 0));
        tree_add_raw(role, "given", PQgetvalue(before, i, 1));
        tree_add_raw(role, "taken", PQgetvalue(before, i, 2));
    }
    cJSON *missing = tree_add_list(answer, "missing");
    for (int i = 0; i < PQntuples(after); i++) {
        char sql[128];
        if (!is_missing(after, i))
            continue;
        cJSON *role = tree_add_object(missing, NULL);
        snprintf(sql, sizeof sql, "CREATE ROLE %s NOLOGIN", PQgetvalue(after, i, 0));
        tree_add_text(role, "role", PQgetvalue(after, i, 0));
        tree_add_text(role, "sql", sql);
    }
    tree_print(answer);
}

/* With a role missing all of it is SQL, for psql. */
static void
print_grants(const PGresult *before, const PGresult *after)
{
    int changed = 0;
    const char *begin = count_missing(after) > 0 ? "-- " : "";
    for (int i = 0; i < PQntuples(before); i++) {
        if (is_missing(before, i))
            continue;
        printf("%s%s: %s rights given, %s taken\n", begin, PQgetvalue(before, i, 0),
               PQgetvalue(before, i, 1), PQgetvalue(before, i, 2));
        changed++;
    }
    if (changed == 0 && count_missing(after) == 0)
        puts("every role has its rights, and PUBLIC none: nothing to do");
    for (int i = 0; i < PQntuples(after); i++) {
        if (is_missing(after, i))
            printf("CREATE ROLE %s NOLOGIN;\n", PQgetvalue(after, i, 0));
    }
}

/* JOBQ_ESTATE where a right stays wrong that somebody else than the owner has given, or
 * roles are missing. */
static int
check_grants(const PGresult *after, jobq_error *err)
{
    int missing = count_missing(after);
    for (int i = 0; i < PQntuples(after); i++) {
        if (!is_missing(after, i))
            return jobq__error(err, JOBQ_ESTATE,
                               "%s still has %s, granted by a role other than the "
                               "schema's owner: have that role revoke it",
                               PQgetvalue(after, i, 0), PQgetvalue(after, i, 3));
    }
    if (missing == 0)
        return 0;
    return jobq__error(
        err, JOBQ_ESTATE,
        "%d role%s missing, and the current role may not create roles: have one that may "
        "run the CREATE ROLE above, then run `jobqd migrate grant` again",
        missing, missing == 1 ? " is" : "s are");
}

static int
grant(struct session *session, const struct cli *cli, int64_t lock_wait_ms)
{
    jobq_error err = {0};
    PGresult *before = NULL, *after = NULL;
    if (migrate_grant(session->conn, session->config->schema, lock_wait_ms, &before,
                      &after, &err) != 0)
        return cli_fail(cli, &err);
    if (cli->json)
        print_grants_json(before, after);
    else
        print_grants(before, after);
    int rc = check_grants(after, &err);
    PQclear(before);
    PQclear(after);
    return rc == 0 ? EX_OK : cli_fail_as(cli, EX_NOPERM, &err);
}

/* ---- the command line ---- */

static int
parse_action(const struct cli *cli, enum action *action, int *to, jobq_error *err)
{
    const char *name = cli->n_args > 0 ? cli->args[0] : "up";
    size_t nth = 0;
    while (nth < N_ACTIONS && strcmp(action_names[nth], name) != 0)
        nth++;
    if (nth == N_ACTIONS)
        return jobq__error(err, JOBQ_EINVAL,
                           "\"%s\" is not allowed: up, down, status, print or grant",
                           name);
    *action = (enum action)nth;
    *to = *action == ACTION_DOWN ? DOWN_ONE : 0;
    if (cli->n_args < 2)
        return 0;
    char *end = NULL;
    long number = strtol(cli->args[1], &end, 10);
    int min = *action == ACTION_DOWN ? 0 : 1;
    if (*action == ACTION_STATUS || *action == ACTION_GRANT)
        return jobq__error(err, JOBQ_EINVAL, "unexpected argument %s", cli->args[1]);
    if (end == cli->args[1] || *end != '\0' || number < min || number > migrate_latest())
        return jobq__error(err, JOBQ_EINVAL,
                           "\"%s\" is not a known version: give %d to %d", cli->args[1],
                           min, migrate_latest());
    *to = (int)number;
    return 0;
}

static int
parse_lock_wait(const struct cli *cli, enum action action, int64_t *ms, jobq_error *err)
{
    const char *text = cli_get(cli, "lock-wait");
    jobq_error why = {0};
    *ms = MIGRATE_LOCK_WAIT_MS;
    if (!text)
        return 0;
    if (action != ACTION_UP && action != ACTION_DOWN && action != ACTION_GRANT)
        return jobq__error(err, JOBQ_EINVAL,
                           "--lock-wait is only for up, down and grant");
    int rc = jobq__duration_parse(text, ms, &why);
    if (rc != 0)
        return jobq__error(err, rc, "--lock-wait: %s", why.message);
    if (*ms > LOCK_WAIT_MAX_MS)
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
        rc = jobq__error(&err, JOBQ_EINVAL, "--force is only for down");
    if (rc == 0 && cli->json && action == ACTION_PRINT)
        rc = jobq__error(&err, JOBQ_EINVAL, "print writes SQL: it has no --json");
    if (rc != 0)
        return cli_fail_as(cli, EX_USAGE, &err);
    if (action == ACTION_PRINT)
        return print(cli, to);
    /* The others ask by themselves, in their transaction. */
    int code = session_open(&session, cli,
                            action == ACTION_STATUS ? SESSION_NO_FOREIGN_SCHEMA
                                                    : SESSION_ANY_SCHEMA);
    if (code == EX_OK && action == ACTION_GRANT) {
        code = grant(&session, cli, lock_wait_ms);
    } else if (code == EX_OK) {
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
    {"force", NULL,
     "with down: proceed even if nodes are running or unfinished jobs would be lost"},
    {"lock-wait", "TIME",
     "how long to wait for locks that other sessions hold (0 to 7d; default: 60s)"},
    {0}};

const struct command command_migrate = {
    .name = "migrate",
    .args = "[up|down|print [TO] | status | grant]",
    .summary = "Bring the schema to the version that this jobqd needs, or back",
    .details =
        "up (the default) applies the missing steps, each in its own transaction. down "
        "reverts one step, or all steps above TO; going below version 1 deletes all jobs "
        "and the history. down does not ask for confirmation, but without --force it "
        "refuses while nodes are running or if unfinished jobs would be lost. Jobs can "
        "be enqueued during a migration: a step that needs an exclusive lock on a table "
        "waits for it at most 0.3 s at a time, and names the session that holds the "
        "lock.\n\nprint writes the SQL of up, to be run with psql in an empty database "
        "that jobqd cannot connect to. grant grants jobq's roles their privileges, "
        "revokes all other privileges on jobq's objects from these roles and from "
        "PUBLIC, and leaves the privileges of all other roles unchanged; up does the "
        "same. Roles that the current role may not create are printed as SQL, and the "
        "exit code is 77.",
    .examples = "jobqd migrate --database postgresql:///app\n"
                "jobqd migrate status\n"
                "jobqd migrate print > jobq.sql",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .max_args = 2,
    .run = run};
