/* The worker protocol's frames: what is written is read back, what is wrong is refused
 * with words, what is random does no harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libjobq/wire.h"

#define SPAN(text) ((struct jobq__span){text, sizeof(text) - 1})

static void
expect_span(struct jobq__span span, const char *text)
{
    assert_non_null(span.at);
    assert_int_equal(span.len, strlen(text));
    assert_memory_equal(span.at, text, span.len);
}

/* Parses a copy that ends where its memory ends, so that a sanitizer sees a read too far.
 */
static int
parse(const char *text, size_t len, struct jobq__frame *frame, jobq_error *err,
      char **copy)
{
    *copy = malloc(len ? len : 1);
    assert_non_null(*copy);
    memcpy(*copy, text, len);
    return jobq__frame_parse(*copy, len, frame, err);
}

static void
carries_jobs_byte_for_byte(void **state)
{
    (void)state;
    struct jobq__frame out,
        job = {.type = JOBQ__FRAME_JOB,
               .id = INT64_MAX,
               .attempt = 3,
               .max_attempts = 20,
               .timeout_ms = 1800000,
               .queue = SPAN("de\"fault"),
               .kind = SPAN("resize\n\xC3\xA5"),
               .args = SPAN(
                   "{\"n\": 123456789012345678, \"x\":0.1, \"s\": \"a\\nb\\u00e5\"}"),
               .meta = SPAN("{}")};
    struct jobq__buf buf = {0};
    jobq__frame_put_job(&buf, &job);
    assert_int_equal(buf.data[buf.len - 1], '\n');
    assert_ptr_equal(memchr(buf.data, '\n', buf.len), buf.data + buf.len - 1);
    assert_int_equal(jobq__frame_parse(buf.data, buf.len - 1, &out, NULL), 0);
    assert_int_equal(out.type, JOBQ__FRAME_JOB);
    assert_int_equal(out.id, INT64_MAX);
    assert_int_equal(out.attempt, 3);
    assert_int_equal(out.max_attempts, 20);
    assert_int_equal(out.timeout_ms, 1800000);
    expect_span(out.queue, "de\"fault");
    expect_span(out.kind, "resize\n\xC3\xA5");
    expect_span(out.args,
                "{\"n\": 123456789012345678, \"x\":0.1, \"s\": \"a\\nb\\u00e5\"}");
    expect_span(out.meta, "{}");
    jobq__buf_clear(&buf);
}

static struct jobq__frame
round_trip(struct jobq__buf *buf)
{
    struct jobq__frame out;
    jobq_error err;
    if (jobq__frame_parse(buf->data, buf->len - 1, &out, &err) != 0)
        fail_msg("%s", err.message);
    return out;
}

static void
carries_what_a_template_says_and_hears(void **state)
{
    (void)state;
    struct jobq__buf buf = {0};
    struct jobq__frame out;

    jobq__frame_put_forkserver_hello(&buf);
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_HELLO);
    assert_int_equal(out.protocol, JOBQ__PROTOCOL_VERSION);
    assert_true(out.forkserver);

    jobq__buf_reset(&buf);
    jobq__frame_put_hello(&buf, NULL, 0, 1);
    assert_false(round_trip(&buf).forkserver);

    jobq__buf_reset(&buf);
    jobq__frame_put_fork(&buf, INT64_MAX, 4711);
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_FORK);
    assert_int_equal(out.id, INT64_MAX);
    assert_int_equal(out.pid, 4711);

    jobq__buf_reset(&buf);
    jobq__frame_put_forked(&buf, 9, INT32_MAX);
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_FORKED);
    assert_int_equal(out.id, 9);
    assert_int_equal(out.pid, INT32_MAX);

    jobq__buf_reset(&buf);
    jobq__frame_put_start(&buf);
    assert_int_equal(round_trip(&buf).type, JOBQ__FRAME_START);
    jobq__buf_clear(&buf);
}

