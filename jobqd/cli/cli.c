/* cli.c: see cli.h. Reads and refuses; what a command does with what was read is its own
 * business. */
#include "jobqd/cli/cli.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/upgrade/exec_handoff.h"
#include "jobqd/base/escape.h"
#include "jobqd/config/options.h"
#include "jobqd/base/refusal.h"
#include "jobqd/base/wrap.h"
#include "jobqd/pure/nearest.h"
#include "jobqd/pure/rfc3339.h"
#include "libjobq/error.h"
#include "libjobq/utf8.h"

#define MAX_SLOTS (CLI_MAX_OPTIONS + CLI_MAX_FLAGS + 4)
#define FIRST_SLOT 256 /* above every option letter */

enum slot_kind { SLOT_HELP, SLOT_JSON, SLOT_FILE, SLOT_FLAG, SLOT_OPTION };

/* What getopt_long may meet: its tables, and which of ours each row stands for. */
struct slots {
    struct option rows[MAX_SLOTS + 1];
    enum slot_kind kinds[MAX_SLOTS];
    /* FLAG: row of jobqd_options; OPTION: of command->options */
    size_t indexes[MAX_SLOTS];
    char names[MAX_SLOTS][32]; /* a flag's name has - where the option has _ */
    size_t n;
};

/* ---- Reading ---- */

static void
add_slot(struct slots *slots, enum slot_kind kind, size_t nth, const char *name,
         bool takes)
{
    assert(slots->n < MAX_SLOTS);
    char *copy = slots->names[slots->n];
    snprintf(copy, sizeof slots->names[0], "%s", name);
    for (char *at = copy; *at != '\0'; at++) {
        if (*at == '_')
            *at = '-';
    }
    slots->rows[slots->n] =
        (struct option){.name = copy,
                        .has_arg = takes ? required_argument : no_argument,
                        .val = FIRST_SLOT + (int)slots->n};
    slots->kinds[slots->n] = kind;
    slots->indexes[slots->n] = nth;
    slots->n++;
}

static bool
takes_flag(const struct command *command, const struct option_row *row)
{
    switch (command->flags) {
    case CLI_NO_FLAGS:
        return false;
    case CLI_DATABASE_FLAGS:
        return row->type == OPTION_CONNINFO || row->type == OPTION_DIR ||
               row->type == OPTION_SCHEMA;
    case CLI_ALL_FLAGS:
        return true;
    }
    return false;
}

static void
fill_slots(struct slots *slots, const struct command *command)
{
    memset(slots, 0, sizeof *slots);
    add_slot(slots, SLOT_HELP, 0, "help", false);
    if (command->json)
        add_slot(slots, SLOT_JSON, 0, "json", false);
    if (command->flags != CLI_NO_FLAGS)
        add_slot(slots, SLOT_FILE, 0, "config", true);
    for (size_t i = 0; i < jobqd_options_count; i++) {
        if (takes_flag(command, &jobqd_options[i]))
            add_slot(slots, SLOT_FLAG, i, jobqd_options[i].name, true);
    }
    const struct cli_option *options = command->options;
    for (size_t i = 0; options != NULL && options[i].name != NULL; i++)
        add_slot(slots, SLOT_OPTION, i, options[i].name, options[i].arg != NULL);
}

static size_t
find_slot(const struct slots *slots, enum slot_kind kind)
{
    size_t i = 0;
    while (i < slots->n && slots->kinds[i] != kind)
        i++;
    return i;
}

/* What getopt_long takes as single letters: our own, and those of the command's options
 * whose name is one. */
static void
put_letters(char *out, size_t size, const struct command *command)
{
    const struct cli_option *option = command->options;
    size_t n =
        (size_t)snprintf(out, size, command->flags != CLI_NO_FLAGS ? ":hc:" : ":h");
    for (; option != NULL && option->name != NULL; option++) {
        if (strlen(option->name) == 1 && n + 2 < size)
            n += (size_t)snprintf(out + n, size - n, "%s%s", option->name,
                                  option->arg != NULL ? ":" : "");
    }
}

