/* migrate.h: brings the schema to the version that this jobqd knows, and says where it
 * stands.
 *
 * The migrations are the files of migrations/, compiled in: 0001_core.up.sql with
 * 0001_core.down.sql, and so on without a gap. Each runs in one transaction under an
 * advisory lock of the schema's own, and leaves a row in schema_version. Plain blocking
 * libpq: for commands, and for the daemon before its loop starts.
 */
#ifndef JOBQD_MIGRATE_H
#define JOBQD_MIGRATE_H

#include <jobq/error.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* How long the steps wait for locks that others hold, in all, unless one says otherwise.
 * Nobody else is kept waiting for that long: see migrate.c. */
#define MIGRATE_LOCK_WAIT_MS 60000

/* The version that this jobqd needs: the number of its last migration. */
int migrate_latest(void);

/* The name of a migration (1 … migrate_latest()), such as "core". Ownership: lent,
 * static. */
const char *migrate_name(int version);

/* Whether the schema is the one that this jobqd needs. *found is its version: 0 when it
 * is missing, and set also when JOBQ_ESCHEMA is returned. JOBQ_ESCHEMA: the message says
 * missing, older or newer, and the command that mends it. JOBQ_ECONN, JOBQ_EDB,
 * JOBQ_ENOMEM. */
int migrate_check(PGconn *conn, const char *schema, int *found, jobq_error *err);

/* The version alone; 0 when the schema is missing. */
int migrate_version(PGconn *conn, const char *schema, int *out, jobq_error *err);

/* Called after each step was committed; up: applied, else taken back. */
typedef void (*migrate_report)(void *data, int version, const char *name, bool up);

/* Applies what is missing up to version `to` (0: all). JOBQ_EINVAL when there is no such
 * version, JOBQ_ESCHEMA when the schema is newer than this jobqd knows, JOBQ_EDB with the
 * SQLSTATE 55P03 when a step got no lock within lock_wait_ms. A step that fails leaves
 * the schema at the step before. */
int migrate_apply(PGconn *conn, const char *schema, int to, int64_t lock_wait_ms,
                  migrate_report report, void *data, jobq_error *err);

/* Takes back the steps above version `to` (-1: the last one alone), the newest first.
 * Without force JOBQ_ESTATE while a node is running on the schema, or when live jobs
 * would be lost. At version 0 the schema is dropped, too, unless something of the user's
 * is in it. */
int migrate_revert(PGconn *conn, const char *schema, int to, bool force,
                   int64_t lock_wait_ms, migrate_report report, void *data,
                   jobq_error *err);

/* For the daemon's own database: connects to conninfo and applies all. JOBQ_ECONN when it
 * is away. */
int migrate_up(const char *conninfo, const char *schema, jobq_error *err);

/* What migrate_apply would run from version `from` to `to` (0: the newest), as a script
 * for psql. */
int migrate_print(FILE *out, const char *schema, int from, int to, jobq_error *err);

#endif
