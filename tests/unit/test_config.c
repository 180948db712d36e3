/* test_config.c: what the configuration reads, and which source wins. */
#include "tests/unit/config_folder.h"

#include "jobqd/base/sqltext.h"
#include "jobqd/config/options.h"

static void
defaults_without_a_file(void **state)
{
    (void)state;
    struct config *config = NULL;
    jobq_error err;
    assert_int_equal(config_load(&config, NULL, no_environment, NULL, 0, &err), 0);
    assert_null(config->database);
    assert_null(config->embedded);
    assert_string_equal(config->schema, "jobq");
    assert_true(strlen(config->node) > 0);
    assert_int_equal(config->lease_ms, 15000);
    assert_int_equal(config->poll_interval_ms, 1000);
    assert_true(config->notify);
    assert_int_equal(config->shutdown_grace_ms, 30000);
    assert_int_equal(config->keep_completed_ms, INT64_C(7) * 24 * 3600 * 1000);
    assert_int_equal(config->keep_failed_ms, INT64_C(30) * 24 * 3600 * 1000);
    assert_int_equal(config->max_frame, 4 * 1024 * 1024);
    assert_int_equal(config->log.level, LOG_LEVEL_INFO);
    assert_int_equal(config->log.format, LOG_FORMAT_TEXT);
    assert_int_equal(config->n_queues, 0);
    config_free(config);
}

static void
every_option_of_the_file_counts(void **state)
{
    (void)state;
    struct config *config = load(
        "\xef\xbb\xbf; a comment\n"
        "  [jobqd]\n"
        "    database = postgresql:///app   ; an inline one\n"
        "    node=web-1\nschema = jobs\nlease = 1m\npoll_interval = 250ms\n"
        "notify = off\nshutdown_grace = 1h30m\nkeep_completed = 25h\nkeep_failed = 2d\n"
        "max_frame = 64 KiB\nlog_level = warning\nlog_format = json\n"
        "[queue mail]\nexec = ./worker 'a b' \"c \\\"d\\\"\" e\\ f ''\nconcurrency = 10\n"
        "timeout = 0\nstop_grace = 1s\nmax_restarts = 0\nmax_seconds = 1m\n"
        "max_crashes = 0\nbackoff = linear(base=1s, step=2s, cap=1m)\nkeep = none\n"
        "[queue quick]\ncommand = true\nmailbox = 16\nboot_timeout = 3s\npreload = "
        "true\n",
        no_environment);
    assert_string_equal(config->database, "postgresql:///app");
    assert_string_equal(config->node, "web-1");
    assert_string_equal(config->schema, "jobs");
    assert_int_equal(config->lease_ms, 60000);
    assert_int_equal(config->poll_interval_ms, 250);
    assert_false(config->notify);
    assert_int_equal(config->shutdown_grace_ms, 5400000);
    assert_int_equal(config->keep_completed_ms, INT64_C(2) * 24 * 3600 * 1000);
    assert_int_equal(config->max_frame, 65536);
    assert_int_equal(config->log.level, LOG_LEVEL_WARNING);
    assert_int_equal(config->log.format, LOG_FORMAT_JSON);
    assert_int_equal(config->n_queues, 2);

    const struct queue_config *mail = &config->queues[0];
    char program[200];
    snprintf(program, sizeof program, "%s/worker", folder);
    assert_string_equal(mail->name, "mail");
    assert_int_equal(mail->mode, QUEUE_EXEC);
    assert_string_equal(mail->argv[0], program);
    assert_string_equal(mail->argv[1], "a b");
    assert_string_equal(mail->argv[2], "c \"d\"");
    assert_string_equal(mail->argv[3], "e f");
    assert_string_equal(mail->argv[4], "");
    assert_null(mail->argv[5]);
    assert_int_equal(mail->concurrency, 10);
    assert_int_equal(mail->mailbox, 1);
    assert_int_equal(mail->timeout_ms, 0);
    assert_int_equal(mail->stop_grace_ms, 1000);
    assert_int_equal(mail->max_restarts, 0);
    assert_int_equal(mail->max_seconds_ms, 60000);
    assert_int_equal(mail->max_crashes, 0);
    assert_int_equal(mail->backoff.formula, JOBQ__BACKOFF_LINEAR);
    assert_false(mail->keep);

    const struct queue_config *quick = &config->queues[1];
    assert_int_equal(quick->mode, QUEUE_COMMAND);
    assert_int_equal(quick->argv[0][0], '/');
    assert_int_equal(quick->mailbox, 16);
    assert_int_equal(quick->boot_timeout_ms, 3000);
    assert_true(quick->preload);
    assert_false(mail->preload);
    assert_int_equal(quick->timeout_ms, 1800000);
    assert_true(quick->keep);
    config_free(config);
}