/* The slot of what getopt_long has found. */
static size_t
slot_of(const struct slots *slots, int result)
{
    if (result == 'h' || result == 'c')
        return find_slot(slots, result == 'h' ? SLOT_HELP : SLOT_FILE);
    if (result >= FIRST_SLOT)
        return (size_t)(result - FIRST_SLOT);
    size_t i = 0;
    while (slots->names[i][0] != result || slots->names[i][1] != '\0')
        i++;
    return i;
}

static int
refuse_usage(const struct command *command, jobq_error *err, const char *what,
             const char *which)
{
    size_t len = strlen(which);
    bool asks = len > 0 && which[len - 1] == '?';
    return jobq__error(err, JOBQ_EINVAL, "%s%s%s: jobqd %s [OPTION]...%s%s (see --help)",
                       what, which, asks ? " Usage" : "; usage", command->name,
                       *command->args != '\0' ? " " : "", command->args);
}

/* The option that is most like word (--NAME or --NAME=VALUE), or several that begin with
 * it. Empty: none is. Returns whether there are several. */
static bool
put_meant(char out[120], const struct slots *slots, const char *word)
{
    char name[NEAREST_MAX];
    struct nearest nearest;
    int begun = 0;
    size_t used = 0;
    out[0] = '\0';
    if (strncmp(word, "--", 2) != 0)
        return false;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    nearest_begin(&nearest, name);
    for (size_t i = 0; i < slots->n; i++) {
        nearest_offer(&nearest, slots->names[i]);
        if (strncmp(slots->names[i], name, strlen(name)) == 0 && used < 80) {
            used += (size_t)snprintf(out + used, 120 - used, "%s--%s",
                                     begun > 0 ? ", " : "; it may be ", slots->names[i]);
            begun++;
        }
    }
    if (begun < 2)
        snprintf(out, 120, "%s%s%s", nearest.best ? "; did you mean --" : "",
                 nearest.best ? nearest.best : "", nearest.best ? "?" : "");
    return begun > 1;
}

/* What getopt_long's '?' and ':' mean. */
static int
refuse_option(const struct slots *slots, const struct command *command, int result,
              char **argv, jobq_error *err)
{
    char which[200];
    if (optopt >= FIRST_SLOT)
        snprintf(which, sizeof which, "--%s", slots->rows[optopt - FIRST_SLOT].name);
    else if (optopt != 0)
        snprintf(which, sizeof which, "-%c", isprint(optopt) ? optopt : '?');
    else
        snprintf(which, sizeof which, "%.70s", argv[optind - 1]);
    if (result == ':')
        return refuse_usage(command, err, which, " needs an argument");
    if (optopt >= FIRST_SLOT)
        return refuse_usage(command, err, which, " takes no argument");
    char meant[120];
    bool ambiguous = put_meant(meant, slots, which);
    strncat(which, meant, sizeof which - strlen(which) - 1);
    return refuse_usage(command, err, ambiguous ? "ambiguous option " : "unknown option ",
                        which);
}

static int
take(struct cli *cli, const struct slots *slots, size_t slot, const char *value,
     jobq_error *err)
{
    switch (slots->kinds[slot]) {
    case SLOT_HELP:
        cli->help = true;
        return 0;
    case SLOT_JSON:
        cli->json = true;
        return 0;
    case SLOT_FILE:
        cli->file = value;
        return 0;
    case SLOT_FLAG:
        if (cli->n_flags == CLI_MAX_FLAGS)
            return jobq__error(err, JOBQ_EINVAL, "more than %d options", CLI_MAX_FLAGS);
        cli->flags[cli->n_flags++] = (struct config_flag){
            .name = jobqd_options[slots->indexes[slot]].name, .value = value};
        return 0;
    case SLOT_OPTION:
        cli->values[slots->indexes[slot]] = value != NULL ? value : "";
        return 0;
    }
    return 0;
}

