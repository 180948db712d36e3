/* migrate.c: see migrate.h. What the migrations do is in their files; here is only their
 * order and their bookkeeping, and how they wait for locks.
 *
 * A change of a table needs it for itself, for an instant. But while it waits for that (a
 * transaction that has enqueued a job may stay open for hours), everybody who comes later
 * waits behind it: nobody can enqueue. So a step waits for a moment alone, gives up all
 * that it has locked, lets the others pass, and tries again.
 */
#include "jobqd/db/migrate.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "jobqd/db/query.h"
#include "jobqd/db/rights.h"
#include "jobqd/base/log.h"
#include "jobqd/base/sqltext.h"
#include "jobqd/sql/embedded.h"
#include "libjobq/error.h"
#include "libjobq/duration.h"

#define MAX_NAME 64
#define LOCK_TRY_MS 300 /* how long a step may keep others from their work */
#define PAUSE_LEAST_MS                                                                   \
    700 /* and how long they have, at the least, until the next try                      \
         */
#define PAUSE_JITTER_MS 600
#define AUTOVACUUM_GOES_MS 100 /* what was asked to leave has left by then */

extern const char sql_migrate_lock[], sql_migrate_found[], sql_migrate_table[],
    sql_migrate_read[], sql_migrate_version[], sql_migrate_note[], sql_migrate_fill[],
    sql_migrate_forget[], sql_migrate_nodes[], sql_migrate_jobs[], sql_migrate_rest[],
    sql_migrate_patience[], sql_migrate_holder[], sql_migrate_cancel[],
    sql_migrate_schema[], sql_migrate_roles[], sql_migrate_grant[], sql_migrate_begin[],
    sql_migrate_become[];

/* ---- The files ---- */

/* The text of NNNN_*.up.sql or NNNN_*.down.sql; NULL when there is none. */
static const struct embedded_file *
find_file(int version, const char *ending)
{
    for (unsigned i = 0; i < embedded_migrations_count; i++) {
        const struct embedded_file *file = &embedded_migrations[i];
        size_t len = strlen(file->name), tail = strlen(ending);
        if (strtol(file->name, NULL, 10) == version && len > tail &&
            strcmp(file->name + len - tail, ending) == 0)
            return file;
    }
    return NULL;
}

int
migrate_latest(void)
{
    int version = 0;
    while (find_file(version + 1, ".up.sql") != NULL)
        version++;
    return version;
}

const char *
migrate_name(int version)
{
    static char name[MAX_NAME];
    const struct embedded_file *file = find_file(version, ".up.sql");
    const char *begin = file != NULL ? strchr(file->name, '_') : NULL;
    if (begin == NULL)
        return "?";
    size_t len = strcspn(++begin, ".");
    if (len >= sizeof name)
        len = sizeof name - 1;
    memcpy(name, begin, len);
    name[len] = '\0';
    return name;
}

/* ---- Where the schema stands ---- */

struct things {
    bool schema;
    bool history;    /* schema_version */
    bool jobs;       /* a table of that name: ours, or that of another program */
    int version;     /* of version(); MIGRATE_UNKNOWN: there is none */
    bool unreleased; /* a jobq from before the first release made it */
};

static int
find_things(PGconn *conn, const char *schema, struct things *out, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_found, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    out->schema = *PQgetvalue(result, 0, 0) == 't';
    out->history = *PQgetvalue(result, 0, 1) == 't';
    out->jobs = *PQgetvalue(result, 0, 2) == 't';
    out->version =
        PQgetisnull(result, 0, 3) ? MIGRATE_UNKNOWN : atoi(PQgetvalue(result, 0, 3));
    out->unreleased = *PQgetvalue(result, 0, 4) == 't';
    PQclear(result);
    return 0;
}

/* A schema from before it had version(). */
static int
read_history(PGconn *conn, const char *schema, int *out, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_read, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    *out = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    return 0;
}

/* Its steps are not those of the release: none of ours fits on it, neither up nor down.
 */
static int
refuse_unreleased(const char *schema, int *out, jobq_error *err)
{
    *out = MIGRATE_UNRELEASED;
    return jobq__error(
        err, JOBQ_ESCHEMA,
        "schema %s was made by a jobq from before its first release: this jobqd can "
        "neither migrate nor drop it. Save what you need of it (SELECT ... FROM "
        "%s.all_jobs), then run DROP SCHEMA \"%s\" CASCADE and `jobqd migrate up`; or "
        "leave it, and take another schema with --schema",
        schema, schema, schema);
}

