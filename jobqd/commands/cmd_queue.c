/* cmd_queue.c: `pause`, `resume` and `scale`: what operators set for queues, on all nodes
 * or on one. The nodes need not run: they find it when they come. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/cli/session.h"
#include "jobqd/cli/table.h"
#include "jobqd/commands/commands.h"
#include "libjobq/error.h"

extern const char sql_queue_pause[], sql_queue_resume[], sql_queue_scale[];

/* What is to be done to queues, and how to say that it was. */
struct setting {
    const char *sql;
    char done[40];       /* "paused" */
    char unchanged[40];  /* "already paused" */
    const char *all;     /* "on all nodes" */
    const char *workers; /* scale's $3; NULL: as many as are configured */
    int n_params;
};

/* The names for --json, as lists. */
struct told {
    cJSON *changed;
    cJSON *unchanged;
};

/* That nobody serves it is allowed, but may be a slip of the pen. */
static void
say(const struct setting *how, const char *queue, const char *node, bool changed,
    bool served)
{
    fputs("queue ", stdout);
    table_print_value(stdout, queue, NULL);
    printf(": %s ", changed ? how->done : how->unchanged);
    if (node) {
        fputs("on node ", stdout);
        table_print_value(stdout, node, NULL);
        puts(served ? "" : ", which does not serve it now");
    } else
        printf("%s%s\n", how->all, served ? "" : "; none of them serves it now");
}

static int
set_one(struct session *session, const struct cli *cli, const struct setting *how,
        const char *queue, struct told *told, jobq_error *err)
{
    PGresult *result = NULL;
    const char *node = cli_get(cli, "node");
    const char *params[] = {queue, node, how->workers};
    int rc = session_query(session, how->sql, how->n_params, params, &result, err);
    if (rc != 0)
        return rc;
    bool changed = *PQgetvalue(result, 0, 0) == 't';
    if (cli->json)
        tree_add_text(changed ? told->changed : told->unchanged, NULL, queue);
    else
        say(how, queue, node, changed, *PQgetvalue(result, 0, 1) == 't');
    PQclear(result);
    return 0;
}

/* Each queue by itself: one that is refused does not keep the others from it. The exit
 * code is the last failure's. */
static int
set_all(struct cli *cli, const struct setting *how, int n)
{
    struct session session = {0};
    jobq_error err = {0};
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code != EX_OK) {
        session_close(&session);
        return code;
    }
    cJSON *answer = cli->json ? cJSON_CreateObject() : NULL;
    struct told told = {.changed = tree_add_list(answer, "changed"),
                        .unchanged = tree_add_list(answer, "unchanged")};
    for (int i = 0; i < n; i++) {
        int rc = set_one(&session, cli, how, cli->args[i], &told, &err);
        if (rc != 0)
            code = cli_fail(cli, &err);
        if (rc == JOBQ_ECONN)
            break;
    }
    if (cli->json)
        tree_print(answer);
    session_close(&session);
    return code;
}

static int
run_pause(struct cli *cli)
{
    static const struct setting how = {.sql = sql_queue_pause,
                                       .done = "paused",
                                       .unchanged = "already paused",
                                       .all = "on all nodes",
                                       .n_params = 2};
    return set_all(cli, &how, cli->n_args);
}

static int
run_resume(struct cli *cli)
{
    static const struct setting how = {.sql = sql_queue_resume,
                                       .done = "resumed",
                                       .unchanged = "was not paused",
                                       .all = "on all nodes",
                                       .n_params = 2};
    return set_all(cli, &how, cli->n_args);
}

static int
run_scale(struct cli *cli)
{
    struct setting how = {.sql = sql_queue_scale, .all = "on each node", .n_params = 3};
    const char *n = cli->args[1];
    char *end = NULL;
    long workers = strtol(n, &end, 10);
    jobq_error err = {0};
    if (strcmp(n, "default") == 0) {
        snprintf(how.done, sizeof how.done, "as many workers as configured");
        snprintf(how.unchanged, sizeof how.unchanged,
                 "already as many workers as configured");
        return set_all(cli, &how, 1);
    }
    if (end == n || *end != '\0' || *n < '0' || *n > '9' || workers > 1000) {
        jobq__error(&err, JOBQ_EINVAL, "\"%s\" is not allowed: 0 to 1000, or default", n);
        return cli_fail_as(cli, EX_USAGE, &err);
    }
    how.workers = n;
    const char *noun = workers == 1 ? "worker" : "workers";
    snprintf(how.done, sizeof how.done, "%ld %s", workers, noun);
    snprintf(how.unchanged, sizeof how.unchanged, "already %ld %s", workers, noun);
    return set_all(cli, &how, 1);
}

static const struct cli_option options[] = {
    {"node", "NAME", "on this node only; it need not be running"}, {0}};

const struct command command_pause = {
    .name = "pause",
    .role = "jobq_operator",
    .args = "QUEUE...",
    .summary = "Stop claiming jobs from queues; running jobs continue",
    .details =
        "It takes effect within a second and lasts until resume, also across restarts.",
    .examples = "jobqd pause mail\n"
                "jobqd pause mail --node web-1",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = -1,
    .run = run_pause};

const struct command command_resume = {
    .name = "resume",
    .role = "jobq_operator",
    .args = "QUEUE...",
    .summary = "Claim jobs from paused queues again",
    .details =
        "This also removes pauses set with --node. With --node it removes only the pause "
        "set for that node, and is refused while the queue is paused on all nodes.",
    .examples = "jobqd resume mail",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 1,
    .max_args = -1,
    .run = run_resume};

const struct command command_scale = {
    .name = "scale",
    .role = "jobq_operator",
    .args = "QUEUE N|default",
    .summary = "Set how many workers a queue has on each node; with 0 its jobs wait",
    .details = "It overrides concurrency in the configuration until `jobqd scale QUEUE "
               "default`. A number set with --node overrides the one set for all nodes. "
               "Surplus workers finish the jobs that they hold.",
    .examples = "jobqd scale mail 10\n"
                "jobqd scale mail 2 --node web-1\n"
                "jobqd scale mail default",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .min_args = 2,
    .max_args = 2,
    .run = run_scale};