static void
carries_answers(void **state)
{
    (void)state;
    struct jobq__buf buf = {0};
    struct jobq__frame out;

    jobq__frame_put_ok(&buf, 7, (struct jobq__span){NULL, 0});
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_OK);
    assert_int_equal(out.id, 7);
    assert_null(out.result.at);

    jobq__buf_reset(&buf);
    jobq__frame_put_ok(&buf, 7, SPAN("[1e3,0.10]"));
    expect_span(round_trip(&buf).result, "[1e3,0.10]");

    jobq__buf_reset(&buf);
    jobq__frame_put_ok_without_result(&buf, 7, "no \xFF form");
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_OK);
    assert_null(out.result.at);
    expect_span(out.error, "no \xEF\xBF\xBD form");

    jobq__buf_reset(&buf);
    jobq__frame_put_error(&buf, 8, "no \xFF such file", "line 1\nline 2", 5000);
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_ERROR);
    expect_span(out.error, "no \xEF\xBF\xBD such file");
    expect_span(out.detail, "line 1\nline 2");
    assert_int_equal(out.delay_ms, 5000);

    jobq__buf_reset(&buf);
    jobq__frame_put_error(&buf, 8, "", NULL, -1);
    out = round_trip(&buf);
    assert_null(out.detail.at);
    assert_int_equal(out.delay_ms, -1);

    jobq__buf_reset(&buf);
    jobq__frame_put_snooze(&buf, 9, 60000);
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_SNOOZE);
    assert_int_equal(out.delay_ms, 60000);

    jobq__buf_reset(&buf);
    jobq__frame_put_discard(&buf, 9, "bad data");
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_DISCARD);
    expect_span(out.reason, "bad data");

    jobq__buf_reset(&buf);
    jobq__frame_put_cancelled(&buf, 9, NULL);
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_CANCEL);
    assert_null(out.reason.at);

    jobq__buf_reset(&buf);
    jobq__frame_put_cancel(&buf, 10);
    out = round_trip(&buf);
    assert_int_equal(out.type, JOBQ__FRAME_CANCEL);
    assert_int_equal(out.id, 10);

    jobq__buf_reset(&buf);
    jobq__frame_put_stop(&buf);
    assert_int_equal(round_trip(&buf).type, JOBQ__FRAME_STOP);
    jobq__buf_clear(&buf);
}

static void
carries_progress(void **state)
{
    (void)state;
    static const struct {
        double done;
        const char *line;
    } rows[] = {
        {0.4, "{\"t\":\"progress\",\"id\":7,\"done\":0.4}\n"},
        {0, "{\"t\":\"progress\",\"id\":7,\"done\":0}\n"},
        {1, "{\"t\":\"progress\",\"id\":7,\"done\":1}\n"},
        {0.123456, "{\"t\":\"progress\",\"id\":7,\"done\":0.123456}\n"},
        {0.00001, "{\"t\":\"progress\",\"id\":7,\"done\":0.00001}\n"},
        {-5, "{\"t\":\"progress\",\"id\":7,\"done\":0}\n"},
        {99, "{\"t\":\"progress\",\"id\":7,\"done\":1}\n"},
    };
    struct jobq__buf buf = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        jobq__buf_reset(&buf);
        jobq__frame_put_progress(&buf, 7, rows[i].done, NULL);
        assert_string_equal(jobq__buf_cstr(&buf), rows[i].line);
        double done = round_trip(&buf).done;
        double wanted = rows[i].done < 0 ? 0 : rows[i].done > 1 ? 1 : rows[i].done;
        assert_true(done - wanted < 1e-9 && wanted - done < 1e-9);
    }
    jobq__buf_reset(&buf);
    jobq__frame_put_progress(&buf, 7, 0.5, "half");
    expect_span(round_trip(&buf).note, "half");
    char exponent[] = "{\"t\":\"progress\",\"id\":7,\"done\":25E-2}";
    struct jobq__frame out;
    assert_int_equal(jobq__frame_parse(exponent, sizeof exponent - 1, &out, NULL), 0);
    assert_true(out.done > 0.2499999 && out.done < 0.2500001);
    jobq__buf_clear(&buf);
}

