/* cmd_upgrade.c: `upgrade`: has the jobqd of this host execute the newest version of its
 * program, and waits for how that ends. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/commands/commands.h"
#include "jobqd/cli/session.h"
#include "jobqd/base/escape.h"
#include "jobqd/base/hostid.h"
#include "libjobq/error.h"

extern const char sql_upgrade_find[];

/* Longer than a rehearsal, a freeze and the new program's way up may take together. */
enum { WAIT_S = 90, LOOK_MS = 50 };

/* What upgrade_find.sql says. */
struct node_seen {
    int pid;
    int64_t start;
    char host[160];
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
check_lives(const char *node, const struct node_seen *seen, jobq_error *err)
{
    char here[160];
    hostid_read(here, sizeof here);
    /* A container may hide one or both: then its number and its start have to
     * do. */
    bool comparable = here[0] != '\0' && seen->host[0] != '\0';
    if (comparable && strcmp(here, seen->host) != 0)
        return jobq__error(err, JOBQ_ESTATE,
                           "node %s runs on another machine or in another container "
                           "(%s): run this there",
                           node, seen->host);
    switch (hostid_fate_here("/proc", seen->pid, seen->start)) {
    case HOSTID_LIVES:
        return 0;
    case HOSTID_ENDED:
        return jobq__error(err, JOBQ_ESTATE,
                           "node %s does not run%s (its pid %d is gone)", node,
                           comparable ? "" : " here", seen->pid);
    case HOSTID_UNKNOWN: /* a signal could end somebody else */
        break;
    }
    return jobq__error(err, JOBQ_ESTATE,
                       "cannot tell whether pid %d is still node %s: its /proc/%d/stat "
                       "cannot be read; run this as its user or as root",
                       seen->pid, node, seen->pid);
}

/* The row may say anything: who has written it need not have the rights of who runs
 * this, which may be root. */
static int
check_is_jobqd(const char *node, const struct node_seen *seen, jobq_error *err)
{
    int rc = check_lives(node, seen, err);
    if (rc == 0 && !hostid_is_jobqd("/proc", seen->pid))
        rc = jobq__error(err, JOBQ_ESTATE,
                         "pid %d, which is said to be node %s, is no running jobqd: it "
                         "gets no signal",
                         seen->pid, node);
    return rc;
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
    if (rc == 0) {
        out->pid = atoi(value(rows, 0));
        out->start = strtoll(value(rows, 1), NULL, 10);
        snprintf(out->host, sizeof out->host, "%s", value(rows, 2));
        snprintf(out->version, sizeof out->version, "%s", value(rows, 3));
        snprintf(out->at, sizeof out->at, "%s", value(rows, 4));
        snprintf(out->from, sizeof out->from, "%s", value(rows, 5));
        snprintf(out->error, sizeof out->error, "%s", value(rows, 6));
    }
    PQclear(rows);
    return rc;
}

/* Looked at once the pidfd holds it: from then on its number cannot become another's. */
static int
ask(const char *node, const struct node_seen *seen, jobq_error *err)
{
    int fd = (int)syscall(SYS_pidfd_open, seen->pid, 0);
    int why = fd < 0 ? errno : 0;
    int rc = check_is_jobqd(node, seen, err);
    if (rc == 0 && fd >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGUSR2, NULL, 0) < 0)
        why = errno;
    if (rc == 0 && why != 0)
        rc = jobq__error(err, JOBQ_EIO, "cannot signal node %s (pid %d): %s", node,
                         seen->pid, strerror(why));
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Until the node says how it ended. */
static int
await(struct session *session, const char *node, const struct node_seen *before,
      struct node_seen *now, jobq_error *err)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    for (int i = 0; i < WAIT_S * 1000 / LOOK_MS; i++) {
        int rc = look(session, node, now, err);
        if (rc == 0)
            rc = check_lives(node, now, err);
        bool said = now->at[0] != '\0'; /* a node that is registered anew has not */
        if (rc < 0 || (said && strcmp(now->at, before->at) != 0))
            return rc;
        nanosleep(&pause, NULL);
    }
    return jobq__error(err, JOBQ_ESTATE,
                       "node %s has not said within %d s how it ended: see its log", node,
                       WAIT_S);
}

/* The versions are the database's word. */
static void
print_upgraded(const char *node, const struct node_seen *now, bool json)
{
    void (*print)(FILE *, const char *) = json ? escape_print_json_string : escape_print;
    fputs(json ? "{\"node\":" : "node ", stdout);
    print(stdout, node);
    printf(json ? ",\"pid\":%d,\"from\":" : " (pid %d): upgraded from ", now->pid);
    print(stdout, now->from);
    fputs(json ? ",\"to\":" : " to ", stdout);
    print(stdout, now->version);
    puts(json ? "}" : "");
}

static int
upgrade(struct session *session, const struct cli *cli, jobq_error *err)
{
    const char *node = session->config->node;
    struct node_seen before, now;
    int rc = look(session, node, &before, err);
    if (rc == 0)
        rc = ask(node, &before, err);
    if (rc == 0)
        rc = await(session, node, &before, &now, err);
    if (rc < 0)
        return rc;
    if (now.error[0] != '\0')
        return jobq__error(err, JOBQ_ESTATE, "jobqd %s of node %s carries on: %s",
                           now.version, node, now.error);
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
    .summary = "Have this host's running jobqd execute its program's newest version",
    .details =
        "Its workers and their running jobs stay. The new program must be in the place "
        "of the old one. If it does not come up, the old one carries on, and this says "
        "why. The node is the one that -c, JOBQ_NODE or --node names.",
    .examples = "jobqd upgrade -c /etc/jobq/jobqd.conf",
    .flags = CLI_ALL_FLAGS,
    .json = true,
    .run = run};
