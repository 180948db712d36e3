/* commands.c: see commands.h. */
#include "jobqd/commands/commands.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/base/escape.h"
#include "jobqd/base/folder.h"
#include "jobqd/base/jsontree.h"
#include "jobqd/base/wrap.h"
#include "jobqd/daemon/daemon.h"
#include "jobqd/proc/signals.h"
#include "jobqd/cli/session.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/guard_main.h"
#include "jobqd/upgrade/exec_handoff.h"
#include "jobqd/pure/nearest.h"
#include "libjobq/error.h"

static int
load_and_run(struct cli *cli)
{
    struct config *config = NULL;
    char *file = NULL;
    signals_hold();
    if (cli->file) {
        cli->file = file = folder_resolve(cli->file);
        if (!file)
            return EX_OSERR;
    }
    int code = session_load_queues(&config, cli, LAUNCH_STARTS);
    if (code == EX_OK) {
        code = cmd_run(config, cli);
        config_free(config);
    }
    free(file);
    return code;
}

/* The log may not stop it from the first line on: in an upgrade, its lease runs. */
static int
run_daemon(struct cli *cli)
{
    int why = log_start();
    if (why != 0) {
        log_error("jobqd", "cannot start a thread for the log: %s", strerror(why));
        exec_handoff_explain("it could not start a thread for the log");
        return EX_OSERR;
    }
    int code = load_and_run(cli);
    if (exec_handoff_may_go_back())
        log_leave();
    else
        log_flush();
    return code;
}

static const struct command command_run = {
    .name = "run",
    .args = "",
    .summary = "Run the configured queues until stopped",
    .details = "The signals TERM and INT stop it: running jobs have up to shutdown_grace "
               "to end; a second signal, or QUIT, stops them at once. HUP reloads the "
               "configuration and replaces the workers one by one. TTIN adds a worker to "
               "each queue, TTOU removes one.",
    .examples = "jobqd run -c jobqd.conf\n"
                "jobqd run --embedded ./data",
    .flags = CLI_ALL_FLAGS,
    .run = run_daemon};

static const struct command command_help;

/* In the order and the groups in which the help lists them. */
static const struct group {
    const char *title;
    const struct command *commands[8]; /* as many as there are, then NULL */
} groups[] = {
    {"Run",
     {&command_run, &command_config, &command_doctor, &command_reload, &command_upgrade}},
    {"Jobs",
     {&command_enqueue, &command_jobs, &command_job, &command_cancel, &command_retry,
      &command_delete, &command_purge}},
    {"Queues and crons",
     {&command_queues, &command_pause, &command_resume, &command_scale, &command_cron}},
    {"Database", {&command_migrate}},
    {"More", {&command_bench, &command_version, &command_help}},
};

enum { N_GROUPS = sizeof groups / sizeof groups[0] };

static void
print_help(FILE *out)
{
    fputs("usage: jobqd [OPTION]... COMMAND [ARGUMENT]...\n\nA job queue on Postgres.\n",
          out);
    for (size_t i = 0; i < N_GROUPS; i++) {
        fprintf(out, "\n%s:\n", groups[i].title);
        for (const struct command *const *at = groups[i].commands; *at != NULL; at++)
            cli_print_summary(out, (*at)->name, 8, *at);
    }
    fputc('\n', out);
    wrap_print(out,
               "`jobqd help COMMAND` shows the options of a command, with examples. -c "
               "FILE, --database URI, --embedded DIR and --schema NAME may also come "
               "before the command. Without -c the configuration file is JOBQ_CONFIG, "
               "else " CLI_DEFAULT_FILE " if it exists.",
               0, 0);
}

static const struct command *
find_command(const char *name)
{
    for (size_t i = 0; i < N_GROUPS; i++) {
        for (const struct command *const *at = groups[i].commands; *at != NULL; at++) {
            if (strcmp((*at)->name, name) == 0)
                return *at;
        }
    }
    return NULL;
}

