/* migrate.h: brings the schema to the version that this jobqd knows, and says where it
 * stands.
 *
 * The migrations are the files of migrations/, compiled in: 0001_schema.up.sql with
 * 0001_schema.down.sql, and so on without a gap. Each runs in one transaction under an
 * advisory lock of the schema's own. The function version() says where the schema stands;
 * each step makes it anew. schema_version tells when each step was applied, and may be
 * empty: a dump of the schema without its data keeps the function alone. Plain blocking
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

/* Of a schema whose version nothing tells. */
#define MIGRATE_UNKNOWN (-1)
/* Of a schema that is another's: its version is not asked for. */
#define MIGRATE_FOREIGN (-2)
/* Of a schema that a jobq from before the first release made: no step fits on it. */
#define MIGRATE_UNRELEASED (-3)

/* The version that this jobqd needs: the number of its last migration. */
int migrate_latest(void);

/* The name of a migration (1 … migrate_latest()), such as "schema". Ownership: lent,
 * static. */
const char *migrate_name(int version);

/* Whether the schema is the one that this jobqd needs. *found is its version: 0 when it
 * is missing, MIGRATE_UNKNOWN when nothing tells it, MIGRATE_FOREIGN when it is another's
 * (rights_check_foreign), MIGRATE_UNRELEASED; it is set also when JOBQ_ESCHEMA is returned. JOBQ_ESCHEMA: the
 * message says missing, older, newer or whose, and what mends it. JOBQ_ECONN, JOBQ_EDB,
 * JOBQ_ENOMEM. */
int migrate_check(PGconn *conn, const char *schema, int *found, jobq_error *err);

/* The version of a schema that rights_check_foreign has accepted; 0 when the schema is
 * missing. JOBQ_ESCHEMA, with MIGRATE_UNKNOWN in *out when nothing tells it, or with
 * MIGRATE_UNRELEASED: the message says how to go on. */
int migrate_version(PGconn *conn, const char *schema, int *out, jobq_error *err);

/* Called after each step was committed; up: applied, else taken back. */
typedef void (*migrate_report)(void *data, int version, const char *name, bool up);

/* Applies what is missing up to version `to` (0: all), and gives the roles their rights.
 * JOBQ_EINVAL when there is no such version; JOBQ_ESCHEMA when the schema is newer than
 * this jobqd knows or not ours (db/rights.h), or the database's encoding is not UTF8;
 * JOBQ_EDB with the SQLSTATE 55P03 when a step got no lock within lock_wait_ms. A step
 * that fails leaves the schema at the step before. */
int migrate_apply(PGconn *conn, const char *schema, int to, int64_t lock_wait_ms,
                  migrate_report report, void *data, jobq_error *err);

/* Takes back the steps above version `to` (-1: the last one alone), the newest first.
 * Without force JOBQ_ESTATE while a node is running on the schema, or when live jobs
 * would be lost. At version 0 the schema is dropped, too, unless something of the user's
 * is in it. */
int migrate_revert(PGconn *conn, const char *schema, int to, bool force,
                   int64_t lock_wait_ms, migrate_report report, void *data,
                   jobq_error *err);

/* Gives jobq's roles the rights that sql/parts/grants.sql says, and takes all others on
 * jobq's own things from them and from PUBLIC; no other role's rights are touched. Roles
 * that are missing are created, where we may. *before and *after are what rights_wrong
 * found (db/rights.h), on success only. JOBQ_ESCHEMA when the schema is missing, newer
 * than this jobqd knows, or not ours. Ownership: both results are the caller's. */
int migrate_grant(PGconn *conn, const char *schema, int64_t lock_wait_ms,
                  PGresult **before, PGresult **after, jobq_error *err);

/* For the daemon's own database: connects to conninfo and applies all. JOBQ_ECONN when it
 * is away. */
int migrate_up(const char *conninfo, const char *schema, jobq_error *err);

/* What migrate_apply would run from version `from` to `to` (0: the newest), as a script
 * for psql. */
int migrate_print(FILE *out, const char *schema, int from, int to, jobq_error *err);

#endif
