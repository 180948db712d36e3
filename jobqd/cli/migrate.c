/* migrate.c: see migrate.h. What the migrations do is in their files; here is only their
 * order and their bookkeeping. */
#include "jobqd/cli/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "jobqd/cli/query.h"
#include "jobqd/base/sqltext.h"
#include "jobqd/sql/embedded.h"
#include "libjobq/error.h"

#define MAX_NAME 64

extern const char sql_migrate_lock[], sql_migrate_found[], sql_migrate_table[],
    sql_migrate_read[], sql_migrate_note[], sql_migrate_forget[], sql_migrate_nodes[],
    sql_migrate_jobs[], sql_migrate_rest[];

/* ---- The files ---- */

/* The text of NNNN_*.up.sql or NNNN_*.down.sql; NULL when there is none. */
static const struct embedded_file *
find_file(int version, const char *ending)
{
    for (unsigned i = 0; i < embedded_migrations_count; i++) {
        const struct embedded_file *file = &embedded_migrations[i];
        size_t len = strlen(file->name), tail = strlen(ending);
        if (strtol(file->name, NULL, 10) == version && len > tail &&
            strcmp(file->name + len - tail, ending) == 0)
            return file;
    }
    return NULL;
}

int
migrate_latest(void)
{
    int version = 0;
    while (find_file(version + 1, ".up.sql") != NULL)
        version++;
    return version;
}

const char *
migrate_name(int version)
{
    static char name[MAX_NAME];
    const struct embedded_file *file = find_file(version, ".up.sql");
    const char *begin = file != NULL ? strchr(file->name, '_') : NULL;
    if (begin == NULL)
        return "?";
    size_t len = strcspn(++begin, ".");
    if (len >= sizeof name)
        len = sizeof name - 1;
    memcpy(name, begin, len);
    name[len] = '\0';
    return name;
}

/* ---- Where the schema stands ---- */

static int
found_things(PGconn *conn, const char *schema, bool *has_schema, bool *has_table,
             jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_found, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    *has_schema = *PQgetvalue(result, 0, 0) == 't';
    *has_table = *PQgetvalue(result, 0, 1) == 't';
    PQclear(result);
    return 0;
}