static int
refuse_command(const char *name)
{
    struct nearest nearest;
    nearest_begin(&nearest, name);
    for (size_t i = 0; i < N_GROUPS; i++) {
        for (const struct command *const *at = groups[i].commands; *at != NULL; at++)
            nearest_offer(&nearest, (*at)->name);
    }
    fputs("jobqd: unknown command \"", stderr);
    escape_print(stderr, name);
    if (nearest.best != NULL)
        fprintf(stderr, "\"; did you mean %s? The commands are ", nearest.best);
    else
        fputs("\"; the commands are ", stderr);
    for (size_t i = 0; i < N_GROUPS; i++) {
        for (const struct command *const *at = groups[i].commands; *at != NULL; at++) {
            bool last = i + 1 == N_GROUPS && at[1] == NULL;
            fprintf(stderr, "%s%s",
                    i == 0 && at == groups[i].commands ? ""
                    : last                             ? " and "
                                                       : ", ",
                    (*at)->name);
        }
    }
    fputs(" (see jobqd --help)\n", stderr);
    return EX_USAGE;
}

/* `jobqd help`, and `jobqd help COMMAND [PART]`, which is COMMAND [PART] --help. */
static int
help(int argc, char **argv)
{
    static char option[] = "--help";
    if (argc < 2 || *argv[1] == '-') {
        print_help(stdout);
        return EX_OK;
    }
    const struct command *command = find_command(argv[1]);
    if (!command)
        return refuse_command(argv[1]);
    char *words[4] = {argv[1]};
    int n = 1;
    if (argc > 2 && command->parts != NULL && *argv[2] != '-')
        words[n++] = argv[2];
    words[n++] = option;
    return cli_run(command, n, words);
}

static const struct command command_help = {
    .name = "help",
    .args = "[COMMAND]",
    .summary = "Show the commands, or the options of one command",
    .parts = help};

/* How many words of argv, from the first on, are options that stand before the command:
 * those that every command has which needs the database. -1: the last one's argument is
 * missing. */
static int
count_leading(int argc, char **argv)
{
    static const char *const names[] = {"--config", "--database", "--embedded",
                                        "--schema"};
    int n = 0;
    while (n + 1 < argc) {
        const char *word = argv[n + 1];
        bool takes = strcmp(word, "-c") == 0, whole = strncmp(word, "-c", 2) == 0;
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            size_t len = strlen(names[i]);
            takes = takes || strcmp(word, names[i]) == 0;
            whole = whole || (strncmp(word, names[i], len) == 0 && word[len] == '=');
        }
        if (!takes && !whole)
            break;
        n += takes ? 2 : 1;
    }
    return n < argc ? n : -1;
}

static int
refuse_bare(const char *what)
{
    if (what != NULL) {
        fputs("jobqd: ", stderr);
        escape_print(stderr, what);
        fputs("\n\n", stderr);
    }
    print_help(stderr);
    return EX_USAGE;
}

/* The command's words, and behind its name (and that of its part) the options that stood
 * before it: what the command itself says comes later, and so wins. */
static int
run_command(int leading, int argc, char **argv)
{
    const char *name = argv[leading + 1];
    const struct command *command = find_command(name);
    if (!command)
        return refuse_command(name);
    int rest = leading + 2;
    char **words = calloc((size_t)argc + 1, sizeof *words);
    if (!words) {
        fputs("jobqd: out of memory\n", stderr);
        return EX_OSERR;
    }
    int n = 0;
    words[n++] = argv[leading + 1];
    if (command->parts != NULL && rest < argc && *argv[rest] != '-')
        words[n++] = argv[rest++];
    for (int i = 1; i <= leading; i++)
        words[n++] = argv[i];
    while (rest < argc)
        words[n++] = argv[rest++];
    int code = cli_run(command, n, words);
    free(words);
    return code;
}

static int
run_words(int argc, char **argv)
{
    const char *first = argc > 1 ? argv[1] : "";
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        print_help(stdout);
        return EX_OK;
    }
    if (strcmp(first, "--version") == 0)
        return cli_run(&command_version, 1, argv);
    int leading = count_leading(argc, argv);
    if (leading < 0)
        return refuse_bare("the last option needs an argument, and then a command");
    if (leading + 1 == argc)
        return refuse_bare(leading > 0 ? "no command given; `jobqd run` runs the queues"
                                       : NULL);
    if (*argv[leading + 1] == '-')
        return refuse_bare(
            "the options of a command come after it: write jobqd COMMAND OPTION");
    return run_command(leading, argc, argv);
}

int
commands_main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], GUARD_COMMAND) == 0)
        return guard_main(argc, argv); /* not for people: --help does not list it */
    int code = run_words(argc, argv);
    /* A full disk or a closed pipe behind stdout would otherwise lose data in silence. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EX_OK) {
        perror("jobqd: standard output");
        code = EX_IOERR;
    }
    return code == EX_OK && tree_print_failed() ? EX_OSERR : code;
}
