/* doctor.c: the table of checks; runs them, and prints what they find. See doctor.h. */
#include "jobqd/commands/doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/base/escape.h"
#include "jobqd/db/query.h"
#include "jobqd/cli/table.h"

extern const char sql_doctor_begin[], sql_doctor_end[], sql_doctor_roles[],
    sql_doctor_rights[], sql_doctor_writes[], sql_doctor_durability[],
    sql_doctor_sessions[], sql_doctor_slots[], sql_doctor_prepared[],
    sql_doctor_dead_rows[], sql_doctor_autovacuum[], sql_doctor_indexes[],
    sql_doctor_hot[], sql_doctor_partitions[], sql_doctor_notifications[],
    sql_doctor_nodes[], sql_doctor_held[], sql_doctor_refusals[], sql_doctor_queues[],
    sql_doctor_connections[], sql_doctor_locks[], sql_doctor_encoding[],
    sql_doctor_owner[], sql_doctor_path[], sql_doctor_publications[], sql_doctor_guests[],
    sql_doctor_bound[], sql_doctor_workers[], sql_doctor_kinds[], sql_doctor_crons[];

/* clang-format off */
#define NO NULL
static const struct doctor_check checks[] = {
    {"config", NEEDS_NOTHING, doctor_look_at_config, NO, false, NULL, EX_CONFIG},
    {"programs", NEEDS_CONFIG, doctor_look_at_programs, NO, false, NULL, EX_CONFIG},
    {"trust", NEEDS_CONFIG, doctor_look_at_trust, NO, false, NULL, EX_CONFIG},
    {"open files", NEEDS_CONFIG, doctor_look_at_files, NO, false, NULL, EX_OSERR},
    {"embedded", NEEDS_CONFIG, doctor_look_at_embedded, NO, false, NULL, EX_UNAVAILABLE},
    {"connection", NEEDS_CONFIG, doctor_connect, NO, false, NULL, EX_UNAVAILABLE},
    {"server", NEEDS_SERVER, doctor_look_at_version, NO, false, NULL, EX_UNAVAILABLE},
    {"encoding", NEEDS_SERVER, NO, sql_doctor_encoding, false, NULL, EX_CONFIG},
    {"clock", NEEDS_SERVER, doctor_look_at_clock, NO, false, NULL, EX_UNAVAILABLE},
    {"writes", NEEDS_SERVER, NO, sql_doctor_writes, false, NULL, EX_UNAVAILABLE},
    {"connections", NEEDS_SERVER, NO, sql_doctor_connections, false, NULL, EX_UNAVAILABLE},
    {"notify", NEEDS_SERVER, doctor_look_at_listening, NO, false, NULL, EX_UNAVAILABLE},
    {"notify queue", NEEDS_SERVER, NO, sql_doctor_notifications, false, NULL, EX_UNAVAILABLE},
    {"sessions", NEEDS_SERVER, NO, sql_doctor_sessions, true, "no session holds vacuum back", EX_UNAVAILABLE},
    {"slots", NEEDS_SERVER, NO, sql_doctor_slots, false, "no replication slot is left unused", EX_UNAVAILABLE},
    {"prepared", NEEDS_SERVER, NO, sql_doctor_prepared, true, "no prepared transaction holds vacuum back", EX_UNAVAILABLE},
    {"search path", NEEDS_SERVER, NO, sql_doctor_path, false, "roles that use jobq have no schema on their search_path in which others may create objects", EX_NOPERM},
    {"owner", NEEDS_SERVER, NO, sql_doctor_owner, false, NULL, EX_NOPERM},
    {"schema", NEEDS_SERVER, doctor_look_at_schema, NO, false, NULL, EX_CONFIG},
    {"roles", NEEDS_SCHEMA, NO, sql_doctor_roles, false, NULL, EX_NOPERM},
    {"rights", NEEDS_SCHEMA, NO, sql_doctor_rights, false, NULL, EX_NOPERM},
    {"other roles", NEEDS_SCHEMA, NO, sql_doctor_guests, false, "no other role has more rights than jobq's roles, or a trigger on jobq's tables", EX_NOPERM},
    {"bindings", NEEDS_SCHEMA, NO, sql_doctor_bound, false, "jobq's objects call only functions of PostgreSQL and of jobq", EX_NOPERM},
    {"publications", NEEDS_SCHEMA, NO, sql_doctor_publications, false, NULL, EX_UNAVAILABLE},
    {"durability", NEEDS_SCHEMA, NO, sql_doctor_durability, false, "committed jobs survive a crash", EX_UNAVAILABLE},
    {"autovacuum", NEEDS_SCHEMA, NO, sql_doctor_autovacuum, false, "jobs is vacuumed, with jobq's settings", EX_UNAVAILABLE},
    {"dead rows", NEEDS_SCHEMA, NO, sql_doctor_dead_rows, false, NULL, EX_UNAVAILABLE},
    {"indexes", NEEDS_SCHEMA, NO, sql_doctor_indexes, false, "jobs has all its indexes, and none that slows down claims", EX_UNAVAILABLE},
    {"hot updates", NEEDS_SCHEMA, NO, sql_doctor_hot, false, NULL, EX_UNAVAILABLE},
    {"partitions", NEEDS_SCHEMA, NO, sql_doctor_partitions, false, "the history has partitions for today and tomorrow", EX_UNAVAILABLE},
    {"locks", NEEDS_SCHEMA, NO, sql_doctor_locks, false, NULL, EX_UNAVAILABLE},
    {"nodes", NEEDS_SCHEMA, NO, sql_doctor_nodes, false, "every node is alive and one is the leader", EX_UNAVAILABLE},
    {"held jobs", NEEDS_SCHEMA, NO, sql_doctor_held, false, NULL, EX_UNAVAILABLE},
    {"refused jobs", NEEDS_SCHEMA, NO, sql_doctor_refusals, false, NULL, 0},
    {"queues", NEEDS_SCHEMA, NO, sql_doctor_queues, false, "every queue with waiting jobs is served by a node", EX_UNAVAILABLE},
    {"workers", NEEDS_SCHEMA, NO, sql_doctor_workers, false, "the workers of every queue start", EX_UNAVAILABLE},
    {"crons", NEEDS_SCHEMA, NO, sql_doctor_crons, false, "the database accepts the crons of every node's configuration", EX_CONFIG},
    {"kinds", NEEDS_SCHEMA, NO, sql_doctor_kinds, false, "every kind with waiting jobs has a handler, as far as workers report", EX_UNAVAILABLE},
};
/* clang-format on */

