/* pgqueue.c: batches on a libpq pipeline; see pgqueue.h. */
#include "jobqd/db/pgqueue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "libjobq/error.h"

struct pgname {
    struct pgname *next;
    bool prepared; /* its prepare was sent on this connection, and has not failed */
    char text[];
};

void
pgqueue_init(struct pgqueue *queue)
{
    *queue = (struct pgqueue){0};
    list_init(&queue->awaiting);
}

void
pgqueue_clear(struct pgqueue *queue)
{
    assert(list_empty(&queue->awaiting));
    while (queue->names) {
        struct pgname *name = queue->names;
        queue->names = name->next;
        free(name);
    }
}

void
pgqueue_attach(struct pgqueue *queue, PGconn *pg, bool pooled, const char *batch_setup)
{
    assert(list_empty(&queue->awaiting));
    queue->pg = pg;
    queue->pooled = pooled;
    queue->batch_setup = pooled ? batch_setup : NULL;
    for (struct pgname *name = queue->names; name; name = name->next)
        name->prepared = false;
}

void
pgqueue_detach(struct pgqueue *queue)
{
    queue->pg = NULL;
}

bool
pgqueue_empty(const struct pgqueue *queue)
{
    return list_empty(&queue->awaiting);
}

struct pgbatch *
pgqueue_head(const struct pgqueue *queue)
{
    return list_empty(&queue->awaiting)
               ? NULL
               : list_entry(queue->awaiting.next, struct pgbatch, link);
}

struct pgbatch *
pgqueue_pop(struct pgqueue *queue)
{
    struct list *first = list_pop(&queue->awaiting);
    return first ? list_entry(first, struct pgbatch, link) : NULL;
}

struct pgbatch *
pgbatch_new(size_t n_statements, pgconn_done done, void *data)
{
    size_t n = n_statements + 1; /* and the batch set-up */
    struct pgbatch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return NULL;
    batch->results = calloc(n, sizeof *batch->results);
    batch->names = calloc(n, sizeof *batch->names);
    batch->n_statements = n_statements;
    batch->done = done;
    batch->data = data;
    list_init(&batch->link);
    if (!batch->results || !batch->names) {
        pgbatch_free(batch);
        return NULL;
    }
    return batch;
}

void
pgbatch_free(struct pgbatch *batch)
{
    if (batch->results) {
        for (size_t i = 0; i < batch->n_statements; i++)
            PQclear(batch->results[i]);
    }
    PQclear(batch->failure);
    free(batch->results);
    free(batch->names);
    free(batch);
}

/* ---- sending ---- */

/* A dozen or two names: a list is good enough. NULL: memory ran out. */
static struct pgname *
find_name(struct pgqueue *queue, const char *text)
{
    for (struct pgname *name = queue->names; name; name = name->next) {
        if (strcmp(name->text, text) == 0)
            return name;
    }
    size_t size = strlen(text) + 1;
    struct pgname *name = malloc(sizeof *name + size);
    if (!name)
        return NULL;
    memcpy(name->text, text, size);
    name->prepared = false;
    name->next = queue->names;
    queue->names = name;
    return name;
}

static bool
is_named(const struct pgconn_statement *statement)
{
    return statement->name && statement->name[0] != '\0';
}

static bool
send_prepares(struct pgqueue *queue, struct pgbatch *batch,
              const struct pgconn_statement *statements, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct pgconn_statement *st = &statements[i];
        if (!is_named(st))
            continue;
        struct pgname *name = find_name(queue, st->name);
        if (!name)
            return false;
        if (name->prepared)
            continue;
        if (!PQsendPrepare(queue->pg, st->name, st->sql, st->n_params, st->types))
            return false;
        name->prepared = true;
        batch->names[batch->n_prepares] = name;
        batch->n_prepares++;
    }
    batch->preparing = batch->n_prepares > 0;
    return !batch->preparing || PQpipelineSync(queue->pg);
}

static bool
send_statement(struct pgqueue *queue, const struct pgconn_statement *st)
{
    if (is_named(st) && !queue->pooled)
        return PQsendQueryPrepared(queue->pg, st->name, st->n_params, st->values,
                                   st->lengths, st->formats, st->binary_result);
    return PQsendQueryParams(queue->pg, st->sql, st->n_params, st->types, st->values,
                             st->lengths, st->formats, st->binary_result);
}

