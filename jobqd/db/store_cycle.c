/* store_cycle.c: a queue's round trip: builds the batch, decodes what comes back. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/db/store_private.h"

/* What is kept of a request until its answer comes. */
struct cycle_request {
    struct store *store;
    store_cycle_done done;
    void *data;
    int at[STORE_PARTS]; /* each part's place in the batch; -1: not in it */
    bool claims_apart;
    size_t claim_limit;
    size_t n_segments;
    struct segment *segments; /* in which order they were claimed; NULL: by priority */
};

/* ---- sending ---- */

static void
put_settlements(struct store *store, struct jobq__params *params,
                const struct store_cycle *cycle)
{
    static const char *const words[] = {
#define X(name, word) [name] = word,
        SETTLEMENTS(X)
#undef X
    };
    static const enum jobq__type types[] = {JOBQ__INT8, JOBQ__INT4,  JOBQ__TEXT,
                                            JOBQ__INT8, JOBQ__JSONB, JOBQ__JSONB,
                                            JOBQ__INT8, JOBQ__INT8,  JOBQ__INT8};
    struct jobq__array *a = store->arrays;
    for (size_t i = 0; i < 9; i++)
        jobq__array_begin(&a[i], types[i]);
    for (size_t i = 0; i < cycle->n_settlements; i++) {
        const struct settlement *s = &cycle->settlements[i];
        const int64_t use[3] = {s->run_us, s->cpu_us, s->max_rss_kb};
        jobq__array_add_int8(&a[0], s->id);
        jobq__array_add_int4(&a[1], s->attempt);
        jobq__array_add_text(&a[2], words[s->kind], strlen(words[s->kind]));
        jobq__array_add_int8(&a[3], s->delay_ms);
        if (s->entry)
            jobq__array_add_jsonb(&a[4], s->entry, strlen(s->entry));
        else
            jobq__array_add_null(&a[4]);
        if (s->result)
            jobq__array_add_jsonb(&a[5], s->result, strlen(s->result));
        else
            jobq__array_add_null(&a[5]);
        for (size_t u = 0; u < 3; u++)
            if (use[u] >= 0)
                jobq__array_add_int8(&a[6 + u], use[u]);
            else
                jobq__array_add_null(&a[6 + u]);
    }
    static const enum jobq__type arrays[] = {
        JOBQ__INT8_ARRAY, JOBQ__INT4_ARRAY,  JOBQ__TEXT_ARRAY,
        JOBQ__INT8_ARRAY, JOBQ__JSONB_ARRAY, JOBQ__JSONB_ARRAY,
        JOBQ__INT8_ARRAY, JOBQ__INT8_ARRAY,  JOBQ__INT8_ARRAY};
    for (size_t i = 0; i < 9; i++)
        jobq__params_array(params, arrays[i], &a[i]);
    jobq__params_int8(params, cycle->node);
    jobq__params_int4(params, cycle->max_crashes);
    jobq__params_bool(params, cycle->keep);
}

/* The builders that settle.sql does not use: the other parts' arrays live here until the
 * batch is queued. */
enum {
    ARRAY_ACK_IDS = 9,
    ARRAY_ACK_ATTEMPTS,
    ARRAY_BASES,
    ARRAY_CURSORS,
    ARRAY_PRIORITIES,
    ARRAY_UPTOS
};

static void
put_attempts(struct store *store, struct jobq__params *params, int64_t node,
             const int64_t *ids, const int32_t *attempts, size_t n)
{
    jobq__params_int8_array(params, &store->arrays[ARRAY_ACK_IDS], ids, n);
    struct jobq__array *array = &store->arrays[ARRAY_ACK_ATTEMPTS];
    jobq__array_begin(array, JOBQ__INT4);
    for (size_t i = 0; i < n; i++)
        jobq__array_add_int4(array, attempts[i]);
    jobq__params_array(params, JOBQ__INT4_ARRAY, array);
    jobq__params_int8(params, node);
}