static void
carries_hello(void **state)
{
    (void)state;
    static const char *const kinds[] = {"resize", "a\"b\xC3\xA5"};
    struct jobq__buf buf = {0};
    jobq__frame_put_hello(&buf, kinds, 2, 1);
    struct jobq__frame out = round_trip(&buf);
    assert_int_equal(out.concurrency, 1);
    assert_int_equal(out.type, JOBQ__FRAME_HELLO);
    assert_int_equal(out.protocol, 1);
    struct jobq__span rest = out.kinds, kind;
    assert_true(jobq__frame_next_kind(&rest, &kind));
    expect_span(kind, "resize");
    assert_true(jobq__frame_next_kind(&rest, &kind));
    expect_span(kind, "a\"b\xC3\xA5");
    assert_false(jobq__frame_next_kind(&rest, &kind));
    assert_false(jobq__frame_next_kind(&rest, &kind));

    jobq__buf_reset(&buf);
    jobq__frame_put_hello(&buf, NULL, 0, 1000);
    out = round_trip(&buf);
    assert_null(out.kinds.at);
    assert_int_equal(out.concurrency, 1000);
    jobq__buf_clear(&buf);
}

static void
reads_what_others_write(void **state)
{
    (void)state;
    static const char *const lines[] = {
        " { \"id\" : 7 ,\t\"t\" : \"ok\" } \r",
        "{\"t\":\"ok\",\"id\":7,\"new\":{\"deep\":[1,{\"t\":[]}]},\"newer\":null}",
        "{\"t\":\"ok\",\"id\":7,\"result\":null}",
        "{\"t\":\"ok\",\"id\":7,\"error\":5,\"kinds\":1}", /* another type's members */
        "{\"t\":\"error\",\"id\":7,\"error\":\"x\",\"detail\":null,\"retry_in_ms\":null}",
        "{\"t\":\"hello\",\"protocol\":1,\"kinds\":null}",
        "{\"t\":\"hello\",\"protocol\":1,\"kinds\":[ \"a\" , \"b\" ]}",
        "{\"t\":\"error\",\"id\":7,\"error\":\"nul \\u0000 and \\ud83d\\ude00 \\/\"}",
        "{\"t\":\"job\",\"id\":1,\"attempt\":1,\"max_attempts\":1,\"queue\":\"q\","
        "\"kind\":"
        "\"k\",\"args\":null,\"timeout_ms\":null}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct jobq__frame out;
        jobq_error err;
        char *copy;
        if (parse(lines[i], strlen(lines[i]), &out, &err, &copy) != 0)
            fail_msg("%s: %s", lines[i], err.message);
        if (out.type == JOBQ__FRAME_ERROR && !out.detail.at && strstr(lines[i], "nul "))
            expect_span(out.error, "nul \xEF\xBF\xBD and \xF0\x9F\x98\x80 /");
        if (strstr(lines[i], "result"))
            assert_null(out.result.at);
        free(copy);
    }
}

