/* store_settings.c: what jobq.pause and jobq.scale have set for a node's queues. */
#include <stdlib.h>
#include <string.h>

#include "jobqd/db/store_private.h"

struct settings_request {
    store_settings_done done;
    void *data;
};

/* NULL: out of memory. A row that is not what we asked for is left out. */
static struct store_setting *
decode(const PGresult *rows, struct store_settings_result *result)
{
    int n_rows = PQntuples(rows);
    struct store_setting *settings = malloc(((size_t)n_rows + 1) * sizeof *settings);
    for (int row = 0; settings && row < n_rows; row++) {
        struct store_setting *setting = &settings[result->n];
        size_t len;
        int64_t workers = -1; /* stays so when it is null */
        if (!jobq__field_text(rows, row, 0, &setting->queue, &len) ||
            !jobq__field_bool(rows, row, 1, &setting->paused) ||
            !jobq__field_int(rows, row, 3, &result->position))
            continue;
        jobq__field_int(rows, row, 2, &workers);
        setting->workers = (int)workers;
        result->n++;
    }
    return settings;
}

static void
on_batch(void *data, const struct pgconn_outcome *outcome)
{
    struct settings_request *request = data;
    struct store_settings_result result = {.code = outcome->code,
                                           .error = &outcome->error};
    struct store_setting *settings = NULL;
    /* Without memory there are none for now: they are asked for again. */
    if (outcome->code == 0)
        result.settings = settings = decode(outcome->results[0], &result);
    request->done(request->data, &result);
    free(settings);
    free(request);
}

int
store_settings(struct store *store, const char *node, const char *const *queues, size_t n,
               store_settings_done done, void *data)
{
    struct jobq__params params = {0};
    struct jobq__array *names = &store->arrays[0];
    jobq__array_begin(names, JOBQ__TEXT);
    for (size_t i = 0; i < n; i++)
        jobq__array_add_text(names, queues[i], strlen(queues[i]));
    jobq__params_text(&params, node);
    jobq__params_array(&params, JOBQ__TEXT_ARRAY, names);
    struct settings_request *request = params.failed ? NULL : malloc(sizeof *request);
    if (!request)
        return JOBQ_ENOMEM;
    *request = (struct settings_request){.done = done, .data = data};
    struct pgconn_statement statement =
        store_statement(store, STATEMENT_settings, &params);
    int rc = pgconn_batch(store->control, &statement, 1, on_batch, request);
    if (rc < 0)
        free(request);
    return rc;
}