static struct pgconn_statement
claim_statement(struct store *store, struct jobq__params *params,
                const struct store_cycle *cycle, size_t size)
{
    jobq__params_text(params, cycle->queue);
    jobq__params_int8_array(params, &store->arrays[ARRAY_CURSORS], cycle->cursors,
                            CURSOR_PRIORITIES);
    jobq__params_int8(params, cycle->node);
    jobq__params_int8(params, cycle->session);
    struct pgconn_statement statement = store_statement(store, STATEMENT_note, params);
    statement.name = store->sql.claim_names[size];
    statement.sql = store->sql.claims[size];
    return statement;
}

/* The parameters of a claim by segments. */
static void
put_segments(struct store *store, struct jobq__params *params,
             const struct store_cycle *cycle, const struct segment *segments, size_t n)
{
    struct jobq__array *afters = &store->arrays[ARRAY_CURSORS];
    struct jobq__array *priorities = &store->arrays[ARRAY_PRIORITIES];
    struct jobq__array *uptos = &store->arrays[ARRAY_UPTOS];
    jobq__array_begin(afters, JOBQ__INT8);
    jobq__array_begin(priorities, JOBQ__INT4);
    jobq__array_begin(uptos, JOBQ__INT8);
    for (size_t i = 0; i < n; i++) {
        jobq__array_add_int8(afters, segments[i].after);
        jobq__array_add_int4(priorities, segments[i].priority);
        jobq__array_add_int8(uptos, segments[i].upto);
    }
    jobq__params_text(params, cycle->queue);
    jobq__params_array(params, JOBQ__INT8_ARRAY, afters);
    jobq__params_int8(params, cycle->node);
    jobq__params_int8(params, cycle->session);
    jobq__params_array(params, JOBQ__INT4_ARRAY, priorities);
    jobq__params_array(params, JOBQ__INT8_ARRAY, uptos);
}

/* The same claim by segments. */
static struct pgconn_statement
aged_claim_statement(struct store *store, struct jobq__params *params,
                     const struct store_cycle *cycle, size_t size)
{
    put_segments(store, params, cycle, cycle->segments, cycle->n_segments);
    struct pgconn_statement statement = store_statement(store, STATEMENT_note, params);
    statement.name = store->sql.aged_claim_names[size];
    statement.sql = store->sql.aged_claims[size];
    return statement;
}

/* Job by job. It knows segments alone: without them each priority's line is one. */
static struct pgconn_statement
claim_apart_statement(struct store *store, struct jobq__params *params,
                      const struct store_cycle *cycle, size_t most)
{
    struct segment lines[CURSOR_PRIORITIES];
    for (int p = 0; p < CURSOR_PRIORITIES; p++)
        lines[p] = (struct segment){
            .priority = p, .after = cycle->cursors[p], .upto = INT64_MAX};
    if (cycle->n_segments > 0)
        put_segments(store, params, cycle, cycle->segments, cycle->n_segments);
    else
        put_segments(store, params, cycle, lines, CURSOR_PRIORITIES);
    jobq__params_int4(params, (int32_t)most);
    return store_statement(store, STATEMENT_claim_apart, params);
}

static struct pgconn_statement
put_claim(struct store *store, const struct store_cycle *cycle,
          struct cycle_request *request, struct jobq__params *params)
{
    if (cycle->claim_apart) {
        size_t most =
            cycle->claim < STORE_MAX_CLAIM_APART ? cycle->claim : STORE_MAX_CLAIM_APART;
        request->claims_apart = true;
        request->claim_limit = most;
        return claim_apart_statement(store, params, cycle, most);
    }
    size_t size = store_claim_size(cycle->claim);
    request->claim_limit = (size_t)1 << size;
    return cycle->n_segments > 0 ? aged_claim_statement(store, params, cycle, size)
                                 : claim_statement(store, params, cycle, size);
}

