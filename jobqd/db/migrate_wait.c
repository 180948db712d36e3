/* migrate_wait.c: how a step waits for locks that others hold.
 *
 * A change of a table needs it for itself, for an instant. But while it waits for that (a
 * transaction that has enqueued a job may stay open for hours), everybody who comes later
 * waits behind it: nobody can enqueue. So a step waits for a moment only, gives up all
 * that it has locked, lets the others pass, and tries again.
 */
#include "jobqd/db/migrate_private.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/db/query.h"
#include "libjobq/duration.h"
#include "libjobq/error.h"

/* PAUSE_MIN_MS: how long the others have, at the least, until the next try. */
enum { PAUSE_MIN_MS = 700, PAUSE_JITTER_MS = 600 };
/* What was asked to leave has left by then. */
enum { AUTOVACUUM_GOES_MS = 100 };

extern const char sql_migrate_patience[], sql_migrate_holder[], sql_migrate_cancel[];

int64_t
migrate_now_ms(void)
{
    return (int64_t)(clock_ns() / 1000000);
}

struct patience
migrate_new_patience(int64_t wait_ms)
{
    return (struct patience){.wait_ms = wait_ms, .until_ms = migrate_now_ms() + wait_ms};
}

int
migrate_set_lock_timeout(PGconn *conn, const char *schema, int64_t ms, jobq_error *err)
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
    int64_t left_ms = patience->until_ms - migrate_now_ms();
    if (!told && left_ms > 0)
        log_warning("migrate",
                    "%s is waiting for a lock that %s holds: retrying for up to %lld s, "
                    "letting other sessions through in between",
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
        patience->leaves ? AUTOVACUUM_GOES_MS : PAUSE_MIN_MS + random % PAUSE_JITTER_MS;
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

/* After a step of `version` has failed and was rolled back: true when it was for want of
 * a lock and there is time for another try, which is now. Otherwise *err is complete. */
bool
migrate_wait_for_lock(PGconn *conn, const char *schema, int version,
                      struct patience *patience, jobq_error *err)
{
    char step[MAX_NAME + 16];
    if (strcmp(err->sqlstate, "55P03") != 0 && strcmp(err->sqlstate, "40P01") != 0)
        return false;
    name_holder(conn, schema, version, patience);
    if (migrate_now_ms() < patience->until_ms) {
        pause_for_others(patience);
        return true;
    }
    jobq__error(err, err->code,
                "%s could not get its lock within %s, because %s holds it; nothing was "
                "changed: end that session, or wait longer with --lock-wait",
                step_text(version, step, sizeof step),
                jobq__duration_show(patience->wait_ms).text, patience->holder);
    memcpy(err->sqlstate, "55P03", 6);
    return false;
}
