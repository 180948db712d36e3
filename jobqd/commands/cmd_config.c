/* cmd_config.c: `config`, and `version`: what jobqd was told, and what it is. Neither
 * needs a database. */
#include <libpq-fe.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/commands/commands.h"
#include "jobqd/commands/start_check.h"
#include "jobqd/db/migrate.h"
#include "jobqd/cli/session.h"
#include "jobqd/cli/trust.h"
#include "jobqd/base/escape.h"
#include "jobqd/base/jsontree.h"
#include "jobqd/config/options.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"

/* For people a finding goes to stderr at once; for programs all are members of the
 * answer. */
struct warnings {
    cJSON *list; /* their texts; NULL: for people */
};

static void
warn(void *data, const char *what, const char *remedy)
{
    struct warnings *warnings = data;
    char text[2 * PATH_MAX];
    snprintf(text, sizeof text, "%s; %s", what, remedy);
    if (warnings->list != NULL) {
        tree_add_text(warnings->list, NULL, text);
        return;
    }
    fputs("jobqd config: warning: ", stderr);
    escape_print(stderr, text);
    fputc('\n', stderr);
}

static void
say_checked(const struct config *config, cJSON *answer)
{
    const char *file = config->file != NULL ? config->file : "no configuration file";
    tree_add_bool(answer, "ok", true);
    tree_add_int(answer, "queues", (int64_t)config->n_queues);
    tree_add_int(answer, "crons", (int64_t)config->n_crons);
    struct warnings warnings = {.list = tree_add_list(answer, "warnings")};
    trust_look(config, warn, &warnings);
    if (!config->file)
        warn(&warnings, "no configuration file was found: the node runs no jobs",
             "give one with -c FILE or JOBQ_CONFIG");
    if (answer)
        return;
    escape_print(stdout, file);
    printf(": ok, %zu queue%s", config->n_queues, config->n_queues == 1 ? "" : "s");
    if (config->n_crons > 0)
        printf(", %zu cron%s", config->n_crons, config->n_crons == 1 ? "" : "s");
    putchar('\n');
}

/* The man page's tables of options: jobqd.1.scd is made complete by them at build time.
 */
static int
print_man(const struct cli *cli)
{
    jobq_error err = {0};
    puts("## [jobqd]\n");
    int rc = options_print_man(stdout, jobqd_options, jobqd_options_count);
    puts("## [queue NAME]\n");
    if (rc == 0)
        rc = options_print_man(stdout, queue_options, queue_options_count);
    puts("## [cron NAME]\n");
    if (rc == 0)
        rc = options_print_man(stdout, cron_options, cron_options_count);
    if (rc == 0)
        return EX_OK;
    jobq__error(&err, rc, "out of memory");
    return cli_fail(cli, &err);
}

/* Variables and flags alone can configure a node that runs no jobs: it can be the leader, or
 * has the embedded database. Without any of them nothing was found at all. */
static int
check_found(const struct config *config, jobq_error *err)
{
    static const char *const libpq_names[] = {"PGHOST", "PGHOSTADDR", "PGDATABASE",
                                              "PGSERVICE"};
    bool found = config->file != NULL || config->database != NULL || config->embedded;
    for (size_t i = 0; i < sizeof libpq_names / sizeof libpq_names[0]; i++)
        found = found || getenv(libpq_names[i]) != NULL;
    if (found)
        return 0;
    return jobq__error(err, JOBQ_EINVAL,
                       "no configuration file: -c is not given, JOBQ_CONFIG is not set, "
                       "and %s does not exist",
                       CLI_DEFAULT_FILE);
}

static int
run_config(struct cli *cli)
{
    struct config *config = NULL;
    jobq_error err = {0};
    const char *what = cli->n_args > 0 ? cli->args[0] : "check";
    if (strcmp(what, "man") == 0)
        return print_man(cli);
    if (strcmp(what, "check") != 0 && strcmp(what, "print") != 0) {
        jobq__error(&err, JOBQ_EINVAL, "\"%s\" is not allowed: check, print or man",
                    what);
        return cli_fail_as(cli, EX_USAGE, &err);
    }
    bool check = strcmp(what, "check") == 0, starts = check && cli_has(cli, "start");
    if (!check && cli_has(cli, "start")) {
        jobq__error(&err, JOBQ_EINVAL, "--start is only for check");
        return cli_fail_as(cli, EX_USAGE, &err);
    }
    int code = check ? session_load_queues(&config, cli, LAUNCH_JUDGES)
                     : session_load(&config, cli);
    if (code != EX_OK)
        return code;
    if (check && check_found(config, &err) != 0) {
        config_free(config);
        return cli_fail_as(cli, EX_CONFIG, &err);
    }
    cJSON *answer = check && cli->json ? cJSON_CreateObject() : NULL;
    if (check)
        say_checked(config, answer);
    else
        config_print(config, cli->json, cli_has(cli, "show-secrets"));
    fflush(stdout); /* before anything is started */
    if (starts)
        code = start_check(config, answer);
    if (check && cli->json)
        tree_print(answer);
    config_free(config);
    return code;
}

static const struct cli_option config_options[] = {
    {"start", NULL, "with check: also start one worker of each queue, and stop it"},
    {"show-secrets", NULL, "with print: show passwords and the values of env"},
    {0}};

const struct command command_config = {
    .name = "config",
    .args = "[check|print|man]",
    .summary = "Check the configuration, or print it with all sources merged",
    .details =
        "The configuration is merged from the file, the environment and the flags.\n\n"
        "check (the default) says what is wrong, or ok. If it finds no configuration at "
        "all, the exit code is 78. It also checks that the user who runs it can switch "
        "to each queue's user, set its limits and enter its working directory, and warns "
        "about settings that are allowed but rarely intended. With --start it starts one "
        "worker of each queue, as jobqd run would, waits until it is ready, and stops "
        "it; the exit code is 69 if one does not become ready.\n\nprint shows every "
        "option as an INI file, with **** for "
        "passwords and the values of env. man prints the options as they are in the man "
        "page.",
    .examples = "jobqd config check -c jobqd.conf\n"
                "jobqd config check --start -c jobqd.conf\n"
                "jobqd config print --json",
    .options = config_options,
    .flags = CLI_ALL_FLAGS,
    .json = true,
    .max_args = 1,
    .run = run_config};

static int
run_version(struct cli *cli)
{
    int pq = PQlibVersion();
    char libpq[32];
    snprintf(libpq, sizeof libpq, "%d.%d", pq / 10000, pq % 10000);
    if (!cli->json) {
        printf("jobqd %s (schema %d, worker protocol %d, libpq %s)\n", JOBQ_VERSION,
               migrate_latest(), JOBQ__PROTOCOL_VERSION, libpq);
        return EX_OK;
    }
    cJSON *answer = cJSON_CreateObject();
    tree_add_text(answer, "version", JOBQ_VERSION);
    tree_add_int(answer, "schema", migrate_latest());
    tree_add_int(answer, "protocol", JOBQ__PROTOCOL_VERSION);
    tree_add_text(answer, "libpq", libpq);
    tree_print(answer);
    return EX_OK;
}

const struct command command_version = {
    .name = "version",
    .args = "",
    .summary = "Print the versions of jobqd, its schema and its worker protocol",
    .json = true,
    .run = run_version};