/* Fills the batch; returns how many statements it has. */
static size_t
build(struct store *store, const struct store_cycle *cycle, struct cycle_request *request,
      struct pgconn_statement batch[STORE_PARTS], struct jobq__params params[STORE_PARTS])
{
    size_t n = 0;
    memset(params, 0, sizeof *params * STORE_PARTS);
    for (size_t i = 0; i < STORE_PARTS; i++)
        request->at[i] = -1;
    if (cycle->note) {
        jobq__params_int8(&params[STORE_NOTE], cycle->noted);
        request->at[STORE_NOTE] = (int)n;
        batch[n++] = store_statement(store, STATEMENT_note, &params[STORE_NOTE]);
    }
    if (cycle->n_acks > 0) {
        put_attempts(store, &params[STORE_ACK], cycle->node, cycle->ack_ids,
                     cycle->ack_attempts, cycle->n_acks);
        request->at[STORE_ACK] = (int)n;
        batch[n++] = store_statement(
            store, cycle->keep ? STATEMENT_ack : STATEMENT_ack_drop, &params[STORE_ACK]);
    }
    if (cycle->n_settlements > 0) {
        put_settlements(store, &params[STORE_SETTLE], cycle);
        request->at[STORE_SETTLE] = (int)n;
        batch[n++] = store_statement(
            store, cycle->settle_apart ? STATEMENT_settle_apart : STATEMENT_settle,
            &params[STORE_SETTLE]);
    }
    if (cycle->look) {
        jobq__params_text(&params[STORE_LOOK], cycle->queue);
        jobq__params_int8_array(&params[STORE_LOOK], &store->arrays[ARRAY_BASES],
                                cycle->bases, CURSOR_PRIORITIES);
        request->at[STORE_LOOK] = (int)n;
        batch[n++] = store_statement(store, STATEMENT_look, &params[STORE_LOOK]);
    }
    if (cycle->claim > 0) {
        request->at[STORE_CLAIM] = (int)n;
        batch[n++] = put_claim(store, cycle, request, &params[STORE_CLAIM]);
    }
    return n;
}

/* ---- receiving ---- */

/* One row of claim.sql; NULL when memory ran out or the row is not what we asked for. */
static struct job *
decode_job(const PGresult *rows, int row, struct store_claimed *claimed)
{
    int64_t id, position, priority, attempt, max_attempts, timeout_ms = 0;
    const char *kind, *args, *meta;
    size_t kind_len, args_len, meta_len;
    if (!jobq__field_int(rows, row, 0, &id) ||
        !jobq__field_int(rows, row, 1, &position) ||
        !jobq__field_int(rows, row, 2, &priority) ||
        !jobq__field_int(rows, row, 3, &attempt) ||
        !jobq__field_int(rows, row, 4, &max_attempts) ||
        !jobq__field_text(rows, row, 6, &kind, &kind_len))
        return NULL;
    jobq__field_int(rows, row, 5, &timeout_ms); /* null: the queue's */
    if (PQgetisnull(rows, row, 7) || PQgetisnull(rows, row, 8)) {
        args = meta = NULL;
        args_len = meta_len = 0;
    } else if (!jobq__field_text(rows, row, 7, &args, &args_len) ||
               !jobq__field_text(rows, row, 8, &meta, &meta_len)) {
        return NULL;
    }
    struct job *job = job_new(kind, kind_len, args, args_len, meta, meta_len);
    if (!job)
        return NULL;
    job->id = id;
    job->attempt = (int32_t)attempt;
    job->max_attempts = (int32_t)max_attempts;
    job->timeout_ms = timeout_ms;
    claimed->job = job;
    claimed->position = position;
    claimed->priority = (int)priority;
    return job;
}

/* The order in which they were wanted: priority or segment, then position. */
static int
in_line(const void *left, const void *right)
{
    const struct store_claimed *a = left, *b = right;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return (a->position > b->position) - (a->position < b->position);
}

/* The rows come in the table's order, which is nearly always the line's. */
static void
sort_claimed(struct store_claimed *claimed, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (in_line(&claimed[i - 1], &claimed[i]) > 0) {
            qsort(claimed, n, sizeof *claimed, in_line);
            return;
        }
}

