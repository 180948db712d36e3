/* pgworld.h: what the tests of the connection share: a loop, one connection whose events
 * are written down, batches that remember what became of them, a second connection to act
 * behind the first one's back, and the proxy of faultproxy.py. */
#ifndef TESTS_PGWORLD_H
#define TESTS_PGWORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "jobqd/base/log.h"
#include "jobqd/db/pgconn.h"

#define LIMIT_NS 60000000000ULL /* for anything that is waited for */

/* Runs the loop until the condition holds. */
#define wait_for(condition)                                                              \
    do {                                                                                 \
        uint64_t until_ns = uv_hrtime() + LIMIT_NS;                                      \
        while (!(condition)) {                                                           \
            if (uv_hrtime() > until_ns)                                                  \
                fail_msg("waited in vain for: %s (ready %d, lost %d: %s)", #condition,   \
                         world.ready, world.lost, world.why.message);                    \
            uv_run(&world.loop, UV_RUN_ONCE);                                            \
        }                                                                                \
    } while (0)

/* One batch, and what became of it. */
struct asked {
    int calls;
    int code;
    int order; /* the how manieth completion of all */
    uint64_t at_ms;
    bool sent;
    bool too_early; /* completed from inside pgconn_batch */
    size_t n_results;
    char sqlstate[6];
    char message[512];
    char text[64]; /* the first field of the last result, and how many rows that has */
    int rows;
};

enum { THEN_NEVER, THEN_READY, THEN_LOST, THEN_NOTIFY, THEN_DONE };

static struct {
    const char *conninfo;
    PGconn *admin;
    uv_loop_t loop;
    uv_timer_t tick;   /* so that a loop with nothing to do comes back */
    uv_prepare_t look; /* sees states that last for less than a turn of the loop */
    enum pgconn_state awaited;
    void (*then_in_state)(void);
    struct pgconn *conn;
    struct pgconn_options options;
    int ready;
    int lost;
    int closed;
    int completed;
    int notified;
    bool asking; /* we are inside pgconn_batch */
    jobq_error why;
    char payload[64];
    void (*then)(void); /* called once by the next event of this kind: */
    int when;           /* one of THEN_… */
} world;

static inline void
happened(int when)
{
    void (*then)(void) = world.then;
    if (world.when != when)
        return;
    world.when = THEN_NEVER;
    then();
}

static inline void
on_ready(void *owner)
{
    assert_ptr_equal(owner, &world);
    assert_false(world.asking);
    assert_int_equal(world.closed, 0);
    world.ready++;
    happened(THEN_READY);
}

static inline void
on_lost(void *owner, const jobq_error *why)
{
    assert_ptr_equal(owner, &world);
    assert_false(world.asking);
    assert_int_equal(world.closed, 0);
    world.lost++;
    world.why = *why;
    happened(THEN_LOST);
}

static inline void
on_notify(void *owner, const char *channel, const char *payload)
{
    assert_ptr_equal(owner, &world);
    assert_string_equal(channel, "jobq_test");
    world.notified++;
    snprintf(world.payload, sizeof world.payload, "%s", payload);
    happened(THEN_NOTIFY);
}

static inline void
on_closed(void *owner)
{
    assert_ptr_equal(owner, &world);
    world.closed++;
    world.conn = NULL;
}

static inline void
on_done(void *data, const struct pgconn_outcome *outcome)
{
    struct asked *asked = data;
    asked->calls++;
    asked->too_early = world.asking;
    asked->order = world.completed++;
    asked->at_ms = uv_now(&world.loop);
    asked->code = outcome->code;
    asked->sent = outcome->sent;
    asked->n_results = outcome->n_results;
    snprintf(asked->sqlstate, sizeof asked->sqlstate, "%s", outcome->error.sqlstate);
    snprintf(asked->message, sizeof asked->message, "%s", outcome->error.message);
    assert_int_equal(outcome->error.code, outcome->code);
    assert_true((outcome->code == 0) == (outcome->results != NULL));
    if (outcome->code == 0 && outcome->n_results > 0) {
        const PGresult *last = outcome->results[outcome->n_results - 1];
        asked->rows = PQntuples(last);
        if (asked->rows > 0 && PQnfields(last) > 0)
            snprintf(asked->text, sizeof asked->text, "%s", PQgetvalue(last, 0, 0));
    }
    happened(THEN_DONE);
}

static inline int
ask(struct asked *asked, const struct pgconn_statement *statements, size_t n)
{
    *asked = (struct asked){0};
    world.asking = true;
    int rc = pgconn_batch(world.conn, statements, n, on_done, asked);
    world.asking = false;
    return rc;
}

static inline void
ask_sql(struct asked *asked, const char *sql)
{
    const struct pgconn_statement statement = {.sql = sql};
    assert_int_equal(ask(asked, &statement, 1), 0);
}

