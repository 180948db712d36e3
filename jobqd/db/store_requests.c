/* store_requests.c: the rare requests: of the node, of the leader and the other
 * housekeeping actors. The cycle is store_cycle.c's. */
#include "jobqd/db/store_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "libjobq/error.h"

/* Opening a session is two transactions, one behind the other: the audit may take long,
 * and with the first one's lock on the node's row no lease could be renewed meanwhile. */
struct opening {
    store_done done;
    void *data;
    int64_t session;
    jobq_error error; /* of the first one; code 0: none */
    bool alone;       /* there was no memory for the second one */
};

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

static void
on_session_opened(void *data, const struct store_answer *answer)
{
    struct opening *opening = data;
    opening->session = answer->session;
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
    both.session = opening->session;
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
    int rc = store_ask(store->work, first, 2, true, on_session_opened, opening);
    if (rc < 0) {
        free(opening);
        return rc;
    }
    rc = store_ask(store->work, batch, 2, true, on_audited, opening);
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
    return store_ask_one(store, store->maintenance, STATEMENT_audit, &params, done, data);
}

int
store_lock_holders(struct store *store, int64_t node, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    return store_ask_one(store, store->maintenance, STATEMENT_lock_holders, &params, done,
                         data);
}

int
store_version(struct store *store, store_done done, void *data)
{
    return store_ask_control(store, STATEMENT_version, &(struct jobq__params){0}, done,
                             data);
}

int
store_foreign(struct store *store, store_done done, void *data)
{
    return store_ask_control(store, STATEMENT_foreign, &(struct jobq__params){0}, done,
                             data);
}

int
store_node_find(struct store *store, const char *name, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, name);
    return store_ask_control(store, STATEMENT_node_find, &params, done, data);
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
    return store_ask_control(store, STATEMENT_node_insert, &params, done, data);
}

int
store_upgraded(struct store *store, int64_t node, const char *version, const char *error,
               store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_text(&params, version);
    jobq__params_text(&params, error);
    return store_ask_control(store, STATEMENT_node_upgraded, &params, done, data);
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
    return store_ask_control(store, STATEMENT_node_reloaded, &params, done, data);
}

int
store_heartbeat(struct store *store, int64_t node, int64_t lease_ms,
                const char *queues_json, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_int8(&params, lease_ms);
    jobq__params_json(&params, queues_json);
    return store_ask_control(store, STATEMENT_heartbeat, &params, done, data);
}

int
store_reap(struct store *store, int64_t also, const struct sight *dead, size_t n,
           store_done done, void *data)
{
    int64_t ids[STORE_MAX_REAP], marks[STORE_MAX_REAP];
    struct jobq__params mark = {0};
    assert(n <= STORE_MAX_REAP);
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
        store_statement(store, STATEMENT_reap_mark, &mark),
        store_statement(store, STATEMENT_reap, &(struct jobq__params){0}),
    };
    return store_ask(store->maintenance, batch, 2, false, done, data);
}

int
store_strays(struct store *store, int64_t lease_ms, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, lease_ms);
    return store_ask_one(store, store->maintenance, STATEMENT_strays, &params, done,
                         data);
}

int
store_cancel_again(struct store *store, store_done done, void *data)
{
    return store_ask_one(store, store->maintenance, STATEMENT_cancel_again,
                         &(struct jobq__params){0}, done, data);
}

int
store_progress(struct store *store, int64_t node,
               const struct progress_buffer_note *notes, size_t n, bool with_text,
               store_done done, void *data)
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
    return store_ask(store->control, batch, 2, true, done, data);
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
    return store_ask(store->control, batch, 3, true, done, data);
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
    return store_ask(store->control, batch, 2, true, done, data);
}

int
store_lead(struct store *store, int64_t node, int64_t lease_ms, store_done done,
           void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, node);
    jobq__params_int8(&params, lease_ms);
    return store_ask_control(store, STATEMENT_lead, &params, done, data);
}

/* However few rows the statistics speak of: by the index. */
struct pgconn_statement
store_by_index(void)
{
    return setting("by_index", "SELECT set_config('enable_indexscan', 'on', true),"
                               " set_config('enable_seqscan', 'off', true),"
                               " set_config('enable_sort', 'off', true)");
}

int
store_stage(struct store *store, store_done done, void *data)
{
    return store_ask_one(store, store->maintenance, STATEMENT_stage,
                         &(struct jobq__params){0}, done, data);
}

int
store_expire(struct store *store, int64_t expired_ms, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, expired_ms);
    return store_ask_one(store, store->maintenance, STATEMENT_expire, &params, done,
                         data);
}

int
store_cron_fire(struct store *store, store_done done, void *data)
{
    return store_ask_one(store, store->maintenance, STATEMENT_cron_fire,
                         &(struct jobq__params){0}, done, data);
}

int
store_cron_sweep(struct store *store, store_done done, void *data)
{
    return store_ask_one(store, store->maintenance, STATEMENT_cron_sweep,
                         &(struct jobq__params){0}, done, data);
}

int
store_declare_cron(struct store *store, int64_t node, const char *name, bool fresh,
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
    return store_ask(store->maintenance, batch, 3, false, done, data);
}

int
store_hooks_declare(struct store *store, const char *node, const char *hooks,
                    store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_text(&params, node);
    jobq__params_json(&params, hooks);
    return store_ask_one(store, store->maintenance, STATEMENT_hooks_declare, &params,
                         done, data);
}

int
store_partitions_create(struct store *store, store_done done, void *data)
{
    return store_ask_one(store, store->maintenance, STATEMENT_partitions_create,
                         &(struct jobq__params){0}, done, data);
}

int
store_partitions_drop(struct store *store, int64_t keep_completed_ms,
                      int64_t keep_failed_ms, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, keep_completed_ms);
    jobq__params_int8(&params, keep_failed_ms);
    return store_ask_one(store, store->maintenance, STATEMENT_partitions_drop, &params,
                         done, data);
}

int
store_prune_uniques(struct store *store, int64_t after, store_done done, void *data)
{
    struct jobq__params params = {0};
    jobq__params_int8(&params, after);
    return store_ask_one(store, store->maintenance, STATEMENT_prune_uniques, &params,
                         done, data);
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
    return store_ask_one(store, store->maintenance, STATEMENT_prune, &params, done, data);
}