static void
a_line_longer_than_inih_takes_is_read_whole(void **state)
{
    (void)state;
    char text[1024] = "[queue ";
    char name[129] = {0};
    memset(name, 'q', sizeof name - 1);
    strcat(text, name);
    strcat(text, "]\ncommand = true ");
    memset(text + strlen(text), 'x', 500);
    strcat(text, "   ; a comment\n");
    struct config *config = load(text, no_environment);
    assert_string_equal(config->queues[0].name, name);
    assert_int_equal(strlen(config->queues[0].argv[1]), 500);
    config_free(config);
}

/* inih would take it for more of the value above. */
static void
a_line_that_begins_with_a_blank_is_one_of_its_own(void **state)
{
    (void)state;
    static const char *const blanks[] = {" ", "\t", "\v", "\f", " \v"};
    for (size_t i = 0; i < sizeof blanks / sizeof blanks[0]; i++) {
        for (int len = 1; len < 1000; len += 333) {
            char text[1200];
            struct config *config = NULL;
            jobq_error err = {0};
            snprintf(text, sizeof text, "[jobqd]\nnode = a\n%s%0*d", blanks[i], len, 0);
            write_file("t.conf", text);
            assert_int_equal(
                config_load(&config, "t.conf", no_environment, NULL, 0, &err),
                JOBQ_EINVAL);
            assert_string_equal(err.message,
                                "t.conf:3: neither `[section]` nor `key = value`");
        }
    }
}

static void
later_sources_win(void **state)
{
    (void)state;
    static const char file[] = "[jobqd]\nembedded = data\nlease = 20s\nnode = file\n";
    char *const environment[] = {(char[]){"JOBQ_LEASE=30s"},
                                 (char[]){"JOBQ_NODE=env"},
                                 (char[]){"JOBQ_SCHEMA="},
                                 (char[]){"JOBQ_TEST_THING=1"},
                                 (char[]){"DATABASE_URL=postgresql:///other"},
                                 NULL};
    static const struct config_flag flags[] = {{"node", "flag"}, {"poll-interval", "2s"}};
    struct config *config = NULL;
    jobq_error err = {0};
    char data[200];
    write_file("t.conf", file);
    assert_int_equal(config_load(&config, "t.conf", environment, flags, 2, &err), 0);
    snprintf(data, sizeof data, "%s/data", folder);
    assert_string_equal(config->embedded, data);
    assert_null(config->database); /* DATABASE_URL does not outdo a file that names one */
    assert_int_equal(config->lease_ms, 30000);
    assert_string_equal(config->node, "flag");
    assert_int_equal(config->poll_interval_ms, 2000);
    assert_string_equal(config->schema, "jobq");
    config_free(config);

    static const struct config_flag other[] = {{"database", "dbname=x"}};
    assert_int_equal(config_load(&config, "t.conf", environment, other, 1, &err), 0);
    assert_string_equal(config->database, "dbname=x");
    assert_null(config->embedded);
    config_free(config);

    assert_int_equal(config_load(&config, NULL, environment, NULL, 0, &err), 0);
    assert_string_equal(config->database, "postgresql:///other");
    config_free(config);
}

