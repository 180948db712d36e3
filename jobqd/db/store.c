/* store.c: the store's two connections, and the requests that are rare. The cycle is in
 * store_cycle.c. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/db/store_private.h"

extern const char sql_work_setup[];

/* work_setup.sql for one transaction: behind a pooler, where a session is not ours. */
static const char work_batch_setup[] =
    "pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true),"
    " pg_catalog.set_config('enable_indexscan', 'on', true),"
    " pg_catalog.set_config('enable_nestloop', 'on', true),"
    " pg_catalog.set_config('enable_tidscan', 'on', true),"
    " pg_catalog.set_config('enable_seqscan', 'off', true),"
    " pg_catalog.set_config('enable_sort', 'off', true),"
    " pg_catalog.set_config('enable_hashjoin', 'off', true),"
    " pg_catalog.set_config('enable_mergejoin', 'off', true),"
    " pg_catalog.set_config('enable_bitmapscan', 'off', true),"
    " pg_catalog.set_config('from_collapse_limit', '8', true),"
    " pg_catalog.set_config('join_collapse_limit', '8', true),"
    " pg_catalog.set_config('jit', 'off', true),"
    " pg_catalog.set_config('lock_timeout', '250ms', true)";

/* The lease is renewed here, behind whatever was asked before: nothing waits for a lock
 * for long. */
static const char control_setup[] =
    "SET jit = off; SET lock_timeout = '500ms'; SET tcp_keepalives_idle = 5;"
    "SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3";

static const char control_batch_setup[] =
    "pg_catalog.set_config('jit', 'off', true),"
    " pg_catalog.set_config('lock_timeout', '500ms', true)";

/* The stager waits on this connection behind all other housekeeping: a lock must not keep
 * it for long. What is locked is left for the next time. */
static const char house_setup[] =
    "SET jit = off; SET lock_timeout = '1s'; SET tcp_keepalives_idle = 5;"
    "SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3";

static const char house_batch_setup[] =
    "pg_catalog.set_config('jit', 'off', true),"
    " pg_catalog.set_config('lock_timeout', '1s', true)";

/* A cycle takes milliseconds, but the audit of a new session reads the table through; so
 * does the lifeline. */
enum { WORK_DEAD_AFTER_MS = 60 * 1000, HOUSE_DEAD_AFTER_MS = 600 * 1000 };

/* ---- the connections ---- */

static void
on_work_ready(void *owner)
{
    struct store *store = owner;
    store->options.on_work_ready(store->options.owner);
}

static void
on_work_lost(void *owner, const jobq_error *why)
{
    struct store *store = owner;
    store->options.on_work_lost(store->options.owner, why);
}

static void
on_control_ready(void *owner)
{
    struct store *store = owner;
    store->options.on_control_ready(store->options.owner);
}

/* The control connection is looked at every third of a lease, the others may be waiting
 * for something that takes long. So when it is lost, they are trusted no longer than it:
 * a half-open work connection would hold up the node's jobs for a minute. */
static void
on_control_lost(void *owner, const jobq_error *why)
{
    struct store *store = owner;
    if (store->work)
        pgconn_doubt(store->work, store->options.dead_after_ms);
    if (store->house)
        pgconn_doubt(store->house, store->options.dead_after_ms);
    store->options.on_control_lost(store->options.owner, why);
}

static void
free_store(struct store *store)
{
    for (size_t i = 0; i < PGCONN_MAX_PARAMS; i++)
        jobq__array_clear(&store->arrays[i]);
    store_sql_clear(&store->sql);
    free(store);
}

static void
closed_one(struct store *store)
{
    if (store->work || store->control || store->house)
        return;
    void (*on_closed)(void *) = store->on_closed;
    void *owner = store->options.owner;
    free_store(store);
    if (on_closed)
        on_closed(owner);
}

static void
on_work_closed(void *owner)
{
    struct store *store = owner;
    store->work = NULL;
    closed_one(store);
}

static void
on_control_closed(void *owner)
{
    struct store *store = owner;
    store->control = NULL;
    closed_one(store);
}

static void
on_house_closed(void *owner)
{
    struct store *store = owner;
    store->house = NULL;
    closed_one(store);
}

static void
on_house_ready(void *owner)
{
    struct store *store = owner;
    store->options.on_house_ready(store->options.owner);
}

static void
on_house_lost(void *owner, const jobq_error *why)
{
    struct store *store = owner;
    store->options.on_house_lost(store->options.owner, why);
}

