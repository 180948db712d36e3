/* many.c: jobq_enqueue_many, jobq_job_try_enqueue_many. Rows go in by INSERT … SELECT FROM
 * unnest(binary arrays): of what was measured the fastest way into Postgres. Only columns
 * in which some job differs from the default are sent. Jobs that are to be unique go
 * through the SQL function, which knows what to answer for a conflict; so do those of
 * which only the database's clock can tell whether they are well, since it names them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libjobq/array.h"
#include "libjobq/error.h"
#include "libjobq/job.h"
#include "libjobq/params.h"
#include "libjobq/sql.h"
#include "libjobq/unique.h"

/* In one statement, unless a single job has more bytes. Postgres takes 256 MB in a JSON
 * array, and holds several copies of a statement in memory. */
enum { ROWS = 1000, BYTES = 8 * 1024 * 1024 };

/* X(column, type of the array, array's type in SQL, expression of the inserted value; as
 * sql.h has it) */
/* clang-format off */
#define COLUMNS(X)                                                                       \
    X(kind, JOBQ__TEXT, "pg_catalog.text[]", "u.kind")                                   \
    X(args, JOBQ__JSONB, "pg_catalog.jsonb[]", "u.args")                                 \
    X(meta, JOBQ__JSONB, "pg_catalog.jsonb[]", "u.meta")                                 \
    X(queue, JOBQ__TEXT, "pg_catalog.text[]", "u.queue")                                 \
    X(priority, JOBQ__INT4, "int[]", "u.priority::smallint")                             \
    X(max_attempts, JOBQ__INT4, "int[]", "u.max_attempts")                               \
    X(timeout_ms, JOBQ__INT4, "int[]", "u.timeout_ms")                                   \
    X(scheduled_at, JOBQ__INT8, "bigint[]",                                              \
      "coalesce(" TIME("u.scheduled_at") ", pg_catalog.now())")                          \
    X(key, JOBQ__TEXT, "pg_catalog.text[]", "u.key")                                     \
    X(tags, JOBQ__TEXT, "pg_catalog.text[]", "u.tags::pg_catalog.text[]")                \
    X(expires_at, JOBQ__INT8, "bigint[]", TIME("u.expires_at"))

/* Microseconds since 1970, or as a negative number the delay from now in milliseconds. */
#define TIME(column)                                                                     \
    "CASE WHEN " column " {<} 0 THEN " JOBQ__TIME_IN("({-} " column ")")                 \
    " ELSE " JOBQ__TIME_AT(column) " END"
/* clang-format on */

enum column {
#define X(name, type, array, value) COLUMN_##name,
    COLUMNS(X)
#undef X
        COLUMN_COUNT
};

static const struct {
    const char *name;
    enum jobq__type type;
    const char *array;
    const char *value;
} columns[] = {
#define X(name, type, array, value) {#name, type, array, value},
    COLUMNS(X)
#undef X
};

struct many {
    PGconn *conn;
    const jobq_job *jobs;
    size_t n;
    bool used[COLUMN_COUNT];
    bool by_function; /* some job is to be unique, or only the database can tell whether
                         it is well, and is to name it */
    struct jobq__array arrays[COLUMN_COUNT];
    struct jobq__buf sql;
    struct jobq__buf text; /* a tags literal, or the JSON of a batch */
};

static enum jobq__type
array_type(enum jobq__type element)
{
    switch (element) {
    case JOBQ__INT4:
        return JOBQ__INT4_ARRAY;
    case JOBQ__INT8:
        return JOBQ__INT8_ARRAY;
    case JOBQ__JSONB:
        return JOBQ__JSONB_ARRAY;
    case JOBQ__TEXT:
    case JOBQ__BOOL:
    case JOBQ__INT4_ARRAY:
    case JOBQ__TEXT_ARRAY:
    case JOBQ__INT8_ARRAY:
    case JOBQ__JSONB_ARRAY:
        break;
    }
    return JOBQ__TEXT_ARRAY;
}