/* Each with its whole message: it is what a worker's author sees in the job's errors. */
#define JOB(rest) "{\"t\":\"job\"," rest "}"
#define WHOLE "a whole number from 1 to 9223372036854775807"
static const struct {
    const char *line;
    const char *message;
} wrong_lines[] = {
    {"", "frame: expected an object at byte 1, found the end"},
    {"hello", "frame: expected an object at byte 1, found 'h'"},
    {"[]", "frame: expected an object at byte 1, found '['"},
    {"{}", "frame: \"t\", its type, is missing"},
    {"{\"t\":\"ok\"", "frame: expected ',' or '}' at byte 10, found the end"},
    {"{\"t\":\"ok\",\"id\":7} {",
     "frame: expected the end of the line at byte 19, found '{'"},
    {"{\"t\":\"ok\",}", "frame: expected a string at byte 11, found '}'"},
    {"{\"t\" \"ok\"}",
     "frame: expected ':' after the member's name at byte 6, found '\"'"},
    {"{\"t\":\"ok\" \"id\":7}", "frame: expected ',' or '}' at byte 11, found '\"'"},
    {"{\"t\":\"okay\",\"id\":7}", "frame: unknown type \"okay\" at byte 6; known are "
                                  "job, cancel, stop, hello, ok, error, "
                                  "snooze, discard, progress, fork, forked and start"},
    {"{\"t\":7}", "frame: unknown type 7 at byte 6; known are job, cancel, stop, "
                  "hello, ok, error, "
                  "snooze, discard, progress, fork, forked and start"},
    {"{\"t\":\"ok\"}", "ok frame: \"id\" is missing"},
    {"{\"t\":\"ok\",\"id\":0}", "ok frame: \"id\" must be " WHOLE ", got 0 at byte 16"},
    {"{\"t\":\"ok\",\"id\":\"7\"}",
     "ok frame: \"id\" must be " WHOLE ", got \"7\" at byte 16"},
    {"{\"t\":\"ok\",\"id\":7.0}",
     "ok frame: \"id\" must be " WHOLE ", got 7.0 at byte 16"},
    {"{\"t\":\"ok\",\"id\":9223372036854775808}",
     "ok frame: \"id\" must be " WHOLE ", got 9223372036854775808 at byte 16"},
    {"{\"t\":\"ok\",\"id\":7,\"id\":8}",
     "frame: expected each member once at byte 18, found '\"'"},
    {"{\"t\":\"ok\",\"id\":07}",
     "frame: expected no digit after a leading zero at byte 17, found '7'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":1.}",
     "frame: expected a digit at byte 29, found '}'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":nil}",
     "frame: expected a value at byte 27, found 'n'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":\"a\nb\"}",
     "frame: expected control characters escaped in the string at byte 29, found "
     "byte 0x0A"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":\"\xC3(\"}",
     "frame: expected UTF-8 at byte 28, found byte 0xC3"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":\"\\x\"}",
     "frame: expected one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u at byte 28, found "
     "'\\'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":\"\\u12g4\"}",
     "frame: expected four hex digits after \\u at byte 28, found '\\'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":\"\\u0000\"}",
     "frame: expected no \\u0000, which jsonb cannot hold, at byte 28, found '\\'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":\"\\ud800\"}",
     "frame: expected a low surrogate after this high one at byte 28, found '\\'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":\"\\udc00\"}",
     "frame: expected a high surrogate before this low one at byte 28, found '\\'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":1e999999}",
     "frame: expected a number that numeric can hold at byte 27, found '1'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":[1,]}",
     "frame: expected a value at byte 30, found ']'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":{1:2}}",
     "frame: expected a member's name in quotes at byte 28, found '1'"},
    {"{\"t\":\"ok\",\"id\":7,\"result\":[1 2]}",
     "frame: expected ',' or ']' at byte 30, found '2'"},
    {"{\"t\":\"hello\",\"protocol\":1,\"forkserver\":1}",
     "hello frame: \"forkserver\" must be true or false, got 1 at byte 40"},
    {"{\"t\":\"fork\",\"id\":7}", "fork frame: \"parent\" is missing"},
    {"{\"t\":\"forked\",\"id\":7}", "forked frame: \"pid\" is missing"},
    {"{\"t\":\"forked\",\"id\":7,\"pid\":0}",
     "forked frame: \"pid\" must be a whole number from 1 to 2147483647, got 0 at byte "
     "28"},
    {"{\"t\":\"forked\",\"id\":7,\"pid\":2147483648}",
     "forked frame: \"pid\" must be a whole number from 1 to 2147483647, got 2147483648 "
     "at "
     "byte 28"},
    {"{\"t\":\"forked\",\"pid\":7}", "forked frame: \"id\" is missing"},
    {"{\"t\":\"error\",\"id\":7}", "error frame: \"error\" is missing"},
    {"{\"t\":\"error\",\"id\":7,\"error\":null}",
     "error frame: \"error\" must be a text, got null at byte 29"},
    {"{\"t\":\"error\",\"id\":7,\"error\":\"x\",\"retry_in_ms\":-1}",
     "error frame: \"retry_in_ms\" must be a whole number of milliseconds, 0 or "
     "more, got -1 "
     "at byte 47"},
    {"{\"t\":\"snooze\",\"id\":7}", "snooze frame: \"in_ms\" is missing"},
    {"{\"t\":\"snooze\",\"id\":7,\"in_ms\":1.5}",
     "snooze frame: \"in_ms\" must be a whole number of milliseconds, 0 or more, got "
     "1.5 at "
     "byte 30"},
    {"{\"t\":\"discard\",\"id\":7,\"reason\":[]}",
     "discard frame: \"reason\" must be a text, got [] at byte 32"},
    {"{\"t\":\"progress\",\"id\":7,\"done\":1.1}",
     "progress frame: \"done\" must be a number from 0 to 1, got 1.1 at byte 31"},
    {"{\"t\":\"progress\",\"id\":7,\"done\":\"half\"}",
     "progress frame: \"done\" must be a number from 0 to 1, got \"half\" at byte "
     "31"},
    {"{\"t\":\"hello\"}", "hello frame: \"protocol\" is missing"},
    {"{\"t\":\"hello\",\"protocol\":1,\"kinds\":[]}",
     "hello frame: \"kinds\" must be an array of one or more texts, got [] at byte "
     "35"},
    {"{\"t\":\"hello\",\"protocol\":1,\"kinds\":[\"a\",7]}",
     "hello frame: \"kinds\" must be an array of one or more texts, got [\"a\",7] at "
     "byte 35"},
    {JOB("\"id\":7"), "job frame: \"attempt\" is missing"},
    {JOB("\"id\":7,\"attempt\":2147483648"),
     "job frame: \"attempt\" must be a whole number from 1 to 2147483647, got "
     "2147483648 at "
     "byte 29"},
    {JOB("\"id\":7,\"attempt\":1,\"max_attempts\":1,\"queue\":\"q\",\"kind\":\"k\""),
     "job frame: \"args\" is missing"},
};