static bool
is_in_environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0';
}

/* Whether the command line or the environment says which database is meant. */
static bool
knows_database(const struct cli *cli)
{
    for (size_t i = 0; i < cli->n_flags; i++) {
        if (strcmp(cli->flags[i].name, "database") == 0 ||
            strcmp(cli->flags[i].name, "embedded") == 0)
            return true;
    }
    return is_in_environment("JOBQ_DATABASE") || is_in_environment("JOBQ_EMBEDDED") ||
           is_in_environment("DATABASE_URL");
}

/* The configuration of a command without -c. NULL: none. Lent. The host's own may be
 * closed to who runs a command on another database, and is passed over then. */
static const char *
default_file(const struct cli *cli)
{
    if (is_in_environment("JOBQ_CONFIG"))
        return getenv("JOBQ_CONFIG");
    if (access(CLI_DEFAULT_FILE, F_OK) != 0)
        return NULL;
    return access(CLI_DEFAULT_FILE, R_OK) == 0 || !knows_database(cli) ? CLI_DEFAULT_FILE
                                                                       : NULL;
}

static int
check_encoding(int argc, char **argv, jobq_error *err)
{
    for (int i = 1; i < argc; i++) {
        const unsigned char *fault = jobq__utf8_fault(argv[i]);
        if (fault)
            return jobq__error(err, JOBQ_EINVAL,
                               "argument %d is not UTF-8: its byte %td is 0x%02X", i,
                               (const char *)fault - argv[i] + 1, *fault);
    }
    return 0;
}

int
cli_parse(struct cli *cli, const struct command *command, int argc, char **argv,
          jobq_error *err)
{
    struct slots slots;
    fill_slots(&slots, command);
    memset(cli, 0, sizeof *cli);
    cli->command = command;
    int rc = check_encoding(argc, argv, err);
    if (rc != 0)
        return rc;
    char letters[2 * CLI_MAX_OPTIONS + 8];
    put_letters(letters, sizeof letters, command);
    opterr = 0;
    optind = 0; /* glibc: start anew */
    int result;
    while ((result = getopt_long(argc, argv, letters, slots.rows, NULL)) != -1) {
        if (result == '?' || result == ':')
            return refuse_option(&slots, command, result, argv, err);
        rc = take(cli, &slots, slot_of(&slots, result), optarg, err);
        if (rc != 0)
            return rc;
    }
    if (!cli->file && command->flags != CLI_NO_FLAGS && !command->named_file_only &&
        !cli->help)
        cli->file = default_file(cli);
    cli->n_args = argc - optind;
    cli->args = argv + optind;
    if (cli->help)
        return 0;
    if (cli->n_args < command->min_args)
        return refuse_usage(command, err, "an argument is missing", "");
    if (command->max_args >= 0 && cli->n_args > command->max_args)
        return refuse_usage(command, err, "unexpected argument ",
                            cli->args[command->max_args]);
    return 0;
}

/* ---- Values ---- */

const char *
cli_get(const struct cli *cli, const char *name)
{
    const struct cli_option *options = cli->command->options;
    for (size_t i = 0; options != NULL && options[i].name != NULL; i++) {
        if (strcmp(options[i].name, name) == 0)
            return cli->values[i];
    }
    assert(false && "an option that the command's table has");
    return NULL;
}

bool
cli_has(const struct cli *cli, const char *name)
{
    return cli_get(cli, name) != NULL;
}

static bool
parse_number(const char *text, int64_t *out)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]) &&
        !(text[0] == '-' && isdigit((unsigned char)text[1])))
        return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0 && *end == '\0';
}

int
cli_get_int(const struct cli *cli, const char *name, int64_t min, int64_t max,
            int64_t *out, jobq_error *err)
{
    const char *text = cli_get(cli, name);
    int64_t number = 0;
    if (!text)
        return 0;
    if (!parse_number(text, &number) || number < min || number > max)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s%s: \"%s\" is not allowed: %" PRId64 " to %" PRId64,
                           strlen(name) == 1 ? "-" : "--", name, text, min, max);
    *out = number;
    return 0;
}

