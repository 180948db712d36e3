/* cli.h: command lines: what a command takes is a table, which getopt_long reads and
 * --help prints.
 *
 * Every command has --help; one that prints data has --json; one that needs the database
 * has -c, --database, --embedded and --schema, which are rows of the table of options
 * (config/options.h).
 */
#ifndef JOBQD_CLI_H
#define JOBQD_CLI_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "jobqd/config/config.h"

/* The configuration of a command without -c, where JOBQ_CONFIG names no other. */
#define CLI_DEFAULT_FILE "/etc/jobq/jobqd.conf"

#define CLI_MAX_OPTIONS 20 /* of a command's own */
#define CLI_MAX_FLAGS 32   /* given on one command line */

/* An option of a command's own. The last row of a table has a NULL name. */
struct cli_option {
    const char *name; /* without dashes; one letter: -n, as well as --n */
    const char *arg;  /* the argument's placeholder; NULL: it takes none */
    const char *help;
};

/* X(enumerator, which of the [jobqd] options the command takes as flags) */
enum cli_flags {
    CLI_NO_FLAGS,       /* none, and no -c */
    CLI_DATABASE_FLAGS, /* database, embedded, schema */
    CLI_ALL_FLAGS       /* every one */
};

struct cli;

struct command {
    const char *name;
    const char *args;                 /* as the usage line shows them: "KIND [JSON]" */
    const char *summary;              /* one line */
    const char *details;              /* more, as wrap.h takes it; NULL: nothing */
    const char *examples;             /* command lines; NULL: none */
    const struct cli_option *options; /* NULL: none */
    enum cli_flags flags;
    bool named_file_only; /* no -c: no configuration, whatever there is on the host */
    bool json;            /* has --json */
    const char *role;     /* of jobq's, that it needs in the database; NULL: none */
    int min_args;         /* positional ones */
    int max_args;         /* -1: any number */
    int (*run)(struct cli *cli); /* returns the exit code */
    /* Instead of run and of all that cli_parse reads: the first argument names a command
     * of its own ("bench drain"). */
    int (*parts)(int argc, char **argv);
};

/* A command line, read. Lends everything from argv. */
struct cli {
    const struct command *command;
    const char *values[CLI_MAX_OPTIONS]; /* by row of command->options: its argument, ""
                                            for a switch, NULL when it was not given */
    const char *file;                    /* -c */
    struct config_flag flags[CLI_MAX_FLAGS];
    size_t n_flags;
    bool json;
    bool help;
    int n_args;
    char *const *args;
};

/* argv[0] is the command's name. JOBQ_EINVAL says what is wrong and what the usage is. */
int cli_parse(struct cli *cli, const struct command *command, int argc, char **argv,
              jobq_error *err);

void cli_print_help(const struct command *command);

/* The value of an option of the command's own; NULL when it was not given. */
const char *cli_get(const struct cli *cli, const char *name);
bool cli_has(const struct cli *cli, const char *name);
/* The same as a number of min to max; *out is untouched when it was not given. */
int cli_get_int(const struct cli *cli, const char *name, int64_t min, int64_t max,
                int64_t *out, jobq_error *err);
/* A moment that an option names: RFC 3339 with its zone, or that form with a blank for
 * the T or a shorter offset, as psql prints it. The database reads the text itself. */
int cli_check_time(const char *option, const char *text, jobq_error *err);
/* A job's id. */
int cli_job_id(const char *text, jobq_error *err);

/* A line of a list of commands: the name, in a column of that width, and the summary. */
void cli_print_summary(FILE *out, const char *name, int width,
                       const struct command *command);

/* Prints `jobqd COMMAND: MESSAGE` to stderr, escaped (base/escape.h). Returns the exit
 * code for err. */
int cli_fail(const struct cli *cli, const jobq_error *err);
/* The same with an exit code of its own. */
int cli_fail_as(const struct cli *cli, int exit_code, const jobq_error *err);

/* Reads the command line of one command (argv[0] is its name) and runs it. Returns the
 * exit code. */
int cli_run(const struct command *command, int argc, char **argv);

#endif