static void
note_use(struct many *many, const jobq_job *job)
{
    many->used[COLUMN_kind] = true;
    many->used[COLUMN_args] = true;
    many->used[COLUMN_meta] |= job->meta != NULL;
    many->used[COLUMN_queue] |= job->queue != NULL;
    many->used[COLUMN_priority] |= job->priority != 0;
    many->used[COLUMN_max_attempts] |= job->max_attempts != 0;
    many->used[COLUMN_timeout_ms] |= job->timeout_ms != 0;
    many->used[COLUMN_scheduled_at] |= job->delay_ms != 0 || job->scheduled_at_us != 0;
    many->used[COLUMN_key] |= job->key != NULL;
    many->used[COLUMN_tags] |= job->n_tags != 0;
    many->used[COLUMN_expires_at] |= job->expires_at_us != 0 || job->expires_in_ms != 0;
    bool delayed_till = job->delay_ms > 0 && job->expires_at_us > 0;
    bool timed_for = job->scheduled_at_us > 0 && job->expires_in_ms > 0;
    many->by_function |= job->unique_key != NULL || job->unique_by != NULL ||
                         job->on_conflict != JOBQ_ON_CONFLICT_IGNORE || delayed_till ||
                         timed_for;
}

static int
check_all(struct many *many, jobq_error *err)
{
    for (size_t i = 0; i < many->n; i++) {
        const jobq_job *job = &many->jobs[i];
        char prefix[40];
        snprintf(prefix, sizeof prefix, "jobs[%zu].", i);
        int rc = jobq__job_check(job, prefix, err);
        if (rc < 0)
            return rc;
        const char *first = many->jobs[0].schema ? many->jobs[0].schema : "jobq";
        if (strcmp(job->schema ? job->schema : "jobq", first) != 0)
            return jobq__error(
                err, JOBQ_EINVAL,
                "jobs[%zu].schema must be that of jobs[0], \"%s\", got \"%.80s\"", i,
                first, job->schema ? job->schema : "jobq");
        note_use(many, job);
    }
    return 0;
}

/* max_attempts of a job that names none: that of its queue. Left to the table, each row
 * would be asked about by itself; so each queue is, once. */
static int
put_queue_attempts(struct many *many, jobq_error *err)
{
    struct jobq__buf *sql = &many->sql;
    const char *schema = many->jobs[0].schema;
    int64_t nth = 1;
    for (size_t c = 0; c < COLUMN_queue; c++)
        nth += many->used[c];
    bool several = many->used[COLUMN_queue];
    jobq__buf_adds(sql, several ? "((SELECT pg_catalog.jsonb_object_agg(d.queue, "
                                : "(SELECT ");
    int rc = jobq__sql_put_schema(sql, schema, err);
    if (rc < 0)
        return rc;
    if (!several) {
        jobq__buf_adds(sql, "._queue_attempts('default'))");
        return 0;
    }
    jobq__buf_adds(sql, "._queue_attempts(d.queue)) FROM (SELECT DISTINCT q.queue FROM "
                        "pg_catalog.unnest($");
    jobq__buf_add_i64(sql, nth);
    jobq__sql_put(sql, "::pg_catalog.text[]) q (queue)) d) {->>} u.queue)::int", NULL,
                  NULL);
    return 0;
}

static int
put_max_attempts(struct many *many, jobq_error *err)
{
    bool used = many->used[COLUMN_max_attempts];
    jobq__buf_adds(&many->sql, used ? "coalesce(u.max_attempts, " : "");
    int rc = put_queue_attempts(many, err);
    jobq__buf_adds(&many->sql, used ? ")" : "");
    return rc;
}

/* INSERT INTO s.jobs (kind, args) SELECT u.kind, u.args FROM ROWS FROM
 * (pg_catalog.unnest($1::pg_catalog.text[]), …) WITH ORDINALITY AS u (…, ord) … */
