/* test_log.c: a log line's form, and that a message cannot forge one. */
#include <inttypes.h>
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

#include "jobqd/base/log.h"

/* What the log writes to stderr while capturing; read by end_capture. */
static int saved_stderr;
static FILE *captured;

static void
begin_capture(void)
{
    captured = tmpfile();
    assert_non_null(captured);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(dup2(fileno(captured), STDERR_FILENO) >= 0);
}

static void
end_capture(char *text, size_t size)
{
    assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
    close(saved_stderr);
    rewind(captured);
    text[fread(text, 1, size - 1, captured)] = '\0';
    fclose(captured);
}

static void
a_line_names_its_subject_first(void **state)
{
    (void)state;
    char text[1000];
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO});
    begin_capture();
    log_info("queue default", "%d workers", 4);
    end_capture(text, sizeof text);
    assert_int_equal(strlen("2026-11-22T10:11:12.345Z"), 24);
    assert_int_equal(text[10], 'T');
    assert_int_equal(text[19], '.');
    assert_int_equal(text[23], 'Z');
    assert_string_equal(text + 24, " INFO queue default: 4 workers\n");
}

static void
control_characters_cannot_forge_a_line(void **state)
{
    (void)state;
    char text[1000];
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO});
    begin_capture();
    log_error("worker default/w3", "said %s", "a\nERROR x: y\t\x1b[31m\x7f \xc3\xa9");
    end_capture(text, sizeof text);
    assert_string_equal(text + 25,
                        "ERROR worker default/w3: said a\\nERROR x: y\\t\\x1b[31m\\x7f "
                        "\xc3\xa9\n");
}

static void
json_lines_are_objects(void **state)
{
    (void)state;
    char text[1000];
    log_setup(&(struct log_options){.level = LOG_LEVEL_DEBUG, .format = LOG_FORMAT_JSON});
    begin_capture();
    log_warning("database", "away: \"%s\"", "no\nroute");
    end_capture(text, sizeof text);
    assert_memory_equal(text, "{\"time\":\"20", 11);
    assert_string_equal(strstr(text, ",\"level\""),
                        ",\"level\":\"WARNING\",\"subject\":\"database\","
                        "\"message\":\"away: \\\"no\\nroute\\\"\"}\n");
}

static const struct log_facts of_a_job = {.job = 17,
                                          .kind = "send mail",
                                          .queue = "mail",
                                          .attempt = 3,
                                          .max_attempts = 20,
                                          .state = "retryable",
                                          .error_kind = "error",
                                          .error = "smtp said \"no\"\n",
                                          .retry_at_ms = 1790000000123,
                                          .worker = "mail/w1",
                                          .pid = 4711};

static void
facts_are_members(void **state)
{
    (void)state;
    char text[1000];
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_JSON});
    begin_capture();
    log_about(LOG_LEVEL_ERROR, "queue mail", &of_a_job, "job %d failed", 17);
    end_capture(text, sizeof text);
    assert_string_equal(
        strstr(text, ",\"level\""),
        ",\"level\":\"ERROR\",\"subject\":\"queue mail\",\"message\":\"job 17 failed\","
        "\"job\":17,\"kind\":\"send mail\",\"queue\":\"mail\",\"attempt\":3,"
        "\"max_attempts\":20,\"state\":\"retryable\",\"error_kind\":\"error\","
        "\"error\":\"smtp said \\\"no\\\"\\n\",\"retry_at\":\"2026-09-21T14:13:20.123Z\","
        "\"worker\":\"mail/w1\",\"pid\":4711}\n");
}

static void
logfmt_has_the_same_members(void **state)
{
    (void)state;
    char text[1000];
    log_setup(
        &(struct log_options){.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_LOGFMT});
    begin_capture();
    log_about(LOG_LEVEL_ERROR, "queue mail", &of_a_job, "job %d failed", 17);
    log_info("a", "%s", "");
    end_capture(text, sizeof text);
    assert_memory_equal(text, "time=20", 7);
    static const char line[] =
        " level=ERROR subject=\"queue mail\" message=\"job 17 failed\" job=17 "
        "kind=\"send mail\" queue=mail attempt=3 max_attempts=20 state=retryable "
        "error_kind=error error=\"smtp said \\\"no\\\"\\n\" "
        "retry_at=2026-09-21T14:13:20.123Z worker=mail/w1 pid=4711\ntime=";
    assert_memory_equal(strstr(text, " level="), line, sizeof line - 1);
    assert_non_null(strstr(text, " level=INFO subject=a message=\"\"\n"));
}