/* +01 and +0100, as Postgres prints and takes them, as +01:00. */
static void
complete_offset(char *text, size_t size)
{
    size_t len = strlen(text);
    const char *sign = strrchr(text, '+') ? strrchr(text, '+') : strrchr(text, '-');
    if (!sign || strchr(text, ':') == NULL || sign < strchr(text, ':'))
        return;
    size_t digits = strspn(sign + 1, "0123456789");
    if (sign[1 + digits] != '\0' || len + 4 > size)
        return;
    if (digits == 2)
        memcpy(text + len, ":00", 4);
    else if (digits == 4) {
        memmove(text + len - 1, text + len - 2, 3);
        text[len - 2] = ':';
    }
}

int
cli_check_time(const char *option, const char *text, jobq_error *err)
{
    int64_t at_ms;
    char whole[80], in_utc[80];
    if (!text)
        return 0;
    snprintf(whole, sizeof whole, "%.70s", text);
    complete_offset(whole, sizeof whole);
    if (strlen(text) <= 70 && rfc3339_parse(whole, &at_ms))
        return 0;
    /* A date alone is none without its zone, either. */
    bool date = strlen(text) == 10;
    snprintf(in_utc, sizeof in_utc, "%.60s%s", text, date ? "T00:00Z" : "Z");
    bool no_zone = strlen(text) <= 60 && rfc3339_parse(in_utc, &at_ms);
    int rc =
        no_zone
            ? jobq__error(err, JOBQ_EINVAL,
                          "--%s: \"%s\" has no time zone: write it as "
                          "2026-11-22T10:11:12Z or 2026-11-22T11:11:12+01:00",
                          option, text)
            : jobq__error(err, JOBQ_EINVAL,
                          "--%s: \"%s\" is not a time: write it as 2026-11-22T10:11:12Z",
                          option, text);
    snprintf(err->sqlstate, sizeof err->sqlstate, "22007"); /* as the database has it */
    return rc;
}

int
cli_job_id(const char *text, jobq_error *err)
{
    int64_t id = 0;
    if (!parse_number(text, &id) || id < 1)
        return jobq__error(err, JOBQ_EINVAL,
                           "\"%s\" is not a job id: it must be a number, 1 or more",
                           text);
    return 0;
}

/* ---- Help ---- */

enum { HELP_INDENT = 10 };

void
cli_print_summary(FILE *out, const char *name, int width, const struct command *command)
{
    size_t column = 4 + (size_t)width;
    fprintf(out, "  %-*s  ", width, name);
    wrap_print(out, command->summary, column, column);
}

static void
print_option(const struct cli_option *option)
{
    printf("  %s%s%s%s\n%*s", strlen(option->name) == 1 ? "-" : "    --", option->name,
           option->arg != NULL ? " " : "", option->arg != NULL ? option->arg : "",
           HELP_INDENT, "");
    wrap_print(stdout, option->help, HELP_INDENT, HELP_INDENT);
}

static void
print_examples(const char *examples)
{
    printf("\nExamples:\n");
    while (*examples != '\0') {
        size_t len = strcspn(examples, "\n");
        printf("  %.*s\n", (int)len, examples);
        examples += len + (examples[len] == '\n');
    }
}