static int
rank_of(const struct cycle_request *request, const struct store_claimed *claimed)
{
    for (size_t i = 0; i < request->n_segments; i++) {
        const struct segment *s = &request->segments[i];
        if (s->priority == claimed->priority && claimed->position > s->after &&
            claimed->position <= s->upto)
            return (int)i;
    }
    return claimed->priority;
}

/* A row of claim_apart.sql about a job that was not claimed. */
static bool
decode_refusal(const PGresult *rows, int row, struct store_refusal *refusal)
{
    size_t len;
    return jobq__field_int(rows, row, 0, &refusal->id) &&
           jobq__field_text(rows, row, 6, &refusal->kind, &len) &&
           jobq__field_text(rows, row, 9, &refusal->message, &len) &&
           jobq__field_bool(rows, row, 10, &refusal->fresh);
}

static void
decode_claim(const struct cycle_request *request, const PGresult *rows,
             struct store_cycle_result *result)
{
    struct store *store = request->store;
    int n = PQntuples(rows);
    for (int row = 0; row < n; row++) {
        if (request->claims_apart && result->n_refusals < STORE_MAX_CLAIM_APART &&
            decode_refusal(rows, row, &store->refusals[result->n_refusals])) {
            result->n_refusals++;
            continue;
        }
        struct store_claimed *claimed = &store->claimed[result->n_claimed];
        if (decode_job(rows, row, claimed)) {
            claimed->rank = rank_of(request, claimed);
            result->n_claimed++;
            continue;
        }
        /* The database believes that we hold this job. A new session gives back what we
         * do not know of. */
        log_error("database", "out of memory for a claimed job: giving it back");
        pgconn_reset(store->work);
    }
    sort_claimed(store->claimed, result->n_claimed);
    result->claimed = store->claimed;
    result->refusals = store->refusals;
}

static int
by_id(const void *left, const void *right)
{
    const struct store_fate *a = left, *b = right;
    return (a->id > b->id) - (a->id < b->id);
}

static bool
fate_of(const char *word, enum fate *out)
{
    static const char *const words[] = {
#define X(name, word) [name] = word,
        FATES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(word, words[i]) == 0) {
            *out = (enum fate)i;
            return true;
        }
    return false;
}

/* Rows of settle or settle_apart. */
static void
decode_fates(struct store *store, const PGresult *rows, struct store_cycle_result *result)
{
    int n = PQntuples(rows);
    for (int row = 0; row < n && result->n_fates < STORE_MAX_SETTLE; row++) {
        struct store_fate *fate = &store->fates[result->n_fates];
        const char *word;
        size_t len;
        *fate = (struct store_fate){0};
        jobq__field_text(rows, row, 2, &fate->message, &len);
        jobq__field_text(rows, row, 3, &fate->became, &len);
        jobq__field_int(rows, row, 4, &fate->due_ms);
        jobq__field_bool(rows, row, 5, &fate->hooks);
        if (jobq__field_int(rows, row, 0, &fate->id) &&
            jobq__field_text(rows, row, 1, &word, &len) && fate_of(word, &fate->fate))
            result->n_fates++;
    }
    qsort(store->fates, result->n_fates, sizeof *store->fates, by_id);
    result->fates = store->fates;
}

static void
decode(struct cycle_request *request, const struct pgconn_outcome *outcome,
       struct store_cycle_result *result)
{
    PGresult *const *r = outcome->results;
    const int *at = request->at;
    result->claim_limit = request->claim_limit;
    if (at[STORE_NOTE] >= 0) {
        const PGresult *note = r[at[STORE_NOTE]];
        result->noted = jobq__field_int(note, 0, 0, &result->note_position) &&
                        jobq__field_int(note, 0, 2, &result->note_oldest);
        jobq__field_int(note, 0, 1, &result->note_upto); /* null: nothing new */
    }
    if (at[STORE_ACK] >= 0)
        result->acked = jobq__affected(r[at[STORE_ACK]]);
    if (at[STORE_SETTLE] >= 0)
        decode_fates(request->store, r[at[STORE_SETTLE]], result);
    if (at[STORE_LOOK] >= 0) {
        result->looked = true;
        for (int p = 0; p < CURSOR_PRIORITIES; p++)
            jobq__field_int(r[at[STORE_LOOK]], p, 0, &result->first[p]);
    }
    if (at[STORE_CLAIM] >= 0)
        decode_claim(request, r[at[STORE_CLAIM]], result);
}

