/* test_log.c: a log line's form, and that a message cannot forge one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
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
    log_setup(&(struct log_options){.level = LOG_LEVEL_DEBUG, .json = true});
    begin_capture();
    log_warning("database", "away: \"%s\"", "no\nroute");
    end_capture(text, sizeof text);
    assert_memory_equal(text, "{\"time\":\"20", 11);
    assert_string_equal(strstr(text, ",\"level\""),
                        ",\"level\":\"WARNING\",\"subject\":\"database\","
                        "\"message\":\"away: \\\"no\\nroute\\\"\"}\n");
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
        cmocka_unit_test(lower_levels_are_dropped),
        cmocka_unit_test(a_long_message_is_cut_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
