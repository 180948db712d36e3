/* testing_handlers.h: the handlers that the tests of the testing helpers run. */
#ifndef TESTS_TESTING_HANDLERS_H
#define TESTS_TESTING_HANDLERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

#include <jobq/jobq.h>

static PGconn *handlers_conn; /* for those that use the database */

static int
on_describe(jobq_work *work, void *data)
{
    char text[512];
    (void)data;
    snprintf(text, sizeof text,
             "{\"id\": %lld, \"attempt\": %d, \"of\": %d, \"queue\": \"%s\", \"kind\": "
             "\"%s\", \"args\": %s,\n\"meta\": %s, \"timeout\": %lld}",
             (long long)jobq_work_id(work), jobq_work_attempt(work),
             jobq_work_max_attempts(work), jobq_work_queue(work), jobq_work_kind(work),
             jobq_work_args(work), jobq_work_meta(work),
             (long long)jobq_work_timeout_ms(work));
    return jobq_work_ok(work, text, NULL);
}

static int
on_ok(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    return 0;
}

static int
on_seven(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    return 7;
}

static int
on_error(jobq_work *work, void *data)
{
    return jobq_work_error(work, "no\nluck", "line 1\nline 2", *(int64_t *)data, NULL);
}

static int
on_snooze(jobq_work *work, void *data)
{
    return jobq_work_snooze(work, *(int64_t *)data, NULL);
}

static int
on_discard(jobq_work *work, void *data)
{
    return jobq_work_discard(work, data, NULL);
}

static int
on_cancel(jobq_work *work, void *data)
{
    return jobq_work_cancel(work, data, NULL);
}

static int
on_bad_result(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_ok(work, "{1}", NULL);
}

static int
on_progress(jobq_work *work, void *data)
{
    (void)data;
    assert_int_equal(jobq_work_progress(work, 0.25, "a \"quarter\"", NULL), 0);
    assert_int_equal(jobq_work_progress(work, 0.5, NULL, NULL), 0);
    assert_int_equal(jobq_work_progress(work, 2, NULL, NULL), JOBQ_EINVAL);
    assert_int_equal(jobq_work_ok(work, "[1, 2]", NULL), 0);
    assert_int_equal(jobq_work_ok(work, NULL, NULL), JOBQ_ESTATE);
    return 0;
}

static int
on_should_stop(jobq_work *work, void *data)
{
    (void)data;
    return jobq_work_should_stop(work) == JOBQ_STOP_NO
               ? jobq_work_ok(work, NULL, NULL)
               : jobq_work_snooze(work, jobq_work_should_stop(work), NULL);
}

/* # in the statement stands for the job's id. */
static void
use(jobq_work *work, const char *statement)
{
    char text[512];
    size_t before = strcspn(statement, "#");
    snprintf(text, sizeof text, "%.*s%lld%s", (int)before, statement,
             (long long)jobq_work_id(work), statement + before + 1);
    PQclear(PQexec(handlers_conn, text));
}

/* Runs the statement in data, and says ok. */
static int
on_sql(jobq_work *work, void *data)
{
    use(work, data);
    return 0;
}

static int
on_sql_and_error(jobq_work *work, void *data)
{
    use(work, data);
    return 1;
}

static int
on_pipeline(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    return PQenterPipelineMode(handlers_conn) ? 0 : 1;
}

static int64_t minus_one = -1, zero = 0, minute = 60000;

/* One kind a handler, so that a test needs only its name. */
static const jobq_worker_kind kinds[] = {
    {"describe", on_describe, NULL},
    {"ok", on_ok, NULL},
    {"seven", on_seven, NULL},
    {"error", on_error, &minus_one},
    {"error now", on_error, &zero},
    {"error in a minute", on_error, &minute},
    {"snooze", on_snooze, &minute},
    {"snooze 0", on_snooze, &zero},
    {"discard", on_discard, "no good"},
    {"discard silently", on_discard, NULL},
    {"cancel", on_cancel, "not wanted"},
    {"cancel silently", on_cancel, NULL},
    {"bad result", on_bad_result, NULL},
    {"progress", on_progress, NULL},
    {"should stop", on_should_stop, NULL},
    {"note", on_sql,
     "INSERT INTO public.done SELECT id, kind FROM jobq.jobs WHERE id "
     "OPERATOR(pg_catalog.=) #"},
    {"note and fail", on_sql_and_error, "INSERT INTO public.done VALUES (#, 'failed')"},
    {"wrong sql", on_sql, "SELECT FROM nowhere -- #"},
    {"enqueue", on_sql,
     "SELECT jobq.enqueue('note', pg_catalog.jsonb_build_object('of', #))"},
    {"again", on_sql,
     "SELECT jobq.enqueue('again', pg_catalog.jsonb_build_object('of', #))"},
    {"complete", on_sql, "SELECT jobq.complete(#, 1, '[3]')"},
    {"delete", on_sql, "DELETE FROM jobq.jobs WHERE id OPERATOR(pg_catalog.=) #"},
    {"cancel itself", on_sql_and_error, "SELECT jobq.cancel(#)"},
    {"commit", on_sql, "COMMIT -- #"},
    {"commit, begin", on_sql, "COMMIT; BEGIN -- #"},
    {"commit, begin, fail", on_sql, "COMMIT; BEGIN; SELECT FROM nowhere -- #"},
    {"pipeline", on_pipeline, NULL},
    {"begin", on_sql, "BEGIN -- #"},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

#endif
