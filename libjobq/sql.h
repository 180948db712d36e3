/* sql.h (internal): runs one statement on the caller's connection, and turns what goes
 * wrong into our errors. Every SQL text of the library stands in sql.c, with the schema
 * filled in. */
#ifndef JOBQ__SQL_H
#define JOBQ__SQL_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <stdbool.h>

#include "libjobq/buf.h"
#include "libjobq/params.h"

/* X(enumerator, text): @ stands for the schema, quoted. */
#define JOBQ__STATEMENTS(X)                                                              \
    X(JOBQ__SQL_ENQUEUE,                                                                 \
      "SELECT @.enqueue($1, $2, $3, $4, coalesce("                                       \
      "timestamptz 'epoch' + $5 * interval '1 microsecond',"                             \
      " clock_timestamp() + $6 * interval '1 millisecond'), $7, $8, $9, $10, $11, $12)") \
    X(JOBQ__SQL_ENQUEUE_MANY, "SELECT @.enqueue_many($1)")                               \
    X(JOBQ__SQL_GET, "SELECT id, state::text, queue, kind, args, meta, errors, result, " \
                     "key, unique_key,"                                                  \
                     " priority, attempt, max_attempts, timeout_ms,"                     \
                     " (extract(epoch FROM inserted_at) * 1000000)::bigint,"             \
                     " (extract(epoch FROM scheduled_at) * 1000000)::bigint,"            \
                     " (extract(epoch FROM attempted_at) * 1000000)::bigint,"            \
                     " (extract(epoch FROM finished_at) * 1000000)::bigint"              \
                     " FROM @.all_jobs WHERE id = $1")                                   \
    X(JOBQ__SQL_CANCEL, "SELECT @.cancel($1)")                                           \
    X(JOBQ__SQL_RETRY, "SELECT @.retry($1)")

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

/* Runs a statement; binary results. *out is the caller's: PQclear. On failure the message
 * is the server's, or ours. */
int jobq__sql_run(PGconn *conn, const char *schema, enum jobq__statement statement,
                  const struct jobq__params *params, PGresult **out, jobq_error *err);
/* The same for a text that has its schema already, or needs none. */
int jobq__sql_run_text(PGconn *conn, const char *text, const struct jobq__params *params,
                       PGresult **out, jobq_error *err);

#endif
