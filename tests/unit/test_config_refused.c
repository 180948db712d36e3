/* test_config_refused.c: a wrong file, environment, flag or program is refused, and the words
 * say where and what is allowed. */
#include "tests/unit/config_folder.h"

#include "jobqd/pool/launch.h"

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
         "(for a program beside this file write ./no-such-program-anywhere)",
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_file_is_told_by_line),
        cmocka_unit_test(a_missing_program_is_told_to_who_would_start_it),
        cmocka_unit_test(a_wrong_environment_or_flag_is_told_by_name),
        cmocka_unit_test(a_file_that_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
