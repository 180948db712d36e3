/* rights.c: see rights.h. What the rules are is in sql/parts/. */
#include "jobqd/db/rights.h"

#include <stdlib.h>
#include <string.h>

#include "jobqd/db/query.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

extern const char sql_migrate_strangers[], sql_migrate_owner[], sql_migrate_roles[],
    sql_migrate_grant[], sql_migrate_wrong[], sql_foreign[], sql_migrate_bound[];

int
rights_check_schema(PGconn *conn, const char *schema, bool but_grants, jobq_error *err)
{
    const char *params[] = {but_grants ? "true" : "false"};
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_strangers, 1, params, &result, err);
    if (rc != 0)
        return rc;
    if (PQntuples(result) > 0) {
        int others = atoi(PQgetvalue(result, 0, 2)) - 1;
        char more[48] = "";
        if (others > 0)
            snprintf(more, sizeof more, " (and %d more: run `jobqd doctor`)", others);
        rc = jobq__error(err, JOBQ_ESCHEMA, "%s: %s%s", PQgetvalue(result, 0, 0),
                         PQgetvalue(result, 0, 1), more);
    }
    PQclear(result);
    return rc;
}

int
rights_check_foreign(PGconn *conn, const char *schema, char *remedy, size_t size,
                     jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_foreign, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    if (PQntuples(result) > 0 && remedy != NULL) {
        snprintf(remedy, size, "%s", PQgetvalue(result, 0, 2));
        rc = jobq__error(err, JOBQ_ESCHEMA, "%s", PQgetvalue(result, 0, 1));
    } else if (PQntuples(result) > 0) {
        rc = jobq__error(err, JOBQ_ESCHEMA, "%s", PQgetvalue(result, 0, 0));
    }
    PQclear(result);
    return rc;
}

int
rights_check_bound(PGconn *conn, const char *schema, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_bound, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    if (PQntuples(result) > 0) {
        const char *what = PQgetvalue(result, 0, 0);
        const char *remedy = PQgetvalue(result, 0, 1);
        /* Half a statement would be no remedy. */
        bool fits = strlen(what) + strlen(remedy) + 3 < sizeof err->message &&
                    atoi(PQgetvalue(result, 0, 2)) == 1;
        rc = jobq__error(
            err, JOBQ_ESCHEMA, "%s: %s", what,
            fits ? remedy
                 : "run the statements that `jobqd doctor` prints under bindings");
    }
    PQclear(result);
    return rc;
}

int
rights_make_roles(PGconn *conn, const char *schema, jobq_error *err)
{
    return query(conn, schema, sql_migrate_roles, 0, NULL, NULL, err);
}

int
rights_become_owner(PGconn *conn, const char *schema, jobq_error *err)
{
    PGresult *result = NULL;
    struct jobq__buf sql = {0};
    int rc = query(conn, schema, sql_migrate_owner, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    if (PQntuples(result) > 0) {
        jobq__buf_adds(&sql, "SET LOCAL ROLE ");
        jobq__buf_adds(&sql, PQgetvalue(result, 0, 0)); /* the server has quoted it */
        rc = jobq__buf_cstr(&sql) != NULL
                 ? query(conn, schema, sql.data, 0, NULL, NULL, err)
                 : jobq__error(err, JOBQ_ENOMEM, "out of memory");
    }
    jobq__buf_clear(&sql);
    PQclear(result);
    return rc;
}

int
rights_grant(PGconn *conn, const char *schema, jobq_error *err)
{
    return query(conn, schema, sql_migrate_grant, 0, NULL, NULL, err);
}

int
rights_wrong(PGconn *conn, const char *schema, PGresult **out, jobq_error *err)
{
    return query(conn, schema, sql_migrate_wrong, 0, NULL, out, err);
}
