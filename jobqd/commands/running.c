/* running.c: see running.h. */
#include "jobqd/commands/running.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jobqd/base/hostid.h"
#include "libjobq/error.h"

extern const char sql_node_seen[];

static const char *
value(const PGresult *rows, int column)
{
    return PQgetisnull(rows, 0, column) ? "" : PQgetvalue(rows, 0, column);
}

int
running_check(const char *node, const struct running *seen, jobq_error *err)
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
                           "node %s is not running%s (its pid %d is gone)", node,
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
check_is_jobqd(const char *node, const struct running *seen, jobq_error *err)
{
    int rc = running_check(node, seen, err);
    if (rc == 0 && !hostid_is_jobqd("/proc", seen->pid))
        rc = jobq__error(err, JOBQ_ESTATE,
                         "pid %d, which is registered as node %s, is not a running "
                         "jobqd: not signalling it",
                         seen->pid, node);
    return rc;
}

int
running_look(struct session *session, const char *node, struct running *out,
             jobq_error *err)
{
    PGresult *rows = NULL;
    int rc = session_query(session, sql_node_seen, 1, &node, &rows, err);
    if (rc == 0 && PQntuples(rows) == 0)
        rc =
            jobq__error(err, JOBQ_ENOTFOUND,
                        "there is no node %s: `jobqd queues` lists those that run", node);
    if (rc == 0) {
        out->pid = atoi(value(rows, 0));
        out->start = strtoll(value(rows, 1), NULL, 10);
        snprintf(out->host, sizeof out->host, "%s", value(rows, 2));
        snprintf(out->version, sizeof out->version, "%s", value(rows, 3));
        const struct {
            char *text;
            size_t size;
        } texts[] = {
#define TEXT(field) {out->field, sizeof out->field}
            TEXT(upgrade.at),   TEXT(upgrade.from), TEXT(upgrade.error),
            TEXT(reload.at),    TEXT(reload.state), TEXT(reload.leaving),
            TEXT(reload.error), TEXT(reload.file),  TEXT(reload.crons),
#undef TEXT
        };
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
            snprintf(texts[i].text, texts[i].size, "%s", value(rows, 4 + (int)i));
        int last = 4 + (int)(sizeof texts / sizeof texts[0]);
        out->reload.tells_file = strcmp(value(rows, last), "t") == 0;
    }
    PQclear(rows);
    return rc;
}

/* Looked at once the pidfd holds it: from then on its number cannot become another's. */
int
running_signal(const char *node, const struct running *seen, int number, jobq_error *err)
{
    int fd = (int)syscall(SYS_pidfd_open, seen->pid, 0);
    int why = fd < 0 ? errno : 0;
    int rc = check_is_jobqd(node, seen, err);
    if (rc == 0 && fd >= 0 && syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) < 0)
        why = errno;
    if (rc == 0 && why != 0)
        rc = jobq__error(err, JOBQ_EIO, "cannot signal node %s (pid %d): %s", node,
                         seen->pid, strerror(why));
    if (fd >= 0)
        close(fd);
    return rc;
}