static inline void
ask_named(struct asked *asked, const char *name, const char *sql)
{
    const struct pgconn_statement statement = {.name = name, .sql = sql};
    assert_int_equal(ask(asked, &statement, 1), 0);
}

static inline void
assert_text(const struct asked *asked, const char *text)
{
    if (asked->code != 0)
        fail_msg("the batch failed: %s", asked->message);
    assert_int_equal(asked->calls, 1);
    assert_false(asked->too_early);
    assert_string_equal(asked->text, text);
}

static inline void
assert_failed(const struct asked *asked, const char *sqlstate)
{
    assert_int_equal(asked->calls, 1);
    assert_false(asked->too_early);
    assert_int_equal(asked->code, JOBQ_EDB);
    assert_string_equal(asked->sqlstate, sqlstate);
}

static inline void
assert_lost(const struct asked *asked, bool sent)
{
    assert_int_equal(asked->calls, 1);
    assert_false(asked->too_early);
    assert_int_equal(asked->code, JOBQ_ECONN);
    assert_int_equal(asked->sent, sent);
}

/* Behind the connection's back. The first field of the result, or "". */
static inline const char *
admin(const char *sql)
{
    static char text[64];
    PGresult *result = PQexec(world.admin, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        fail_msg("%s: %s", sql, PQresultErrorMessage(result));
    text[0] = '\0';
    if (PQntuples(result) > 0)
        snprintf(text, sizeof text, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    return text;
}

#define WHERE_WE_ARE                                                                     \
    " FROM pg_stat_activity WHERE application_name = 'jobqd test' AND datname = "        \
    "current_database()"

static inline void
terminate(void)
{
    admin("SELECT count(pg_terminate_backend(pid))" WHERE_WE_ARE);
}

/* ---- the world's beginning and end ---- */

static inline int
find_database(void **state)
{
    (void)state;
    const struct log_options options = {
        .level = getenv("JOBQ_TEST_VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING};
    log_setup(&options);
    world.conninfo = getenv("JOBQ_TEST_DATABASE");
    if (world.conninfo)
        return 0;
    fprintf(stderr, "JOBQ_TEST_DATABASE is not set: it is to be a connection string of a "
                    "database for tests (tests/harness/with_database.py makes one)\n");
    return -1;
}

static inline void
on_tick(uv_timer_t *tick)
{
    (void)tick;
}

static inline void
on_look(uv_prepare_t *look)
{
    (void)look;
    void (*then)(void) = world.then_in_state;
    if (!then || !world.conn || pgconn_state(world.conn) != world.awaited)
        return;
    world.then_in_state = NULL;
    then();
}

/* Calls then as soon as the connection is in that state. */
static inline void
in_state(enum pgconn_state state, void (*then)(void))
{
    world.awaited = state;
    world.then_in_state = then;
}

static inline int
begin_world(void **state)
{
    (void)state;
    const char *conninfo = world.conninfo;
    memset(&world, 0, sizeof world);
    world.conninfo = conninfo;
    world.admin = PQconnectdb(conninfo);
    if (PQstatus(world.admin) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(world.admin));
        return -1;
    }
    admin("SET client_min_messages = warning");
    admin("SET search_path = public"); /* past the trap (harness/trap.py) */
    if (uv_loop_init(&world.loop) < 0 || uv_timer_init(&world.loop, &world.tick) < 0)
        return -1;
    uv_timer_start(&world.tick, on_tick, 50, 50);
    uv_prepare_init(&world.loop, &world.look);
    uv_prepare_start(&world.look, on_look);
    world.options = (struct pgconn_options){.conninfo = conninfo,
                                            .name = "test",
                                            .dead_after_ms = 30000,
                                            .on_ready = on_ready,
                                            .on_lost = on_lost,
                                            .on_notify = on_notify,
                                            .owner = &world};
    return 0;
}

static inline void
close_conn(bool flush)
{
    pgconn_close(world.conn, flush, on_closed);
    assert_int_equal(world.closed, 0); /* not from inside */
    wait_for(world.closed == 1);
}

static inline int
end_world(void **state)
{
    (void)state;
    if (world.conn)
        close_conn(false);
    uv_close((uv_handle_t *)&world.tick, NULL);
    uv_close((uv_handle_t *)&world.look, NULL);
    uv_run(&world.loop, UV_RUN_DEFAULT);
    PQfinish(world.admin);
    return uv_loop_close(&world.loop); /* not 0 when a handle was left open */
}

static inline void
start(void)
{
    world.closed = 0;
    world.ready = 0;
    assert_int_equal(pgconn_new(&world.conn, &world.loop, &world.options), 0);
    assert_int_equal(world.ready, 0);
}

static inline void
start_and_wait(void)
{
    start();
    wait_for(world.ready == 1);
    assert_int_equal(pgconn_state(world.conn), PGCONN_READY);
}

/* For callbacks. */
static inline void
reset(void)
{
    pgconn_reset(world.conn);
}

#endif
