/* store.c: the store's three connections. */
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
static const char maintenance_setup[] =
    "SET jit = off; SET lock_timeout = '1s'; SET tcp_keepalives_idle = 5;"
    "SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3";

static const char maintenance_batch_setup[] =
    "pg_catalog.set_config('jit', 'off', true),"
    " pg_catalog.set_config('lock_timeout', '1s', true)";

/* A cycle takes milliseconds, but the audit of a new session reads the table through; so
 * does the lifeline. */
enum { WORK_DEAD_AFTER_MS = 60 * 1000, MAINTENANCE_DEAD_AFTER_MS = 600 * 1000 };

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
    if (store->maintenance)
        pgconn_doubt(store->maintenance, store->options.dead_after_ms);
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
    if (store->work || store->control || store->maintenance)
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
on_maintenance_closed(void *owner)
{
    struct store *store = owner;
    store->maintenance = NULL;
    closed_one(store);
}

static void
on_maintenance_ready(void *owner)
{
    struct store *store = owner;
    store->options.on_maintenance_ready(store->options.owner);
}

static void
on_maintenance_lost(void *owner, const jobq_error *why)
{
    struct store *store = owner;
    store->options.on_maintenance_lost(store->options.owner, why);
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
    struct pgconn_options maintenance = control;
    maintenance.name = "maintenance";
    maintenance.setup = maintenance_setup;
    maintenance.batch_setup = maintenance_batch_setup;
    maintenance.on_ready = on_maintenance_ready;
    maintenance.on_lost = on_maintenance_lost;
    maintenance.dead_after_ms = MAINTENANCE_DEAD_AFTER_MS;
    int rc = pgconn_new(&store->control, loop, &control);
    if (rc == 0)
        rc = pgconn_new(&store->maintenance, loop, &maintenance);
    if (rc < 0)
        return rc;
    return pgconn_new(&store->work, loop, &work);
}

static void
close_all(struct store *store, bool flush)
{
    if (store->work)
        pgconn_close(store->work, flush, on_work_closed);
    if (store->maintenance)
        pgconn_close(store->maintenance, flush, on_maintenance_closed);
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
    const struct pgconn *all[] = {store->work, store->control, store->maintenance};
    int64_t most_ms = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int64_t ms = all[i] ? pgconn_overdue_ms(all[i]) : 0;
        if (ms > most_ms)
            most_ms = ms;
    }
    return most_ms;
}
