/* cmd_reload.c: `reload`: has the jobqd of this host read its configuration again, and
 * waits for what becomes of it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

#include "jobqd/commands/commands.h"
#include "jobqd/commands/running.h"
#include "jobqd/base/escape.h"
#include "jobqd/base/folder.h"
#include "jobqd/base/jsontree.h"
#include "libjobq/error.h"

/* Until it has read it. What comes then takes as long as the workers take to boot. */
enum { READ_S = 90, LOOK_MS = 50 };

static bool
is(const char *state, const char *name)
{
    return strcmp(state, name) == 0;
}

/* Whether the wait is over. before NULL: for a reload that somebody else asked for, which
 * is not waited for longer than READ_S. */
static bool
is_over(const struct running *before, const struct running *now)
{
    bool ours = !before || (now->reload.at[0] != '\0' &&
                            strcmp(now->reload.at, before->reload.at) != 0);
    return ours && !is(now->reload.state, "begun");
}

static int
await(struct session *session, const char *node, const struct running *before,
      struct running *now, jobq_error *err)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    for (int i = 0;; i++) {
        int rc = running_look(session, node, now, err);
        if (rc == 0)
            rc = running_check(node, now, err);
        bool heard = before && strcmp(now->reload.at, before->reload.at) != 0;
        bool long_ago = i >= READ_S * 1000 / LOOK_MS;
        if (rc < 0 || is_over(before, now) || (!before && long_ago))
            return rc;
        if (before && !heard && long_ago)
            return jobq__error(err, JOBQ_ESTATE,
                               "node %s has not reported within %d s whether it has read "
                               "its configuration: see its log",
                               node, READ_S);
        nanosleep(&pause, NULL);
    }
}

/* Whether two names are one file, also by way of links. */
static bool
is_same(const char *a, const char *b)
{
    struct stat first, second;
    if (strcmp(a, b) == 0)
        return true;
    return stat(a, &first) == 0 && stat(b, &second) == 0 &&
           first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/* The file that was checked here is to be the one that the node reads. */
static int
check_file(const struct cli *cli, const char *node, const struct running *seen,
           jobq_error *err)
{
    const char *theirs = seen->reload.file;
    if (!cli->file || !seen->reload.tells_file)
        return 0;
    char *ours = folder_resolve(cli->file);
    int rc = 0;
    if (!ours)
        rc = jobq__error(err, JOBQ_ENOMEM, "out of memory");
    else if (*theirs == '\0')
        rc = jobq__error(err, JOBQ_EINVAL,
                         "node %s was started without a configuration file and would not "
                         "read %s: restart it with -c, or name the node with --node",
                         node, ours);
    else if (!is_same(ours, theirs))
        rc = jobq__error(err, JOBQ_EINVAL,
                         "node %s was started with another file, %s, and would not read "
                         "%s: run jobqd reload -c %s",
                         node, theirs, ours, theirs);
    free(ours);
    return rc;
}

static void
print_done(const char *node, const struct running *now, const char *leaving, bool json)
{
    if (json) {
        cJSON *answer = cJSON_CreateObject();
        tree_add_text(answer, "node", node);
        tree_add_int(answer, "pid", now->pid);
        tree_add_bool(answer, "waited", leaving != NULL);
        if (leaving)
            tree_add_int(answer, "leaving", strtoll(leaving, NULL, 10));
        tree_print(answer);
        return;
    }
    fputs("node ", stdout);
    escape_print(stdout, node);
    printf(" (pid %d): ", now->pid);
    if (!leaving)
        puts("asked to reload its configuration; see its log for the result");
    else if (strtoll(leaving, NULL, 10) == 0)
        puts("configuration reloaded; the new workers are up");
    else
        printf("configuration reloaded; the new workers are up; old processes that still "
               "run a job: %lld\n",
               strtoll(leaving, NULL, 10));
}

/* Returns the exit code. */
static int
reload(struct session *session, const struct cli *cli)
{
    const char *node = session->config->node;
    bool waits = cli_has(cli, "wait");
    struct running before, now;
    jobq_error err = {0};
    int rc = running_look(session, node, &before, &err);
    if (rc == 0 && waits && is(before.reload.state, "begun"))
        rc = await(session, node, NULL, &before, &err);
    if (rc == 0 && check_file(cli, node, &before, &err) != 0)
        return cli_fail_as(cli, EX_CONFIG, &err);
    if (rc == 0)
        rc = running_signal(node, &before, SIGHUP, &err);
    if (rc == 0 && waits)
        rc = await(session, node, &before, &now, &err);
    if (rc < 0)
        return cli_fail(cli, &err);
    if (!waits) {
        print_done(node, &before, NULL, cli->json);
        return EX_OK;
    }
    if (is(now.reload.state, "done") && now.reload.crons[0] != '\0') {
        jobq__error(&err, JOBQ_ESTATE,
                    "node %s: configuration reloaded and the new workers are up, but the "
                    "database refuses %s: fix the section, then run jobqd reload --wait",
                    node, now.reload.crons);
        return cli_fail_as(cli, EX_CONFIG, &err);
    }
    if (is(now.reload.state, "done")) {
        print_done(node, &now, now.reload.leaving, cli->json);
        return EX_OK;
    }
    bool refused = is(now.reload.state, "refused");
    jobq__error(
        &err, JOBQ_ESTATE,
        refused ? "node %s refused the configuration and keeps the old one: %s"
                : "node %s: %s; any old workers keep running, and the node tries again",
        node, now.reload.error);
    return cli_fail_as(cli, refused ? EX_CONFIG : EX_UNAVAILABLE, &err);
}

static int
run(struct cli *cli)
{
    struct session session = {0};
    struct config *config = NULL;
    int code =
        session_load_queues(&config, cli, LAUNCH_JUDGES); /* what is wrong is said here */
    if (code != EX_OK)
        return code;
    config_free(config);
    code = session_open(&session, cli, SESSION_OUR_SCHEMA);
    if (code == EX_OK)
        code = reload(&session, cli);
    session_close(&session);
    return code;
}

static const struct cli_option options[] = {
    {"wait", NULL,
     "wait until all new workers are up, or those of a queue have failed to start"},
    {0}};

const struct command command_reload = {
    .name = "reload",
    .args = "",
    .summary = "Reload the configuration of this host's running jobqd",
    .details =
        "This checks the configuration, then does the same as SIGHUP. Workers are "
        "replaced one by one: each old worker exits once its replacement is up and its "
        "job has finished. -c, JOBQ_NODE or --node selects the node. The node rereads "
        "the file that it was started with: if -c names another one, nothing is "
        "reloaded, and the exit code is 78.\n\nWith --wait the exit code is 0 once all "
        "old workers have been replaced, except those still running a job. It is 78 if "
        "the node rejects the configuration or the database rejects one of its crons. "
        "It is 69 if a queue's new workers fail to start; its old workers then keep "
        "running.",
    .examples = "jobqd reload --wait -c /etc/jobq/jobqd.conf",
    .options = options,
    .flags = CLI_ALL_FLAGS,
    .json = true,
    .run = run};
