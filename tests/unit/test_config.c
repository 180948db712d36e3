/* test_config.c: the configuration: what it reads, which source wins, and what a user is
 * told who wrote it wrongly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "jobqd/config/config.h"
#include "jobqd/pool/launch.h"
#include "jobqd/config/conninfo.h"
#include "jobqd/config/options.h"
#include "jobqd/base/sqltext.h"
#include "jobqd/config/words.h"

static char folder[] = "/tmp/jobq-test-config-XXXXXX";
static char *const no_environment[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};

static void
write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int
enter_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL || chdir(folder) != 0)
        return -1;
    write_file("worker", "#!/bin/sh\n");
    write_file("plain", "not a program\n");
    return chmod("worker", 0755) != 0 || chmod("plain", 0644) != 0 ||
           mkdir("dir", 0755) != 0;
}

static int
leave_folder(void **state)
{
    (void)state;
    unlink("worker");
    unlink("plain");
    unlink("t.conf");
    rmdir("dir");
    return chdir("/") != 0 || rmdir(folder) != 0;
}

static struct config *
load(const char *text, char *const *environment)
{
    struct config *config = NULL;
    jobq_error err = {0};
    write_file("t.conf", text);
    int rc = config_load(&config, "t.conf", environment, NULL, 0, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(rc, 0);
    return config;
}

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

/* What is printed reads back to the same: compared by printing it again. */
static void
print_as(const char *name, const struct config *config, bool json, bool secrets)
{
    int saved = dup(STDOUT_FILENO);
    fflush(stdout);
    assert_non_null(freopen(name, "w", stdout));
    config_print(config, json, secrets);
    fflush(stdout);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    close(saved);
}

static void
print_to(const char *name, const struct config *config)
{
    print_as(name, config, false, true);
}

static void
read_file(const char *name, char *text, size_t size)
{
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

static void
what_is_printed_reads_back(void **state)
{
    (void)state;
    char first[8192], second[8192];
    jobq_error err = {0};
    struct config *config = load(
        "[jobqd]\ndatabase = host=/run user=u\nmax_frame = 1025\nlease = 1m1ms\n"
        "[queue a b]\ncommand = ./worker ';' x\\ \\;\\ y \"it's\" '' 'last ' \"x\t\"\n"
        "backoff = exponential(base=1s, cap=0, jitter=0%)\n"
        "[queue c]\nexec = ./worker a\\\\b\nbackoff = constant(3s)\n"
        "max_memory_hard = 1536MiB\ncpu_limit = 1s\nnofile = 64\nnice = 3\n"
        "user = daemon\ngroup = 1\nno_new_privs = on\nworking_directory = /\n"
        "env = A=1 'B=x y' HOME\n",
        no_environment);
    print_to("t.conf", config);
    config_free(config);
    read_file("t.conf", first, sizeof first);
    assert_int_equal(config_load(&config, "t.conf", no_environment, NULL, 0, &err), 0);
    assert_string_equal(config->queues[0].argv[1], ";");
    assert_string_equal(config->queues[0].argv[2], "x ; y");
    assert_string_equal(config->queues[0].argv[3], "it's");
    assert_string_equal(config->queues[0].argv[4], "");
    assert_string_equal(config->queues[0].argv[5], "last ");
    assert_string_equal(config->queues[0].argv[6], "x\t");
    assert_string_equal(config->queues[1].argv[1], "a\\b");
    assert_int_equal(config->queues[0].backoff.cap_ms, 0);
    print_to("t.conf", config);
    config_free(config);
    read_file("t.conf", second, sizeof second);
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "max_frame = 1025\n"));
    assert_non_null(strstr(first, "lease = 1m1ms\n"));
}