static void
in_text_the_message_says_it(void **state)
{
    (void)state;
    char text[1000];
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO});
    begin_capture();
    log_about(LOG_LEVEL_ERROR, "queue mail", &of_a_job, "job %d failed", 17);
    end_capture(text, sizeof text);
    assert_string_equal(text + 25, "ERROR queue mail: job 17 failed\n");
}

static void
the_node_is_a_member(void **state)
{
    (void)state;
    char text[1000];
    log_set_node("web-1");
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_JSON});
    begin_capture();
    log_info("a", "b");
    end_capture(text, sizeof text);
    log_set_node("");
    assert_string_equal(strstr(text, ",\"level\""),
                        ",\"level\":\"INFO\",\"node\":\"web-1\","
                        "\"subject\":\"a\",\"message\":\"b\"}\n");
}

/* Sets JOURNAL_STREAM to what stderr is while it is captured, or to another. */
static void
log_to_journal(int format, uint64_t inode_off, char *text, size_t size)
{
    char stream[60];
    struct stat file;
    begin_capture();
    assert_int_equal(fstat(STDERR_FILENO, &file), 0);
    snprintf(stream, sizeof stream, "%" PRIu64 ":%" PRIu64, (uint64_t)file.st_dev,
             (uint64_t)file.st_ino + inode_off);
    setenv("JOURNAL_STREAM", stream, 1);
    log_setup(&(struct log_options){.level = LOG_LEVEL_DEBUG, .format = format});
    log_debug("a", "one");
    log_info("a", "two");
    log_warning("a", "three");
    log_error("a", "four");
    end_capture(text, size);
    unsetenv("JOURNAL_STREAM");
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO});
}

static void
the_journal_gets_priorities_and_no_second_time(void **state)
{
    (void)state;
    char text[1000];
    log_to_journal(LOG_FORMAT_TEXT, 0, text, sizeof text);
    assert_string_equal(text, "<7>DEBUG a: one\n<6>INFO a: two\n"
                              "<4>WARNING a: three\n<3>ERROR a: four\n");
    log_to_journal(LOG_FORMAT_JSON, 0, text, sizeof text);
    assert_memory_equal(text, "<7>{\"time\":\"", 12);
    log_to_journal(LOG_FORMAT_TEXT, 1, text, sizeof text); /* redirected since */
    assert_memory_equal(text, "20", 2);
}

static void
lower_levels_are_dropped(void **state)
{
    (void)state;
    char text[1000];
    log_setup(&(struct log_options){.level = LOG_LEVEL_WARNING});
    begin_capture();
    log_debug("a", "dropped");
    log_info("a", "dropped");
    log_warning("a", "kept");
    end_capture(text, sizeof text);
    assert_string_equal(text + 25, "WARNING a: kept\n");
    assert_false(log_wants(LOG_LEVEL_INFO));
    assert_true(log_wants(LOG_LEVEL_ERROR));
}

static void
a_long_message_is_cut_and_says_so(void **state)
{
    (void)state;
    static char text[20000], message[12000];
    memset(message, 'x', sizeof message - 1);
    log_setup(&(struct log_options){.level = LOG_LEVEL_INFO});
    begin_capture();
    log_info("a", "%s", message);
    end_capture(text, sizeof text);
    assert_true(strlen(text) < 9000);
    assert_string_equal(text + strlen(text) - 10, "... (cut)\n");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_names_its_subject_first),
        cmocka_unit_test(control_characters_cannot_forge_a_line),
        cmocka_unit_test(json_lines_are_objects),
        cmocka_unit_test(facts_are_members),
        cmocka_unit_test(logfmt_has_the_same_members),
        cmocka_unit_test(in_text_the_message_says_it),
        cmocka_unit_test(the_node_is_a_member),
        cmocka_unit_test(the_journal_gets_priorities_and_no_second_time),
        cmocka_unit_test(lower_levels_are_dropped),
        cmocka_unit_test(a_long_message_is_cut_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