static int
connect_all(struct store *store, uv_loop_t *loop)
{
    struct pgconn_options work = {
        .conninfo = store->options.conninfo,
        .name = "work",
        .setup = sql_work_setup,
        .batch_setup = work_batch_setup,
        .dead_after_ms = WORK_DEAD_AFTER_MS,
        .keeps_dead = store->options.keeps_dead,
        /* A database that is back before the lease ends is to be found before it does. */
        .most_delay_ms = store->options.dead_after_ms / 2,
        .on_ready = on_work_ready,
        .on_lost = on_work_lost,
        .owner = store,
    };
    struct pgconn_options control = work;
    control.name = "control";
    control.setup = control_setup;
    control.batch_setup = control_batch_setup;
    control.on_ready = on_control_ready;
    control.on_lost = on_control_lost;
    control.dead_after_ms = store->options.dead_after_ms;
    struct pgconn_options house = control;
    house.name = "house";
    house.setup = house_setup;
    house.batch_setup = house_batch_setup;
    house.on_ready = on_house_ready;
    house.on_lost = on_house_lost;
    house.dead_after_ms = HOUSE_DEAD_AFTER_MS;
    int rc = pgconn_new(&store->control, loop, &control);
    if (rc == 0)
        rc = pgconn_new(&store->house, loop, &house);
    if (rc < 0)
        return rc;
    return pgconn_new(&store->work, loop, &work);
}

static void
close_all(struct store *store, bool flush)
{
    if (store->work)
        pgconn_close(store->work, flush, on_work_closed);
    if (store->house)
        pgconn_close(store->house, flush, on_house_closed);
    if (store->control)
        pgconn_close(store->control, flush, on_control_closed);
    else
        free_store(store); /* not one was opened */
}

int
store_new(struct store **out, uv_loop_t *loop, const struct store_options *options,
          jobq_error *err)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return JOBQ_ENOMEM;
    store->options = *options;
    int rc = store_sql_init(&store->sql, options->schema, err);
    if (rc < 0) {
        free_store(store);
        return rc;
    }
    rc = connect_all(store, loop);
    if (rc < 0) {
        close_all(store, false);
        return rc;
    }
    *out = store;
    return 0;
}

void
store_close(struct store *store, bool flush, void (*on_closed)(void *owner))
{
    store->on_closed = on_closed;
    close_all(store, flush);
}

void
store_reset_work(struct store *store)
{
    pgconn_reset(store->work);
}

bool
store_pooled(const struct store *store)
{
    return pgconn_pooled(store->control);
}

bool
store_works(const struct store *store)
{
    return store->work && pgconn_works(store->work);
}

int64_t
store_overdue_ms(const struct store *store)
{
    const struct pgconn *all[] = {store->work, store->control, store->house};
    int64_t most_ms = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int64_t ms = all[i] ? pgconn_overdue_ms(all[i]) : 0;
        if (ms > most_ms)
            most_ms = ms;
    }
    return most_ms;
}

/* ---- the rare requests ---- */

struct request {
    store_done done;
    void *data;
    bool adds_setting; /* the batch's first statement only sets something: its result does
                          not count */
};

/* Numbers of the first row, in the order of their columns; text columns aside, the first
 * of which is `text`, the next one `more`. */