static void
refuses_wrong_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong_lines / sizeof *wrong_lines; i++) {
        struct jobq__frame out;
        jobq_error err = {0};
        char *copy;
        int rc =
            parse(wrong_lines[i].line, strlen(wrong_lines[i].line), &out, &err, &copy);
        assert_string_equal(err.message, wrong_lines[i].message);
        assert_int_equal(rc, JOBQ_EPROTO);
        free(copy);
    }
}

/* What has no id may carry one of a later version's, in any shape: it is passed over. */
static void
a_look_agrees_with_the_reading(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int rc;
        enum jobq__frame_type type;
        int64_t id;
    } rows[] = {
        {"{\"t\":\"stop\",\"id\":\"x\"}", JOBQ_OK, JOBQ__FRAME_STOP, 0},
        {"{\"id\":7,\"t\":\"stop\"}", JOBQ_OK, JOBQ__FRAME_STOP, 0},
        {"{\"t\":\"start\",\"id\":null}", JOBQ_OK, JOBQ__FRAME_START, 0},
        {"{\"t\":\"hello\",\"protocol\":1,\"id\":-1}", JOBQ_OK, JOBQ__FRAME_HELLO, 0},
        {"{\"t\":\"cancel\",\"id\":7}", JOBQ_OK, JOBQ__FRAME_CANCEL, 7},
        {"{\"t\":\"cancel\",\"id\":\"x\"}", JOBQ_EPROTO, JOBQ__FRAME_CANCEL, 0},
        {"{\"t\":\"ok\",\"id\":0}", JOBQ_EPROTO, JOBQ__FRAME_OK, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *line = rows[i].line;
        struct jobq__frame frame;
        enum jobq__frame_type type;
        int64_t id = -1;
        char *copy;
        assert_int_equal(jobq__frame_peek(line, strlen(line), &type, &id, NULL),
                         rows[i].rc);
        assert_int_equal(parse(line, strlen(line), &frame, NULL, &copy), rows[i].rc);
        assert_int_equal(type, rows[i].type);
        assert_int_equal(frame.type, rows[i].type);
        assert_int_equal(id, rows[i].id);
        assert_int_equal(frame.id, rows[i].id);
        free(copy);
    }
}

