/* cmd_queues.c: `queues`: where each queue stands, over all nodes. */
#include <stdio.h>
#include <sysexits.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/commands/commands.h"
#include "jobqd/cli/session.h"
#include "jobqd/cli/table.h"

#define HISTORY_COLUMNS 3 /* of queues_list.sql, before the JSON */

extern const char sql_queues_list[], sql_nodes_list[];

/* The last column of each row is the row as JSON. */
static void
add_rows(cJSON *answer, const char *name, const PGresult *rows)
{
    cJSON *list = tree_add_list(answer, name);
    for (int row = 0; row < PQntuples(rows); row++)
        tree_add_raw(list, NULL, PQgetvalue(rows, row, PQnfields(rows) - 1));
}

static int
list(struct session *session, const struct cli *cli, jobq_error *err)
{
    PGresult *queues = NULL, *nodes = NULL;
    const char *history = cli_has(cli, "history") ? "true" : "false";
    int rc = session_query(session, sql_queues_list, 1, &history, &queues, err);
    if (rc == 0)
        rc = session_query(session, sql_nodes_list, 0, NULL, &nodes, err);
    if (rc == 0 && cli->json) {
        cJSON *answer = cJSON_CreateObject();
        add_rows(answer, "queues", queues);
        add_rows(answer, "nodes", nodes);
        tree_print(answer);
    } else if (rc == 0) {
        int hidden = 1 + (cli_has(cli, "history") ? 0 : HISTORY_COLUMNS);
        table_print(stdout, queues, PQnfields(queues) - hidden);
        putchar('\n');
        table_print(stdout, nodes, PQnfields(nodes) - 1);
    }
    PQclear(nodes);
    PQclear(queues);
    return rc;
}

static int
run(struct cli *cli)
{
    struct session session = {0};
    jobq_error err = {0};
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && list(&session, cli, &err) != 0)
        code = cli_fail(cli, &err);
    session_close(&session);
    return code;
}

static const struct cli_option options[] = {
    {"history", NULL, "count the ended jobs, too; this reads the whole history"}, {0}};

const struct command command_queues = {
    .name = "queues",
    .role = "jobq_viewer",
    .args = "",
    .summary = "Show each queue's jobs by state and its workers, and the nodes",
    .details = "WORKERS shows how many workers are ready, and how many there should be. "
               "RESTARTS and CRASHES count from the start of each node. PAUSED and SCALE "
               "show what pause and scale have set, and on which nodes.",
    .examples = "jobqd queues\n"
                "jobqd queues --history --json",
    .options = options,
    .flags = CLI_DATABASE_FLAGS,
    .json = true,
    .run = run};