static int
make_insert(struct many *many, jobq_error *err)
{
    struct jobq__buf *sql = &many->sql;
    static const char *const parts[] = {" (", " SELECT ", " FROM ROWS FROM (",
                                        " WITH ORDINALITY AS u ("};
    jobq__buf_adds(sql, "INSERT INTO ");
    int rc = jobq__sql_put_schema(sql, many->jobs[0].schema, err);
    if (rc < 0)
        return rc;
    jobq__buf_adds(sql, ".jobs");
    for (size_t part = 0; part < 4; part++) {
        int64_t n = 0;
        jobq__buf_adds(sql, parts[part]);
        for (size_t c = 0; c < COLUMN_COUNT; c++) {
            bool always = c == COLUMN_max_attempts && part < 2;
            if (!many->used[c] && !always)
                continue;
            if (n++ > 0)
                jobq__buf_adds(sql, ", ");
            switch (part) {
            case 1:
                if (!always)
                    jobq__sql_put(sql, columns[c].value, NULL, NULL);
                else if ((rc = put_max_attempts(many, err)) < 0)
                    return rc;
                break;
            case 2:
                jobq__buf_adds(sql, "pg_catalog.unnest($");
                jobq__buf_add_i64(sql, n);
                jobq__buf_adds(sql, "::");
                jobq__buf_adds(sql, columns[c].array);
                jobq__buf_addc(sql, ')');
                break;
            default:
                jobq__buf_adds(sql, columns[c].name);
            }
        }
        if (part != 1)
            jobq__buf_adds(sql, part == 3 ? ", ord)" : ")");
    }
    jobq__buf_adds(sql, " ORDER BY u.ord RETURNING id");
    return jobq__buf_cstr(sql) ? 0 : jobq__error(err, JOBQ_ENOMEM, "no memory");
}

static void
add_text(struct jobq__array *array, const char *text)
{
    if (text)
        jobq__array_add_text(array, text, strlen(text));
    else
        jobq__array_add_null(array);
}

static void
add_json(struct jobq__array *array, const char *text)
{
    const char *json = text ? text : "{}";
    jobq__array_add_jsonb(array, json, strlen(json));
}

static void
add_time(struct jobq__array *array, int64_t at_us, int64_t delay_ms)
{
    if (at_us > 0)
        jobq__array_add_int8(array, at_us);
    else if (delay_ms > 0)
        jobq__array_add_int8(array, -delay_ms);
    else
        jobq__array_add_null(array);
}

/* A text[] literal, {"a","b"}: unnest would flatten an array of arrays. */
static void
add_tags(struct many *many, const jobq_job *job)
{
    struct jobq__buf *text = &many->text;
    jobq__buf_reset(text);
    jobq__buf_addc(text, '{');
    for (size_t i = 0; i < job->n_tags; i++) {
        jobq__buf_adds(text, i > 0 ? ",\"" : "\"");
        for (const char *at = job->tags[i]; *at; at++) {
            if (*at == '"' || *at == '\\')
                jobq__buf_addc(text, '\\');
            jobq__buf_addc(text, *at);
        }
        jobq__buf_addc(text, '"');
    }
    jobq__buf_addc(text, '}');
    if (text->failed)
        many->arrays[COLUMN_tags].buf.failed = true;
    else
        jobq__array_add_text(&many->arrays[COLUMN_tags], text->data, text->len);
}

