/* migrate.c: see migrate.h. What the migrations do is in their files; here is only their
 * order and their bookkeeping. */
#include "jobqd/db/migrate_private.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/db/query.h"
#include "jobqd/db/rights.h"
#include "jobqd/base/log.h"
#include "jobqd/base/sqltext.h"
#include "jobqd/sql/embedded.h"
#include "libjobq/error.h"
#include "libjobq/duration.h"

extern const char sql_migrate_lock[], sql_migrate_table[], sql_migrate_version[],
    sql_migrate_note[], sql_migrate_fill[], sql_migrate_forget[], sql_migrate_nodes[],
    sql_migrate_jobs[], sql_migrate_rest[], sql_migrate_begin[];

/* BEGIN and the lock against other migrations, for which nobody else waits; then *version
 * is what nobody else changes until the transaction ends. What is asked first is whether
 * the schema is ours; grants: it will be, once the roles have their rights alone. */
static int
begin(PGconn *conn, const char *schema, const struct patience *patience, bool grants,
      int *version, jobq_error *err)
{
    /* With a stricter isolation as the database's default we would look with a snapshot
     * from before the wait. */
    int rc = query_begin(conn, "ISOLATION LEVEL READ COMMITTED READ WRITE", err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_begin, 0, NULL, NULL, err);
    if (rc == 0)
        rc = migrate_set_lock_timeout(conn, schema, patience->until_ms - migrate_now_ms(),
                                      err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_lock, 1, &schema, NULL, err);
    if (rc == 0)
        rc = rights_check_schema(conn, schema, grants, err);
    if (rc == 0)
        rc = migrate_version(conn, schema, version, err);
    if (rc == 0)
        rc = migrate_set_lock_timeout(conn, schema, LOCK_TRY_MS, err);
    return rc;
}

static int
fail_with(jobq_error *err, const jobq_error *why)
{
    if (err != NULL)
        *err = *why;
    return why->code;
}

/* COMMIT, or ROLLBACK when rc is an error; returns the first error. */
static int
end(PGconn *conn, const char *schema, int rc, jobq_error *err)
{
    if (rc == 0)
        return query(conn, schema, "COMMIT", 0, NULL, NULL, err);
    if (PQtransactionStatus(conn) == PQTRANS_INTRANS ||
        PQtransactionStatus(conn) == PQTRANS_INERROR)
        query(conn, schema, "ROLLBACK", 0, NULL, NULL, NULL);
    return rc;
}

/* The schema and its history of steps, before the first migration. */
static int
prepare(PGconn *conn, const char *schema, jobq_error *err)
{
    struct things found = {0};
    int rc = migrate_find_things(conn, schema, &found, err);
    if (rc == 0 && !found.schema)
        rc = query(conn, schema, "CREATE SCHEMA @schema@", 0, NULL, NULL, err);
    if (rc == 0 && !found.history)
        rc = query(conn, schema, sql_migrate_table, 0, NULL, NULL, err);
    return rc;
}

static int
run_file(PGconn *conn, const char *schema, int version, const char *ending,
         jobq_error *err)
{
    jobq_error why = {0};
    const struct embedded_file *file = migrate_find_file(version, ending);
    if (!file)
        return jobq__error(err, JOBQ_EINVAL, "there is no migration %d%s", version,
                           ending);
    int rc = query(conn, schema, file->text, 0, NULL, NULL, &why);
    if (rc == 0)
        return 0;
    rc = jobq__error(err, rc, "%s: %s", file->name, why.message);
    if (err != NULL)
        memcpy(err->sqlstate, why.sqlstate, sizeof err->sqlstate);
    return rc;
}

static int
note(PGconn *conn, const char *schema, const char *sql, int version, jobq_error *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", version);
    const char *params[] = {number, migrate_name(version)};
    return query(conn, schema, sql, 2, params, NULL, err);
}