/* A semicolon begins a comment after a blank alone, also on lines that inih would cut. */
static void
a_value_may_begin_with_a_semicolon(void **state)
{
    (void)state;
    char text[8192], begin[8192];
    jobq_error err = {0};
    struct config *config =
        load("[jobqd]\ndatabase =;host ; a comment\n", no_environment);
    assert_string_equal(config->database, ";host");
    print_to("t.conf", config);
    config_free(config);
    assert_int_equal(config_load(&config, "t.conf", no_environment, NULL, 0, &err), 0);
    assert_string_equal(config->database, ";host");
    config_free(config);
    memset(begin, 'x', sizeof begin);
    snprintf(text, sizeof text, "[jobqd]\ndatabase =;%.5000s ; a comment\n", begin);
    config = load(text, no_environment);
    assert_int_equal(strlen(config->database), 5001);
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

/* The printed configuration goes into reports. */
static void
secrets_are_not_printed(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *shown; /* NULL: as it is */
        bool secret;       /* it looks like one */
    } rows[] = {
        {"env = A=1 DB=postgresql://u:topsecret@h/db", "env = A=**** DB=****", true},
        {"env = A=1 'B=a b' HOME TZ=", "env = A=**** B=**** HOME TZ=****", false},
        {"env = smtp_password=topsecret", "env = smtp_password=****", true},
        {"env = SENTRY_DSN=https://topsecret@h/1", "env = SENTRY_DSN=****", true},
        {"env = DATABASE_URL HOME", NULL, false},
        {"exec = /bin/true --db postgresql://u:topsecret@h/db",
         "exec = /bin/true --db postgresql://u:****@h/db", true},
        {"exec = /bin/true 'host=h password=topsecret'",
         "exec = /bin/true 'host=h password=****'", true},
        {"exec = /bin/true --token topsecret --api-key=topsecret x",
         "exec = /bin/true --token **** --api-key=**** x", true},
        {"exec = /bin/true --token --verbose", NULL, false},
        {"exec = /bin/true a=b http://h/x?y=z 'c d'", NULL, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[8192], file[300], expected[300];
        bool exec = strncmp(rows[i].line, "exec", 4) == 0;
        snprintf(file, sizeof file, "[queue a]\n%s%s\n", exec ? "" : "exec = /bin/true\n",
                 rows[i].line);
        snprintf(expected, sizeof expected, "\n%s\n",
                 rows[i].shown ? rows[i].shown : rows[i].line);
        struct config *config = load(file, no_environment);
        print_as("t.conf", config, false, false);
        read_file("t.conf", text, sizeof text);
        assert_null(strstr(text, "topsecret"));
        if (!strstr(text, expected))
            fail_msg("%s is not in %s", expected, text);
        print_as("t.conf", config, true, false);
        read_file("t.conf", text, sizeof text);
        assert_null(strstr(text, "topsecret"));
        print_as("t.conf", config, false, true);
        read_file("t.conf", text, sizeof text);
        snprintf(expected, sizeof expected, "\n%s\n", rows[i].line);
        assert_non_null(strstr(text, expected));
        assert_int_equal(config_has_secret(config), rows[i].secret);
        config_free(config);
    }
}

static void
whether_the_file_holds_a_password_is_known(void **state)
{
    (void)state;
    char *environment[] = {(char[]){"JOBQ_DATABASE=postgresql://u:topsecret@h"}, NULL};
    struct config *config =
        load("[jobqd]\ndatabase = postgresql://u:x@h/db\n", no_environment);
    assert_true(config_has_secret(config));
    config_free(config);
    config = load("[jobqd]\ndatabase = postgresql://u@h/db\n", no_environment);
    assert_false(config_has_secret(config));
    config_free(config);
    config = load("[jobqd]\nlease = 3s\n", environment);
    assert_false(config_has_secret(config));
    config_free(config);
}

static const struct {
    const char *text;
    const char *message;
} bad_files[] = {
    {"[jobqd]\nlese = 15s\n",
     "t.conf:2: [jobqd] lese: no such option; did you mean lease? Allowed here are "
     "database, embedded, schema, node, lease, "
     "poll_interval, notify, shutdown_grace, respawn, keep_completed, "
     "keep_failed, keep_cancelled, keep_discarded, max_frame, log_level, "
     "log_format, on_failure, on_discard, on_discard_kind and on_discard_queue"},
    {"[jobqd]\nlease = 15\n", "t.conf:2: [jobqd] lease: \"15\" is not allowed: 1s to "
                              "10m, with a unit (ms, s, m, h, d)"},
    {"[jobqd]\n\nlease = 11m\n", "t.conf:3: [jobqd] lease: \"11m\" is not allowed: 1s to "
                                 "10m, with a unit (ms, s, m, h, d)"},
    {"[jobqd]\nlease =\n", "t.conf:2: [jobqd] lease: \"\" is not allowed: 1s to 10m, "
                           "with a unit (ms, s, m, h, d)"},
    {"[jobqd]\nlease = 2s\nlease = 3s\n",
     "t.conf:3: [jobqd] lease: set twice, first on line 2"},
    {"[jobqd]\nnotify = yes\n",
     "t.conf:2: [jobqd] notify: \"yes\" is not allowed: off or on"},
    {"[jobqd]\nlog_level = verbose\n", "t.conf:2: [jobqd] log_level: \"verbose\" is not "
                                       "allowed: debug, info, warning or error"},
    {"[jobqd]\nmax_frame = 4 MB\n",
     "t.conf:2: [jobqd] max_frame: \"4 MB\" is not allowed: 1KiB to 64MiB, with a unit "
     "(KiB, MiB, GiB) or in bytes"},
    {"[jobqd]\nmax_frame = 99999999999999999999\n",
     "t.conf:2: [jobqd] max_frame: \"99999999999999999999\" is not allowed: 1KiB to "
     "64MiB, with a unit (KiB, MiB, GiB) or in bytes"},
    {"[jobqd]\nkeep_completed = 1h\n", "t.conf:2: [jobqd] keep_completed: \"1h\" is not "
                                       "allowed: 1d to 3650d, with a unit (h, d)"},
    {"[jobqd]\nschema = Jobs\n",
     "t.conf:2: [jobqd] schema: \"Jobs\" is not allowed: "
     "1 to 63 lower-case letters, digits and _, not beginning with a digit or pg_"},
    {"[jobqd]\nnode = my node\n", "t.conf:2: [jobqd] node: \"my node\" is not allowed: 1 "
                                  "to 128 letters, digits and . _ - : @"},
    {"[jobqd]\ndatabase = postgresql:///a\nembedded = d\n",
     "database and embedded are both set by the configuration file; set only one of "
     "them"},
    {"lease = 15s\n", "t.conf:1: lease is outside any section; begin with [jobqd]"},
    {"[jobqd]\ndatabase postgresql:///app\n",
     "t.conf:2: no \"=\" after database: write `key = value`"},
    {"[jobqd]\ndatabase host=secret\n",
     "t.conf:2: no \"=\" after database: write `key = value`"},
    {"[jobqd]\n[jobqd]\n", "t.conf:2: [jobqd] is defined twice, first on line 1"},
    {"[crontab]\nschedule = 0 3 * * *\n",
     "t.conf:1: [crontab]: no such section; [jobqd], [queue NAME] and [cron NAME] are "
     "allowed"},
    {"[cron a]\nschedule = @daily\nkind = k\nunique_by = {\"period\": \"1h\"}\n",
     "t.conf:4: [cron a] unique_by.period must be whole seconds, 1 to 2147483647, or "
     "\"infinity\", got \"1h\""},
    {"[cron nightly]\nschedule = 0 3 * * *\n",
     "t.conf:1: [cron nightly]: needs kind = KIND"},
    {"[queue]\ncommand = true\n",
     "t.conf:1: [queue ]: the name of a queue must have 1 to 128 bytes"},
    {"[queue a]\ncommand = true\n[queue a]\n",
     "t.conf:3: [queue a] is defined twice, first on line 1"},
    {"[queue a]\nconcurrency = 4\n",
     "t.conf:1: [queue a]: needs command = PROGRAM or exec = PROGRAM"},
    {"[queue a]\n[queue b]\nexec = true\n",
     "t.conf:1: [queue a]: needs command = PROGRAM or exec = PROGRAM"},
    {"[queue a]\ncommand = true\nexec = true\n",
     "t.conf:3: [queue a] exec: a queue has either command or exec, not both"},
    {"[queue a]\nexec = true 'x ; y'\n",
     "t.conf:2: [queue a] exec: unclosed quote ' (note that \" ;\" begins a "
     "comment)"},
    {"[queue a]\nexec = true x\\\n",
     "t.conf:2: [queue a] exec: a backslash at the end of the value"},
    {"[queue a]\nexec = ''\n", "t.conf:2: [queue a] exec: no program is given"},
    {"[queue a]\nexec = true\npreload = true\n",
     "t.conf:3: [queue a] preload: is only for command; an exec queue runs one process "
     "per job"},
    {"[queue a]\ncommand = true\npreload = yes\n",
     "t.conf:3: [queue a] preload: \"yes\" is not allowed: off or on"},
    {"[queue a]\nexec = true\nmailbox = 4\n",
     "t.conf:3: [queue a] mailbox: is only for command; an exec queue runs one process "
     "per job"},
    {"[queue a]\nexec = true\nconcurrency = 0\n",
     "t.conf:3: [queue a] concurrency: \"0\" is not allowed: 1 to 1000"},
    {"[queue a]\nexec = true\nconcurrency = 4x\n",
     "t.conf:3: [queue a] concurrency: \"4x\" is not allowed: 1 to 1000"},
    {"[queue a]\nexec = true\nageing = 31d\n",
     "t.conf:3: [queue a] ageing: \"31d\" is not allowed: 0 to 30d, with a unit (ms, s, "
     "m, h, d)"},
    {"[queue a]\nexec = true\nageing = often\n",
     "t.conf:3: [queue a] ageing: \"often\" is not allowed: 0 to 30d, with a unit (ms, "
     "s, m, h, d)"},
    {"[queue a]\nexec = true\nkeep = some\n",
     "t.conf:3: [queue a] keep: \"some\" is not allowed: none or all"},
    {"[queue a]\nexec = true\nbackoff = cubic\n",
     "t.conf:3: [queue a] backoff: \"cubic\" is not allowed: oban, exponential(base=15s, "
     "cap=24h), "
     "linear(base=15s, step=15s, cap=1h) or constant(30s), each also with jitter=N%"},
    {"[queue a]\nexec = true\ndatabase = x\n",
     "t.conf:3: [queue a] database: no such option; it is an option of [jobqd]. Allowed "
     "here are command, exec, "
     "concurrency, mailbox, ageing, "
     "timeout, stop_grace, boot_timeout, preload, max_restarts, max_seconds, max_jobs, "
     "max_age, shutdown_grace, max_attempts, max_crashes, max_memory, max_memory_hard, "
     "cpu_limit, "
     "nofile, nice, "
     "user, group, no_new_privs, working_directory, env, backoff, keep, "
     "keep_completed, keep_failed, keep_count, on_failure, on_discard, "
     "on_discard_kind and on_discard_queue"},
    {"[queue a]\nexec = true\nmax_memory = 100MiB\n",
     "t.conf:3: [queue a] max_memory: is only for command; an exec queue runs one "
     "process per job"},
    {"[queue a]\ncommand = true\nmax_memory = 100\n",
     "t.conf:3: [queue a] max_memory: too little for any program: must be 1MiB or more, "
     "or 0"},
    {"[queue a]\ncommand = true\nmax_memory_hard = 1GB\n",
     "t.conf:3: [queue a] max_memory_hard: \"1GB\" is not allowed: 0 to 1024GiB, with a "
     "unit (KiB, MiB, GiB) or in bytes"},
    {"[queue a]\ncommand = true\nmax_memory_hard = 1GiB\nmax_memory = 2GiB\n",
     "t.conf:4: [queue a] max_memory: more than max_memory_hard, which would always "
     "apply first"},
    {"[queue a]\nexec = true\nnofile = 3\n",
     "t.conf:3: [queue a] nofile: too few for any program: must be 16 or more, or 0"},
    {"[queue a]\nexec = true\nnice = 20\n",
     "t.conf:3: [queue a] nice: \"20\" is not allowed: -20 to 19"},
    {"[queue a]\nexec = true\nuser = a b\n",
     "t.conf:3: [queue a] user: \"a b\" is not allowed: 1 to 128 letters, digits and . _ "
     "- : @"},
    {"[queue a]\nexec = true\nno_new_privs = yes\n",
     "t.conf:3: [queue a] no_new_privs: \"yes\" is not allowed: off or on"},
    {"[queue a]\nexec = true\nenv = A=1 JOBQ_FD=4\n",
     "t.conf:3: [queue a] env: JOBQ_FD is set by jobqd itself"},
    {"; caf\xe9\n\n [queue caf\xe9]\nexec = true\n",
     "t.conf:3: byte 12 of the line, 0xE9, is not UTF-8"},
    {"[cron a]\nkind = \xc3\xa9\xed\xa0\x80\n",
     "t.conf:2: byte 10 of the line, 0xED, is not UTF-8"},
    {"[jobqd]\njust words\n", "t.conf:2: neither `[section]` nor `key = value`"},
    {"[jobqd\nlease = 1s\n", "t.conf:1: a section needs a closing ]"},
    {"[queue a] exec = true\n", "t.conf:1: nothing may follow a section's ]"},
};

static void
a_wrong_file_is_told_by_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        struct config *config = NULL;
        jobq_error err = {0};
        write_file("t.conf", bad_files[i].text);
        int rc = config_load(&config, "t.conf", no_environment, NULL, 0, &err);
        assert_string_equal(err.message, bad_files[i].message);
        assert_int_equal(rc, JOBQ_EINVAL);
        assert_null(config);
    }
}

