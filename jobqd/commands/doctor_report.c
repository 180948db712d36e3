/* doctor_report.c: prints what the checks of jobqd doctor find. See doctor.h. */
#include "jobqd/commands/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/base/escape.h"
#include "jobqd/cli/table.h"

static const char *const level_names[] = {
    [DOCTOR_OK] = "ok", [DOCTOR_WARN] = "warn", [DOCTOR_FAIL] = "fail"};

static void
print_json(const struct doctor *doctor, enum doctor_level level, const char *found,
           const char *remedy, bool first)
{
    struct jobq__buf out = {0};
    const char *const members[][2] = {{"check", doctor->check->name},
                                      {"level", level_names[level]},
                                      {"found", found},
                                      {"remedy", remedy}};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        jobq__buf_adds(&out, i == 0 ? "{\"" : ",\"");
        jobq__buf_adds(&out, members[i][0]);
        jobq__buf_adds(&out, "\":");
        if (members[i][1])
            escape_put_json_string(&out, members[i][1], strlen(members[i][1]));
        else
            jobq__buf_adds(&out, "null");
    }
    const char *text = jobq__buf_cstr(&out);
    printf("%s%s}", first ? "\n" : ",\n", text ? text : "{");
    jobq__buf_clear(&out);
}

static void
print_text(const struct doctor *doctor, enum doctor_level level, const char *found,
           const char *remedy)
{
    printf("%-4s  %-12s  ", level_names[level], doctor->check->name);
    table_print_value(stdout, found, NULL);
    if (remedy) {
        fputs(" -> ", stdout);
        table_print_value(stdout, remedy, NULL);
    }
    putchar('\n');
}

void
doctor_say(struct doctor *doctor, enum doctor_level level, const char *found,
           const char *remedy)
{
    bool first = doctor->counts[DOCTOR_OK] + doctor->counts[DOCTOR_WARN] +
                     doctor->counts[DOCTOR_FAIL] ==
                 0;
    if (doctor->cli->json)
        print_json(doctor, level, found, remedy, first);
    else
        print_text(doctor, level, found, remedy);
    doctor->said = true;
    doctor->counts[level]++;
    if (level == DOCTOR_FAIL && doctor->exit_code == EX_OK)
        doctor->exit_code = doctor->check->exit_code;
}

void
doctor_sayf(struct doctor *doctor, enum doctor_level level, const char *remedy,
            const char *format, ...)
{
    char found[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(found, sizeof found, format, args);
    va_end(args);
    doctor_say(doctor, level, found, remedy);
}

/* What lets the connecting role look, in memory that the caller frees; NULL: no memory.
 */
static char *
rights_to_look(const struct doctor *doctor)
{
    PGconn *conn = doctor->session.conn;
    const char *user = PQuser(conn);
    char *name = PQescapeIdentifier(conn, user, strlen(user));
    struct jobq__buf sql = {0};
    jobq__buf_adds(&sql, "GRANT jobq_viewer, pg_monitor TO ");
    jobq__buf_adds(&sql, name != NULL ? name : "?");
    PQfreemem(name);
    if (jobq__buf_cstr(&sql) == NULL)
        jobq__buf_clear(&sql);
    return sql.data;
}

void
doctor_say_failure(struct doctor *doctor, enum doctor_level level, int code,
                   const jobq_error *err)
{
    if (code == JOBQ_ECONN) {
        doctor_sayf(doctor, DOCTOR_FAIL, "see the server's log", "%s", err->message);
    } else if (strcmp(err->sqlstate, "42501") == 0) {
        char *remedy = rights_to_look(doctor);
        doctor_sayf(doctor, level, remedy, "could not check: %s", err->message);
        free(remedy);
    } else {
        doctor_sayf(doctor, level,
                    "try again; if it happens again, this is a bug in jobqd",
                    "could not check: %s", err->message);
    }
}