static void
read_row(const PGresult *rows, struct store_answer *answer, size_t *n)
{
    size_t most = sizeof answer->values / sizeof answer->values[0];
    for (int column = 0; column < PQnfields(rows) && *n < most; column++) {
        size_t len;
        bool truth;
        switch (PQftype(rows, column)) {
        case JOBQ__BOOL:
            if (jobq__field_bool(rows, 0, column, &truth))
                answer->values[*n] = truth;
            (*n)++;
            break;
        case JOBQ__TEXT:
            jobq__field_text(rows, 0, column,
                             answer->text ? &answer->more : &answer->text, &len);
            break;
        case JOBQ__INT4:
        case JOBQ__INT8:
            jobq__field_int(rows, 0, column, &answer->values[*n]);
            (*n)++;
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
    size_t n_values = 0;
    for (size_t i = request->adds_setting; outcome->code == 0 && i < outcome->n_results;
         i++) {
        PGresult *rows = outcome->results[i];
        if (PQnfields(rows) == 0) {
            answer.rows = jobq__affected(rows);
            continue;
        }
        answer.rows = (size_t)PQntuples(rows);
        if (answer.rows > 0)
            read_row(rows, &answer, &n_values);
    }
    request->done(request->data, &answer);
    free(request);
}

static int
ask(struct pgconn *conn, const struct pgconn_statement *statements, size_t n,
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

static int
ask_one(struct store *store, struct pgconn *conn, enum statement_id id,
        const struct jobq__params *params, store_done done, void *data)
{
    struct pgconn_statement statement = store_statement(store, id, params);
    return ask(conn, &statement, 1, false, done, data);
}

static int
ask_control(struct store *store, enum statement_id id, const struct jobq__params *params,
            store_done done, void *data)
{
    return ask_one(store, store->control, id, params, done, data);
}

/* A setting for one batch, as its first statement. */
static struct pgconn_statement
setting(const char *name, const char *sql)
{
    return (struct pgconn_statement){.name = name, .sql = sql, .binary_result = true};
}

/* A claim of the connection before may be in flight, and its end is waited for. */
static struct pgconn_statement
wait_for_claim(void)
{
    return setting("wait_for_claim",
                   "SELECT pg_catalog.set_config('lock_timeout', '5s', true)");
}

/* Opening a session is two transactions, one behind the other: the audit may take long,
 * and with the first one's lock on the node's row no lease could be renewed meanwhile. */
struct opening {
    store_done done;
    void *data;
    int64_t session;
    jobq_error error; /* of the first one; code 0: none */
    bool alone;       /* there was no memory for the second one */
};

static void
on_session_opened(void *data, const struct store_answer *answer)
{
    struct opening *opening = data;
    opening->session = answer->values[0];
    if (answer->code < 0) {
        opening->error = *answer->error;
        opening->error.code = answer->code;
    }
    if (opening->alone)
        free(opening);
}

static void
on_audited(void *data, const struct store_answer *answer)
{
    struct opening *opening = data;
    struct store_answer both = *answer;
    both.values[2] = answer->values[1];
    both.values[1] = answer->values[0];
    both.values[0] = opening->session;
    if (opening->error.code < 0) {
        both.code = opening->error.code;
        both.error = &opening->error;
    }
    opening->done(opening->data, &both);
    free(opening);
}

int
store_session(struct store *store, int64_t node, const int64_t *held, size_t n_held,
              store_done done, void *data)
{
    struct jobq__params session = {0}, audit = {0};
    jobq__params_int8(&session, node);
    jobq__params_int8(&audit, node);
    jobq__params_int8_array(&audit, &store->arrays[0], held, n_held);
    jobq__params_null(&audit, JOBQ__TEXT);
    struct opening *opening = audit.failed ? NULL : calloc(1, sizeof *opening);
    if (!opening)
        return JOBQ_ENOMEM;
    opening->done = done;
    opening->data = data;
    struct pgconn_statement first[2] = {
        wait_for_claim(),
        store_statement(store, STATEMENT_session, &session),
    };
    /* No index knows who holds a job (a claim must stay a HOT update), so this reads the
     * table through. */
    struct pgconn_statement batch[2] = {
        setting("allow_seqscan", "SELECT set_config('enable_seqscan', 'on', true)"),
        store_statement(store, STATEMENT_audit, &audit),
    };
    int rc = ask(store->work, first, 2, true, on_session_opened, opening);
    if (rc < 0) {
        free(opening);
        return rc;
    }
    rc = ask(store->work, batch, 2, true, on_audited, opening);
    opening->alone = rc < 0;
    return rc;
}

int
store_release(struct store *store, int64_t node, const char *left, store_done done,
              void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_int8_array(&params, &store->arrays[0], NULL, 0);
    jobq__params_text(&params, left);
    if (params.failed)
        return JOBQ_ENOMEM;
    return ask_one(store, store->house, STATEMENT_audit, &params, done, data);
}

int
store_lock_holders(struct store *store, int64_t node, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    return ask_one(store, store->house, STATEMENT_lock_holders, &params, done, data);
}

int
store_version(struct store *store, store_done done, void *data)
{
    return ask_control(store, STATEMENT_version, &(struct jobq__params){0}, done, data);
}

int
store_foreign(struct store *store, store_done done, void *data)
{
    return ask_control(store, STATEMENT_foreign, &(struct jobq__params){0}, done, data);
}

int
store_node_find(struct store *store, const char *name, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, name);
    return ask_control(store, STATEMENT_node_find, &params, done, data);
}

int
store_node_insert(struct store *store, const char *name, const char *host, int pid,
                  int64_t pid_start, int64_t lease_ms, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, name);
    jobq__params_text(&params, host);
    jobq__params_int4(&params, pid);
    jobq__params_int8(&params, pid_start);
    jobq__params_text(&params, JOBQ_VERSION);
    jobq__params_int8(&params, lease_ms);
    return ask_control(store, STATEMENT_node_insert, &params, done, data);
}

int
store_upgraded(struct store *store, int64_t node, const char *version, const char *error,
               store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_text(&params, version);
    jobq__params_text(&params, error);
    return ask_control(store, STATEMENT_node_upgraded, &params, done, data);
}

int
store_reloaded(struct store *store, int64_t node, const struct store_reload *reload,
               store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_text(&params, reload->state);
    jobq__params_int8(&params, reload->leaving);
    jobq__params_text(&params, reload->error);
    jobq__params_text(&params, reload->file);
    jobq__params_text(&params, reload->crons);
    return ask_control(store, STATEMENT_node_reloaded, &params, done, data);
}

int
store_heartbeat(struct store *store, int64_t node, int64_t lease_ms,
                const char *queues_json, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_int8(&params, lease_ms);
    jobq__params_json(&params, queues_json);
    return ask_control(store, STATEMENT_heartbeat, &params, done, data);
}

int
store_watch(struct store *store, store_done done, void *data)
{
    return ask_control(store, STATEMENT_watch, &(struct jobq__params){0}, done, data);
}

int
store_bury(struct store *store, int64_t also, const struct sight *dead, size_t n,
           store_done done, void *data)
{
    int64_t ids[STORE_MAX_BURY], marks[STORE_MAX_BURY];
    struct jobq__params mark = {0};
    assert(n <= STORE_MAX_BURY);
    for (size_t i = 0; i < n; i++) {
        ids[i] = dead[i].id;
        marks[i] = dead[i].mark;
    }
    jobq__params_int8_array(&mark, &store->arrays[0], &also, 1);
    jobq__params_int8_array(&mark, &store->arrays[1], ids, n);
    jobq__params_int8_array(&mark, &store->arrays[2], marks, n);
    if (mark.failed)
        return JOBQ_ENOMEM;
    struct pgconn_statement batch[2] = {
        store_statement(store, STATEMENT_bury_mark, &mark),
        store_statement(store, STATEMENT_bury, &(struct jobq__params){0}),
    };
    return ask(store->house, batch, 2, false, done, data);
}

int
store_strays(struct store *store, int64_t lease_ms, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, lease_ms);
    return ask_one(store, store->house, STATEMENT_strays, &params, done, data);
}

