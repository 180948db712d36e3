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

/* ---- For tests of applications (jobq/testing.h): jobqd's statements for one job. Node 0
 * holds it, which is none. ---- */

/* $1 queue, $2 ids that are left out, $3 the largest id (0: any), $4 whether those whose
 * time has not come are taken. */
#define DRAIN_CLAIM                                                                      \
    "UPDATE @.jobs j SET state = 'executing', attempt = j.attempt + 1,"                  \
    " attempted_at = clock_timestamp(), attempted_by = 0,"                               \
    " position = coalesce(j.position, @.next_position())"                                \
    " WHERE j.id = (SELECT l.id FROM @.jobs l"                                           \
    "   WHERE l.queue = $1 AND l.id <> ALL ($2) AND ($3 = 0 OR l.id <= $3)"              \
    "     AND (l.state = 'available' OR l.state IN ('scheduled', 'retryable')"           \
    "          AND ($4 OR l.scheduled_at <= clock_timestamp()))"                         \
    "     AND (l.expires_at IS NULL OR l.expires_at > now() OR l.attempt > 0)"           \
    "   ORDER BY l.priority, l.position NULLS LAST, l.scheduled_at, l.id"                \
    "   LIMIT 1 FOR UPDATE SKIP LOCKED)"                                                 \
    " RETURNING j.id, j.kind, j.queue, j.args, j.meta, j.attempt, j.max_attempts,"       \
    " j.timeout_ms"

/* $1 id, $2 attempt, $3 completed, failed, discarded, cancelled or snoozed, $4 delay in
 * ms, $5 error entry, $6 result, $7 run time in us. The row of the history is made of the
 * job's by name, so that no column is forgotten. */
#define DRAIN_SETTLE                                                                     \
    "WITH v AS MATERIALIZED ("                                                           \
    " SELECT j.id, c.forget, CASE WHEN $3 = 'completed' THEN $3"                         \
    "   WHEN c.asked OR $3 = 'cancelled' THEN 'cancelled'"                               \
    "   WHEN $3 = 'discarded' OR $3 = 'failed' AND j.attempt >= j.max_attempts"          \
    "   THEN 'discarded' WHEN $4 <= 0 THEN 'available'"                                  \
    "   WHEN $3 = 'snoozed' THEN 'scheduled' ELSE 'retryable' END AS next,"              \
    "   j.errors || CASE WHEN $5 IS NULL AND NOT c.asked THEN '[]' ELSE"                 \
    "     jsonb_build_object('attempt', j.attempt, 'at', clock_timestamp(),"             \
    "       'claimed_at', j.attempted_at, 'node', 'drain')"                              \
    "     || coalesce($5, '{\"kind\":\"cancelled\",\"error\":\"cancelled by "            \
    "request\"}')"                                                                       \
    "     || CASE WHEN c.asked THEN '{\"cancelled\":\"by request\"}'::jsonb"             \
    "        ELSE '{}' END END AS errors"                                                \
    "  FROM @.jobs j CROSS JOIN LATERAL ("                                               \
    "   SELECT count(*) > 0 AS asked, coalesce(bool_or(r.forget), false) AS forget"      \
    "     FROM @.cancels r WHERE $3 <> 'completed' AND r.job_id = j.id"                  \
    "      AND r.attempt = j.attempt AND r.node_id <= 0) c"                              \
    "  WHERE j.id = $1 AND j.attempt = $2 AND j.attempted_by = 0"                        \
    "    AND j.state = 'executing' FOR UPDATE OF j"                                      \
    "), again AS ("                                                                      \
    " UPDATE @.jobs j SET state = v.next::@.job_state, errors = v.errors,"               \
    "   position = CASE WHEN v.next = 'available' THEN @.next_position() END,"           \
    "   attempt = j.attempt - CASE WHEN $3 = 'snoozed' THEN 1 ELSE 0 END,"               \
    "   scheduled_at = clock_timestamp() + $4 * interval '1 millisecond'"                \
    "  FROM v WHERE j.id = v.id AND v.next IN ('available', 'scheduled', 'retryable')"   \
    "), gone AS ("                                                                       \
    " DELETE FROM @.jobs j USING v WHERE j.id = v.id"                                    \
    "   AND v.next IN ('completed', 'cancelled', 'discarded') RETURNING j.*"             \
    "), kept AS ("                                                                       \
    " INSERT INTO @.finished_jobs SELECT r.* FROM gone g CROSS JOIN v CROSS JOIN "       \
    "LATERAL"                                                                            \
    "   jsonb_populate_record(NULL::@.finished_jobs, to_jsonb(g) || jsonb_build_object(" \
    "     'state', v.next, 'position', NULL, 'errors', v.errors, 'result', $6,"          \
    "     'finished_at', clock_timestamp(), 'run_us', $7)) r WHERE NOT v.forget"         \
    "), answered AS (DELETE FROM @.cancels r USING v WHERE r.job_id = v.id"              \
    "   AND v.next <> 'completed')"                                                      \
    " SELECT v.next FROM v"

