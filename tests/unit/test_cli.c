/* test_cli.c: how a command line is read: what the table says is taken, what it does not
 * say is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "jobqd/cli/cli.h"

static const struct cli_option options[] = {
    {"queue", "QUEUE", "the queue"}, {"force", NULL, "do it anyway"}, {0}};

static const struct command copy = {.name = "copy",
                                    .args = "FROM [TO]",
                                    .summary = "Copies",
                                    .options = options,
                                    .flags = CLI_DATABASE_FLAGS,
                                    .json = true,
                                    .min_args = 1,
                                    .max_args = 2};
static const struct command bare = {.name = "bare", .args = "", .summary = "Does it"};
static const struct command all = {
    .name = "all", .args = "", .summary = "All flags", .flags = CLI_ALL_FLAGS};

#define MAX_WORDS 16

/* The words of a command line: getopt moves them about, so each test has its own array.
 */
struct words {
    char *argv[MAX_WORDS + 1];
    int argc;
    char text[512];
};

static void
split(struct words *words, const char *line)
{
    memset(words, 0, sizeof *words);
    strncpy(words->text, line, sizeof words->text - 1);
    for (char *at = strtok(words->text, " "); at != NULL; at = strtok(NULL, " "))
        words->argv[words->argc++] = at;
}

static void
options_and_arguments_may_be_mixed(void **state)
{
    (void)state;
    struct words words;
    struct cli cli;
    jobq_error err = {0};
    split(&words, "copy a --queue q1 b --json --queue=q2 -c x.conf --schema s --force");
    assert_int_equal(cli_parse(&cli, &copy, words.argc, words.argv, &err), 0);
    assert_string_equal(cli_get(&cli, "queue"), "q2"); /* the last one counts */
    assert_true(cli_has(&cli, "force"));
    assert_true(cli.json);
    assert_string_equal(cli.file, "x.conf");
    assert_int_equal(cli.n_flags, 1);
    assert_string_equal(cli.flags[0].name, "schema");
    assert_string_equal(cli.flags[0].value, "s");
    assert_int_equal(cli.n_args, 2);
    assert_string_equal(cli.args[0], "a");
    assert_string_equal(cli.args[1], "b");
}

static void
a_dash_is_an_argument_and_two_end_the_options(void **state)
{
    (void)state;
    struct words words;
    struct cli cli;
    jobq_error err = {0};
    split(&words, "copy - -- --force");
    assert_int_equal(cli_parse(&cli, &copy, words.argc, words.argv, &err), 0);
    assert_false(cli_has(&cli, "force"));
    assert_int_equal(cli.n_args, 2);
    assert_string_equal(cli.args[0], "-");
    assert_string_equal(cli.args[1], "--force");
}

static void
help_needs_no_arguments(void **state)
{
    (void)state;
    struct words words;
    struct cli cli;
    jobq_error err = {0};
    split(&words, "copy -h");
    assert_int_equal(cli_parse(&cli, &copy, words.argc, words.argv, &err), 0);
    assert_true(cli.help);
}

static void
every_option_of_the_daemon_is_a_flag_of_run(void **state)
{
    (void)state;
    struct words words;
    struct cli cli;
    jobq_error err = {0};
    split(&words, "all --poll-interval 2s --log-level=debug");
    assert_int_equal(cli_parse(&cli, &all, words.argc, words.argv, &err), 0);
    assert_int_equal(cli.n_flags, 2);
    assert_string_equal(cli.flags[0].name, "poll_interval");
    assert_string_equal(cli.flags[1].value, "debug");
}

#define USAGE_COPY "; usage: jobqd copy [OPTION]... FROM [TO] (see --help)"
#define USAGE_BARE "; usage: jobqd bare [OPTION]... (see --help)"

static void
wrong_lines_are_told_with_the_usage(void **state)
{
    (void)state;
    static const struct {
        const struct command *command;
        const char *line;
        const char *message;
    } rows[] = {
        {&copy, "copy", "an argument is missing" USAGE_COPY},
        {&copy, "copy a b c", "unexpected argument c" USAGE_COPY},
        {&copy, "copy a --nothing", "unknown option --nothing" USAGE_COPY},
        {&copy, "copy a --nothing=1", "unknown option --nothing=1" USAGE_COPY},
        {&copy, "copy a -x", "unknown option -x" USAGE_COPY},
        {&copy, "copy a -xh", "unknown option -x" USAGE_COPY},
        {&copy, "copy a --queue", "--queue needs an argument" USAGE_COPY},
        {&copy, "copy a -c", "-c needs an argument" USAGE_COPY},
        {&copy, "copy a --config", "--config needs an argument" USAGE_COPY},
        {&copy, "copy a --force=yes", "--force takes no argument" USAGE_COPY},
        {&copy, "copy a --json=1", "--json takes no argument" USAGE_COPY},
        {&copy, "copy a --help=1", "--help takes no argument" USAGE_COPY},
        {&copy, "copy a --lease 1s", "unknown option --lease" USAGE_COPY},
        {&bare, "bare x", "unexpected argument x" USAGE_BARE},
        {&bare, "bare --json", "unknown option --json" USAGE_BARE},
        {&bare, "bare -c", "unknown option -c" USAGE_BARE},
        {&bare, "bare --database x", "unknown option --database" USAGE_BARE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct words words;
        struct cli cli;
        jobq_error err = {0};
        split(&words, rows[i].line);
        int rc = cli_parse(&cli, rows[i].command, words.argc, words.argv, &err);
        assert_string_equal(err.message, rows[i].message);
        assert_int_equal(rc, JOBQ_EINVAL);
    }
}

static void
numbers_have_a_range(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "0", "10", "-1", "x", "5x", "+5", "99999999999999999999"};
    struct words words;
    struct cli cli;
    jobq_error err = {0};
    int64_t number = 7;
    split(&words, "copy a");
    assert_int_equal(cli_parse(&cli, &copy, words.argc, words.argv, &err), 0);
    assert_int_equal(cli_get_int(&cli, "queue", 1, 9, &number, &err), 0);
    assert_int_equal(number, 7); /* not given: untouched */
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cli.values[0] = wrong[i];
        assert_int_equal(cli_get_int(&cli, "queue", 1, 9, &number, &err), JOBQ_EINVAL);
        assert_non_null(strstr(err.message, "is not allowed: 1 to 9"));
        assert_int_equal(number, 7);
    }
    cli.values[0] = "5";
    assert_int_equal(cli_get_int(&cli, "queue", 1, 9, &number, &err), 0);
    assert_int_equal(number, 5);
    assert_int_equal(cli_job_id("9223372036854775807", &err), 0);
    assert_int_equal(cli_job_id("9223372036854775808", &err), JOBQ_EINVAL);
    assert_int_equal(cli_job_id("1;", &err), JOBQ_EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_arguments_may_be_mixed),
        cmocka_unit_test(a_dash_is_an_argument_and_two_end_the_options),
        cmocka_unit_test(help_needs_no_arguments),
        cmocka_unit_test(every_option_of_the_daemon_is_a_flag_of_run),
        cmocka_unit_test(wrong_lines_are_told_with_the_usage),
        cmocka_unit_test(numbers_have_a_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