static void
add_row(struct many *many, const jobq_job *job)
{
    struct jobq__array *a = many->arrays;
    const bool *used = many->used;
    add_text(&a[COLUMN_kind], job->kind);
    add_json(&a[COLUMN_args], job->args);
    if (used[COLUMN_meta])
        add_json(&a[COLUMN_meta], job->meta);
    if (used[COLUMN_queue])
        add_text(&a[COLUMN_queue], job->queue ? job->queue : "default");
    if (used[COLUMN_priority])
        jobq__array_add_int4(&a[COLUMN_priority], job->priority);
    if (used[COLUMN_max_attempts]) {
        if (job->max_attempts > 0)
            jobq__array_add_int4(&a[COLUMN_max_attempts], job->max_attempts);
        else
            jobq__array_add_null(&a[COLUMN_max_attempts]);
    }
    if (used[COLUMN_timeout_ms]) {
        if (job->timeout_ms > 0)
            jobq__array_add_int4(&a[COLUMN_timeout_ms], job->timeout_ms);
        else
            jobq__array_add_null(&a[COLUMN_timeout_ms]);
    }
    if (used[COLUMN_scheduled_at])
        add_time(&a[COLUMN_scheduled_at], job->scheduled_at_us, job->delay_ms);
    if (used[COLUMN_key])
        add_text(&a[COLUMN_key], job->key);
    if (used[COLUMN_tags])
        add_tags(many, job);
    if (used[COLUMN_expires_at])
        add_time(&a[COLUMN_expires_at], job->expires_at_us, job->expires_in_ms);
}

/* The second column is what came of it, where there is one. */
static int
read_ids(PGresult *result, size_t n, jobq_enqueued *out, jobq_error *err)
{
    int rc = 0;
    if ((size_t)PQntuples(result) != n)
        rc = jobq__error(err, JOBQ_EDB, "the database returned %d ids for %zu jobs",
                         PQntuples(result), n);
    for (size_t i = 0; rc == 0 && out && i < n; i++) {
        const char *word = NULL;
        size_t len = 0;
        if (!jobq__field_int(result, (int)i, 0, &out[i].id))
            rc = jobq__error(err, JOBQ_EDB,
                             "the database returned something that is not a job id");
        jobq__field_text(result, (int)i, 1, &word, &len);
        out[i].conflict = jobq__conflict_read(word, len);
    }
    PQclear(result);
    return rc;
}

static int
insert_rows(struct many *many, size_t from, size_t n, jobq_enqueued *out, jobq_error *err)
{
    struct jobq__params params = {0};
    for (size_t c = 0; c < COLUMN_COUNT; c++)
        if (many->used[c])
            jobq__array_begin(&many->arrays[c], columns[c].type);
    for (size_t i = 0; i < n; i++)
        add_row(many, &many->jobs[from + i]);
    for (size_t c = 0; c < COLUMN_COUNT; c++)
        if (many->used[c])
            jobq__params_array(&params, array_type(columns[c].type), &many->arrays[c]);
    PGresult *result;
    int rc = jobq__sql_run_text(many->conn, many->sql.data, &params, &result, err);
    return rc < 0 ? rc : read_ids(result, n, out, err);
}

/* ---- by the SQL function, as JSON ---- */

static void
put_member(struct jobq__buf *json, const char *name, const char *text, bool raw)
{
    if (!text)
        return;
    jobq__buf_adds(json, ",\"");
    jobq__buf_adds(json, name);
    jobq__buf_adds(json, "\":");
    if (raw)
        jobq__buf_adds(json, text);
    else
        jobq__buf_add_json_string(json, text, strlen(text));
}

static void
put_integer(struct jobq__buf *json, const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    put_member(json, name, value != 0 ? text : NULL, true);
}

/* A time that the database reads: an absolute one. A delay counts from `now_us`, its own
 * clock. */
static void
put_time(struct jobq__buf *json, const char *name, int64_t at_us, int64_t delay_ms,
         int64_t now_us)
{
    int64_t us = delay_ms > 0 ? now_us + delay_ms * 1000 : at_us;
    char text[64];
    if (us <= 0)
        return;
    time_t seconds = (time_t)(us / 1000000);
    struct tm utc;
    if (!gmtime_r(&seconds,
                  &utc)) /* a year beyond what int holds: the checks forbid it */
        return;
    size_t len = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + len, sizeof text - len, ".%06" PRId64 "Z", us % 1000000);
    put_member(json, name, text, false);
}

