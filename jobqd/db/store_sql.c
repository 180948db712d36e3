/* store_sql.c: the texts of the daemon's statements, with the schema filled in, and their
 * parameters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/sqltext.h"
#include "jobqd/db/store_private.h"

#define X(name) extern const char sql_##name[];
STATEMENTS(X)
#undef X
extern const char sql_claim[], sql_claim_aged[];

static const char *const texts[] = {
#define X(name) [STATEMENT_##name] = sql_##name,
    STATEMENTS(X)
#undef X
};

const char *
store_sql_name(enum statement_id id)
{
    static const char *const names[] = {
#define X(name) [STATEMENT_##name] = #name,
        STATEMENTS(X)
#undef X
    };
    return names[id];
}

size_t
store_claim_size(size_t want)
{
    size_t size = 0;
    while (size + 1 < CLAIM_SIZES && ((size_t)2 << size) <= want)
        size++;
    return size;
}

/* One text for each size. */
static int
make_claims(const char *text, const char *schema, char *out[CLAIM_SIZES], jobq_error *err)
{
    char *claim;
    int rc = sqltext_expand(text, schema, &claim, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < CLAIM_SIZES; i++) {
        size_t limit = (size_t)1 << i;
        char *limited = sqltext_number(claim, "@limit@", (int64_t)limit);
        if (limited)
            out[i] = sqltext_number(limited, "@whole@", (int64_t)(CLAIM_BYTES / limit));
        free(limited);
        if (!out[i])
            rc = JOBQ_ENOMEM;
    }
    free(claim);
    return rc;
}

int
store_sql_init(struct store_sql *sql, const char *schema, jobq_error *err)
{
    memset(sql, 0, sizeof *sql);
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        int rc = sqltext_expand(texts[i], schema, &sql->texts[i], err);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < CLAIM_SIZES; i++) {
        size_t limit = (size_t)1 << i;
        snprintf(sql->claim_names[i], sizeof sql->claim_names[i], "claim_%zu", limit);
        snprintf(sql->aged_claim_names[i], sizeof sql->aged_claim_names[i],
                 "claim_aged_%zu", limit);
    }
    int rc = make_claims(sql_claim, schema, sql->claims, err);
    return rc < 0 ? rc : make_claims(sql_claim_aged, schema, sql->aged_claims, err);
}

void
store_sql_clear(struct store_sql *sql)
{
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        free(sql->texts[i]);
    for (size_t i = 0; i < CLAIM_SIZES; i++) {
        free(sql->claims[i]);
        free(sql->aged_claims[i]);
    }
    memset(sql, 0, sizeof *sql);
}

struct pgconn_statement
store_statement(const struct store *store, enum statement_id id,
                const struct jobq__params *params)
{
    return (struct pgconn_statement){
        .name = store_sql_name(id),
        .sql = store->sql.texts[id],
        .n_params = params->n,
        .types = params->types,
        .values = params->values,
        .lengths = params->lengths,
        .formats = params->formats,
        .binary_result = true,
    };
}