static void
bounds_nesting(void **state)
{
    (void)state;
    for (int depth = 127; depth <= 129; depth++) {
        struct jobq__buf buf = {0};
        struct jobq__frame out;
        jobq_error err = {0};
        jobq__buf_adds(&buf, "{\"t\":\"ok\",\"id\":7,\"result\":");
        for (int i = 0; i < depth; i++)
            jobq__buf_adds(&buf, i % 2 ? "[" : "{\"a\":");
        jobq__buf_adds(&buf, "1");
        for (int i = depth; i-- > 0;)
            jobq__buf_adds(&buf, i % 2 ? "]" : "}");
        jobq__buf_adds(&buf, "}");
        int rc = jobq__frame_parse(buf.data, buf.len, &out, &err);
        assert_int_equal(rc, depth > 128 ? JOBQ_EPROTO : 0);
        if (depth > 128)
            assert_string_equal(err.message,
                                "frame: expected at most 128 levels of nesting at "
                                "byte 411, found '{'");
        jobq__buf_clear(&buf);
    }
}

/* Right lines with random bytes changed, cut or doubled: each is parsed or refused with a
 * message, and nothing outside the line is touched (which the sanitizers watch). */
static void
survives_mutations(void **state)
{
    (void)state;
    static const char *const seeds[] = {
        "{\"t\":\"job\",\"id\":7,\"attempt\":1,\"max_attempts\":20,\"queue\":\"default\","
        "\"kind\":"
        "\"resize\",\"args\":{\"a\":[1,2.5e-3,\"\\u00e5\\n\",null,true]},\"meta\":{},"
        "\"timeout_ms\":5}",
        "{\"t\":\"error\",\"id\":7,\"error\":\"one \\ud83d\\ude00 "
        "\\\"line\\\"\",\"detail\":\"\\\\\","
        "\"retry_in_ms\":5000}",
        "{\"t\":\"hello\",\"protocol\":1,\"kinds\":[\"re\\u0073ize\",\"b\"]}",
        ("{\"t\":\"progress\",\"id\":7,\"done\":0.4,\"note\":"
         "\"\xC3\xA5\xF0\x9F\x98\x80\"}"),
        "{\"t\":\"ok\",\"id\":7,\"result\":[[[{\"x\":-0.5E+7}]]]}",
    };
    static const char bytes[] = "{}[]\",:\\u0123456789abcdefDtnE.+- \x01\x80\xC3\xFF";
    srand(7);
    size_t parsed = 0;
    for (int round = 0; round < 200000; round++) {
        const char *seed = seeds[rand() % (int)(sizeof seeds / sizeof *seeds)];
        char line[512];
        size_t len = strlen(seed);
        memcpy(line, seed, len);
        for (int changes = rand() % 3 + 1; changes > 0; changes--) {
            size_t at = (size_t)rand() % len;
            if (rand() % 4 == 0)
                len = at + 1;
            else if (rand() % 4 == 0)
                memmove(line + at, line + at + 1, --len - at);
            else
                line[at] = bytes[(size_t)rand() % (sizeof bytes - 1)];
            if (len == 0)
                break;
        }
        struct jobq__frame out;
        jobq_error err = {0};
        char *copy;
        int rc = parse(line, len, &out, &err, &copy);
        assert_true(rc == 0 || (rc == JOBQ_EPROTO && err.message[0]));
        if (rc == 0) {
            parsed++;
            struct jobq__span rest = out.kinds, kind;
            while (rest.at && jobq__frame_next_kind(&rest, &kind))
                assert_true(kind.at >= copy && kind.at + kind.len <= copy + len);
        }
        free(copy);
    }
    assert_true(parsed > 1000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carries_jobs_byte_for_byte),
        cmocka_unit_test(carries_what_a_template_says_and_hears),
        cmocka_unit_test(carries_answers),
        cmocka_unit_test(carries_progress),
        cmocka_unit_test(carries_hello),
        cmocka_unit_test(reads_what_others_write),
        cmocka_unit_test(refuses_wrong_lines),
        cmocka_unit_test(a_look_agrees_with_the_reading),
        cmocka_unit_test(bounds_nesting),
        cmocka_unit_test(survives_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