static enum store_part
failed_part(const struct cycle_request *request, size_t failed_at)
{
    for (int part = 0; part < STORE_PARTS; part++)
        if (request->at[part] >= 0 && (size_t)request->at[part] == failed_at)
            return (enum store_part)part;
    return STORE_PARTS;
}

static void
on_batch(void *data, const struct pgconn_outcome *outcome)
{
    struct cycle_request *request = data;
    struct store_cycle_result result = {
        .code = outcome->code, .sent = outcome->sent, .error = &outcome->error};
    if (outcome->code == 0)
        decode(request, outcome, &result);
    else if (outcome->code == JOBQ_EDB)
        result.failed = failed_part(request, outcome->failed_at);
    request->done(request->data, &result);
    free(request->segments);
    free(request);
}

/* Its own copy of the segments: they tell the order of what comes back. */
static bool
keep_segments(struct cycle_request *request, const struct store_cycle *cycle)
{
    size_t size = cycle->n_segments * sizeof *cycle->segments;
    if (size == 0)
        return true;
    request->segments = malloc(size);
    if (!request->segments)
        return false;
    memcpy(request->segments, cycle->segments, size);
    request->n_segments = cycle->n_segments;
    return true;
}

int
store_cycle(struct store *store, const struct store_cycle *cycle, store_cycle_done done,
            void *data)
{
    struct cycle_request *request = calloc(1, sizeof *request);
    if (!request)
        return JOBQ_ENOMEM;
    request->store = store;
    request->done = done;
    request->data = data;
    struct pgconn_statement batch[STORE_PARTS];
    struct jobq__params params[STORE_PARTS];
    size_t n = build(store, cycle, request, batch, params);
    assert(n > 0);
    bool failed = !keep_segments(request, cycle);
    for (size_t i = 0; i < STORE_PARTS; i++)
        failed = failed || params[i].failed;
    int rc =
        failed ? JOBQ_ENOMEM : pgconn_batch(store->work, batch, n, on_batch, request);
    if (rc < 0) {
        free(request->segments);
        free(request);
    }
    return rc;
}

/* ---- acks that took nothing away ---- */

struct held_request {
    store_held_done done;
    void *data;
};

static void
on_held(void *data, const struct pgconn_outcome *outcome)
{
    struct held_request *request = data;
    int64_t ids[STORE_MAX_SETTLE];
    struct store_held_result result = {
        .code = outcome->code, .error = &outcome->error, .ids = ids};
    int rows = outcome->code == 0 ? PQntuples(outcome->results[0]) : 0;
    for (int row = 0; row < rows && result.n < STORE_MAX_SETTLE; row++)
        if (jobq__field_int(outcome->results[0], row, 0, &ids[result.n]))
            result.n++;
    request->done(request->data, &result);
    free(request);
}

int
store_held(struct store *store, int64_t node, const int64_t *ids, const int32_t *attempts,
           size_t n, store_held_done done, void *data)
{
    struct jobq__params params = {0};
    put_attempts(store, &params, node, ids, attempts, n);
    struct held_request *request = params.failed ? NULL : malloc(sizeof *request);
    if (!request)
        return JOBQ_ENOMEM;
    *request = (struct held_request){.done = done, .data = data};
    struct pgconn_statement statement = store_statement(store, STATEMENT_held, &params);
    int rc = pgconn_batch(store->work, &statement, 1, on_held, request);
    if (rc < 0)
        free(request);
    return rc;
}
