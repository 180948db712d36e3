/* sql.h (internal): runs one statement on the caller's connection, and turns what goes
 * wrong into our errors. The statement's text, with the schema filled in, is its
 * caller's. */
#ifndef JOBQ__SQL_H
#define JOBQ__SQL_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <stdbool.h>

#include "libjobq/buf.h"
#include "libjobq/params.h"

/* The connection is the application's, and so is its search_path: who may create
 * functions or operators in one of its schemas would have us call them, as the
 * application. So a statement calls functions of ours, which set a path of their own, and
 * nothing else without its schema: pg_catalog.f(), a::pg_catalog.text, and {=} for
 * OPERATOR( pg_catalog.=), which binds no tighter and no looser than any other {…}.
 * Without operators are coalesce, greatest, extract, IS NULL and ORDER BY; with hidden
 * ones IN, BETWEEN, NULLIF, LIKE, IS DISTINCT FROM, CASE x WHEN, JOIN … USING. */

/* Microseconds since 1970, milliseconds from now: a time, null of null. And back. */
#define JOBQ__TIME_AT(us)                                                                \
    "('epoch'::pg_catalog.timestamptz {+} (" us " {*} interval '1 microsecond'))"
#define JOBQ__TIME_IN(ms)                                                                \
    "(pg_catalog.clock_timestamp() {+} (" ms " {*} interval '1 millisecond'))"
#define JOBQ__TIME(us, ms) "coalesce(" JOBQ__TIME_AT(us) ", " JOBQ__TIME_IN(ms) ")"
#define JOBQ__US(time) "(extract(epoch FROM " time ") {*} 1000000)::bigint"

/* X(enumerator, text): @ stands for the schema, quoted. */
/* clang-format off */
#define JOBQ__STATEMENTS(X)                                                              \
    X(JOBQ__SQL_ENQUEUE,                                                                 \
      "SELECT @.enqueue($1, $2, $3, $4, " JOBQ__TIME("$5", "$6") ","                     \
      " $7, $8, $9, $10, $11, $12)")                                                     \
    X(JOBQ__SQL_TRY_ENQUEUE,                                                             \
      "SELECT id, conflict FROM @.try_enqueue($1, $2, $3, $4, "                          \
      JOBQ__TIME("$5", "$6") ", $7, $8, $9, $10, $11, $12, $13, $14, $15, "              \
      JOBQ__TIME("$16", "$17") ")")                                                      \
    X(JOBQ__SQL_TRY_ENQUEUE_MANY, "SELECT id, conflict FROM @.try_enqueue_many($1)")     \
    X(JOBQ__SQL_NOW, "SELECT " JOBQ__US("pg_catalog.clock_timestamp()"))                 \
    X(JOBQ__SQL_GET,                                                                     \
      "SELECT id, state::pg_catalog.text, queue, kind, args, meta, errors, result, key," \
      " unique_key, priority, attempt, max_attempts, timeout_ms, "                       \
      JOBQ__US("inserted_at") ", " JOBQ__US("scheduled_at") ", "                         \
      JOBQ__US("attempted_at") ", " JOBQ__US("finished_at") ", "                         \
      JOBQ__US("expires_at") ","                                                         \
      " ((progress {->>} 'done')::numeric {*} 1000000)::int, progress {->>} 'note'"      \
      " FROM @.all_jobs WHERE id {=} $1")                                                \
    X(JOBQ__SQL_LIVE, "SELECT state::pg_catalog.text FROM @.jobs WHERE id {=} $1")       \
    X(JOBQ__SQL_CANCEL, "SELECT @.cancel($1)")                                           \
    X(JOBQ__SQL_RETRY, "SELECT @.retry($1)")                                             \
    X(JOBQ__SQL_COMPLETE, "SELECT @.complete($1, $2, $3)")                               \
    X(JOBQ__SQL_PAUSE, "SELECT @.pause($1, $2)")                                         \
    X(JOBQ__SQL_RESUME, "SELECT @.resume($1, $2)")                                       \
    X(JOBQ__SQL_SCALE, "SELECT @.scale($1, $2, $3)")                                     \
    X(JOBQ__SQL_CRON_SET,                                                                \
      "SELECT @.cron_set($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")            \
    X(JOBQ__SQL_CRON_PAUSE, "SELECT @.cron_pause($1)")                                   \
    X(JOBQ__SQL_CRON_RESUME, "SELECT @.cron_resume($1)")                                 \
    X(JOBQ__SQL_CRON_DELETE, "SELECT @.cron_delete($1)")                                 \
    X(JOBQ__SQL_CRON_RUN, "SELECT @.cron_run($1)")                                       \
    X(JOBQ__SQL_CANCEL_MANY, "SELECT @.cancel_many($1)")                                 \
    X(JOBQ__SQL_RETRY_MANY, "SELECT @.retry_many($1)")                                   \
    X(JOBQ__SQL_DELETE_MANY, "SELECT @.delete_many($1)")                                 \
    X(JOBQ__SQL_DELETE, "SELECT @.delete($1)")                                           \
    X(JOBQ__SQL_PURGE, "SELECT @.purge($1, $2, $3)")                                     \
    X(JOBQ__SQL_DRAIN_HORIZON, "SELECT greatest(pg_catalog.max(id), 1) FROM @.jobs")     \
    X(JOBQ__SQL_DRAIN_CLAIM, "SELECT * FROM @._testing_claim($1, $2, $3, $4)")           \
    X(JOBQ__SQL_DRAIN_SETTLE, "SELECT @._testing_settle($1, $2, $3, $4, $5, $6, $7)")    \
    X(JOBQ__SQL_DRAIN_ENDED,                                                             \
      "SELECT pg_catalog.count(*) {>} 0 FROM @.finished_jobs"                            \
      " WHERE id {=} $1 AND attempt {=} $2 AND state {=} 'completed'")                   \
    X(JOBQ__SQL_TESTING_LOOK,                                                            \
      "SELECT matching, nearest FROM @._testing_look($1, $2, $3, $4, $5, $6, $7, "       \
      JOBQ__TIME_AT("$8") ", " JOBQ__TIME_AT("$9") ")")
/* clang-format on */

enum jobq__statement {
#define X(name, text) name,
    JOBQ__STATEMENTS(X)
#undef X
};

/* Checks that the connection can take a statement now: JOBQ_EINVAL (NULL), JOBQ_ECONN,
 * JOBQ_ESTATE. */
int jobq__sql_check_conn(PGconn *conn, jobq_error *err);

/* Checks the schema's name (NULL: "jobq") and appends it to out, quoted. */
int jobq__sql_put_schema(struct jobq__buf *out, const char *schema, jobq_error *err);

/* Appends the text, with the schema for each @ and the operators of pg_catalog. */
int jobq__sql_put(struct jobq__buf *out, const char *text, const char *schema,
                  jobq_error *err);

/* Runs a statement; binary results. *out is the caller's: PQclear. On failure the message
 * is the server's, or ours. */
int jobq__sql_run(PGconn *conn, const char *schema, enum jobq__statement statement,
                  const struct jobq__params *params, PGresult **out, jobq_error *err);
/* The same for a text that has its schema already, or needs none. */
int jobq__sql_run_text(PGconn *conn, const char *text, const struct jobq__params *params,
                       PGresult **out, jobq_error *err);

#endif
