/* migrate_print.c: the migrations as a script for psql. */
#include "jobqd/db/migrate_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/sqltext.h"
#include "libjobq/error.h"

extern const char sql_migrate_begin[], sql_migrate_schema[], sql_migrate_roles[],
    sql_migrate_become[], sql_migrate_table[], sql_migrate_grant[];

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
        return jobq__error(err, JOBQ_EINVAL,
                           "there is no version %d: known versions are 1 to %d", to,
                           migrate_latest());
    char *version_sql = NULL;
    int rc = print_sql(out, schema, "\\set ON_ERROR_STOP on\nBEGIN READ WRITE", err);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_begin, err);
    if (rc == 0 && from == 0)
        rc = print_sql(out, schema, sql_migrate_schema, err);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_roles, err);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_become, err);
    if (rc == 0 && from == 0)
        rc = print_sql(out, schema, sql_migrate_table, err);
    for (int version = from + 1; rc == 0 && version <= to; version++) {
        rc = print_sql(out, schema, migrate_find_file(version, ".up.sql")->text, err);
        /* The name is one of our files': letters and underscores, nothing to quote. */
        if (rc == 0)
            fprintf(out,
                    "INSERT INTO \"%s\".schema_version (version, name) VALUES (%d, "
                    "'%s');\n\n",
                    schema, version, migrate_name(version));
    }
    if (rc == 0)
        rc = migrate_version_text(to, &version_sql, err);
    if (rc == 0)
        rc = print_sql(out, schema, version_sql, err);
    free(version_sql);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_grant, err);
    return rc != 0 ? rc : print_sql(out, schema, "COMMIT", err);
}
