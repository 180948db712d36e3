/* cmd_upgrade.c: `upgrade`: has the jobqd of this host execute the newest version of its
 * program, and waits for how that ends. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "jobqd/commands/commands.h"
#include "jobqd/cli/session.h"
#include "jobqd/base/hostid.h"
#include "libjobq/error.h"

extern const char sql_upgrade_find[];

/* Longer than a rehearsal, a freeze and the new program's way up may take together. */
enum { WAIT_S = 90, LOOK_MS = 50 };

/* What upgrade_find.sql says. */
struct node_seen {
    int pid;
    char version[64];
    char at[64]; /* "" when there was none */
    char from[64];
    char error[600]; /* "" when it took place */
};

static const char *
value(const PGresult *rows, int column)
{
    return PQgetisnull(rows, 0, column) ? "" : PQgetvalue(rows, 0, column);
}

static int
check_host(const char *node, const PGresult *rows, jobq_error *err)
{
    char host[160];
    hostid_read(host, sizeof host);
    const char *theirs = value(rows, 2);
    int pid = atoi(value(rows, 0));
    if (strcmp(host, theirs) != 0)
        return jobq__error(err, JOBQ_ESTATE,
                           "node %s runs on another machine (%s): run this there", node,
                           theirs);
    switch (hostid_fate(theirs, pid, strtoll(value(rows, 1), NULL, 10))) {
    case HOSTID_LIVES:
        return 0;
    case HOSTID_ENDED:
        return jobq__error(err, JOBQ_ESTATE, "node %s does not run (its pid %d is gone)",
                           node, pid);
    case HOSTID_UNKNOWN: /* a signal could end somebody else */
        break;
    }
    return jobq__error(err, JOBQ_ESTATE,
                       "cannot tell whether pid %d is still node %s: its /proc/%d/stat "
                       "cannot be read; run this as its user or as root",
                       pid, node, pid);
}

static int
look(struct session *session, const char *node, struct node_seen *out, jobq_error *err)
{
    PGresult *rows = NULL;
    int rc = session_query(session, sql_upgrade_find, 1, &node, &rows, err);
    if (rc == 0 && PQntuples(rows) == 0)
        rc = jobq__error(err, JOBQ_ENOTFOUND,
                         "no node is called %s: `jobqd queues` lists those that run",
                         node);
    if (rc == 0)
        rc = check_host(node, rows, err);
    if (rc == 0) {
        out->pid = atoi(value(rows, 0));
        snprintf(out->version, sizeof out->version, "%s", value(rows, 3));
        snprintf(out->at, sizeof out->at, "%s", value(rows, 4));
        snprintf(out->from, sizeof out->from, "%s", value(rows, 5));
        snprintf(out->error, sizeof out->error, "%s", value(rows, 6));
    }
    PQclear(rows);
    return rc;
}

static int
ask(const char *node, int pid, jobq_error *err)
{
    if (kill(pid, SIGUSR2) == 0)
        return 0;
    return jobq__error(err, JOBQ_EIO, "cannot signal node %s (pid %d): %s", node, pid,
                       strerror(errno));
}

/* Until the node says how it ended. */
static int
await(struct session *session, const char *node, const struct node_seen *before,
      struct node_seen *now, jobq_error *err)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    for (int i = 0; i < WAIT_S * 1000 / LOOK_MS; i++) {
        int rc = look(session, node, now, err);
        bool said = now->at[0] != '\0'; /* a node that is registered anew has not */
        if (rc < 0 || (said && strcmp(now->at, before->at) != 0))
            return rc;
        nanosleep(&pause, NULL);
    }
    return jobq__error(err, JOBQ_ESTATE,
                       "node %s has not said within %d s how it ended: see its log", node,
                       WAIT_S);
}

static int
upgrade(struct session *session, const struct cli *cli, jobq_error *err)
{
    const char *node = session->config->node;
    struct node_seen before, now;
    int rc = look(session, node, &before, err);
    if (rc == 0)
        rc = ask(node, before.pid, err);
    if (rc == 0)
        rc = await(session, node, &before, &now, err);
    if (rc < 0)
        return rc;
    if (now.error[0] != '\0')
        return jobq__error(err, JOBQ_ESTATE, "jobqd %s of node %s carries on: %s",
                           now.version, node, now.error);
    if (cli->json)
        printf("{\"node\":\"%s\",\"pid\":%d,\"from\":\"%s\",\"to\":\"%s\"}\n", node,
               now.pid, now.from, now.version);
    else
        printf("node %s (pid %d): upgraded from %s to %s\n", node, now.pid, now.from,
               now.version);
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
    .summary = "Has this host's running jobqd execute its program's newest version",
    .details =
        "Its workers and their running jobs stay. The new program must be in the place\n"
        "of the old one. If it does not come up the old one carries on, and this says "
        "why.\n"
        "The node is the one that -c, JOBQ_NODE or --node names.\n",
    .flags = CLI_ALL_FLAGS,
    .json = true,
    .run = run};
