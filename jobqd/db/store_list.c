/* store_list.c: requests whose answer is a list of rows, each a struct. */
#include <stdlib.h>
#include <string.h>

#include "jobqd/db/store_private.h"
#include "libjobq/error.h"

/* What the rows of an answer become. A row that is not what was asked for is left out. */
struct list_kind {
    size_t size;
    bool (*decode)(const PGresult *rows, int row, void *item);
};

struct list_request {
    const struct list_kind *kind;
    store_list_done done;
    void *data;
};

static void
decode(const struct list_kind *kind, const PGresult *rows, struct store_list *list)
{
    int n_rows = PQntuples(rows);
    char *items = malloc(((size_t)n_rows + 1) * kind->size);
    list->items = items;
    for (int row = 0; items && row < n_rows; row++)
        list->n += kind->decode(rows, row, items + list->n * kind->size);
}

static void
on_batch(void *data, const struct pgconn_outcome *outcome)
{
    struct list_request *request = data;
    struct store_list list = {.code = outcome->code, .error = &outcome->error};
    jobq_error no_memory;
    if (outcome->code == 0) {
        decode(request->kind, outcome->results[outcome->n_results - 1], &list);
        if (!list.items) {
            list.code = jobq__error(&no_memory, JOBQ_ENOMEM, "no memory for an answer");
            list.error = &no_memory;
        }
    }
    request->done(request->data, &list);
    free(list.items);
    free(request);
}

/* The list is the last statement's. */
static int
ask(struct store *store, const struct list_kind *kind,
    const struct pgconn_statement *statements, size_t n, store_list_done done, void *data)
{
    struct list_request *request = malloc(sizeof *request);
    if (!request)
        return JOBQ_ENOMEM;
    *request = (struct list_request){.kind = kind, .done = done, .data = data};
    int rc = pgconn_batch(store->control, statements, n, on_batch, request);
    if (rc < 0)
        free(request);
    return rc;
}

/* ---- the nodes ---- */

static bool
decode_node(const PGresult *rows, int row, void *item)
{
    struct sight *node = item;
    *node = (struct sight){0};
    return jobq__field_int(rows, row, 0, &node->id) &&
           jobq__field_int(rows, row, 1, &node->mark) &&
           jobq__field_int(rows, row, 2, &node->lease_ms);
}

int
store_watch(struct store *store, store_list_done done, void *data)
{
    static const struct list_kind nodes = {sizeof(struct sight), decode_node};
    struct pgconn_statement statement =
        store_statement(store, STATEMENT_watch, &(struct jobq__params){0});
    return ask(store, &nodes, &statement, 1, done, data);
}

/* ---- how long jobs have waited ---- */

static bool
decode_head(const PGresult *rows, int row, void *item)
{
    struct ageing_head *head = item;
    return jobq__field_int(rows, row, 0, &head->position) &&
           jobq__field_int(rows, row, 1, &head->age_ms);
}

int
store_ages(struct store *store, const char *queue, store_list_done done, void *data)
{
    static const struct list_kind heads = {sizeof(struct ageing_head), decode_head};
    struct jobq__params params = {0};
    jobq__params_text(&params, queue);
    struct pgconn_statement batch[2] = {
        store_by_index(),
        store_statement(store, STATEMENT_ages, &params),
    };
    return ask(store, &heads, batch, 2, done, data);
}

/* ---- requests to cancel ---- */

static bool
decode_cancel(const PGresult *rows, int row, void *item)
{
    struct store_cancel *cancel = item;
    int64_t attempt = 0;
    bool ok = jobq__field_int(rows, row, 0, &cancel->id) &&
              jobq__field_int(rows, row, 1, &attempt);
    cancel->attempt = (int32_t)attempt;
    return ok;
}

int
store_cancels(struct store *store, int64_t node, store_list_done done, void *data)
{
    static const struct list_kind cancels = {sizeof(struct store_cancel), decode_cancel};
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    struct pgconn_statement statement =
        store_statement(store, STATEMENT_cancels, &params);
    return ask(store, &cancels, &statement, 1, done, data);
}

/* ---- the queues' settings ---- */

static bool
decode_setting(const PGresult *rows, int row, void *item)
{
    struct store_setting *setting = item;
    size_t len;
    int64_t workers = -1; /* stays so when it is null */
    bool ok = jobq__field_text(rows, row, 0, &setting->queue, &len) &&
              jobq__field_bool(rows, row, 1, &setting->paused) &&
              jobq__field_int(rows, row, 3, &setting->position);
    jobq__field_int(rows, row, 2, &workers);
    setting->workers = (int)workers;
    return ok;
}

int
store_settings(struct store *store, const char *node, const char *const *queues, size_t n,
               store_list_done done, void *data)
{
    static const struct list_kind settings = {sizeof(struct store_setting),
                                              decode_setting};
    struct jobq__params params = {0};
    struct jobq__array *names = &store->arrays[0];
    jobq__array_begin(names, JOBQ__TEXT);
    for (size_t i = 0; i < n; i++)
        jobq__array_add_text(names, queues[i], strlen(queues[i]));
    jobq__params_text(&params, node);
    jobq__params_array(&params, JOBQ__TEXT_ARRAY, names);
    if (params.failed)
        return JOBQ_ENOMEM;
    struct pgconn_statement statement =
        store_statement(store, STATEMENT_settings, &params);
    return ask(store, &settings, &statement, 1, done, data);
}