static void
put_job(struct jobq__buf *json, const jobq_job *job, int64_t now_us)
{
    jobq__buf_adds(json, "{\"kind\":");
    jobq__buf_add_json_string(json, job->kind, strlen(job->kind));
    put_member(json, "args", job->args, true);
    put_member(json, "meta", job->meta, true);
    put_member(json, "queue", job->queue, false);
    put_member(json, "key", job->key, false);
    put_member(json, "unique_key", job->unique_key, false);
    put_integer(json, "priority", job->priority);
    put_integer(json, "max_attempts", job->max_attempts);
    put_integer(json, "timeout_ms", job->timeout_ms);
    put_time(json, "scheduled_at", job->scheduled_at_us, job->delay_ms, now_us);
    put_time(json, "expires_at", job->expires_at_us, job->expires_in_ms, now_us);
    if (job->unique_by) {
        jobq__buf_adds(json, ",\"unique_by\":");
        jobq__unique_put(json, job->unique_by);
    }
    put_member(json, "on_conflict", jobq__conflict_word(job->on_conflict), false);
    put_member(json, "replace", job->replace, true);
    if (job->n_tags > 0)
        jobq__buf_adds(json, ",\"tags\":[");
    for (size_t i = 0; i < job->n_tags; i++) {
        if (i > 0)
            jobq__buf_addc(json, ',');
        jobq__buf_add_json_string(json, job->tags[i], strlen(job->tags[i]));
    }
    jobq__buf_adds(json, job->n_tags > 0 ? "]}" : "}");
}

static int
database_now(PGconn *conn, int64_t *us, jobq_error *err)
{
    PGresult *result;
    int rc =
        jobq__sql_run(conn, NULL, JOBQ__SQL_NOW, &(struct jobq__params){0}, &result, err);
    if (rc < 0)
        return rc;
    jobq__field_int(result, 0, 0, us);
    PQclear(result);
    return 0;
}

/* `jobq.try_enqueue_many: jobs[100].expires_at must be …`: the function has seen a batch
 * alone, which begins at `from`. */
static void
name_element(size_t from, const jobq_error *why, jobq_error *err)
{
    static const char before[] = "jobq.try_enqueue_many: jobs[";
    const char *nth = why->message + sizeof before - 1;
    char *behind = NULL;
    *err = *why;
    if (strncmp(why->message, before, sizeof before - 1) != 0)
        return;
    size_t n = strtoul(nth, &behind, 10);
    if (behind == nth || *behind != ']')
        return;
    jobq__error(err, why->code, "%s%zu%s", before, from + n, behind);
    memcpy(err->sqlstate, why->sqlstate, sizeof err->sqlstate);
}

static int
insert_by_function(struct many *many, size_t from, size_t n, jobq_enqueued *out,
                   jobq_error *err)
{
    struct jobq__buf *json = &many->text;
    int64_t now_us = 0;
    bool timed = many->used[COLUMN_scheduled_at] || many->used[COLUMN_expires_at];
    int rc = timed ? database_now(many->conn, &now_us, err) : 0;
    if (rc < 0)
        return rc;
    jobq__buf_reset(json);
    for (size_t i = 0; i < n; i++) {
        jobq__buf_addc(json, i == 0 ? '[' : ',');
        put_job(json, &many->jobs[from + i], now_us);
    }
    jobq__buf_addc(json, ']');
    const char *text = jobq__buf_cstr(json);
    if (!text)
        return jobq__error(err, JOBQ_ENOMEM, "no memory");
    struct jobq__params params = {0};
    jobq_error why = {0};
    PGresult *result;
    jobq__params_json(&params, text);
    rc = jobq__sql_run(many->conn, many->jobs[0].schema, JOBQ__SQL_TRY_ENQUEUE_MANY,
                       &params, &result, &why);
    if (rc < 0 && err)
        name_element(from, &why, err);
    return rc < 0 ? rc : read_ids(result, n, out, err);
}

/* ---- all of it ---- */

static int
run_plain(PGconn *conn, const char *text, jobq_error *err)
{
    PGresult *result;
    int rc = jobq__sql_run_text(conn, text, &(struct jobq__params){0}, &result, err);
    if (rc == 0)
        PQclear(result);
    return rc;
}

