/* store_ask.c: one request of the store, and its answer as numbers and texts by name. */
#include "jobqd/db/store_private.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "libjobq/error.h"

struct request {
    store_done done;
    void *data;
    bool adds_setting; /* the batch's first statement only sets something: its result does
                          not count */
};

struct answer_field {
    const char *name;
    size_t offset;
};

#define X(name) {#name, offsetof(struct store_answer, name)},
static const struct answer_field numbers[] = {ANSWER_NUMBERS(X)};
static const struct answer_field texts[] = {ANSWER_TEXTS(X)};
#undef X
enum {
    N_NUMBERS = sizeof numbers / sizeof *numbers,
    N_TEXTS = sizeof texts / sizeof *texts
};

/* Where the answer keeps the column. The names of our own statements are known. */
static void *
find(struct store_answer *answer, const struct answer_field *fields, size_t n,
     const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(fields[i].name, name) == 0)
            return (char *)answer + fields[i].offset;
    assert(false && "a column without a field in struct store_answer");
    return NULL;
}

static void
read_row(const PGresult *rows, struct store_answer *answer)
{
    for (int column = 0; column < PQnfields(rows); column++) {
        const char *name = PQfname(rows, column);
        size_t len;
        bool truth;
        switch (PQftype(rows, column)) {
        case JOBQ__BOOL:
            if (jobq__field_bool(rows, 0, column, &truth))
                *(int64_t *)find(answer, numbers, N_NUMBERS, name) = truth;
            break;
        case JOBQ__TEXT:
            jobq__field_text(rows, 0, column, find(answer, texts, N_TEXTS, name), &len);
            break;
        case JOBQ__INT4:
        case JOBQ__INT8:
            jobq__field_int(rows, 0, column, find(answer, numbers, N_NUMBERS, name));
            break;
        default: /* void */
            break;
        }
    }
}

static void
on_batch(void *data, const struct pgconn_outcome *outcome)
{
    struct request *request = data;
    struct store_answer answer = {.code = outcome->code, .error = &outcome->error};
    for (size_t i = request->adds_setting; outcome->code == 0 && i < outcome->n_results;
         i++) {
        PGresult *rows = outcome->results[i];
        if (PQnfields(rows) == 0) {
            answer.rows = jobq__affected(rows);
            continue;
        }
        answer.rows = (size_t)PQntuples(rows);
        if (answer.rows > 0)
            read_row(rows, &answer);
    }
    request->done(request->data, &answer);
    free(request);
}

int
store_ask(struct pgconn *conn, const struct pgconn_statement *statements, size_t n,
          bool adds_setting, store_done done, void *data)
{
    struct request *request = malloc(sizeof *request);
    if (!request)
        return JOBQ_ENOMEM;
    *request = (struct request){.done = done, .data = data, .adds_setting = adds_setting};
    int rc = pgconn_batch(conn, statements, n, on_batch, request);
    if (rc < 0)
        free(request);
    return rc;
}

int
store_ask_one(struct store *store, struct pgconn *conn, enum statement_id id,
              const struct jobq__params *params, store_done done, void *data)
{
    struct pgconn_statement statement = store_statement(store, id, params);
    return store_ask(conn, &statement, 1, false, done, data);
}

int
store_ask_control(struct store *store, enum statement_id id,
                  const struct jobq__params *params, store_done done, void *data)
{
    return store_ask_one(store, store->control, id, params, done, data);
}