static void
limits_of_a_queue_count(void **state)
{
    (void)state;
    struct config *config =
        load("[queue quick]\ncommand = true\nmax_memory = 100MiB\n"
             "[queue mail]\nexec = true\n"
             "max_memory_hard = 1GiB\ncpu_limit = 1m\nnofile = 64\nnice = -3\nuser = "
             "www-data\n"
             "group = 33\nno_new_privs = on\nworking_directory = ./dir\n"
             "env = DATABASE_URL 'A=b c' TZ=\n",
             no_environment);
    const struct queue_config *quick = &config->queues[0];
    assert_int_equal(quick->max_memory, 100 << 20);
    assert_int_equal(quick->max_memory_hard, 0);
    assert_int_equal(quick->nofile, 0);
    assert_null(quick->user);
    assert_null(quick->env);
    const struct queue_config *mail = &config->queues[1];
    assert_int_equal(mail->max_memory_hard, 1 << 30);
    assert_int_equal(mail->cpu_limit_ms, 60000);
    assert_int_equal(mail->nofile, 64);
    assert_int_equal(mail->nice, -3);
    assert_string_equal(mail->user, "www-data");
    assert_string_equal(mail->group, "33");
    assert_true(mail->no_new_privs);
    assert_string_equal(strrchr(mail->working_directory, '/'), "/dir");
    assert_int_equal(mail->working_directory[0], '/');
    assert_string_equal(mail->env[0], "DATABASE_URL");
    assert_string_equal(mail->env[1], "A=b c");
    assert_string_equal(mail->env[2], "TZ=");
    assert_null(mail->env[3]);
    char where[128];
    config_where(config, mail, "nofile", where, sizeof where);
    assert_string_equal(where, "t.conf:8: [queue mail] nofile");
    config_where(config, mail, "mailbox", where, sizeof where);
    assert_string_equal(where, "t.conf: [queue mail]");
    config_free(config);
}

/* A name that ends in a blank cannot be the value's end. */
static void
a_folder_keeps_a_blank_before_its_slash(void **state)
{
    (void)state;
    struct config *config = load("[jobqd]\nembedded = /srv/x /\n", no_environment);
    assert_string_equal(config->embedded, "/srv/x /");
    config_free(config);
    config = load("[jobqd]\nembedded = /srv/x///\n", no_environment);
    assert_string_equal(config->embedded, "/srv/x");
    config_free(config);
}

static void
the_schema_is_filled_in(void **state)
{
    (void)state;
    char *text = NULL;
    jobq_error err = {0};
    assert_int_equal(sqltext_expand("@schema@.jobs '@channel@' @limit@ a@b @schema",
                                    "user", &text, &err),
                     0);
    assert_string_equal(text, "\"user\".jobs 'user' @limit@ a@b @schema");
    free(text);
    assert_int_equal(sqltext_expand("", "jobq\"; DROP", &text, &err), JOBQ_EINVAL);
    assert_false(sqltext_is_schema(""));
    assert_false(sqltext_is_schema("9a"));
    assert_false(sqltext_is_schema("pg_x"));
    assert_true(sqltext_is_schema("_a9"));
}

/* Each default must be within its own range, or set_defaults would fail; and each row
 * must be documented. */
static void
the_tables_are_complete(void **state)
{
    (void)state;
    const struct option_row *tables[] = {jobqd_options, queue_options, cron_options};
    const size_t counts[] = {jobqd_options_count, queue_options_count,
                             cron_options_count};
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < counts[t]; i++) {
            const struct option_row *row = &tables[t][i];
            assert_true((row->fallback != NULL) != (row->absent != NULL));
            assert_true(strlen(row->help) > 0);
            assert_ptr_equal(option_find(tables[t], counts[t], row->name), row);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_without_a_file),
        cmocka_unit_test(every_option_of_the_file_counts),
        cmocka_unit_test(a_line_longer_than_inih_takes_is_read_whole),
        cmocka_unit_test(a_line_that_begins_with_a_blank_is_one_of_its_own),
        cmocka_unit_test(later_sources_win),
        cmocka_unit_test(limits_of_a_queue_count),
        cmocka_unit_test(a_folder_keeps_a_blank_before_its_slash),
        cmocka_unit_test(the_schema_is_filled_in),
        cmocka_unit_test(the_tables_are_complete),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
