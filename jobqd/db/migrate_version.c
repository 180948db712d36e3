/* migrate_version.c: the migrations that are compiled in, and which of them a schema has. */
#include "jobqd/db/migrate_private.h"

#include <stdlib.h>
#include <string.h>

#include "jobqd/db/query.h"
#include "jobqd/db/rights.h"
#include "libjobq/error.h"

extern const char sql_migrate_found[], sql_migrate_read[];

/* The text of NNNN_*.up.sql or NNNN_*.down.sql; NULL when there is none. */
const struct embedded_file *
migrate_find_file(int version, const char *ending)
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
    while (migrate_find_file(version + 1, ".up.sql") != NULL)
        version++;
    return version;
}

const char *
migrate_name(int version)
{
    static char name[MAX_NAME];
    const struct embedded_file *file = migrate_find_file(version, ".up.sql");
    const char *begin = file != NULL ? strchr(file->name, '_') : NULL;
    if (!begin)
        return "?";
    size_t len = strcspn(++begin, ".");
    if (len >= sizeof name)
        len = sizeof name - 1;
    memcpy(name, begin, len);
    name[len] = '\0';
    return name;
}

int
migrate_find_things(PGconn *conn, const char *schema, struct things *out, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_found, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    out->schema = *PQgetvalue(result, 0, 0) == 't';
    out->history = *PQgetvalue(result, 0, 1) == 't';
    out->jobs = *PQgetvalue(result, 0, 2) == 't';
    out->version =
        PQgetisnull(result, 0, 3) ? MIGRATE_UNKNOWN : atoi(PQgetvalue(result, 0, 3));
    out->unreleased = *PQgetvalue(result, 0, 4) == 't';
    PQclear(result);
    return 0;
}

/* A schema from before it had version(). */
static int
read_history(PGconn *conn, const char *schema, int *out, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_read, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    *out = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    return 0;
}

/* Its steps are not those of the release: none of ours fits on it, neither up nor down.
 */
static int
refuse_unreleased(const char *schema, int *out, jobq_error *err)
{
    *out = MIGRATE_UNRELEASED;
    return jobq__error(
        err, JOBQ_ESCHEMA,
        "schema %s was made by a jobq from before its first release: this jobqd can "
        "neither migrate nor drop it. Save what you need from it (SELECT ... FROM "
        "%s.all_jobs), then run DROP SCHEMA \"%s\" CASCADE and `jobqd migrate up`; or "
        "keep it and use another schema with --schema",
        schema, schema, schema);
}

int
migrate_version(PGconn *conn, const char *schema, int *out, jobq_error *err)
{
    struct things found = {0};
    int version = 0;
    int rc = migrate_find_things(conn, schema, &found, err);
    if (rc == 0 && found.jobs && found.unreleased)
        return refuse_unreleased(schema, out, err);
    if (rc == 0 && found.jobs && found.version != MIGRATE_UNKNOWN)
        version = found.version;
    else if (rc == 0 && found.history)
        rc = read_history(conn, schema, &version, err);
    if (rc == 0 && version == 0 && found.history && found.jobs) {
        *out = MIGRATE_UNKNOWN;
        return jobq__error(
            err, JOBQ_ESCHEMA,
            "schema %s has jobq's tables, but its version is unknown: there is no "
            "function %s.version(), and %s.schema_version is empty, as after restoring a "
            "schema-only dump made before that function existed. Record the version it "
            "had: INSERT INTO %s.schema_version VALUES (N, 'restored')",
            schema, schema, schema, schema);
    }
    if (rc == 0)
        *out = version;
    return rc;
}

int
migrate_refuse_missing(const char *schema, jobq_error *err)
{
    return jobq__error(err, JOBQ_ESCHEMA,
                       "schema %s is missing in this database: run `jobqd migrate up`",
                       schema);
}

int
migrate_refuse_newer(const char *schema, int found, jobq_error *err)
{
    return jobq__error(
        err, JOBQ_ESCHEMA,
        "schema %s has version %d, this jobqd supports up to version %d: install a newer "
        "jobqd, or run `jobqd migrate down %d` with the jobqd that made it",
        schema, found, migrate_latest(), migrate_latest());
}

int
migrate_check(PGconn *conn, const char *schema, int *found, jobq_error *err)
{
    int version = 0;
    int rc = rights_check_foreign(conn, schema, NULL, 0, err);
    if (rc != 0) {
        *found = MIGRATE_FOREIGN;
        return rc;
    }
    rc = migrate_version(conn, schema, &version, err);
    if (rc == 0 || rc == JOBQ_ESCHEMA)
        *found = version;
    if (rc != 0)
        return rc;
    if (version == 0)
        return migrate_refuse_missing(schema, err);
    if (version < migrate_latest())
        return jobq__error(err, JOBQ_ESCHEMA,
                           "schema %s has version %d, this jobqd needs version %d: run "
                           "`jobqd migrate up`",
                           schema, version, migrate_latest());
    if (version > migrate_latest())
        return migrate_refuse_newer(schema, version, err);
    return 0;
}