/* ---- statements ---- */

static enum doctor_level
level_of(const char *name)
{
    if (strcmp(name, "ok") == 0)
        return DOCTOR_OK;
    return strcmp(name, "warn") == 0 ? DOCTOR_WARN : DOCTOR_FAIL;
}

static void
say_rows(struct doctor *doctor, const PGresult *rows)
{
    for (int i = 0; i < PQntuples(rows); i++)
        doctor_say(doctor, level_of(PQgetvalue(rows, i, 0)), PQgetvalue(rows, i, 1),
                   PQgetisnull(rows, i, 2) ? NULL : PQgetvalue(rows, i, 2));
    if (!doctor->said)
        doctor_say(doctor, DOCTOR_OK, doctor->check->ok, NULL);
}

static void
run_statement(struct doctor *doctor)
{
    char held[24];
    const char *params[] = {held};
    jobq_error err = {0};
    PGresult *rows = NULL;
    struct session *session = &doctor->session;
    snprintf(held, sizeof held, "%" PRId64, doctor->held_ms);
    int rc = query_begin(session->conn, "READ ONLY", &err);
    if (rc == 0)
        rc = session_query(session, sql_doctor_begin, 0, NULL, NULL, &err);
    if (rc == 0)
        rc = session_query(session, doctor->check->sql, doctor->check->takes_held, params,
                           &rows, &err);
    if (rc == 0)
        say_rows(doctor, rows);
    else
        doctor_say_failure(doctor, DOCTOR_WARN, rc, &err);
    PQclear(rows);
    session_query(session, sql_doctor_end, 0, NULL, NULL, NULL);
}

/* ---- all of it ---- */

static bool
can_run(const struct doctor *doctor, enum needs needs)
{
    switch (needs) {
    case NEEDS_NOTHING:
        return true;
    case NEEDS_CONFIG:
        return doctor->session.config != NULL;
    case NEEDS_SERVER:
        return doctor->session.conn && PQstatus(doctor->session.conn) == CONNECTION_OK;
    case NEEDS_SCHEMA:
        return doctor->has_schema && can_run(doctor, NEEDS_SERVER);
    }
    return false;
}

int
doctor_examine(struct doctor *doctor)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        NEEDS(X)
#undef X
    };
    size_t n = sizeof checks / sizeof checks[0], skipped = 0;
    enum needs missing = NEEDS_NOTHING;
    cJSON *answer = doctor->cli->json ? cJSON_CreateObject() : NULL;
    doctor->findings = tree_add_list(answer, "findings");
    for (size_t i = 0; i < n; i++) {
        doctor->check = &checks[i];
        doctor->said = false;
        if (!can_run(doctor, checks[i].needs)) {
            missing = skipped++ == 0 ? checks[i].needs : missing;
            continue;
        }
        if (checks[i].look)
            checks[i].look(doctor);
        else
            run_statement(doctor);
        fflush(stdout);
    }
    if (doctor->cli->json) {
        tree_add_int(answer, "ok", (int64_t)doctor->counts[DOCTOR_OK]);
        tree_add_int(answer, "warn", (int64_t)doctor->counts[DOCTOR_WARN]);
        tree_add_int(answer, "fail", (int64_t)doctor->counts[DOCTOR_FAIL]);
        tree_add_int(answer, "skipped", (int64_t)skipped);
        tree_print(answer);
        return doctor->exit_code;
    }
    size_t warnings = doctor->counts[DOCTOR_WARN], failures = doctor->counts[DOCTOR_FAIL];
    printf("%zu ok, %zu warning%s, %zu failure%s", doctor->counts[DOCTOR_OK], warnings,
           warnings == 1 ? "" : "s", failures, failures == 1 ? "" : "s");
    if (skipped > 0)
        printf("; %zu check%s skipped, for lack of %s", skipped, skipped == 1 ? "" : "s",
               meanings[missing]);
    putchar('\n');
    return doctor->exit_code;
}
