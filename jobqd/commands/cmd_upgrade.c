/* cmd_upgrade.c: `upgrade`: has the jobqd of this host execute the newest version of its
 * program, and waits for how that ends. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "jobqd/commands/commands.h"
#include "jobqd/commands/running.h"
#include "jobqd/base/escape.h"
#include "jobqd/base/jsontree.h"
#include "libjobq/error.h"

/* Longer than a rehearsal, a freeze and the new program's way up may take together. */
enum { WAIT_S = 90, LOOK_MS = 50 };

/* Until the node says how it ended. */
static int
await(struct session *session, const char *node, const struct running *before,
      struct running *now, jobq_error *err)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    for (int i = 0; i < WAIT_S * 1000 / LOOK_MS; i++) {
        int rc = running_look(session, node, now, err);
        if (rc == 0)
            rc = running_check(node, now, err);
        bool said =
            now->upgrade.at[0] != '\0'; /* a node that is registered anew has not */
        if (rc < 0 || (said && strcmp(now->upgrade.at, before->upgrade.at) != 0))
            return rc;
        nanosleep(&pause, NULL);
    }
    return jobq__error(
        err, JOBQ_ESTATE,
        "node %s has not reported within %d s how the upgrade ended: see its log", node,
        WAIT_S);
}

/* The versions are the database's word. */
static void
print_upgraded(const char *node, const struct running *now, bool json)
{
    if (json) {
        cJSON *answer = cJSON_CreateObject();
        tree_add_text(answer, "node", node);
        tree_add_int(answer, "pid", now->pid);
        tree_add_text(answer, "from", now->upgrade.from);
        tree_add_text(answer, "to", now->version);
        tree_print(answer);
        return;
    }
    fputs("node ", stdout);
    escape_print(stdout, node);
    printf(" (pid %d): upgraded from ", now->pid);
    escape_print(stdout, now->upgrade.from);
    fputs(" to ", stdout);
    escape_print(stdout, now->version);
    putchar('\n');
}

static int
upgrade(struct session *session, const struct cli *cli, jobq_error *err)
{
    const char *node = session->config->node;
    struct running before, now;
    int rc = running_look(session, node, &before, err);
    if (rc == 0)
        rc = running_signal(node, &before, SIGUSR2, err);
    if (rc == 0)
        rc = await(session, node, &before, &now, err);
    if (rc < 0)
        return rc;
    if (now.upgrade.error[0] != '\0')
        return jobq__error(err, JOBQ_ESTATE, "jobqd %s of node %s keeps running: %s",
                           now.version, node, now.upgrade.error);
    print_upgraded(node, &now, cli->json);
    return 0;
}

static int
run(struct cli *cli)
{
    struct session session = {0};
    jobq_error err = {0};
    int code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK && upgrade(&session, cli, &err) != 0)
        code = cli_fail(cli, &err);
    session_close(&session);
    return code;
}

const struct command command_upgrade = {
    .name = "upgrade",
    .args = "",
    .summary = "Upgrade this host's running jobqd in place to the installed version",
    .details = "The running jobqd is replaced by the version that is now installed at "
               "its path. Its workers and their running jobs stay. If the new version "
               "does not start, the old one keeps running, and the error says why. -c, "
               "JOBQ_NODE or --node names the node.",
    .examples = "jobqd upgrade -c /etc/jobq/jobqd.conf",
    .flags = CLI_ALL_FLAGS,
    .json = true,
    .run = run};
