/* Strict JSON, skimmed: what is let through, what is refused and how that is said, and
 * that Postgres is of the same opinion. */
#include "tests/unit/database.h"

#include "libjobq/json.h"

#define TEN "0123456789"
#define TEXT(literal) literal, sizeof literal - 1

/* ---- one by one ---- */

static const struct {
    const char *text;
    size_t len;
} good[] = {
    {TEXT("{}")},
    {TEXT(" \t\r\n[ ] \n")},
    {TEXT("0")},
    {TEXT("-0")},
    {TEXT("-12.50e+3")},
    {TEXT("1E5")},
    {TEXT("0.1")},
    {TEXT("123456789012345678901234567890")},
    {TEXT("1e1000")},
    {TEXT("1e-1000")},
    {TEXT("true")},
    {TEXT("false")},
    {TEXT("null")},
    {TEXT("\"\"")},
    {TEXT("\"eight ch\"")},
    {TEXT("\"" TEN TEN "\\\"" TEN "\"")},
    {TEXT("\"\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u00e5\"")},
    {TEXT("\"\\ud83d\\ude00\"")},
    {TEXT("\"\xC3\xA5 \xE2\x82\xAC \xF0\x9F\x98\x80 \x7F\"")},
    {TEXT("{\"a\": [1, {\"b\": null}, []], \"a\": {}}")},
    {TEXT("[[[[[[[[]]]]]]]]")},
};

static const struct {
    const char *text;
    size_t len;
    const char *message;
} bad[] = {
    {TEXT(""), "x: expected a value at byte 1, found the end"},
    {TEXT(" "), "x: expected a value at byte 2, found the end"},
    {TEXT("{} x"), "x: expected the end at byte 4, found 'x'"},
    {TEXT("{}\0"), "x: expected the end at byte 3, found byte 0x00"},
    {TEXT("nul"), "x: expected a value at byte 1, found 'n'"},
    {TEXT("True"), "x: expected a value at byte 1, found 'T'"},
    {TEXT("+1"), "x: expected a value at byte 1, found '+'"},
    {TEXT("-"), "x: expected a digit at byte 2, found the end"},
    {TEXT(".5"), "x: expected a value at byte 1, found '.'"},
    {TEXT("5."), "x: expected a digit at byte 3, found the end"},
    {TEXT("1e"), "x: expected a digit at byte 3, found the end"},
    {TEXT("1e+x"), "x: expected a digit at byte 4, found 'x'"},
    {TEXT("01"), "x: expected no digit after a leading zero at byte 2, found '1'"},
    {TEXT("0x1F"), "x: expected the end at byte 2, found 'x'"},
    {TEXT("NaN"), "x: expected a value at byte 1, found 'N'"},
    {TEXT("[1e131073]"),
     "x: expected a number that numeric can hold at byte 2, found '1'"},
    {TEXT("1e-16384"), "x: expected a number that numeric can hold at byte 1, found '1'"},
    {TEXT("'a'"), "x: expected a value at byte 1, found '''"},
    {TEXT("\"a"), "x: expected the end of the string at byte 3, found the end"},
    {TEXT("\"a\\"), "x: expected the end of the string at byte 4, found the end"},
    {TEXT("\"\\q\""),
     "x: expected one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u at byte 2, found '\\'"},
    {TEXT("\"\\u00g0\""), "x: expected four hex digits after \\u at byte 2, found '\\'"},
    {TEXT("\"\\u00\""), "x: expected four hex digits after \\u at byte 2, found '\\'"},
    {TEXT("\"\\u0000\""),
     "x: expected no \\u0000, which jsonb cannot hold, at byte 2, found '\\'"},
    {TEXT("\"\\ud83d\""),
     "x: expected a low surrogate after this high one at byte 2, found '\\'"},
    {TEXT("\"\\ud83d\\u0041\""),
     "x: expected a low surrogate after this high one at byte 2, found '\\'"},
    {TEXT("\"\\ude00\""),
     "x: expected a high surrogate before this low one at byte 2, found '\\'"},
    {TEXT("\"a\tb\""),
     "x: expected control characters escaped in the string at byte 3, found byte 0x09"},
    {TEXT("\"12345678\n\""),
     "x: expected control characters escaped in the string at byte 10, found byte 0x0A"},
    {TEXT("\"\xC3(\""), "x: expected UTF-8 at byte 2, found byte 0xC3"},
    {TEXT("\"\xC0\x80\""), "x: expected UTF-8 at byte 2, found byte 0xC0"},
    {TEXT("\"\xED\xA0\x80\""), "x: expected UTF-8 at byte 2, found byte 0xED"},
    {TEXT("\"\xF4\x90\x80\x80\""), "x: expected UTF-8 at byte 2, found byte 0xF4"},
    {TEXT("[1,]"), "x: expected a value at byte 4, found ']'"},
    {TEXT("[1 2]"), "x: expected ',' or ']' at byte 4, found '2'"},
    {TEXT("[1}"), "x: expected ',' or ']' at byte 3, found '}'"},
    {TEXT("[1"), "x: expected ',' or ']' at byte 3, found the end"},
    {TEXT("{\"a\"}"), "x: expected ':' after the member's name at byte 5, found '}'"},
    {TEXT("{\"a\":}"), "x: expected a value at byte 6, found '}'"},
    {TEXT("{\"a\":1,}"), "x: expected a member's name in quotes at byte 8, found '}'"},
    {TEXT("{a:1}"), "x: expected a member's name in quotes at byte 2, found 'a'"},
    {TEXT("{\"a\":1]"), "x: expected ',' or '}' at byte 7, found ']'"},
    {TEXT("{\"a\":1 \"b\":2}"), "x: expected ',' or '}' at byte 8, found '\"'"},
    {TEXT("// a\n1"), "x: expected a value at byte 1, found '/'"},
    {TEXT("\xEF\xBB\xBF{}"), "x: expected a value at byte 1, found '\xEF\xBB\xBF'"},
};