int
migrate_version(PGconn *conn, const char *schema, int *out, jobq_error *err)
{
    struct things found = {0};
    int version = 0;
    int rc = find_things(conn, schema, &found, err);
    if (rc == 0 && found.jobs && found.unreleased)
        return refuse_unreleased(schema, out, err);
    if (rc == 0 && found.jobs && found.version != MIGRATE_UNKNOWN)
        version = found.version;
    else if (rc == 0 && found.history)
        rc = read_history(conn, schema, &version, err);
    if (rc == 0 && version == 0 && found.history && found.jobs) {
        *out = MIGRATE_UNKNOWN;
        return jobq__error(
            err, JOBQ_ESCHEMA,
            "schema %s has jobq's tables, but nothing says of which version: there is no "
            "function %s.version(), and %s.schema_version is empty, as after a dump of "
            "the schema alone that was made before that function was there. Say which "
            "version it was: INSERT INTO %s.schema_version VALUES (N, 'restored')",
            schema, schema, schema, schema);
    }
    if (rc == 0)
        *out = version;
    return rc;
}

static int
refuse_missing(const char *schema, jobq_error *err)
{
    return jobq__error(err, JOBQ_ESCHEMA,
                       "schema %s is missing in this database: run `jobqd migrate up`",
                       schema);
}

static int
refuse_newer(const char *schema, int found, jobq_error *err)
{
    return jobq__error(
        err, JOBQ_ESCHEMA,
        "schema %s has version %d, this jobqd knows up to %d: install a newer jobqd, "
        "or run `jobqd migrate down %d` of the one that made it",
        schema, found, migrate_latest(), migrate_latest());
}

int
migrate_check(PGconn *conn, const char *schema, int *found, jobq_error *err)
{
    int version = 0;
    int rc = rights_check_foreign(conn, schema, NULL, 0, err);
    if (rc != 0) {
        *found = MIGRATE_FOREIGN;
        return rc;
    }
    rc = migrate_version(conn, schema, &version, err);
    if (rc == 0 || rc == JOBQ_ESCHEMA)
        *found = version;
    if (rc != 0)
        return rc;
    if (version == 0)
        return refuse_missing(schema, err);
    if (version < migrate_latest())
        return jobq__error(
            err, JOBQ_ESCHEMA,
            "schema %s has version %d, this jobqd needs %d: run `jobqd migrate up`",
            schema, version, migrate_latest());
    if (version > migrate_latest())
        return refuse_newer(schema, version, err);
    return 0;
}

/* ---- Waiting for locks ---- */

/* One run of the steps: how long it may wait in all, and whom it named last. */
struct patience {
    int64_t wait_ms;
    int64_t until_ms; /* by now_ms() */
    char pid[16];     /* "" for a prepared transaction */
    char holder[256];
    bool leaves;    /* it is an autovacuum, and we could ask it to */
    bool has_roles; /* those that we may make are committed: it is not said again */
};

static int64_t
now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct patience
new_patience(int64_t wait_ms)
{
    return (struct patience){.wait_ms = wait_ms, .until_ms = now_ms() + wait_ms};
}

static int
set_lock_timeout(PGconn *conn, const char *schema, int64_t ms, jobq_error *err)
{
    char number[24];
    /* 0 would be no limit at all. */
    snprintf(number, sizeof number, "%lld", (long long)(ms > 1 ? ms : 1));
    const char *params[] = {number};
    return query(conn, schema, sql_migrate_patience, 1, params, NULL, err);
}

/* Autovacuum gives way to a lock that is waited for, but only after deadlock_timeout (1 s
 * by default), for which we do not wait. When we may not ask it to, it comes to its end
 * by itself. */
static bool
ask_to_leave(PGconn *conn, const char *schema, const char *pid)
{
    const char *params[] = {pid};
    return query(conn, schema, sql_migrate_cancel, 1, params, NULL, NULL) == 0;
}

/* "step 0006 (ends)"; the step is not known while another migration is under way. */
static const char *
step_text(int version, char *text, size_t size)
{
    if (version == 0)
        return "the next step";
    snprintf(text, size, "step %04d (%s)", version, migrate_name(version));
    return text;
}

