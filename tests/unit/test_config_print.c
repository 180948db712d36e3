/* test_config_print.c: a printed configuration reads back as the same, and hides its secrets.
 */
#include "tests/unit/config_folder.h"

#include "jobqd/config/conninfo.h"

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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_reads_back),
        cmocka_unit_test(a_value_may_begin_with_a_semicolon),
        cmocka_unit_test(secrets_are_not_printed),
        cmocka_unit_test(whether_the_file_holds_a_password_is_known),
        cmocka_unit_test(values_from_outside_the_file_read_back_from_one),
        cmocka_unit_test(passwords_are_hidden),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
