/* doctor_server.c: what doctor asks of the server as a whole: the connection, version,
 * schema, clock, and whether notifications arrive. See doctor.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jobqd/base/clock.h"
#include "jobqd/commands/doctor.h"
#include "jobqd/db/migrate.h"
#include "jobqd/db/rights.h"
#include "jobqd/embedded/postgres_binaries.h"
#include "jobqd/embedded/postgres_dir.h"
#include "jobqd/db/query.h"
#include "jobqd/config/conninfo.h"
#include "libjobq/duration.h"

enum {
    NEWEST_MAJOR = 18, /* that jobq was tried with */
    HEARD_WITHIN_MS = 2000,
    CLOCK_TOLERANCE_MS = 1000,
};

extern const char sql_doctor_server[], sql_doctor_listen[], sql_doctor_unlisten[],
    sql_doctor_notify[];

/* A cluster that is not there would be made, which is not a doctor's business. */
static bool
would_make_a_cluster(const struct config *config)
{
    struct postgres_dir dir;
    jobq_error err = {0};
    bool missing =
        config->embedded &&
        (postgres_dir_inspect(&dir, config->embedded, &err) < 0 || !dir.cluster);
    if (config->embedded)
        postgres_dir_clear(&dir);
    return missing;
}

static int
open_connection(struct doctor *doctor, const char **conninfo, jobq_error *err)
{
    const struct config *c = doctor->session.config;
    int rc = 0;
    *conninfo = c->database;
    if (c->embedded)
        rc = embedded_run_for_command(c->embedded, &doctor->session.embedded, conninfo,
                                      err);
    return rc < 0 ? rc : query_connect(*conninfo, &doctor->session.conn, err);
}

void
doctor_connect(struct doctor *doctor)
{
    const char *conninfo;
    jobq_error err = {0};
    PGresult *who = NULL;
    struct jobq__buf shown = {0};
    if (would_make_a_cluster(doctor->session.config)) {
        doctor_say(doctor, DOCTOR_WARN, "there is no embedded database to connect to",
                   "start jobqd, then run doctor again");
        return;
    }
    int rc = open_connection(doctor, &conninfo, &err);
    if (rc == 0)
        rc = session_query(&doctor->session, sql_doctor_server, 0, NULL, &who, &err);
    if (rc < 0) {
        doctor_say(doctor, DOCTOR_FAIL, err.message,
                   "start the server, or correct database, PG* or DATABASE_URL: psql "
                   "must be able to connect with the same settings");
        PQfinish(doctor->session.conn);
        doctor->session.conn = NULL;
        return;
    }
    conninfo_redact(&shown, conninfo ? conninfo : "");
    const char *text = jobq__buf_cstr(&shown);
    doctor->pooled = strtol(PQgetvalue(who, 0, 0), NULL, 10) !=
                     (long)PQbackendPID(doctor->session.conn);
    doctor_sayf(doctor, DOCTOR_OK, NULL, "%s: database %s as role %s%s",
                text && *text ? text : "libpq's defaults", PQgetvalue(who, 0, 3),
                PQgetvalue(who, 0, 2), doctor->pooled ? ", through a pooler" : "");
    jobq__buf_clear(&shown);
    PQclear(who);
}

void
doctor_look_at_version(struct doctor *doctor)
{
    int version = PQserverVersion(doctor->session.conn) / 10000;
    const char *text = PQparameterStatus(doctor->session.conn, "server_version");
    if (version < POSTGRES_OLDEST_MAJOR)
        doctor_sayf(doctor, DOCTOR_FAIL, "upgrade the server",
                    "PostgreSQL %s is too old: versions %d to %d are known to work", text,
                    POSTGRES_OLDEST_MAJOR, NEWEST_MAJOR);
    else if (version > NEWEST_MAJOR)
        doctor_sayf(doctor, DOCTOR_WARN, "check for a newer jobqd",
                    "PostgreSQL %s is newer than this jobqd was tested with: versions %d "
                    "to %d are known to work",
                    text, POSTGRES_OLDEST_MAJOR, NEWEST_MAJOR);
    else
        doctor_sayf(doctor, DOCTOR_OK, NULL, "PostgreSQL %s", text);
}

static const char *
remedy_for_version(int found)
{
    if (found == MIGRATE_UNRELEASED)
        return "save what you need from it, run DROP SCHEMA ... CASCADE, then jobqd "
               "migrate up; or use another schema";
    if (found == MIGRATE_UNKNOWN)
        return "run that INSERT with the schema version that the `jobqd version` of that "
               "time prints, then jobqd migrate up";
    return found < migrate_latest() ? "jobqd migrate up"
                                    : "use the jobqd version that made it";
}

