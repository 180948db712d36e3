/* doctor_report.c: prints what the checks of jobqd doctor find. See doctor.h. */
#include "jobqd/commands/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "jobqd/cli/table.h"

static const char *const level_names[] = {
    [DOCTOR_OK] = "ok", [DOCTOR_WARN] = "warn", [DOCTOR_FAIL] = "fail"};

static void
add_finding(cJSON *finding, const struct doctor *doctor, enum doctor_level level,
            const char *found, const char *remedy)
{
    tree_add_text(finding, "check", doctor->check->name);
    tree_add_text(finding, "level", level_names[level]);
    tree_add_text(finding, "found", found);
    tree_add_text(finding, "remedy", remedy);
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
    if (doctor->cli->json)
        add_finding(tree_add_object(doctor->findings, NULL), doctor, level, found,
                    remedy);
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
