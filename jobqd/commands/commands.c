/* commands.c: see commands.h. */
#include "jobqd/commands/commands.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/bench/bench.h"
#include "jobqd/daemon/daemon.h"
#include "jobqd/cli/session.h"
#include "jobqd/base/log.h"
#include "jobqd/io/guard_main.h"
#include "libjobq/error.h"

static int
run_daemon(struct cli *cli)
{
    struct config *config = NULL;
    int code = session_load_queues(&config, cli);
    if (code != EX_OK)
        return code;
    log_setup(&config->log);
    code = cmd_run(config, cli);
    config_free(config);
    return code;
}

static const struct command command_run = {
    .name = "run",
    .args = "",
    .summary = "Runs the queues that the configuration names, until told to stop",
    .details = "TERM and INT let running jobs end, for shutdown_grace; a second one "
               "stops at once. HUP\n"
               "reads the configuration again and replaces the workers one by one; "
               "TTIN and TTOU add and\n"
               "take a worker of each queue.\n",
    .flags = CLI_ALL_FLAGS,
    .run = run_daemon};

static const struct command *const commands[] = {
    &command_run,    &command_migrate, &command_enqueue, &command_jobs,   &command_job,
    &command_cancel, &command_retry,   &command_delete,  &command_purge,  &command_queues,
    &command_pause,  &command_resume,  &command_scale,   &command_cron,   &command_config,
    &command_doctor, &command_bench,   &command_upgrade, &command_version};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void
print_help(void)
{
    printf(
        "usage: jobqd [COMMAND] [OPTION]...\n\nA job queue on Postgres.\n\nCommands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  %-8s  %s\n", commands[i]->name, commands[i]->summary);
    printf(
        "\nWithout a command: run. `jobqd COMMAND --help` shows what a command takes.\n");
}

static int
refuse_command(const char *name)
{
    fprintf(stderr, "jobqd: there is no command \"%s\": ", name);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "%s%s",
                i == 0               ? ""
                : i + 1 < N_COMMANDS ? ", "
                                     : " and ",
                commands[i]->name);
    fputs(" are known (jobqd --help)\n", stderr);
    return EX_USAGE;
}

static const struct command *
find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

int
commands_main(int argc, char **argv)
{
    int code;
    const char *first = argc > 1 ? argv[1] : "";
    if (strcmp(first, GUARD_COMMAND) == 0)
        return guard_main(argc, argv); /* not for people: --help does not list it */
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        print_help();
        code = EX_OK;
    } else if (strcmp(first, "--version") == 0) {
        code = cli_run(&command_version, 1, argv);
    } else if (*first == '-' || argc < 2) {
        code = cli_run(&command_run, argc, argv);
    } else {
        const struct command *command = find_command(first);
        code = command != NULL ? cli_run(command, argc - 1, argv + 1)
                               : refuse_command(first);
    }
    /* A full disk or a closed pipe behind stdout would otherwise lose data in silence. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EX_OK) {
        perror("jobqd: standard output");
        code = EX_IOERR;
    }
    return code;
}