void
doctor_look_at_schema(struct doctor *doctor)
{
    int found = 0;
    jobq_error err = {0};
    const char *schema = doctor->session.config->schema;
    char remedy[1024] = "";
    int rc =
        rights_check_foreign(doctor->session.conn, schema, remedy, sizeof remedy, &err);
    if (rc == JOBQ_ESCHEMA) {
        doctor_say(doctor, DOCTOR_FAIL, err.message, remedy);
        return;
    }
    if (rc == 0)
        rc = migrate_check(doctor->session.conn, schema, &found, &err);
    doctor->has_schema = rc == 0;
    if (rc == 0)
        doctor_sayf(doctor, DOCTOR_OK, NULL, "%s has version %d, which this jobqd needs",
                    schema, found);
    else if (rc == JOBQ_ESCHEMA) {
        /* The remedy says it. */
        char *hint =
            strstr(err.message, found == MIGRATE_UNRELEASED ? ". Save what"
                                                            : ": run `jobqd migrate up`");
        if (hint)
            *hint = '\0';
        doctor_say(doctor, DOCTOR_FAIL, err.message, remedy_for_version(found));
    } else
        doctor_say_failure(doctor, DOCTOR_FAIL, rc, &err);
}

/* ---- notifications ---- */

static int64_t
monotonic_ms(void)
{
    return (int64_t)(clock_ns() / 1000000);
}

static bool
is_heard(PGconn *conn)
{
    int64_t until_ms = monotonic_ms() + HEARD_WITHIN_MS;
    for (;;) {
        PGnotify *notify = PQnotifies(conn);
        PQfreemem(notify);
        int64_t left_ms = until_ms - monotonic_ms();
        if (notify || left_ms <= 0)
            return notify != NULL;
        struct pollfd ready = {.fd = PQsocket(conn), .events = POLLIN};
        if ((poll(&ready, 1, (int)left_ms) < 0 && errno != EINTR) ||
            !PQconsumeInput(conn))
            return false;
    }
}

static void
say_listening(struct doctor *doctor, bool heard)
{
    bool wanted = doctor->session.config->notify;
    if (heard)
        doctor_sayf(doctor, DOCTOR_OK, NULL, "notifications arrive%s",
                    doctor->pooled ? ", through a pooler that keeps sessions" : "");
    else if (!wanted)
        doctor_sayf(
            doctor, DOCTOR_OK, NULL,
            "notifications do not arrive%s, but notify is off, so none are needed",
            doctor->pooled ? ": a pooler in transaction mode" : "");
    else if (doctor->pooled)
        doctor_say(doctor, DOCTOR_WARN,
                   "a pooler in transaction mode does not pass on LISTEN, so jobs are "
                   "found only by polling",
                   "give jobqd the server's own address, or set notify = off if polling "
                   "every poll_interval is enough");
    else
        doctor_sayf(doctor, DOCTOR_WARN,
                    "check what lies between jobqd and the server; until then jobs are "
                    "found only by polling",
                    "a notification did not arrive within %s",
                    jobq__duration_show(HEARD_WITHIN_MS).text);
}

void
doctor_look_at_listening(struct doctor *doctor)
{
    const struct config *c = doctor->session.config;
    PGconn *other = NULL;
    jobq_error err = {0};
    const char *conninfo = doctor->session.embedded || c->embedded ? NULL : c->database;
    char *uri = NULL;
    int rc = c->embedded ? embedded_uri(c->embedded, &uri, &err) : 0;
    if (rc == 0)
        rc = query_connect(uri ? uri : conninfo, &other, &err);
    if (rc == 0)
        rc = session_query(&doctor->session, sql_doctor_listen, 0, NULL, NULL, &err);
    if (rc == 0)
        rc = query(other, c->schema, sql_doctor_notify, 0, NULL, NULL, &err);
    if (rc == 0)
        say_listening(doctor, is_heard(doctor->session.conn));
    else
        doctor_sayf(doctor, DOCTOR_WARN,
                    "fix this; until then jobs are found only by polling",
                    "could not try LISTEN and NOTIFY: %s", err.message);
    /* Behind a pooler nobody knows which session has listened. */
    session_query(&doctor->session, sql_doctor_unlisten, 0, NULL, NULL, NULL);
    if (other)
        query(other, c->schema, sql_doctor_unlisten, 0, NULL, NULL, NULL);
    PQfinish(other);
    free(uri);
}

/* ---- the clock ---- */

static double
host_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* jobqd goes by the database's clock alone; people compare its log with the table. */
void
doctor_look_at_clock(struct doctor *doctor)
{
    jobq_error err = {0};
    PGresult *rows = NULL;
    double before = host_ms();
    if (session_query(&doctor->session, sql_doctor_server, 0, NULL, &rows, &err) < 0) {
        doctor_sayf(doctor, DOCTOR_WARN, "try again", "could not check: %s", err.message);
        return;
    }
    double after = host_ms();
    double database = strtod(PQgetvalue(rows, 0, 1), NULL);
    PQclear(rows);
    double ahead = database > after ? database - after : database - before;
    if (database >= before && database <= after)
        ahead = 0;
    if (ahead < CLOCK_TOLERANCE_MS && ahead > -CLOCK_TOLERANCE_MS)
        doctor_say(doctor, DOCTOR_OK, "this host and the database agree on the time",
                   NULL);
    else
        doctor_sayf(
            doctor, DOCTOR_WARN,
            "synchronize both with a time server; jobs use only the database's clock",
            "the database's clock is %.1f s %s this host's clock",
            (ahead < 0 ? -ahead : ahead) / 1000, ahead < 0 ? "behind" : "ahead of");
}
