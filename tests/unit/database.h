/* database.h: what the tests of libjobq's database side share: connections to the
 * migrated database in JOBQ_TEST_DATABASE, and SQL on them that must succeed. */
#ifndef TESTS_DATABASE_H
#define TESTS_DATABASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *conninfo;
static PGconn *admin; /* looks at what the others did, and acts behind their backs */

static inline PGconn *
connect_database(void)
{
    PGconn *conn = PQconnectdb(conninfo);
    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(conn));
    return conn;
}

static inline void
sql(PGconn *conn, const char *text)
{
    PGresult *result = PQexec(conn, text);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        fail_msg("%s: %s", text, PQresultErrorMessage(result));
    PQclear(result);
}

/* The first field of what a query finds, as text; "" when it finds nothing or null. Lent
 * until the next but three. */
static inline const char *__attribute__((format(printf, 1, 2)))
value(const char *format, ...)
{
    static char values[4][8192];
    static unsigned turn;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    PGresult *result = PQexec(admin, text);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", text, PQresultErrorMessage(result));
    char *out = values[turn++ % 4];
    snprintf(out, sizeof values[0], "%s",
             PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    return out;
}

static inline int64_t
count(const char *query)
{
    return strtoll(value("%s", query), NULL, 10);
}

/* Waits until the query says t. */
static inline void
wait_until(const char *query)
{
    time_t limit = time(NULL) + 60;
    while (strcmp(value("%s", query), "t") != 0) {
        if (time(NULL) > limit)
            fail_msg("waited in vain for: %s", query);
        usleep(1000);
    }
}

static int
open_database(void **state)
{
    (void)state;
    conninfo = getenv("JOBQ_TEST_DATABASE");
    if (!conninfo) {
        fprintf(stderr,
                "JOBQ_TEST_DATABASE is not set: it is to be a connection string of a "
                "migrated database (tests/harness/with_database.py makes one)\n");
        return -1;
    }
    admin = PQconnectdb(conninfo);
    if (PQstatus(admin) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(admin));
        return -1;
    }
    sql(admin, "SET search_path = public"); /* past the trap (harness/trap.py) */
    return 0;
}

static int
close_database(void **state)
{
    (void)state;
    PQfinish(admin);
    return 0;
}

#endif
