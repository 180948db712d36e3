/* test_json_database.c: Postgres takes the JSON that is let through, and refuses the JSON
 * that is refused. */
#include "tests/unit/database.h"
#include "tests/unit/json_samples.h"

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

/* Good texts with bytes changed: the database must take whatever is let through, or a
 * worker's result would be lost when it is written. */
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_database_agrees),
        cmocka_unit_test(nothing_is_let_through_that_the_database_refuses),
    };
    return cmocka_run_group_tests(tests, open_database, close_database);
}