/* The text of version() that says this number, in memory that the caller frees. */
int
migrate_version_text(int version, char **out, jobq_error *err)
{
    *out = sqltext_number(sql_migrate_version, "@version@", version);
    return *out != NULL ? 0 : jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

static int
forget_above(PGconn *conn, const char *schema, int version, jobq_error *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", version);
    const char *params[] = {number};
    return query(conn, schema, sql_migrate_forget, 1, params, NULL, err);
}

/* What is true of a schema of this version, however it came to it: version() says so,
 * schema_version has a row for each step up to it, none for a later one, and the roles
 * have their rights. In the step's own transaction, so that what it made was never to be
 * called by everybody. */
static int
complete(PGconn *conn, const char *schema, int version, jobq_error *err)
{
    char *text = NULL;
    int rc = migrate_version_text(version, &text, err);
    if (rc == 0)
        rc = query(conn, schema, text, 0, NULL, NULL, err);
    free(text);
    if (rc == 0)
        rc = forget_above(conn, schema, version, err);
    for (int step = 1; rc == 0 && step <= version; step++)
        rc = note(conn, schema, sql_migrate_fill, step, err);
    return rc != 0 ? rc : rights_grant(conn, schema, err);
}

/* One try of the next step up, in one transaction; with none left, what is missing beside
 * the steps is made good. *version is the step's, also when it failed; 0: there is none,
 * or it is not known yet. */
static int
step_up(PGconn *conn, const char *schema, int to, const struct patience *patience,
        int *version, jobq_error *err)
{
    int found = 0;
    *version = 0;
    int rc = begin(conn, schema, patience, false, &found, err);
    if (rc == 0 && found > migrate_latest())
        rc = migrate_refuse_newer(schema, found, err);
    if (rc == 0)
        rc = rights_check_bound(conn, schema, err);
    if (rc == 0 && !patience->has_roles)
        rc = rights_make_roles(conn, schema, err);
    if (rc == 0)
        rc = rights_become_owner(conn, schema, err);
    if (rc == 0)
        rc = prepare(conn, schema, err);
    if (rc == 0 && found < to) {
        *version = found + 1;
        rc = run_file(conn, schema, *version, ".up.sql", err);
        if (rc == 0)
            rc = note(conn, schema, sql_migrate_note, *version, err);
    }
    if (rc == 0)
        rc = complete(conn, schema, *version > 0 ? *version : found, err);
    return end(conn, schema, rc, err);
}

/* jobq's args and results are UTF-8, whatever the database holds: in SQL_ASCII or LATIN1
 * a job would fail, or its end, by the letters in it. */
static int
refuse_encoding(PGconn *conn, jobq_error *err)
{
    const char *encoding = PQparameterStatus(conn, "server_encoding");
    if (!encoding || strcmp(encoding, "UTF8") == 0)
        return 0;
    return jobq__error(err, JOBQ_ESCHEMA,
                       "the database's encoding is %s, but jobq needs UTF8: create "
                       "another database (CREATE DATABASE ... TEMPLATE template0 "
                       "ENCODING 'UTF8') and move your data there",
                       encoding);
}

int
migrate_apply(PGconn *conn, const char *schema, int to, int64_t lock_wait_ms,
              migrate_report report, void *data, jobq_error *err)
{
    struct patience patience = migrate_new_patience(lock_wait_ms);
    jobq_error why = {0};
    int version = 0;
    if (to == 0)
        to = migrate_latest();
    if (to < 1 || to > migrate_latest())
        return jobq__error(err, JOBQ_EINVAL,
                           "there is no version %d: known versions are 1 to %d", to,
                           migrate_latest());
    if (refuse_encoding(conn, &why) != 0)
        return fail_with(err, &why);
    for (;;) {
        int rc = step_up(conn, schema, to, &patience, &version, &why);
        patience.has_roles = patience.has_roles || rc == 0;
        if (rc == 0 && version == 0)
            return 0;
        if (rc == 0 && report != NULL)
            report(data, version, migrate_name(version), true);
        if (rc != 0 && !migrate_wait_for_lock(conn, schema, version, &patience, &why))
            return fail_with(err, &why);
    }
}

/* A step down is refused while somebody relies on the schema. */
static int
refuse_in_use(PGconn *conn, const char *schema, int to, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_nodes, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    if (!PQgetisnull(result, 0, 0))
        rc = jobq__error(
            err, JOBQ_ESTATE,
            "schema %s is in use by running nodes (%s): stop them first, or give --force",
            schema, PQgetvalue(result, 0, 0));
    PQclear(result);
    if (rc != 0 || to > 0)
        return rc;
    rc = query(conn, schema, sql_migrate_jobs, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    int n = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    if (n > 0)
        return jobq__error(err, JOBQ_ESTATE,
                           "schema %s holds %s%d live job%s that would be lost: let them "
                           "finish or cancel them first, or give --force",
                           schema, n >= 1000 ? "at least " : "", n, n == 1 ? "" : "s");
    return 0;
}

/* After the last step: nothing of ours is left. What is the user's stays, and the schema
 * with it; so it does where we could not make it again. */
static int
drop_rest(PGconn *conn, const char *schema, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema,
                   "DROP TABLE @schema@.schema_version; DROP FUNCTION @schema@.version()",
                   0, NULL, NULL, err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_rest, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    bool stays = *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    return stays ? 0 : query(conn, schema, "DROP SCHEMA @schema@", 0, NULL, NULL, err);
}

/* One try of the next step down. *to, when it is -1, becomes the version that it shall
 * end at; *version is as in step_up. */
static int
step_down(PGconn *conn, const char *schema, int *to, bool force,
          const struct patience *patience, int *version, jobq_error *err)
{
    int found = 0;
    *version = 0;
    int rc = begin(conn, schema, patience, false, &found, err);
    if (rc == 0 && found > migrate_latest())
        rc = migrate_refuse_newer(schema, found, err);
    if (rc == 0 && *to < 0)
        *to = found > 0 ? found - 1 : 0;
    if (rc == 0 && *to > found)
        rc = jobq__error(err, JOBQ_EINVAL,
                         "schema %s already has version %d, which is below %d", schema,
                         found, *to);
    if (rc != 0 || found <= *to)
        return end(conn, schema, rc, err);
    *version = found;
    if (!force)
        rc = refuse_in_use(conn, schema, *to, err);
    if (rc == 0)
        rc = rights_become_owner(conn, schema, err);
    if (rc == 0)
        rc = run_file(conn, schema, found, ".down.sql", err);
    if (rc == 0)
        rc = complete(conn, schema, found - 1, err);
    if (rc == 0 && found == 1)
        rc = drop_rest(conn, schema, err);
    return end(conn, schema, rc, err);
}

int
migrate_revert(PGconn *conn, const char *schema, int to, bool force, int64_t lock_wait_ms,
               migrate_report report, void *data, jobq_error *err)
{
    struct patience patience = migrate_new_patience(lock_wait_ms);
    jobq_error why = {0};
    int version = 0;
    for (;;) {
        int rc = step_down(conn, schema, &to, force, &patience, &version, &why);
        if (rc == 0 && version == 0)
            return 0;
        if (rc == 0 && report != NULL)
            report(data, version, migrate_name(version), false);
        if (rc != 0 && !migrate_wait_for_lock(conn, schema, version, &patience, &why))
            return fail_with(err, &why);
    }
}

/* ---- Rights ---- */

static int
grant_once(PGconn *conn, const char *schema, const struct patience *patience,
           PGresult **before, PGresult **after, jobq_error *err)
{
    int found = 0;
    int rc = begin(conn, schema, patience, true, &found, err);
    if (rc == 0 && found == 0)
        rc = migrate_refuse_missing(schema, err);
    if (rc == 0 && found > migrate_latest())
        rc = migrate_refuse_newer(schema, found, err);
    if (rc == 0)
        rc = rights_make_roles(conn, schema, err);
    if (rc == 0)
        rc = rights_become_owner(conn, schema, err);
    if (rc == 0)
        rc = rights_wrong(conn, schema, before, err);
    if (rc == 0)
        rc = rights_grant(conn, schema, err);
    if (rc == 0)
        rc = rights_wrong(conn, schema, after, err);
    return end(conn, schema, rc, err);
}

int
migrate_grant(PGconn *conn, const char *schema, int64_t lock_wait_ms, PGresult **before,
              PGresult **after, jobq_error *err)
{
    struct patience patience = migrate_new_patience(lock_wait_ms);
    for (;;) {
        jobq_error why = {0};
        PGresult *found = NULL, *left = NULL;
        if (grant_once(conn, schema, &patience, &found, &left, &why) == 0) {
            *before = found; /* the caller's, like the other */
            *after = left;
            return 0;
        }
        PQclear(found);
        PQclear(left);
        if (!migrate_wait_for_lock(conn, schema, 0, &patience, &why))
            return fail_with(err, &why);
    }
}

int
migrate_up(const char *conninfo, const char *schema, jobq_error *err)
{
    PGconn *conn = NULL;
    int rc = query_connect(conninfo, &conn, err);
    if (rc != 0)
        return rc;
    rc = migrate_apply(conn, schema, 0, MIGRATE_LOCK_WAIT_MS, NULL, NULL, err);
    PQfinish(conn);
    return rc;
}