/* Fills patience->holder with who holds what the failed try waited for, and says so when
 * it is not the one that was named before. */
static void
name_holder(PGconn *conn, const char *schema, int version, struct patience *patience)
{
    char number[24], step[MAX_NAME + 16];
    const char *params[] = {number};
    const char *pid = "", *holder = "another session";
    PGresult *result = NULL;
    snprintf(number, sizeof number, "%d", LOCK_TRY_MS);
    patience->leaves = false;
    int rc = query(conn, schema, sql_migrate_holder, 1, params, &result, NULL);
    if (rc == 0 && PQntuples(result) > 0) {
        pid = PQgetvalue(result, 0, 0);
        holder = PQgetvalue(result, 0, 1);
        if (*PQgetvalue(result, 0, 2) == 't')
            patience->leaves = ask_to_leave(conn, schema, pid);
    }
    bool told = patience->holder[0] != '\0' && strcmp(pid, patience->pid) == 0;
    snprintf(patience->pid, sizeof patience->pid, "%s", pid);
    snprintf(patience->holder, sizeof patience->holder, "%s", holder);
    int64_t left_ms = patience->until_ms - now_ms();
    if (!told && left_ms > 0)
        log_warning("migrate",
                    "%s waits for a lock that %s holds: it is tried again for up to %lld "
                    "s, and others are let through in between",
                    step_text(version, step, sizeof step), holder,
                    (long long)((left_ms + 999) / 1000));
    PQclear(result);
}

/* An autovacuum that was cancelled comes again soon: the next try is to be there first.
 */
static void
pause_for_others(const struct patience *patience)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
        random = 0;
    int64_t ms =
        patience->leaves ? AUTOVACUUM_GOES_MS : PAUSE_LEAST_MS + random % PAUSE_JITTER_MS;
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

/* After a step of `version` has failed and was rolled back: true when it was for want of
 * a lock and there is time for another try, which is now. Otherwise *err is complete. */
static bool
wait_for_lock(PGconn *conn, const char *schema, int version, struct patience *patience,
              jobq_error *err)
{
    char step[MAX_NAME + 16];
    if (strcmp(err->sqlstate, "55P03") != 0 && strcmp(err->sqlstate, "40P01") != 0)
        return false;
    name_holder(conn, schema, version, patience);
    if (now_ms() < patience->until_ms) {
        pause_for_others(patience);
        return true;
    }
    jobq__error(err, err->code,
                "%s got no lock within %s, because %s holds it; nothing of it was "
                "done: end that session, or give it time with --lock-wait",
                step_text(version, step, sizeof step),
                jobq__duration_show(patience->wait_ms).text, patience->holder);
    memcpy(err->sqlstate, "55P03", 6);
    return false;
}

/* ---- Steps ---- */

/* BEGIN and the lock against other migrations, for which nobody else waits; then *version
 * is what nobody else changes until the transaction ends. What is asked first is whether
 * the schema is ours; grants: it will be, once the roles have their rights alone. */
static int
begin(PGconn *conn, const char *schema, const struct patience *patience, bool grants,
      int *version, jobq_error *err)
{
    /* With a stricter isolation as the database's default we would look with a snapshot
     * from before the wait. */
    int rc = query_begin(conn, "ISOLATION LEVEL READ COMMITTED READ WRITE", err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_begin, 0, NULL, NULL, err);
    if (rc == 0)
        rc = set_lock_timeout(conn, schema, patience->until_ms - now_ms(), err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_lock, 1, &schema, NULL, err);
    if (rc == 0)
        rc = rights_check_schema(conn, schema, grants, err);
    if (rc == 0)
        rc = migrate_version(conn, schema, version, err);
    if (rc == 0)
        rc = set_lock_timeout(conn, schema, LOCK_TRY_MS, err);
    return rc;
}

static int
fail_with(jobq_error *err, const jobq_error *why)
{
    if (err != NULL)
        *err = *why;
    return why->code;
}

/* COMMIT, or ROLLBACK when rc is an error; returns the first error. */
static int
end(PGconn *conn, const char *schema, int rc, jobq_error *err)
{
    if (rc == 0)
        return query(conn, schema, "COMMIT", 0, NULL, NULL, err);
    if (PQtransactionStatus(conn) == PQTRANS_INTRANS ||
        PQtransactionStatus(conn) == PQTRANS_INERROR)
        query(conn, schema, "ROLLBACK", 0, NULL, NULL, NULL);
    return rc;
}

