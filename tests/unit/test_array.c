/* Binary parameters and results, there and back through a real server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libjobq/array.h"

static PGconn *pg;

static int
open_database(void **state)
{
    (void)state;
    const char *conninfo = getenv("JOBQ_TEST_DATABASE");
    if (!conninfo) {
        fprintf(stderr,
                "JOBQ_TEST_DATABASE is not set: it is to be a connection string of "
                "a database for tests (tests/harness/with_database.py makes one)\n");
        return -1;
    }
    pg = PQconnectdb(conninfo);
    if (PQstatus(pg) != CONNECTION_OK)
        fprintf(stderr, "%s", PQerrorMessage(pg));
    PQclear(PQexec(pg, "SET search_path = public")); /* past the trap (harness/trap.py) */
    return PQstatus(pg) == CONNECTION_OK ? 0 : -1;
}

static int
close_database(void **state)
{
    (void)state;
    PQfinish(pg);
    return 0;
}

/* One binary parameter, a binary result. */
static PGresult *
ask(const char *sql, Oid type, const char *value, int length)
{
    const int format = 1;
    PGresult *result = PQexecParams(pg, sql, 1, &type, &value, &length, &format, 1);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQresultErrorMessage(result));
    return result;
}

static PGresult *
ask_array(const char *sql, Oid type, struct jobq__array *array)
{
    const char *value;
    int length;
    assert_true(jobq__array_end(array, &value, &length));
    return ask(sql, type, value, length);
}

static void
assert_text(const PGresult *result, int row, int column, const char *expected)
{
    const char *text = "";
    size_t len = 0;
    assert_true(jobq__field_text(result, row, column, &text, &len));
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(text, expected, len);
}

static void
integers_arrive(void **state)
{
    (void)state;
    static const int64_t values[] = {0, 1, -1, INT64_MIN, INT64_MAX, 123456789012345678};
    size_t n = sizeof values / sizeof values[0];
    struct jobq__array array = {0};
    jobq__array_begin(&array, JOBQ__INT8);
    for (size_t i = 0; i < n; i++)
        jobq__array_add_int8(&array, values[i]);
    PGresult *result = ask_array("SELECT unnest($1)", JOBQ__INT8_ARRAY, &array);
    assert_int_equal(PQntuples(result), n);
    for (size_t i = 0; i < n; i++) {
        int64_t value = 7;
        assert_true(jobq__field_int(result, (int)i, 0, &value));
        assert_true(value == values[i]);
    }
    PQclear(result);

    static const int32_t small[] = {INT32_MIN, -2, 0, INT32_MAX};
    jobq__array_begin(&array, JOBQ__INT4); /* the same builder again */
    for (size_t i = 0; i < 4; i++)
        jobq__array_add_int4(&array, small[i]);
    result = ask_array("SELECT unnest($1)", JOBQ__INT4_ARRAY, &array);
    assert_int_equal(PQntuples(result), 4);
    for (int i = 0; i < 4; i++) {
        int64_t value = 7;
        assert_true(jobq__field_int(result, i, 0, &value));
        assert_int_equal(value, small[i]);
    }
    PQclear(result);
    jobq__array_clear(&array);
}

static void
texts_and_nulls_arrive(void **state)
{
    (void)state;
    struct jobq__array array = {0};
    jobq__array_begin(&array, JOBQ__TEXT);
    jobq__array_add_text(&array, "plain", 5);
    jobq__array_add_null(&array);
    jobq__array_add_text(&array, "", 0);
    jobq__array_add_text(&array, "{\"quoted\", NULL}", 16);
    jobq__array_add_text(&array, "\xC3\xA5\xC3\xA4\xC3\xB6 and more",
                         4); /* cut by its length */
    PGresult *result = ask_array("SELECT unnest($1)", JOBQ__TEXT_ARRAY, &array);
    assert_int_equal(PQntuples(result), 5);
    assert_text(result, 0, 0, "plain");
    assert_true(jobq__field_null(result, 1, 0));
    assert_text(result, 2, 0, "");
    assert_text(result, 3, 0, "{\"quoted\", NULL}");
    assert_text(result, 4, 0, "\xC3\xA5\xC3\xA4");
    PQclear(result);
    jobq__array_clear(&array);
}

static void
json_arrives_with_its_digits(void **state)
{
    (void)state;
    static const char json[] = "{\"big\": 123456789012345678, \"small\": 0.1}";
    struct jobq__array array = {0};
    jobq__array_begin(&array, JOBQ__JSONB);
    jobq__array_add_jsonb(&array, json, strlen(json));
    jobq__array_add_null(&array);
    jobq__array_add_jsonb(&array, "[]", 2);
    PGresult *result =
        ask_array("SELECT x, x->>'big' FROM unnest($1) x", JOBQ__JSONB_ARRAY, &array);
    assert_int_equal(PQntuples(result), 3);
    const char *text = "";
    size_t len = 0;
    assert_true(jobq__field_jsonb(result, 0, 0, &text, &len));
    assert_int_equal(len,
                     strlen(json)); /* jsonb prints shorter keys first: the same order */
    assert_memory_equal(text, json, len);
    assert_text(result, 0, 1, "123456789012345678");
    assert_false(jobq__field_jsonb(result, 1, 0, &text, &len));
    assert_true(jobq__field_jsonb(result, 2, 0, &text, &len));
    assert_int_equal(len, 2);
    PQclear(result);
    jobq__array_clear(&array);
}

