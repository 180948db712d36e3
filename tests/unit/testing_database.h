/* testing_database.h: what the tests of the testing helpers on a database share: each
 * begins without jobs, and leaves its connection idle. */
#ifndef TESTS_TESTING_DATABASE_H
#define TESTS_TESTING_DATABASE_H

#include "tests/unit/database.h"

#include <jobq/jobq.h>

#include "tests/unit/calls.h"

static PGconn *conn;
static jobq_error err;

static int
open_all(void **state)
{
    if (open_database(state) < 0)
        return -1;
    conn = connect_database();
    return 0;
}

static int
close_all(void **state)
{
    PQfinish(conn);
    return close_database(state);
}

static int
empty(void **state)
{
    (void)state;
    sql(admin, "DELETE FROM jobq.jobs; DELETE FROM jobq.finished_jobs; "
               "DELETE FROM jobq._cancels; DROP TABLE IF EXISTS public.done; "
               "CREATE TABLE public.done (id bigint, kind text)");
    return 0;
}

static int
is_idle(void **state)
{
    (void)state;
    return PQtransactionStatus(conn) == PQTRANS_IDLE ? 0 : -1;
}

static int64_t
enqueue(const char *kind)
{
    jobq_job job = JOBQ_JOB_INIT;
    int64_t id = 0;
    job.kind = kind;
    succeeds(jobq_enqueue(conn, &job, &id, &err));
    return id;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, empty, is_idle)

#endif