int
store_cancel_again(struct store *store, store_done done, void *data)
{
    return ask_one(store, store->house, STATEMENT_cancel_again, &(struct jobq__params){0},
                   done, data);
}

int
store_progress(struct store *store, int64_t node, const struct board_note *notes,
               size_t n, bool with_text, store_done done, void *data)
{
    struct jobq__array *a = store->arrays;
    struct jobq__params params = {0};
    jobq__array_begin(&a[0], JOBQ__INT8);
    jobq__array_begin(&a[1], JOBQ__INT4);
    jobq__array_begin(&a[2], JOBQ__INT8);
    jobq__array_begin(&a[3], JOBQ__TEXT);
    for (size_t i = 0; i < n; i++) {
        jobq__array_add_int8(&a[0], notes[i].id);
        jobq__array_add_int4(&a[1], notes[i].attempt);
        jobq__array_add_int8(&a[2], notes[i].millionths);
        if (with_text && notes[i].has_text)
            jobq__array_add_text(&a[3], notes[i].text, strlen(notes[i].text));
        else
            jobq__array_add_null(&a[3]);
    }
    jobq__params_int8(&params, node);
    jobq__params_array(&params, JOBQ__INT8_ARRAY, &a[0]);
    jobq__params_array(&params, JOBQ__INT4_ARRAY, &a[1]);
    jobq__params_array(&params, JOBQ__INT8_ARRAY, &a[2]);
    jobq__params_array(&params, JOBQ__TEXT_ARRAY, &a[3]);
    if (params.failed)
        return JOBQ_ENOMEM;
    /* Nobody misses it after a crash: the lease does not wait for the disk. */
    struct pgconn_statement batch[2] = {
        setting("no_wait", "SELECT set_config('synchronous_commit', 'off', true)"),
        store_statement(store, STATEMENT_progress, &params),
    };
    return ask(store->control, batch, 2, true, done, data);
}

int
store_goodbye(struct store *store, int64_t node, store_done done, void *data)
{
    struct jobq__params mark = {0}, goodbye = {0};
    jobq__params_int8(&mark, node);
    jobq__params_int8(&goodbye, node);
    struct pgconn_statement batch[3] = {
        wait_for_claim(),
        store_statement(store, STATEMENT_leave_mark, &mark),
        store_statement(store, STATEMENT_goodbye, &goodbye),
    };
    return ask(store->control, batch, 3, true, done, data);
}