/* $1 kind, $2 queue, $3 args, $4 meta, $5 tags, $6 priority, $7 state, $8 not before, $9
 * before (us since 1970). How many match, and the three that match best as text. No
 * operator is written with the schema's sign. */
#define TESTING_LOOK                                                                     \
    "WITH seen AS ("                                                                     \
    " SELECT j.*, ARRAY[coalesce(j.kind = $1, true), coalesce(j.queue = $2, true),"      \
    "   coalesce(jsonb_contains(j.args, $3), true),"                                     \
    "   coalesce(jsonb_contains(j.meta, $4), true), arraycontains(j.tags, $5),"          \
    "   coalesce(j.priority = $6, true),"                                                \
    "   coalesce(j.scheduled_at >= timestamptz 'epoch'"                                  \
    "     + $8 * interval '1 microsecond', true),"                                       \
    "   coalesce(j.scheduled_at < timestamptz 'epoch'"                                   \
    "     + $9 * interval '1 microsecond', true)] AS fits"                               \
    "  FROM @.all_jobs j WHERE CASE WHEN $7 IS NULL"                                     \
    "   THEN j.state IN ('available', 'scheduled', 'retryable', 'suspended')"            \
    "   ELSE j.state::text = $7 END"                                                     \
    "), ranked AS ("                                                                     \
    " SELECT s.*, cardinality(array_positions(s.fits, true)) AS good FROM seen s"        \
    ") SELECT (SELECT count(*) FROM ranked r WHERE r.good = 8),"                         \
    " (SELECT string_agg(n.line, '; ' ORDER BY n.good DESC, n.id DESC) FROM ("           \
    "   SELECT r.good, r.id, format('job %s kind %s queue %s priority %s %s args %s%s'," \
    "     r.id, to_json(r.kind), to_json(r.queue), r.priority, r.state,"                 \
    "     left(r.args::text, 80), CASE WHEN r.tags <> '{}'"                              \
    "       THEN ' tags ' || left(to_json(r.tags)::text, 40) ELSE '' END) AS line"       \
    "    FROM ranked r ORDER BY r.good DESC, r.id DESC LIMIT 3) n)"

/* X(enumerator, text): @ stands for the schema, quoted. */
#define JOBQ__STATEMENTS(X)                                                              \
    X(JOBQ__SQL_ENQUEUE,                                                                 \
      "SELECT @.enqueue($1, $2, $3, $4, coalesce("                                       \
      "timestamptz 'epoch' + $5 * interval '1 microsecond',"                             \
      " clock_timestamp() + $6 * interval '1 millisecond'), $7, $8, $9, $10, $11, $12)") \
    X(JOBQ__SQL_TRY_ENQUEUE,                                                             \
      "SELECT id, conflict FROM @.try_enqueue($1, $2, $3, $4, coalesce("                 \
      "timestamptz 'epoch' + $5 * interval '1 microsecond',"                             \
      " clock_timestamp() + $6 * interval '1 millisecond'), $7, $8, $9, $10, $11, $12,"  \
      " $13, $14, $15, coalesce(timestamptz 'epoch' + $16 * interval '1 microsecond',"   \
      " clock_timestamp() + $17 * interval '1 millisecond'))")                           \
    X(JOBQ__SQL_TRY_ENQUEUE_MANY, "SELECT id, conflict FROM @.try_enqueue_many($1)")     \
    X(JOBQ__SQL_GET,                                                                     \
      "SELECT id, state::text, queue, kind, args, meta, errors, result, "                \
      "key, unique_key,"                                                                 \
      " priority, attempt, max_attempts, timeout_ms,"                                    \
      " (extract(epoch FROM inserted_at) * 1000000)::bigint,"                            \
      " (extract(epoch FROM scheduled_at) * 1000000)::bigint,"                           \
      " (extract(epoch FROM attempted_at) * 1000000)::bigint,"                           \
      " (extract(epoch FROM finished_at) * 1000000)::bigint,"                            \
      " (extract(epoch FROM expires_at) * 1000000)::bigint,"                             \
      " ((progress ->> 'done')::numeric * 1000000)::int, progress ->> 'note'"            \
      " FROM @.all_jobs WHERE id = $1")                                                  \
    X(JOBQ__SQL_LIVE, "SELECT state::text FROM @.jobs WHERE id = $1")                    \
    X(JOBQ__SQL_CANCEL, "SELECT @.cancel($1)")                                           \
    X(JOBQ__SQL_RETRY, "SELECT @.retry($1)")                                             \
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
    X(JOBQ__SQL_DRAIN_HORIZON, "SELECT greatest(max(id), 1) FROM @.jobs")                \
    X(JOBQ__SQL_DRAIN_CLAIM, DRAIN_CLAIM)                                                \
    X(JOBQ__SQL_DRAIN_SETTLE, DRAIN_SETTLE)                                              \
    X(JOBQ__SQL_DRAIN_ENDED, "SELECT count(*) > 0 FROM @.finished_jobs WHERE id = $1"    \
                             " AND attempt = $2 AND state = 'completed'")                \
    X(JOBQ__SQL_TESTING_LOOK, TESTING_LOOK)

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
