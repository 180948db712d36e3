/* migrate_private.h: what the files of the migration runner share. Not for anybody else.
 *
 * From the bottom: migrate_version.c: the files, and where a schema stands;
 * migrate_wait.c: how a step waits for locks; migrate.c: the steps; migrate_print.c: the
 * steps as a script.
 */
#ifndef JOBQD_MIGRATE_PRIVATE_H
#define JOBQD_MIGRATE_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "jobqd/db/migrate.h"
#include "jobqd/sql/embedded.h"

enum { MAX_NAME = 64 };
/* How long a step may keep others from their work. */
enum { LOCK_TRY_MS = 300 };

struct things {
    bool schema;
    bool history;    /* schema_version */
    bool jobs;       /* a table of that name: ours, or that of another program */
    int version;     /* of version(); MIGRATE_UNKNOWN: there is none */
    bool unreleased; /* a jobq from before the first release made it */
};

/* One run of the steps: how long it may wait in all, and whom it named last. */
struct patience {
    int64_t wait_ms;
    int64_t until_ms; /* by now_ms() */
    char pid[16];     /* "" for a prepared transaction */
    char holder[256];
    bool leaves;    /* it is an autovacuum, and we could ask it to */
    bool has_roles; /* those that we may make are committed: it is not said again */
};

/* ---- migrate_version.c ---- */

/* The text of NNNN_*.up.sql or NNNN_*.down.sql; NULL when there is none. */
const struct embedded_file *migrate_find_file(int version, const char *ending);
int migrate_find_things(PGconn *conn, const char *schema, struct things *out,
                        jobq_error *err);
int migrate_refuse_missing(const char *schema, jobq_error *err);
int migrate_refuse_newer(const char *schema, int found, jobq_error *err);

/* ---- migrate_wait.c ---- */

int64_t migrate_now_ms(void);
struct patience migrate_new_patience(int64_t wait_ms);
int migrate_set_lock_timeout(PGconn *conn, const char *schema, int64_t ms,
                             jobq_error *err);
/* After a step of `version` has failed and was rolled back: true when it was for want of
 * a lock and there is time for another try, which is now. Otherwise *err is complete. */
bool migrate_wait_for_lock(PGconn *conn, const char *schema, int version,
                           struct patience *patience, jobq_error *err);

/* ---- migrate.c ---- */

/* The text of version() that says this number, in memory that the caller frees. */
int migrate_version_text(int version, char **out, jobq_error *err);

#endif
