/* store_fetch.c: the arguments of claimed jobs that were too large to come with their
 * claim. */
#include <assert.h>
#include <stdlib.h>

#include "jobqd/db/store_private.h"
#include "libjobq/error.h"

struct fetch_request {
    store_fetch_done done;
    void *data;
};

/* Returns how many rows are what we asked for. */
static int
decode(const PGresult *rows, struct store_fetched *fetched)
{
    int n = PQntuples(rows);
    for (int row = 0; row < n; row++) {
        struct store_fetched *f = &fetched[row];
        int64_t bytes;
        if (!jobq__field_int(rows, row, 0, &f->id) ||
            !jobq__field_int(rows, row, 3, &bytes))
            return row;
        f->bytes = (size_t)bytes;
        if (!jobq__field_text(rows, row, 1, &f->args, &f->args_len) ||
            !jobq__field_text(rows, row, 2, &f->meta, &f->meta_len))
            f->args = f->meta = NULL;
    }
    return n;
}

static void
on_batch(void *data, const struct pgconn_outcome *outcome)
{
    struct fetch_request *request = data;
    struct store_fetched fetched[STORE_MAX_FETCH];
    struct store_fetch_result result = {
        .code = outcome->code, .error = &outcome->error, .fetched = fetched};
    jobq_error unreadable;
    if (outcome->code == 0) {
        const PGresult *rows = outcome->results[0];
        result.n = (size_t)decode(rows, fetched);
        if ((int)result.n != PQntuples(rows)) {
            result.code = jobq__error(
                &unreadable, JOBQ_EDB,
                "the database returned a job's arguments in an unreadable form");
            result.error = &unreadable;
        }
    }
    request->done(request->data, &result);
    free(request);
}

int
store_fetch(struct store *store, int64_t node, const int64_t *ids, size_t n, size_t bytes,
            size_t max_frame, store_fetch_done done, void *data)
{
    struct jobq__params params = {0};
    assert(n > 0 && n <= STORE_MAX_FETCH);
    jobq__params_int8_array(&params, &store->arrays[0], ids, n);
    jobq__params_int8(&params, node);
    jobq__params_int8(&params, (int64_t)bytes);
    jobq__params_int8(&params, (int64_t)max_frame);
    struct fetch_request *request = params.failed ? NULL : malloc(sizeof *request);
    if (!request)
        return JOBQ_ENOMEM;
    *request = (struct fetch_request){.done = done, .data = data};
    struct pgconn_statement statement = store_statement(store, STATEMENT_fetch, &params);
    int rc = pgconn_batch(store->work, &statement, 1, on_batch, request);
    if (rc < 0)
        free(request);
    return rc;
}