/* The schema and its history of steps, before the first migration. */
static int
prepare(PGconn *conn, const char *schema, jobq_error *err)
{
    struct things found = {0};
    int rc = find_things(conn, schema, &found, err);
    if (rc == 0 && !found.schema)
        rc = query(conn, schema, "CREATE SCHEMA @schema@", 0, NULL, NULL, err);
    if (rc == 0 && !found.history)
        rc = query(conn, schema, sql_migrate_table, 0, NULL, NULL, err);
    return rc;
}

static int
run_file(PGconn *conn, const char *schema, int version, const char *ending,
         jobq_error *err)
{
    jobq_error why = {0};
    const struct embedded_file *file = find_file(version, ending);
    if (file == NULL)
        return jobq__error(err, JOBQ_EINVAL, "there is no migration %d%s", version,
                           ending);
    int rc = query(conn, schema, file->text, 0, NULL, NULL, &why);
    if (rc == 0)
        return 0;
    rc = jobq__error(err, rc, "%s: %s", file->name, why.message);
    if (err != NULL)
        memcpy(err->sqlstate, why.sqlstate, sizeof err->sqlstate);
    return rc;
}

static int
note(PGconn *conn, const char *schema, const char *sql, int version, jobq_error *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", version);
    const char *params[] = {number, migrate_name(version)};
    return query(conn, schema, sql, 2, params, NULL, err);
}