bool
pgqueue_send(struct pgqueue *queue, struct pgbatch *batch,
             const struct pgconn_statement *statements)
{
    size_t n = batch->n_statements;
    list_push(&queue->awaiting, &batch->link);
    if (!queue->pooled && !send_prepares(queue, batch, statements, n))
        return false;
    if (queue->batch_setup) {
        const struct pgconn_statement setup = {.sql = queue->batch_setup};
        batch->n_extra = 1;
        batch->n_statements++;
        if (!send_statement(queue, &setup))
            return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!send_statement(queue, &statements[i]))
            return false;
    }
    batch->sent = true;
    return PQpipelineSync(queue->pg);
}

/* ---- receiving ---- */

static const char *
field_of(const PGresult *result, int field)
{
    const char *text = PQresultErrorField(result, field);
    return text ? text : "";
}

/* What the server says, with its detail, as one line. */
static void
describe(const PGresult *failure, int code, jobq_error *out)
{
    const char *detail = field_of(failure, PG_DIAG_MESSAGE_DETAIL);
    const char *text = field_of(failure, PG_DIAG_MESSAGE_PRIMARY);
    if (*text == '\0')
        text = PQresultErrorMessage(failure); /* libpq's own words */
    jobq__error(out, code, "%s%s%s", text, *detail ? ": " : "", detail);
    const char *sqlstate = field_of(failure, PG_DIAG_SQLSTATE);
    if (strlen(sqlstate) < sizeof out->sqlstate)
        strcpy(out->sqlstate, sqlstate);
}

/* Whether the server may refuse writes. It reports that from PostgreSQL 14 on; an older
 * one, or one behind a pooler, may. */
static bool
may_be_read_only(PGconn *pg)
{
    const char *standby = PQparameterStatus(pg, "in_hot_standby");
    const char *read_only = PQparameterStatus(pg, "default_transaction_read_only");
    return !standby || !read_only || strcmp(standby, "on") == 0 ||
           strcmp(read_only, "on") == 0;
}

/* What a function raised is about no connection of ours: a trigger of the user's may have
 * lost one of its own, or be allowed to read only. */
static bool
is_within(const PGresult *failure)
{
    return *field_of(failure, PG_DIAG_CONTEXT) != '\0';
}

/* Whether the error is about the connection rather than about the statement: the server
 * is going, a pooler has lost it, or after a failover it is a standby that we write to.
 * Then it is also not certain that the batch was not committed. */
