/* testing_match.c: whether a job was enqueued. One statement answers all questions: it
 * looks at every criterion of every job, so that an assertion that fails can show which
 * jobs came near. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jobq/testing.h>

#include "libjobq/array.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/json.h"
#include "libjobq/params.h"
#include "libjobq/sql.h"
#include "libjobq/state.h"
#include "libjobq/text.h"

static int
check_match(const jobq_testing_match *match, jobq_error *err)
{
    if (!match || match->size != sizeof *match)
        return jobq__error(err, JOBQ_EINVAL,
                           "match.size must be %zu: start from JOBQ_TESTING_MATCH_INIT",
                           sizeof *match);
    if (match->priority < -1 || match->priority > 9)
        return jobq__error(err, JOBQ_EINVAL,
                           "match.priority must be 0 to 9, or -1 for any, got %d",
                           match->priority);
    if (match->state && !jobq__state_find(match->state, strlen(match->state)))
        return jobq__error(
            err, JOBQ_EINVAL,
            "match.state must be one of scheduled, available, executing, "
            "retryable, suspended, completed, cancelled and discarded, got "
            "\"%.60s\"",
            match->state);
    int rc =
        jobq__texts_check(match->tags, match->n_tags, "match.", "tags", "n_tags", err);
    if (rc == 0)
        rc = jobq__text_check(match->kind, "match.", "kind", err);
    if (rc == 0)
        rc = jobq__text_check(match->queue, "match.", "queue", err);
    if (rc == 0 && match->args)
        rc = jobq__json_check_object(match->args, strlen(match->args), "match.args", err);
    if (rc == 0 && match->meta)
        rc = jobq__json_check_object(match->meta, strlen(match->meta), "match.meta", err);
    return rc;
}

static void
put_time(struct jobq__params *params, int64_t us)
{
    if (us)
        jobq__params_int8(params, us);
    else
        jobq__params_null(params, JOBQ__INT8);
}

/* How many match, and in one text the nearest of all (of those that match: the newest).
 * *result is the caller's. */
static int
look(PGconn *conn, const jobq_testing_match *match, PGresult **result, jobq_error *err)
{
    struct jobq__array tags = {0};
    struct jobq__params params = {0};
    int rc = check_match(match, err);
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    if (rc != 0)
        return rc;
    jobq__array_begin(&tags, JOBQ__TEXT);
    for (size_t i = 0; i < match->n_tags; i++)
        jobq__array_add_text(&tags, match->tags[i], strlen(match->tags[i]));
    jobq__params_text(&params, match->kind);
    jobq__params_text(&params, match->queue);
    jobq__params_json(&params, match->args);
    jobq__params_json(&params, match->meta);
    jobq__params_array(&params, JOBQ__TEXT_ARRAY, &tags);
    if (match->priority >= 0)
        jobq__params_int4(&params, match->priority);
    else
        jobq__params_null(&params, JOBQ__INT4);
    jobq__params_text(&params, match->state);
    put_time(&params, match->scheduled_after_us);
    put_time(&params, match->scheduled_before_us);
    rc = jobq__sql_run(conn, match->schema, JOBQ__SQL_TESTING_LOOK, &params, result, err);
    jobq__array_clear(&tags);
    return rc;
}

int
jobq_testing_count(PGconn *conn, const jobq_testing_match *match, int64_t *out,
                   jobq_error *err)
{
    PGresult *result;
    int rc = look(conn, match, &result, err);
    if (rc != 0)
        return rc;
    if (out)
        jobq__field_int(result, 0, 0, out);
    PQclear(result);
    return 0;
}

/* ---- Assertions ---- */

static void
put_text(struct jobq__buf *buf, const char *name, const char *text, bool raw)
{
    if (!text)
        return;
    jobq__buf_adds(buf, buf->len > 0 ? ", " : "");
    jobq__buf_adds(buf, name);
    jobq__buf_addc(buf, ' ');
    if (raw)
        jobq__buf_adds(buf, text);
    else
        jobq__buf_add_json_string(buf, text, strlen(text));
}

static void
put_number(struct jobq__buf *buf, const char *name, int64_t number, bool given)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, number);
    put_text(buf, name, given ? text : NULL, true);
}

/* What is looked for, in a line: `kind "mail", args {"to": 1}`. */
static void
put_match(struct jobq__buf *buf, const jobq_testing_match *match)
{
    put_text(buf, "kind", match->kind, false);
    put_text(buf, "queue", match->queue, false);
    put_text(buf, "args", match->args, true);
    put_text(buf, "meta", match->meta, true);
    for (size_t i = 0; i < match->n_tags; i++)
        put_text(buf, "tag", match->tags[i], false);
    put_number(buf, "priority", match->priority, match->priority >= 0);
    put_text(buf, "state", match->state, true);
    put_number(buf, "scheduled_after_us", match->scheduled_after_us,
               match->scheduled_after_us != 0);
    put_number(buf, "scheduled_before_us", match->scheduled_before_us,
               match->scheduled_before_us != 0);
    if (buf->len == 0)
        jobq__buf_adds(buf, "any job");
}

/* code: JOBQ_ENOTFOUND or JOBQ_ESTATE. The message has room for so much of each part. */
static int
tell(int code, int64_t n, const jobq_testing_match *match, const PGresult *result,
     jobq_error *err)
{
    struct jobq__buf wanted = {0};
    const char *nearest = NULL;
    size_t len = 0;
    put_match(&wanted, match);
    const char *text = jobq__buf_cstr(&wanted);
    if (!text)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    jobq__field_text(result, 0, 1, &nearest, &len);
    if (code == JOBQ_ESTATE)
        jobq__error(
            err, code, "%" PRId64 " enqueued job%s what none should match: %.200s; %.*s",
            n, n == 1 ? " matches" : "s match", text, (int)len, nearest ? nearest : "");
    else if (!nearest)
        jobq__error(err, code, "no enqueued job matches: %.300s; no job is enqueued",
                    text);
    else
        jobq__error(err, code, "no enqueued job matches: %.200s; nearest: %.*s", text,
                    (int)len, nearest);
    jobq__buf_clear(&wanted);
    return code;
}

/* Exactly one of code_none and code_some is 0. */
static int
expect(PGconn *conn, const jobq_testing_match *match, int code_none, int code_some,
       jobq_error *err)
{
    PGresult *result;
    int64_t n = 0;
    int rc = look(conn, match, &result, err);
    if (rc != 0)
        return rc;
    jobq__field_int(result, 0, 0, &n);
    rc = n > 0 ? code_some : code_none;
    if (rc != 0)
        rc = tell(rc, n, match, result, err);
    PQclear(result);
    return rc;
}

int
jobq_testing_assert_enqueued(PGconn *conn, const jobq_testing_match *match,
                             jobq_error *err)
{
    return expect(conn, match, JOBQ_ENOTFOUND, 0, err);
}

int
jobq_testing_refute_enqueued(PGconn *conn, const jobq_testing_match *match,
                             jobq_error *err)
{
    return expect(conn, match, 0, JOBQ_ESTATE, err);
}