/* Who only reads the configuration, to look at queues, say, has no use for the program.
 */
static void
a_missing_program_is_told_to_who_would_start_it(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *message;
        bool is_there; /* only the queue is not served then */
    } rows[] = {
        {"[queue a]\ncommand = no-such-program-anywhere\n",
         "t.conf:2: [queue a] command: no program \"no-such-program-anywhere\" on PATH "
         "(a "
         "program beside "
         "this file is ./no-such-program-anywhere)",
         false},
        {"[queue a]\ncommand = /no/such/program -x\n",
         "t.conf:2: [queue a] command: cannot run /no/such/program: No such file or "
         "directory",
         false},
        {"[queue a]\nexec = /usr\n",
         "t.conf:2: [queue a] exec: cannot run /usr: it is a folder", true},
        {"[queue a]\nexec = /etc/passwd\n",
         "t.conf:2: [queue a] exec: cannot run /etc/passwd: it is not executable (chmod "
         "+x)",
         true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *config = load(rows[i].text, no_environment);
        jobq_error err = {0};
        assert_int_equal(launch_check(config, LAUNCH_JUDGES, &err),
                         rows[i].is_there ? JOBQ_ESTATE : JOBQ_EINVAL);
        assert_string_equal(err.message, rows[i].message);
        assert_int_equal(launch_check(config, LAUNCH_STARTS, NULL),
                         rows[i].is_there ? 0 : JOBQ_EINVAL);
        config_free(config);
    }
}