static bool
ends_connection(const struct pgqueue *queue, const PGresult *failure)
{
    const char *state = field_of(failure, PG_DIAG_SQLSTATE);
    const char *severity = field_of(failure, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (*state == '\0' || strcmp(severity, "FATAL") == 0 ||
        strcmp(severity, "PANIC") == 0)
        return true;
    if (strcmp(state, "25006") == 0)
        return !is_within(failure) || may_be_read_only(queue->pg);
    return !is_within(failure) &&
           (strncmp(state, "08", 2) == 0 || strcmp(state, "57P01") == 0 ||
            strcmp(state, "57P02") == 0 || strcmp(state, "57P03") == 0);
}

/* Whether the session has other prepared statements than we think, so that it would fail
 * for ever: somebody deallocated them, or a migration changed what one returns. */
static bool
spoils_names(const struct pgqueue *queue, const struct pgbatch *batch,
             const PGresult *failure)
{
    const char *state = field_of(failure, PG_DIAG_SQLSTATE);
    if (queue->pooled)
        return false;
    if (is_within(failure) &&
        strcmp(field_of(failure, PG_DIAG_SOURCE_FUNCTION), "RevalidateCachedQuery") != 0)
        return false;
    if (strcmp(state, "26000") == 0)
        return !batch->doubtful;
    return strcmp(state, "42P05") == 0 ||
           strcmp(field_of(failure, PG_DIAG_SOURCE_FUNCTION), "RevalidateCachedQuery") ==
               0;
}

/* A prepare failed: neither it nor those behind it are prepared, and what was sent in the
 * meantime may have relied on them. */
static void
unprepare(struct pgqueue *queue, struct pgbatch *batch)
{
    for (size_t i = batch->got; i < batch->n_prepares; i++)
        batch->names[i]->prepared = false;
    for (struct list *at = queue->awaiting.next; at != &queue->awaiting; at = at->next)
        list_entry(at, struct pgbatch, link)->doubtful = true;
}

/* The first error of a batch tells; what follows from it does not. */
static enum pgqueue_found
keep_failure(struct pgqueue *queue, struct pgbatch *batch, PGresult *failure,
             jobq_error *why)
{
    if (ends_connection(queue, failure) ||
        (!batch->failure && spoils_names(queue, batch, failure))) {
        describe(failure, JOBQ_ECONN, why);
        PQclear(failure);
        return PGQUEUE_LOST;
    }
    if (batch->preparing && !batch->failure)
        unprepare(queue, batch);
    if (batch->failure) {
        PQclear(failure);
    } else {
        batch->failure = failure;
        batch->failed_at = batch->preparing ? 0 : batch->got;
    }
    /* Behind the last statement's result it is the commit that failed, as for a deferred
     * constraint: that has no result of its own. */
    if (batch->preparing || batch->got < batch->n_statements)
        batch->got++;
    return PGQUEUE_NOTHING;
}

/* A sync has come: either of the prepares, or the batch is complete. */
static enum pgqueue_found
take_sync(struct pgbatch *batch, struct pgconn_outcome *outcome, jobq_error *why)
{
    size_t expected = batch->preparing ? batch->n_prepares : batch->n_statements;
    if (batch->got != expected) {
        jobq__error(why, JOBQ_ECONN, "the server sent %zu results, expected %zu",
                    batch->got, expected);
        return PGQUEUE_LOST;
    }
    batch->got = 0;
    if (batch->preparing) {
        batch->preparing = false;
        return PGQUEUE_NOTHING;
    }
    list_remove(&batch->link);
    *outcome = (struct pgconn_outcome){.code = 0, .sent = true};
    if (batch->failure) {
        outcome->code = JOBQ_EDB;
        describe(batch->failure, JOBQ_EDB, &outcome->error);
        outcome->failed_at =
            batch->failed_at > batch->n_extra ? batch->failed_at - batch->n_extra : 0;
    } else {
        outcome->results = batch->results + batch->n_extra;
        outcome->n_results = batch->n_statements - batch->n_extra;
    }
    return PGQUEUE_BATCH;
}

/* One result, which is ours from here on. */
static enum pgqueue_found
take_result(struct pgqueue *queue, struct pgbatch *batch, PGresult *result,
            struct pgconn_outcome *outcome, jobq_error *why)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_FATAL_ERROR)
        return keep_failure(queue, batch, result, why);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK ||
        status == PGRES_EMPTY_QUERY) {
        size_t due = batch->preparing ? batch->n_prepares : batch->n_statements;
        if (!batch->preparing && batch->got < due)
            batch->results[batch->got] = result;
        else
            PQclear(result);
        batch->got++;
        return PGQUEUE_NOTHING;
    }
    PQclear(result);
    if (status == PGRES_PIPELINE_SYNC)
        return take_sync(batch, outcome, why);
    if (status == PGRES_PIPELINE_ABORTED) {
        batch->got++;
        return PGQUEUE_NOTHING;
    }
    jobq__error(why, JOBQ_ECONN, "unexpected result status %s of a statement in a batch",
                PQresStatus(status));
    return PGQUEUE_LOST;
}

enum pgqueue_found
pgqueue_take(struct pgqueue *queue, struct pgbatch **out, struct pgconn_outcome *outcome,
             jobq_error *why)
{
    int nothing = 0;
    for (;;) {
        struct pgbatch *batch = pgqueue_head(queue);
        if (!batch || PQisBusy(queue->pg))
            return PGQUEUE_NOTHING;
        PGresult *result = PQgetResult(queue->pg);
        if (!result) {
            /* One NULL stands behind each statement's results. More mean that libpq
             * awaits nothing, while we do. */
            if (++nothing < 3)
                continue;
            jobq__error(why, JOBQ_ECONN, "%s",
                        PQstatus(queue->pg) == CONNECTION_BAD
                            ? PQerrorMessage(queue->pg)
                            : "bug: libpq expects no more results, but jobqd does");
            return PGQUEUE_LOST;
        }
        nothing = 0;
        queue->taken++;
        enum pgqueue_found found = take_result(queue, batch, result, outcome, why);
        if (found == PGQUEUE_BATCH)
            *out = batch;
        if (found != PGQUEUE_NOTHING)
            return found;
    }
}