/* The text where nothing may be read behind it, as the sanitizer would tell. */
static int
check(const char *text, size_t len, jobq_error *err)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int rc = jobq__json_check(copy, len, "x", err);
    free(copy);
    return rc;
}

static void
what_is_json_is_let_through(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        jobq_error err = {0};
        if (check(good[i].text, good[i].len, &err) != 0)
            fail_msg("%s: %s", good[i].text, err.message);
    }
}

static void
what_is_not_is_refused_by_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        jobq_error err = {0};
        int rc = check(bad[i].text, bad[i].len, &err);
        assert_string_equal(err.message, bad[i].message);
        assert_int_equal(rc, JOBQ_EINVAL);
        assert_int_equal(check(bad[i].text, bad[i].len, NULL), JOBQ_EINVAL);
    }
}

static void
an_object_is_asked_for(void **state)
{
    (void)state;
    jobq_error err;
    assert_int_equal(jobq__json_check_object(" {} ", 4, "args", &err), 0);
    assert_int_equal(jobq__json_check_object(" [1]", 4, "args", &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "args must be a JSON object, got [1]");
    assert_int_equal(jobq__json_check_object("{", 1, "args", &err), JOBQ_EINVAL);
    assert_string_equal(err.message, "args: expected a member's name in quotes at byte "
                                     "2, found the end");
}

static void
nesting_is_bounded(void **state)
{
    (void)state;
    char text[600];
    for (int depth = 127; depth <= 200; depth++) {
        jobq_error err;
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        int rc = check(text, 2 * (size_t)depth, &err);
        assert_int_equal(rc, depth > JOBQ__JSON_MAX_DEPTH ? JOBQ_EINVAL : 0);
        if (rc != 0)
            assert_string_equal(err.message,
                                "x: expected at most 128 levels of nesting at "
                                "byte 129, found '['");
    }
}

/* ---- as the database has it ---- */

static bool
database_takes(const char *text)
{
    const char *values[] = {text};
    PGresult *result =
        PQexecParams(admin, "SELECT $1::jsonb", 1, NULL, values, NULL, NULL, 0);
    bool taken = PQresultStatus(result) == PGRES_TUPLES_OK;
    PQclear(result);
    return taken;
}

static void
the_database_agrees(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!database_takes(good[i].text))
            fail_msg("the database refuses %s: %s", good[i].text, PQerrorMessage(admin));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (strlen(bad[i].text) == bad[i].len && database_takes(bad[i].text))
            fail_msg("the database takes %s", bad[i].text);
}

/* Good texts with bytes changed: whatever we let through the database must take, or a
 * worker's result would be lost where it is written. */
static void
nothing_is_let_through_that_the_database_refuses(void **state)
{
    (void)state;
    static const char bytes[] =
        "{}[]\",:\\u0123456789abdDeEtn.+- \x01\x80\xC3\xED\xF4\xFF";
    srand(11);
    int taken = 0;
    for (int round = 0; round < 20000; round++) {
        size_t pick = (size_t)rand() % (sizeof good / sizeof good[0]);
        char text[128];
        size_t len = good[pick].len;
        memcpy(text, good[pick].text, len + 1);
        for (int changes = rand() % 3 + 1; changes > 0; changes--)
            text[(size_t)rand() % len] = bytes[(size_t)rand() % (sizeof bytes - 1)];
        if (check(text, len, NULL) != 0)
            continue;
        taken++;
        if (!database_takes(text))
            fail_msg("the database refuses %s: %s", text, PQerrorMessage(admin));
    }
    assert_true(taken > 1000);
}

/* ---- the rest ---- */

static void
compacting_leaves_strings_and_numbers_alone(void **state)
{
    (void)state;
    static const char text[] =
        " {\n \"a \\\" b\\\\\" : [ 1.10 , \"\\t \\\\\" ] ,\r\t\"c\":{ } }\n";
    struct jobq__buf buf = {0};
    jobq__json_compact(&buf, text, sizeof text - 1);
    assert_string_equal(jobq__buf_cstr(&buf),
                        "{\"a \\\" b\\\\\":[1.10,\"\\t \\\\\"],\"c\":{}}");
    jobq__buf_clear(&buf);
}

static void
strings_are_decoded_in_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *decoded;
    } rows[] = {
        {"", ""},
        {"plain", "plain"},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
        {"\\u0041\\u00e5\\u20ac\\ud83d\\ude00.",
         "A\xC3\xA5\xE2\x82\xAC\xF0\x9F\x98\x80."},
        {"a\\u0000b", "a\xEF\xBF\xBD"
                      "b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[64];
        strcpy(text, rows[i].text);
        text[jobq__json_decode(text, strlen(text))] = '\0';
        assert_string_equal(text, rows[i].decoded);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_json_is_let_through),
        cmocka_unit_test(what_is_not_is_refused_by_place),
        cmocka_unit_test(an_object_is_asked_for),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(the_database_agrees),
        cmocka_unit_test(nothing_is_let_through_that_the_database_refuses),
        cmocka_unit_test(compacting_leaves_strings_and_numbers_alone),
        cmocka_unit_test(strings_are_decoded_in_place),
    };
    return cmocka_run_group_tests(tests, open_database, close_database);
}