static void
a_wrong_environment_or_flag_is_told_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *variable;
        struct config_flag flag;
        const char *message;
    } rows[] = {
        {"JOBQ_LEASE=soon",
         {0},
         "JOBQ_LEASE: \"soon\" is not allowed: 1s to 10m, with a unit (ms, s, m, h, d)"},
        {"JOBQ_LOG_FORMAT=xml",
         {0},
         "JOBQ_LOG_FORMAT: \"xml\" is not allowed: text, json or logfmt"},
        {"JOBQ_POLL_INTERVAL=1ms",
         {0},
         "JOBQ_POLL_INTERVAL: \"1ms\" is not allowed: 10ms to 1h, with a unit (ms, s, m, "
         "h, d)"},
        {NULL, {"lese", "1s"}, "--lese: no such option"},
        {NULL,
         {"schema", "pg_mine"},
         "--schema: \"pg_mine\" is not allowed: 1 to 63 lower-case letters, digits and "
         "_, not beginning with a digit or pg_"},
        {NULL,
         {"keep-failed", ""},
         "--keep-failed: \"\" is not allowed: 1d to 3650d, with a unit (h, d)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *config = NULL;
        jobq_error err = {0};
        char variable[100];
        snprintf(variable, sizeof variable, "%s",
                 rows[i].variable ? rows[i].variable : "X=");
        char *const environment[] = {variable, NULL};
        int rc = config_load(&config, NULL, environment, &rows[i].flag,
                             rows[i].flag.name != NULL, &err);
        assert_string_equal(err.message, rows[i].message);
        assert_int_equal(rc, JOBQ_EINVAL);
        assert_null(config);
    }
}