int
migrate_version(PGconn *conn, const char *schema, int *out, jobq_error *err)
{
    bool has_schema = false, has_table = false;
    PGresult *result = NULL;
    int rc = found_things(conn, schema, &has_schema, &has_table, err);
    if (rc != 0)
        return rc;
    if (!has_table) {
        *out = 0;
        return 0;
    }
    rc = query(conn, schema, sql_migrate_read, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    *out = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    return 0;
}

static int
refuse_newer(const char *schema, int found, jobq_error *err)
{
    return jobq__error(
        err, JOBQ_ESCHEMA,
        "schema %s has version %d, this jobqd knows up to %d: install a newer jobqd, "
        "or run `jobqd migrate down %d` of the one that made it",
        schema, found, migrate_latest(), migrate_latest());
}

int
migrate_check(PGconn *conn, const char *schema, int *found, jobq_error *err)
{
    int version = 0;
    int rc = migrate_version(conn, schema, &version, err);
    if (rc != 0)
        return rc;
    *found = version;
    if (version == 0)
        return jobq__error(
            err, JOBQ_ESCHEMA,
            "schema %s is missing in this database: run `jobqd migrate up`", schema);
    if (version < migrate_latest())
        return jobq__error(
            err, JOBQ_ESCHEMA,
            "schema %s has version %d, this jobqd needs %d: run `jobqd migrate up`",
            schema, version, migrate_latest());
    if (version > migrate_latest())
        return refuse_newer(schema, version, err);
    return 0;
}

/* ---- Steps ---- */

/* BEGIN and the lock; then *version is what nobody else changes until the transaction
 * ends. */
static int
begin(PGconn *conn, const char *schema, int *version, jobq_error *err)
{
    /* With a stricter isolation as the database's default we would look with a snapshot
     * from before the wait. */
    int rc = query(conn, schema, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", 0,
                   NULL, NULL, err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_lock, 1, &schema, NULL, err);
    if (rc == 0)
        rc = migrate_version(conn, schema, version, err);
    return rc;
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

/* The schema and its table of versions, before the first migration. */
static int
prepare(PGconn *conn, const char *schema, jobq_error *err)
{
    bool has_schema = false, has_table = false;
    int rc = found_things(conn, schema, &has_schema, &has_table, err);
    if (rc == 0 && !has_schema)
        rc = query(conn, schema, "CREATE SCHEMA @schema@", 0, NULL, NULL, err);
    if (rc == 0 && !has_table)
        rc = query(conn, schema, sql_migrate_table, 0, NULL, NULL, err);
    return rc;
}

static int
run_file(PGconn *conn, const char *schema, int version, const char *ending,
         jobq_error *err)
{
    jobq_error why = {0};
    const struct embedded_file *file = find_file(version, ending);
    if (file == NULL)
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
note(PGconn *conn, const char *schema, const char *sql, int n, int version,
     jobq_error *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", version);
    const char *params[] = {number, migrate_name(version)};
    return query(conn, schema, sql, n, params, NULL, err);
}

int
migrate_apply(PGconn *conn, const char *schema, int to, migrate_report report, void *data,
              jobq_error *err)
{
    if (to == 0)
        to = migrate_latest();
    if (to < 1 || to > migrate_latest())
        return jobq__error(err, JOBQ_EINVAL, "there is no version %d: 1 to %d are known",
                           to, migrate_latest());
    for (;;) {
        int version = 0;
        int rc = begin(conn, schema, &version, err);
        if (rc == 0 && version > migrate_latest())
            rc = refuse_newer(schema, version, err);
        if (rc != 0 || version >= to)
            return end(conn, schema, rc, err);
        version++;
        rc = prepare(conn, schema, err);
        if (rc == 0)
            rc = run_file(conn, schema, version, ".up.sql", err);
        if (rc == 0)
            rc = note(conn, schema, sql_migrate_note, 2, version, err);
        rc = end(conn, schema, rc, err);
        if (rc != 0)
            return rc;
        if (report != NULL)
            report(data, version, migrate_name(version), true);
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
            "schema %s is used by running nodes (%s): stop them first, or give --force",
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
                           "schema %s holds %s%d live job%s that would be lost: finish "
                           "or cancel them, or "
                           "give --force",
                           schema, n >= 1000 ? "at least " : "", n, n == 1 ? "" : "s");
    return 0;
}

/* After the last step: nothing of ours is left, and what is the user's stays. */
static int
drop_rest(PGconn *conn, const char *schema, jobq_error *err)
{
    PGresult *result = NULL;
    int rc =
        query(conn, schema, "DROP TABLE @schema@.schema_version", 0, NULL, NULL, err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_rest, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    bool left = *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    return left ? 0 : query(conn, schema, "DROP SCHEMA @schema@", 0, NULL, NULL, err);
}

int
migrate_revert(PGconn *conn, const char *schema, int to, bool force,
               migrate_report report, void *data, jobq_error *err)
{
    for (;;) {
        int version = 0;
        int rc = begin(conn, schema, &version, err);
        if (rc == 0 && version > migrate_latest())
            rc = refuse_newer(schema, version, err);
        if (rc == 0 && to < 0)
            to = version > 0 ? version - 1 : 0;
        if (rc == 0 && to > version)
            rc = jobq__error(err, JOBQ_EINVAL,
                             "schema %s has version %d already, below %d", schema,
                             version, to);
        if (rc != 0 || version <= to)
            return end(conn, schema, rc, err);
        if (!force)
            rc = refuse_in_use(conn, schema, to, err);
        if (rc == 0)
            rc = run_file(conn, schema, version, ".down.sql", err);
        if (rc == 0)
            rc = note(conn, schema, sql_migrate_forget, 1, version, err);
        if (rc == 0 && version == 1)
            rc = drop_rest(conn, schema, err);
        rc = end(conn, schema, rc, err);
        if (rc != 0)
            return rc;
        if (report != NULL)
            report(data, version, migrate_name(version), false);
    }
}

int
migrate_up(const char *conninfo, const char *schema, jobq_error *err)
{
    PGconn *conn = NULL;
    int rc = query_connect(conninfo, &conn, err);
    if (rc != 0)
        return rc;
    rc = migrate_apply(conn, schema, 0, NULL, NULL, err);
    PQfinish(conn);
    return rc;
}

/* ---- As a script ---- */

static int
print_sql(FILE *out, const char *schema, const char *sql, jobq_error *err)
{
    char *text = NULL;
    int rc = sqltext_expand(sql, schema, &text, err);
    if (rc != 0)
        return rc;
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    fprintf(out, "%s%s\n\n", text, len > 0 && text[len - 1] == ';' ? "" : ";");
    free(text);
    return 0;
}

int
migrate_print(FILE *out, const char *schema, int from, int to, jobq_error *err)
{
    if (to == 0)
        to = migrate_latest();
    if (to < 1 || to > migrate_latest())
        return jobq__error(err, JOBQ_EINVAL, "there is no version %d: 1 to %d are known",
                           to, migrate_latest());
    int rc = print_sql(out, schema, "\\set ON_ERROR_STOP on\nBEGIN", err);
    if (rc == 0 && from == 0)
        rc = print_sql(out, schema, "CREATE SCHEMA IF NOT EXISTS @schema@", err);
    if (rc == 0 && from == 0)
        rc = print_sql(out, schema, sql_migrate_table, err);
    for (int version = from + 1; rc == 0 && version <= to; version++) {
        rc = print_sql(out, schema, find_file(version, ".up.sql")->text, err);
        /* The name is one of our files': letters and underscores, nothing to quote. */
        if (rc == 0)
            fprintf(out,
                    "INSERT INTO \"%s\".schema_version (version, name) VALUES (%d, "
                    "'%s');\n\n",
                    schema, version, migrate_name(version));
    }
    return rc != 0 ? rc : print_sql(out, schema, "COMMIT", err);
}