/* How many jobs from `from` on make one statement. */
static size_t
batch_size(const struct many *many, size_t from)
{
    size_t bytes = 0, n = 0;
    for (; from + n < many->n && n < ROWS; n++) {
        const jobq_job *job = &many->jobs[from + n];
        bytes += job->args ? strlen(job->args) : 0;
        bytes += job->meta ? strlen(job->meta) : 0;
        for (size_t i = 0; i < job->n_tags; i++)
            bytes += strlen(job->tags[i]);
        if (n > 0 && bytes > BYTES)
            break;
    }
    return n;
}

static int
insert_all(struct many *many, jobq_enqueued *out, jobq_error *err)
{
    int rc = many->by_function ? 0 : make_insert(many, err);
    for (size_t from = 0, n; rc == 0 && from < many->n; from += n) {
        jobq_enqueued *some = out ? out + from : NULL;
        n = batch_size(many, from);
        rc = many->by_function ? insert_by_function(many, from, n, some, err)
                               : insert_rows(many, from, n, some, err);
    }
    return rc;
}

/* Several statements are one transaction: the caller's, or one begun here. */
static int
in_transaction(struct many *many, jobq_enqueued *out, jobq_error *err)
{
    bool begin =
        batch_size(many, 0) < many->n && PQtransactionStatus(many->conn) == PQTRANS_IDLE;
    int rc = begin ? run_plain(many->conn, "BEGIN", err) : 0;
    if (rc == 0)
        rc = insert_all(many, out, err);
    if (begin && rc == 0)
        rc = run_plain(many->conn, "COMMIT", err);
    else if (begin && PQstatus(many->conn) == CONNECTION_OK)
        run_plain(many->conn, "ROLLBACK", NULL);
    return rc;
}

/* out, and what is made of it: the caller's only when all went well. */
static int
enqueue_many(PGconn *conn, const jobq_job *jobs, size_t n, jobq_enqueued *out,
             jobq_error *err)
{
    struct many many = {.conn = conn, .jobs = jobs, .n = n};
    int rc = check_all(&many, err);
    if (rc == 0)
        rc = jobq__sql_check_conn(conn, err);
    if (rc == 0 && n > 0)
        rc = in_transaction(&many, out, err);
    for (size_t c = 0; c < COLUMN_COUNT; c++)
        jobq__array_clear(&many.arrays[c]);
    jobq__buf_clear(&many.sql);
    jobq__buf_clear(&many.text);
    return rc;
}

/* Only one of ids and out; both may be NULL. They are untouched on failure. */
static int
many_into(PGconn *conn, const jobq_job *jobs, size_t n, int64_t *ids, jobq_enqueued *out,
          jobq_error *err)
{
    if (n > 0 && !jobs)
        return jobq__error(err, JOBQ_EINVAL, "jobs must point to %zu jobs, got NULL", n);
    jobq_job *copy = NULL;
    int rc = jobq__jobs_take(&jobs, n, &copy, err);
    bool wanted = (ids || out) && n > 0;
    jobq_enqueued *made = rc == 0 && wanted ? calloc(n, sizeof *made) : NULL;
    if (rc == 0 && wanted && !made)
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory for %zu ids", n);
    if (rc == 0)
        rc = enqueue_many(conn, jobs, n, made, err);
    for (size_t i = 0; rc == 0 && ids && i < n; i++)
        ids[i] = made[i].id;
    if (rc == 0 && out && made)
        memcpy(out, made, n * sizeof *made);
    free(made);
    free(copy);
    return rc;
}

int
jobq_enqueue_many(PGconn *conn, const jobq_job *jobs, size_t n, int64_t *ids,
                  jobq_error *err)
{
    return many_into(conn, jobs, n, ids, NULL, err);
}

int
jobq_job_try_enqueue_many(PGconn *conn, const jobq_job *jobs, size_t n,
                          jobq_enqueued *out, jobq_error *err)
{
    return many_into(conn, jobs, n, NULL, out, err);
}
