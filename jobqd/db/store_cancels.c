/* store_cancels.c: which of a node's running jobs somebody has asked to cancel. */
#include <stdlib.h>

#include "jobqd/db/store_private.h"

struct cancels_request {
    store_cancels_done done;
    void *data;
};

/* NULL: out of memory. A row that is not what we asked for is left out. */
static struct store_cancel *
decode(const PGresult *rows, size_t *n)
{
    int n_rows = PQntuples(rows);
    struct store_cancel *cancels = malloc(((size_t)n_rows + 1) * sizeof *cancels);
    for (int row = 0; cancels && row < n_rows; row++) {
        int64_t attempt;
        if (!jobq__field_int(rows, row, 0, &cancels[*n].id) ||
            !jobq__field_int(rows, row, 1, &attempt))
            continue;
        cancels[(*n)++].attempt = (int32_t)attempt;
    }
    return cancels;
}

static void
on_batch(void *data, const struct pgconn_outcome *outcome)
{
    struct cancels_request *request = data;
    struct store_cancels_result result = {.code = outcome->code,
                                          .error = &outcome->error};
    struct store_cancel *cancels = NULL;
    /* Without memory there are none for now: they come again. */
    if (outcome->code == 0)
        result.cancels = cancels = decode(outcome->results[0], &result.n);
    request->done(request->data, &result);
    free(cancels);
    free(request);
}

int
store_cancels(struct store *store, int64_t node, store_cancels_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    struct cancels_request *request = malloc(sizeof *request);
    if (!request)
        return JOBQ_ENOMEM;
    *request = (struct cancels_request){.done = done, .data = data};
    struct pgconn_statement statement =
        store_statement(store, STATEMENT_cancels, &params);
    int rc = pgconn_batch(store->control, &statement, 1, on_batch, request);
    if (rc < 0)
        free(request);
    return rc;
}