static void
an_empty_array_is_an_array(void **state)
{
    (void)state;
    struct jobq__array array = {0};
    jobq__array_begin(&array, JOBQ__TEXT);
    PGresult *result =
        ask_array("SELECT cardinality($1), $1 IS NULL", JOBQ__TEXT_ARRAY, &array);
    int64_t cardinality = -1;
    bool is_null = true;
    assert_true(jobq__field_int(result, 0, 0, &cardinality));
    assert_int_equal(cardinality, 0);
    assert_true(jobq__field_bool(result, 0, 1, &is_null));
    assert_false(is_null);
    PQclear(result);
    jobq__array_clear(&array);
}

static void
single_integers_arrive(void **state)
{
    (void)state;
    char eight[8];
    char four[4];
    int64_t value = 0;
    jobq__value_int8(eight, INT64_MIN + 1);
    PGresult *result = ask("SELECT $1, ($1 < 0), 7::smallint", JOBQ__INT8, eight, 8);
    bool negative = false;
    assert_true(jobq__field_int(result, 0, 0, &value));
    assert_true(value == INT64_MIN + 1);
    assert_true(jobq__field_bool(result, 0, 1, &negative));
    assert_true(negative);
    assert_true(jobq__field_int(result, 0, 2, &value));
    assert_int_equal(value, 7);
    PQclear(result);
    jobq__value_int4(four, -5);
    result = ask("SELECT $1", JOBQ__INT4, four, 4);
    assert_true(jobq__field_int(result, 0, 0, &value));
    assert_int_equal(value, -5);
    PQclear(result);
}

static void
a_field_of_another_kind_is_refused(void **state)
{
    (void)state;
    PGresult *result = ask("SELECT 'four'::text, NULL::bigint, $1, true, 1.5::float4",
                           JOBQ__INT4, "\0\0\0\1", 4);
    int64_t value = 42;
    bool yes = false;
    const char *text = "untouched";
    size_t len = 9;
    assert_false(jobq__field_int(result, 0, 1, &value)); /* null */
    assert_false(jobq__field_int(result, 0, 9, &value)); /* no such column */
    assert_false(jobq__field_int(result, 1, 2, &value)); /* no such row */
    assert_false(jobq__field_int(result, -1, 2, &value));
    assert_false(jobq__field_int(result, 0, 3, &value)); /* one byte */
    assert_false(jobq__field_bool(result, 0, 2, &yes));  /* four bytes */
    assert_false(jobq__field_jsonb(result, 0, 0, &text, &len));
    assert_false(jobq__field_text(result, 0, 1, &text, &len));
    assert_false(jobq__field_null(result, 0, 0));
    assert_true(jobq__field_null(result, 0, 1));
    assert_false(jobq__field_null(result, 5, 5));
    assert_int_equal(value, 42);
    assert_string_equal(text, "untouched");
    PQclear(result);
    result = PQexec(pg, "SELECT 12345678"); /* text format: 8 bytes, but no int8 */
    assert_false(jobq__field_int(result, 0, 0, &value));
    PQclear(result);
}

static void
a_steady_stream_allocates_nothing(void **state)
{
    (void)state;
    struct jobq__array array = {0};
    const char *first = NULL;
    for (int round = 0; round < 3; round++) {
        const char *value;
        int length;
        jobq__array_begin(&array, JOBQ__INT8);
        for (int64_t i = 0; i < 5000; i++)
            jobq__array_add_int8(&array, i);
        assert_true(jobq__array_end(&array, &value, &length));
        assert_int_equal(length, 20 + 5000 * 12);
        assert_true(first == NULL || first == value);
        first = value;
    }
    jobq__array_clear(&array);
    assert_null(array.buf.data);
}

static void
an_array_that_is_too_large_is_refused(void **state)
{
    (void)state;
    struct jobq__array array = {0};
    const char *value = "untouched";
    int length = 9;
    jobq__array_begin(&array, JOBQ__TEXT);
    jobq__array_add_text(&array, "x", (size_t)2 << 30); /* not even looked at */
    jobq__array_add_int8(&array, 1);
    assert_false(jobq__array_end(&array, &value, &length));
    assert_string_equal(value, "untouched");
    jobq__array_begin(&array, JOBQ__INT8); /* and begun anew it works again */
    jobq__array_add_int8(&array, 1);
    assert_true(jobq__array_end(&array, &value, &length));
    jobq__array_clear(&array);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_arrive),
        cmocka_unit_test(texts_and_nulls_arrive),
        cmocka_unit_test(json_arrives_with_its_digits),
        cmocka_unit_test(an_empty_array_is_an_array),
        cmocka_unit_test(single_integers_arrive),
        cmocka_unit_test(a_field_of_another_kind_is_refused),
        cmocka_unit_test(a_steady_stream_allocates_nothing),
        cmocka_unit_test(an_array_that_is_too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, open_database, close_database);
}