void
cli_print_help(const struct command *command)
{
    printf("usage: jobqd %s [OPTION]...%s%s\n\n", command->name,
           *command->args != '\0' ? " " : "", command->args);
    wrap_print(stdout, command->summary, 0, 0);
    if (command->details != NULL) {
        putchar('\n');
        wrap_print(stdout, command->details, 0, 0);
    }
    if (command->examples != NULL)
        print_examples(command->examples);
    printf("\nOptions:\n");
    const struct cli_option *option = command->options;
    for (; option != NULL && option->name != NULL; option++)
        print_option(option);
    if (command->json)
        printf("      --json\n          print JSON\n");
    if (command->flags != CLI_NO_FLAGS) {
        printf("  -c, --config FILE\n%*s", HELP_INDENT, "");
        wrap_print(
            stdout,
            command->named_file_only
                ? "the configuration file (default: none)"
                : "the configuration file (default: JOBQ_CONFIG, else " CLI_DEFAULT_FILE
                  " if it exists)",
            HELP_INDENT, HELP_INDENT);
    }
    for (size_t i = 0; i < jobqd_options_count; i++) {
        if (takes_flag(command, &jobqd_options[i]))
            options_print_flags(stdout, &jobqd_options[i], 1);
    }
    printf("  -h, --help\n          print this help\n");
}

/* ---- Errors ---- */

static int
exit_code_of(const jobq_error *err)
{
    const struct remedy *remedy = refusal_remedy(err->sqlstate);
    if (remedy)
        return remedy->exit_code;
    if (strncmp(err->sqlstate, "22", 2) == 0 || strncmp(err->sqlstate, "23", 2) == 0)
        return EX_DATAERR;
    if (strcmp(err->sqlstate, "55P03") == 0) /* no lock in time: later there may be one */
        return EX_TEMPFAIL;
    switch ((enum jobq_code)err->code) {
    case JOBQ_OK:
        return EX_OK;
    case JOBQ_EINVAL:
    case JOBQ_ESTATE:
    case JOBQ_ECONFLICT:
        return EX_DATAERR;
    case JOBQ_ENOTFOUND:
        return EX_NOINPUT;
    case JOBQ_ENOMEM:
        return EX_OSERR;
    case JOBQ_ECONN:
        return EX_UNAVAILABLE;
    case JOBQ_EPROTO:
        return EX_PROTOCOL;
    case JOBQ_EIO:
        return EX_IOERR;
    case JOBQ_ESCHEMA:
        return EX_CONFIG;
    case JOBQ_ETIMEOUT:
        return EX_TEMPFAIL;
    case JOBQ_EDB:
        return EX_SOFTWARE;
    }
    return EX_SOFTWARE;
}

/* What helps against the database's refusal; only where something is known to. */
static void
print_remedy(const struct cli *cli, const jobq_error *err)
{
    const struct remedy *remedy = refusal_remedy(err->sqlstate);
    bool lets_in = err->code != JOBQ_ECONN;
    if (lets_in && strcmp(err->sqlstate, "42501") == 0) {
        if (cli->command->role != NULL)
            fprintf(stderr, ": as the schema's owner: GRANT %s TO the role",
                    cli->command->role);
    } else if (remedy != NULL) {
        fprintf(stderr, ": %s", remedy->text);
    }
}

int
cli_fail_as(const struct cli *cli, int exit_code, const jobq_error *err)
{
    fflush(stdout); /* what was printed before comes before */
    fprintf(stderr, "jobqd %s: ", cli->command->name);
    escape_print(stderr, err->message);
    print_remedy(cli, err);
    fputc('\n', stderr);
    exec_handoff_explain(err->message);
    /* Wrong data is that, whether we find it or the database does. */
    return exit_code == EX_USAGE && strcmp(err->sqlstate, "22007") == 0 ? EX_DATAERR
                                                                        : exit_code;
}

int
cli_fail(const struct cli *cli, const jobq_error *err)
{
    return cli_fail_as(cli, exit_code_of(err), err);
}

int
cli_run(const struct command *command, int argc, char **argv)
{
    if (command->parts != NULL)
        return command->parts(argc, argv);
    struct cli cli;
    jobq_error err = {0};
    if (cli_parse(&cli, command, argc, argv, &err) != 0)
        return cli_fail_as(&cli, EX_USAGE, &err);
    if (cli.help) {
        cli_print_help(command);
        return EX_OK;
    }
    return command->run(&cli);
}
