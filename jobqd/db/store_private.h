/* store_private.h: what the files of the store share. For nobody else, but bench,
 * which runs the same statements without a loop.
 *
 * store.c: the connections; store_ask.c: one request; store_requests.c: the rare ones;
 * store_cycle.c: the cycle; store_fetch.c: large arguments; store_list.c: answers of many
 * rows; store_sql.c: the statements' texts.
 */
#ifndef JOBQD_STORE_PRIVATE_H
#define JOBQD_STORE_PRIVATE_H

#include "libjobq/params.h"
#include "jobqd/db/pgconn.h"
#include "jobqd/db/store.h"

/* The statements of jobqd/sql by name. claim.sql is there once for each prepared size. */
/* clang-format off */
#define STATEMENTS(X) \
    X(note) X(look) X(fetch) X(ack) X(ack_drop) X(held) X(settle) X(settle_apart) X(claim_apart) X(session) \
    X(audit) X(node_find) X(node_insert) X(heartbeat) X(node_upgraded) X(node_reloaded) X(watch) X(reap_mark) X(reap) \
    X(idle_set) X(idle_clear) X(leave_mark) X(goodbye) X(lead) X(stage) \
    X(cancels) X(settings) X(ages) X(cancel_again) X(progress) X(strays) X(expire) X(lock_holders) X(version) X(foreign) \
    X(partitions_create) X(partitions_drop) X(prune_uniques) X(prune) \
    X(cron_fire) X(cron_declare) X(cron_boot) X(cron_sweep) X(queues_declare) X(hooks_declare)
/* clang-format on */

enum statement_id {
#define X(name) STATEMENT_##name,
    STATEMENTS(X)
#undef X
        STATEMENT_COUNT
};

enum { CLAIM_SIZES = 11 }; /* 1, 2, 4 … 1024 */

/* What one claim may bring of stored args, and of meta: a job with more than its share is
 * fetched by itself. With the largest claim that share is about what Postgres keeps in
 * the row. */
enum { CLAIM_BYTES = 2 * 1024 * 1024 };

struct store_sql {
    char *texts[STATEMENT_COUNT];
    char *claims[CLAIM_SIZES];
    char claim_names[CLAIM_SIZES][16];
    char *aged_claims[CLAIM_SIZES]; /* claim_aged.sql */
    char aged_claim_names[CLAIM_SIZES][24];
};

int store_sql_init(struct store_sql *sql, const char *schema, jobq_error *err);
void store_sql_clear(struct store_sql *sql);
const char *store_sql_name(enum statement_id id); /* the prepared statement's name */

/* Which claim size to use for `want` jobs: the largest that is not larger. want > 0. */
size_t store_claim_size(size_t want);

struct store {
    struct store_options options;
    struct store_sql sql;
    struct pgconn *work;    /* NULL once closed */
    struct pgconn *control; /* likewise */
    struct pgconn
        *maintenance; /* likewise: what may take long, so that no lease waits behind it */
    void (*on_closed)(void *owner);
    struct jobq__array arrays[PGCONN_MAX_PARAMS]; /* builders, kept for their memory */
    struct store_claimed claimed[STORE_MAX_CLAIM];
    struct store_fate fates[STORE_MAX_SETTLE];
    struct store_refusal refusals[STORE_MAX_CLAIM_APART];
};

struct pgconn_statement store_statement(const struct store *store, enum statement_id id,
                                        const struct jobq__params *params);

/* ---- store_requests.c ---- */

/* A setting for the batch: read by the index, however few rows the statistics speak of. */
struct pgconn_statement store_by_index(void);

/* ---- store_ask.c ---- */

int store_ask(struct pgconn *conn, const struct pgconn_statement *statements, size_t n,
              bool adds_setting, store_done done, void *data);
int store_ask_one(struct store *store, struct pgconn *conn, enum statement_id id,
                  const struct jobq__params *params, store_done done, void *data);
int store_ask_control(struct store *store, enum statement_id id,
                      const struct jobq__params *params, store_done done, void *data);

#endif