/* The text of version() that says this number, in memory that the caller frees. */
static int
version_text(int version, char **out, jobq_error *err)
{
    *out = sqltext_number(sql_migrate_version, "@version@", version);
    return *out != NULL ? 0 : jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

static int
forget_above(PGconn *conn, const char *schema, int version, jobq_error *err)
{
    char number[16];
    snprintf(number, sizeof number, "%d", version);
    const char *params[] = {number};
    return query(conn, schema, sql_migrate_forget, 1, params, NULL, err);
}

/* What is true of a schema of this version, however it came to it: version() says so,
 * schema_version has a row for each step up to it, none for a later one, and the roles
 * have their rights. In the step's own transaction, so that what it made was never to be
 * called by everybody. */
static int
complete(PGconn *conn, const char *schema, int version, jobq_error *err)
{
    char *text = NULL;
    int rc = version_text(version, &text, err);
    if (rc == 0)
        rc = query(conn, schema, text, 0, NULL, NULL, err);
    free(text);
    if (rc == 0)
        rc = forget_above(conn, schema, version, err);
    for (int step = 1; rc == 0 && step <= version; step++)
        rc = note(conn, schema, sql_migrate_fill, step, err);
    return rc != 0 ? rc : rights_grant(conn, schema, err);
}

/* One try of the next step up, in one transaction; with none left, what is missing beside
 * the steps is made good. *version is the step's, also when it failed; 0: there is none,
 * or it is not known yet. */
static int
step_up(PGconn *conn, const char *schema, int to, const struct patience *patience,
        int *version, jobq_error *err)
{
    int found = 0;
    *version = 0;
    int rc = begin(conn, schema, patience, false, &found, err);
    if (rc == 0 && found > migrate_latest())
        rc = refuse_newer(schema, found, err);
    if (rc == 0)
        rc = rights_check_bound(conn, schema, err);
    if (rc == 0 && !patience->has_roles)
        rc = rights_make_roles(conn, schema, err);
    if (rc == 0)
        rc = rights_become_owner(conn, schema, err);
    if (rc == 0)
        rc = prepare(conn, schema, err);
    if (rc == 0 && found < to) {
        *version = found + 1;
        rc = run_file(conn, schema, *version, ".up.sql", err);
        if (rc == 0)
            rc = note(conn, schema, sql_migrate_note, *version, err);
    }
    if (rc == 0)
        rc = complete(conn, schema, *version > 0 ? *version : found, err);
    return end(conn, schema, rc, err);
}

/* jobq's args and results are UTF-8, whatever the database holds: in SQL_ASCII or LATIN1
 * a job would fail, or its end, by the letters in it. */
static int
refuse_encoding(PGconn *conn, jobq_error *err)
{
    const char *encoding = PQparameterStatus(conn, "server_encoding");
    if (encoding == NULL || strcmp(encoding, "UTF8") == 0)
        return 0;
    return jobq__error(
        err, JOBQ_ESCHEMA,
        "the database's encoding is %s, and jobq needs UTF8: make another "
        "database (CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8'), "
        "and move what is in this one there",
        encoding);
}

int
migrate_apply(PGconn *conn, const char *schema, int to, int64_t lock_wait_ms,
              migrate_report report, void *data, jobq_error *err)
{
    struct patience patience = new_patience(lock_wait_ms);
    jobq_error why = {0};
    int version = 0;
    if (to == 0)
        to = migrate_latest();
    if (to < 1 || to > migrate_latest())
        return jobq__error(err, JOBQ_EINVAL, "there is no version %d: 1 to %d are known",
                           to, migrate_latest());
    if (refuse_encoding(conn, &why) != 0)
        return fail_with(err, &why);
    for (;;) {
        int rc = step_up(conn, schema, to, &patience, &version, &why);
        patience.has_roles = patience.has_roles || rc == 0;
        if (rc == 0 && version == 0)
            return 0;
        if (rc == 0 && report != NULL)
            report(data, version, migrate_name(version), true);
        if (rc != 0 && !wait_for_lock(conn, schema, version, &patience, &why))
            return fail_with(err, &why);
    }
}

/* A step down is refused while somebody relies on the schema. */
static int
refuse_in_use(PGconn *conn, const char *schema, int to, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema, sql_migrate_nodes, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    if (!PQgetisnull(result, 0, 0))
        rc = jobq__error(
            err, JOBQ_ESTATE,
            "schema %s is used by running nodes (%s): stop them first, or give --force",
            schema, PQgetvalue(result, 0, 0));
    PQclear(result);
    if (rc != 0 || to > 0)
        return rc;
    rc = query(conn, schema, sql_migrate_jobs, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    int n = atoi(PQgetvalue(result, 0, 0));
    PQclear(result);
    if (n > 0)
        return jobq__error(err, JOBQ_ESTATE,
                           "schema %s holds %s%d live job%s that would be lost: finish "
                           "or cancel them, or "
                           "give --force",
                           schema, n >= 1000 ? "at least " : "", n, n == 1 ? "" : "s");
    return 0;
}

/* After the last step: nothing of ours is left. What is the user's stays, and the schema
 * with it; so it does where we could not make it again. */
static int
drop_rest(PGconn *conn, const char *schema, jobq_error *err)
{
    PGresult *result = NULL;
    int rc = query(conn, schema,
                   "DROP TABLE @schema@.schema_version; DROP FUNCTION @schema@.version()",
                   0, NULL, NULL, err);
    if (rc == 0)
        rc = query(conn, schema, sql_migrate_rest, 0, NULL, &result, err);
    if (rc != 0)
        return rc;
    bool stays = *PQgetvalue(result, 0, 0) == 't';
    PQclear(result);
    return stays ? 0 : query(conn, schema, "DROP SCHEMA @schema@", 0, NULL, NULL, err);
}

/* One try of the next step down. *to, when it is -1, becomes the version that it shall
 * end at; *version is as in step_up. */
static int
step_down(PGconn *conn, const char *schema, int *to, bool force,
          const struct patience *patience, int *version, jobq_error *err)
{
    int found = 0;
    *version = 0;
    int rc = begin(conn, schema, patience, false, &found, err);
    if (rc == 0 && found > migrate_latest())
        rc = refuse_newer(schema, found, err);
    if (rc == 0 && *to < 0)
        *to = found > 0 ? found - 1 : 0;
    if (rc == 0 && *to > found)
        rc = jobq__error(err, JOBQ_EINVAL, "schema %s has version %d already, below %d",
                         schema, found, *to);
    if (rc != 0 || found <= *to)
        return end(conn, schema, rc, err);
    *version = found;
    if (!force)
        rc = refuse_in_use(conn, schema, *to, err);
    if (rc == 0)
        rc = rights_become_owner(conn, schema, err);
    if (rc == 0)
        rc = run_file(conn, schema, found, ".down.sql", err);
    if (rc == 0)
        rc = complete(conn, schema, found - 1, err);
    if (rc == 0 && found == 1)
        rc = drop_rest(conn, schema, err);
    return end(conn, schema, rc, err);
}

int
migrate_revert(PGconn *conn, const char *schema, int to, bool force, int64_t lock_wait_ms,
               migrate_report report, void *data, jobq_error *err)
{
    struct patience patience = new_patience(lock_wait_ms);
    jobq_error why = {0};
    int version = 0;
    for (;;) {
        int rc = step_down(conn, schema, &to, force, &patience, &version, &why);
        if (rc == 0 && version == 0)
            return 0;
        if (rc == 0 && report != NULL)
            report(data, version, migrate_name(version), false);
        if (rc != 0 && !wait_for_lock(conn, schema, version, &patience, &why))
            return fail_with(err, &why);
    }
}

/* ---- Rights ---- */

static int
grant_once(PGconn *conn, const char *schema, const struct patience *patience,
           PGresult **before, PGresult **after, jobq_error *err)
{
    int found = 0;
    int rc = begin(conn, schema, patience, true, &found, err);
    if (rc == 0 && found == 0)
        rc = refuse_missing(schema, err);
    if (rc == 0 && found > migrate_latest())
        rc = refuse_newer(schema, found, err);
    if (rc == 0)
        rc = rights_make_roles(conn, schema, err);
    if (rc == 0)
        rc = rights_become_owner(conn, schema, err);
    if (rc == 0)
        rc = rights_wrong(conn, schema, before, err);
    if (rc == 0)
        rc = rights_grant(conn, schema, err);
    if (rc == 0)
        rc = rights_wrong(conn, schema, after, err);
    return end(conn, schema, rc, err);
}

int
migrate_grant(PGconn *conn, const char *schema, int64_t lock_wait_ms, PGresult **before,
              PGresult **after, jobq_error *err)
{
    struct patience patience = new_patience(lock_wait_ms);
    for (;;) {
        jobq_error why = {0};
        PGresult *found = NULL, *left = NULL;
        if (grant_once(conn, schema, &patience, &found, &left, &why) == 0) {
            *before = found; /* the caller's, like the other */
            *after = left;
            return 0;
        }
        PQclear(found);
        PQclear(left);
        if (!wait_for_lock(conn, schema, 0, &patience, &why))
            return fail_with(err, &why);
    }
}

int
migrate_up(const char *conninfo, const char *schema, jobq_error *err)
{
    PGconn *conn = NULL;
    int rc = query_connect(conninfo, &conn, err);
    if (rc != 0)
        return rc;
    rc = migrate_apply(conn, schema, 0, MIGRATE_LOCK_WAIT_MS, NULL, NULL, err);
    PQfinish(conn);
    return rc;
}

/* ---- As a script ---- */

static int
print_sql(FILE *out, const char *schema, const char *sql, jobq_error *err)
{
    char *text = NULL;
    int rc = sqltext_expand(sql, schema, &text, err);
    if (rc != 0)
        return rc;
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    fprintf(out, "%s%s\n\n", text, len > 0 && text[len - 1] == ';' ? "" : ";");
    free(text);
    return 0;
}

int
migrate_print(FILE *out, const char *schema, int from, int to, jobq_error *err)
{
    if (to == 0)
        to = migrate_latest();
    if (to < 1 || to > migrate_latest())
        return jobq__error(err, JOBQ_EINVAL, "there is no version %d: 1 to %d are known",
                           to, migrate_latest());
    char *version_sql = NULL;
    int rc = print_sql(out, schema, "\\set ON_ERROR_STOP on\nBEGIN READ WRITE", err);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_begin, err);
    if (rc == 0 && from == 0)
        rc = print_sql(out, schema, sql_migrate_schema, err);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_roles, err);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_become, err);
    if (rc == 0 && from == 0)
        rc = print_sql(out, schema, sql_migrate_table, err);
    for (int version = from + 1; rc == 0 && version <= to; version++) {
        rc = print_sql(out, schema, find_file(version, ".up.sql")->text, err);
        /* The name is one of our files': letters and underscores, nothing to quote. */
        if (rc == 0)
            fprintf(out,
                    "INSERT INTO \"%s\".schema_version (version, name) VALUES (%d, "
                    "'%s');\n\n",
                    schema, version, migrate_name(version));
    }
    if (rc == 0)
        rc = version_text(to, &version_sql, err);
    if (rc == 0)
        rc = print_sql(out, schema, version_sql, err);
    free(version_sql);
    if (rc == 0)
        rc = print_sql(out, schema, sql_migrate_grant, err);
    return rc != 0 ? rc : print_sql(out, schema, "COMMIT", err);
}