/* What the environment or a flag gives, printed as a file, and read from there. */
static void
values_from_outside_the_file_read_back_from_one(void **state)
{
    (void)state;
    static const struct {
        struct config_flag flag;
        const char *line; /* NULL: refused */
        const char *message;
    } rows[] = {
        {{"database", " postgresql:///app\n"}, "database = postgresql:///app\n", NULL},
        {{"node", "\tweb-1 "}, "node = web-1\n", NULL},
        {{"lease", " 20s\n"}, "lease = 20s\n", NULL},
        {{"database", "host=/run application_name='a ;b'"},
         "database = host=/run application_name='a \\;b'\n",
         NULL},
        {{"database", "postgresql:///app?application_name=a ;b\t;c"},
         "database = postgresql:///app?application_name=a%20;b%09;c\n",
         NULL},
        {{"database", "host=/run application_name='http://x ;y'"},
         "database = host=/run application_name='http://x \\;y'\n",
         NULL},
        {{"embedded", "/srv/a "}, "embedded = /srv/a\n", NULL},
        {{"embedded", "/srv/a //"}, "embedded = /srv/a /\n", NULL},
        {{"embedded", "/srv/a;b"}, "embedded = /srv/a;b\n", NULL},
        {{"embedded", "/srv/a ;b"},
         NULL,
         "--embedded: a ; after a blank is not allowed: in the file it would begin a "
         "comment"},
        {{"embedded", ";b"},
         NULL,
         "--embedded: a ; at the beginning is not allowed: in the file it would begin a "
         "comment"},
        {{"database", " ;password=secret"},
         NULL,
         "--database: a ; at the beginning is not allowed: in the file it would begin a "
         "comment"},
        {{"database", "password=secret\nhost=/run"},
         NULL,
         "--database: the value has a line break; it must be on one line"},
        {{"keep-failed", " \n"},
         NULL,
         "--keep-failed: \"\" is not allowed: 1d to 3650d, with a unit (h, d)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char first[8192], second[8192];
        struct config *config = NULL;
        jobq_error err = {0};
        int rc = config_load(&config, NULL, no_environment, &rows[i].flag, 1, &err);
        if (rows[i].line == NULL) {
            assert_string_equal(err.message, rows[i].message);
            assert_int_equal(rc, JOBQ_EINVAL);
            continue;
        }
        assert_string_equal(err.message, "");
        print_to("t.conf", config);
        config_free(config);
        read_file("t.conf", first, sizeof first);
        assert_non_null(strstr(first, rows[i].line));
        assert_int_equal(config_load(&config, "t.conf", no_environment, NULL, 0, &err),
                         0);
        print_to("t.conf", config);
        config_free(config);
        read_file("t.conf", second, sizeof second);
        assert_string_equal(first, second);
    }
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
a_file_that_cannot_be_read(void **state)
{
    (void)state;
    struct config *config = NULL;
    jobq_error err = {0};
    assert_int_equal(config_load(&config, "none.conf", no_environment, NULL, 0, &err),
                     JOBQ_EIO);
    assert_string_equal(err.message, "none.conf: No such file or directory");
    assert_int_equal(
        config_load(&config, "nowhere/x.conf", no_environment, NULL, 0, &err), JOBQ_EIO);
    assert_string_equal(err.message, "nowhere/x.conf: No such file or directory");
    assert_int_equal(config_load(&config, "dir", no_environment, NULL, 0, &err),
                     JOBQ_EIO);
    assert_string_equal(err.message, "dir: Is a directory");
}

static void
passwords_are_hidden(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"postgresql:///app", "postgresql:///app"},
        {"postgresql://u:secret@h:5432/app?sslmode=require",
         "postgresql://u:****@h:5432/app?sslmode=require"},
        {"postgres://u:se@cr:et@h/app", "postgres://u:****@h/app"},
        {"postgresql://u@h/app?password=secret&host=/run",
         "postgresql://u@h/app?password=****&host=/run"},
        {"postgresql://h/app?sslpassword=secret", "postgresql://h/app?sslpassword=****"},
        {"host=/run dbname=app", "host=/run dbname=app"},
        {"host=/run password=secret dbname=app", "host=/run password=**** dbname=app"},
        {"password = 'se cr\\'et' dbname=app", "password = **** dbname=app"},
        {"PASSWORD=secret", "PASSWORD=****"},
        {"password=se cret", "password=**** ****"},
        {"postgresql://u:se?cr&et=x@h/app?a=b", "postgresql://u:****@h/app?a=b"},
        {"postgresql://?password=se@cret", "postgresql://?****@cret"},
        {"postgresql://u?password=se:c@h", "postgresql://u?****@h"},
        {"postgresql://u@h/app?pass%77ord=secret",
         "postgresql://u@h/app?pass%77ord=****"},
        {"postgresql://u@h/app?ssl%70%41ssword=secret&a%20b=x",
         "postgresql://u@h/app?ssl%70%41ssword=****&a%20b=x"},
        {"postgresql://u@h/app?pass%7=secret", "postgresql://u@h/app?pass%7=****"},
        /* Without the / that is hidden the @ would end a user's name. */
        {"postgresql://h?host=/run&password=a/b&application_name=x@y",
         "postgresql://h?host=/run&password=****&application_name=x@y"},
        {"postgresql://h?port=1&password=a/b&application_name=x@y",
         "postgresql://h?port=1&password=****"},
        {"postgresql://u@[::?1&a=b]/app?password=se?cret&a=b",
         "postgresql://u@[::?1&a=b]/app?password=****&a=b"},
        {"password='secret'dbname=app", "password=**** dbname=app"},
        {"user=u\fpassword=secret", "user=u\fpassword=****"},
        {"app", "app"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct jobq__buf once = {0}, twice = {0};
        conninfo_redact(&once, rows[i][0]);
        assert_string_equal(jobq__buf_cstr(&once), rows[i][1]);
        conninfo_redact(&twice, jobq__buf_cstr(&once));
        assert_string_equal(jobq__buf_cstr(&twice), rows[i][1]);
        jobq__buf_clear(&twice);
        jobq__buf_clear(&once);
    }
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
        cmocka_unit_test(what_is_printed_reads_back),
        cmocka_unit_test(a_value_may_begin_with_a_semicolon),
        cmocka_unit_test(limits_of_a_queue_count),
        cmocka_unit_test(secrets_are_not_printed),
        cmocka_unit_test(whether_the_file_holds_a_password_is_known),
        cmocka_unit_test(a_wrong_file_is_told_by_line),
        cmocka_unit_test(a_missing_program_is_told_to_who_would_start_it),
        cmocka_unit_test(a_wrong_environment_or_flag_is_told_by_name),
        cmocka_unit_test(values_from_outside_the_file_read_back_from_one),
        cmocka_unit_test(a_folder_keeps_a_blank_before_its_slash),
        cmocka_unit_test(a_file_that_cannot_be_read),
        cmocka_unit_test(passwords_are_hidden),
        cmocka_unit_test(the_schema_is_filled_in),
        cmocka_unit_test(the_tables_are_complete),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