int
store_idle(struct store *store, const char *queue, int64_t node, bool idle,
           store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, queue);
    jobq__params_int8(&params, node);
    /* A hint is not worth waiting for a lock: each queue has one, and leases wait behind.
     */
    struct pgconn_statement batch[2] = {
        setting("hardly_wait",
                "SELECT pg_catalog.set_config('lock_timeout', '20ms', true)"),
        store_statement(store, idle ? STATEMENT_idle_set : STATEMENT_idle_clear, &params),
    };
    return ask(store->control, batch, 2, true, done, data);
}

int
store_lead(struct store *store, int64_t node, int64_t lease_ms, store_done done,
           void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_int8(&params, lease_ms);
    return ask_control(store, STATEMENT_lead, &params, done, data);
}

/* However few rows the statistics speak of: by the index. */
static struct pgconn_statement
by_index(void)
{
    return setting("by_index", "SELECT set_config('enable_indexscan', 'on', true),"
                               " set_config('enable_seqscan', 'off', true),"
                               " set_config('enable_sort', 'off', true)");
}

int
store_ages(struct store *store, const char *queue, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, queue);
    struct pgconn_statement batch[2] = {
        by_index(),
        store_statement(store, STATEMENT_ages, &params),
    };
    return ask(store->control, batch, 2, true, done, data);
}

int
store_stage(struct store *store, store_done done, void *data)
{
    return ask_one(store, store->house, STATEMENT_stage, &(struct jobq__params){0}, done,
                   data);
}

int
store_expire(struct store *store, int64_t expired_ms, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, expired_ms);
    return ask_one(store, store->house, STATEMENT_expire, &params, done, data);
}

int
store_cron_fire(struct store *store, store_done done, void *data)
{
    return ask_one(store, store->house, STATEMENT_cron_fire, &(struct jobq__params){0},
                   done, data);
}

int
store_cron_sweep(struct store *store, store_done done, void *data)
{
    return ask_one(store, store->house, STATEMENT_cron_sweep, &(struct jobq__params){0},
                   done, data);
}

int
store_crontab(struct store *store, int64_t node, const char *name, bool fresh,
              const char *queues, const char *sections, store_done done, void *data)
{
    struct jobq__params of_queues = {0}, declare = {0}, boot = {0};
    jobq__params_text(&of_queues, name);
    jobq__params_json(&of_queues, queues);
    jobq__params_text(&declare, name);
    jobq__params_json(&declare, sections);
    jobq__params_int8(&boot, node);
    jobq__params_bool(&boot, fresh);
    /* In this order: the first node's own @reboot sections are to run, too, and their
     * jobs have their queues' max_attempts. */
    struct pgconn_statement batch[3] = {
        store_statement(store, STATEMENT_queues_declare, &of_queues),
        store_statement(store, STATEMENT_cron_declare, &declare),
        store_statement(store, STATEMENT_cron_boot, &boot),
    };
    return ask(store->house, batch, 3, false, done, data);
}

int
store_hooks_declare(struct store *store, const char *node, const char *hooks,
                    store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, node);
    jobq__params_json(&params, hooks);
    return ask_one(store, store->house, STATEMENT_hooks_declare, &params, done, data);
}

int
store_partitions_create(struct store *store, store_done done, void *data)
{
    return ask_one(store, store->house, STATEMENT_partitions_create,
                   &(struct jobq__params){0}, done, data);
}

int
store_partitions_drop(struct store *store, int64_t keep_completed_ms,
                      int64_t keep_failed_ms, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, keep_completed_ms);
    jobq__params_int8(&params, keep_failed_ms);
    return ask_one(store, store->house, STATEMENT_partitions_drop, &params, done, data);
}

int
store_prune_uniques(struct store *store, int64_t after, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, after);
    return ask_one(store, store->house, STATEMENT_prune_uniques, &params, done, data);
}

static void
put_ms(struct jobq__params *params, int64_t ms)
{
    if (ms >= 0)
        jobq__params_int8(params, ms);
    else
        jobq__params_null(params, JOBQ__INT8);
}

int
store_prune(struct store *store, int64_t keep_cancelled_ms, int64_t keep_discarded_ms,
            int pages, store_done done, void *data)
{
    struct jobq__params params = {0};
    put_ms(&params, keep_cancelled_ms);
    put_ms(&params, keep_discarded_ms);
    jobq__params_int4(&params, pages);
    return ask_one(store, store->house, STATEMENT_prune, &params, done, data);
}
