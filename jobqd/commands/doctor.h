/* doctor.h: what `jobqd doctor` looks at, and what it has found. Not for anybody else.
 *
 * A check is a row of the table in doctor.c: a statement whose rows are findings (level,
 * what is, what to do), or a function here that says them. A statement runs in a
 * transaction of its own that is read only; what it may not see is a finding, too.
 *
 * `fail` means that jobs are not run, or can be lost, until somebody acts; `warn` that
 * they are run, but worse, later, or not for ever.
 */
#ifndef JOBQD_DOCTOR_H
#define JOBQD_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/cli/session.h"
#include "libjobq/buf.h"

enum doctor_level { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

/* X(enumerator, what must be there for the check) */
#define NEEDS(X)                                                                         \
    X(NEEDS_NOTHING, "nothing")                                                          \
    X(NEEDS_CONFIG, "a readable configuration")                                          \
    X(NEEDS_SERVER, "a connection")                                                      \
    X(NEEDS_SCHEMA, "a schema of this jobqd's version")

enum needs {
#define X(name, meaning) name,
    NEEDS(X)
#undef X
};

struct doctor;

/* A row of the table in doctor.c. */
struct doctor_check {
    const char *name;
    enum needs needs;
    void (*look)(struct doctor *doctor); /* or … */
    const char *sql;                     /* … a statement; its rows are findings */
    bool takes_held;                     /* its $1 is held_ms */
    const char *ok;                      /* what is said where it finds nothing */
    int exit_code;                       /* where it fails */
};

struct doctor {
    const struct cli *cli;
    struct session session; /* config NULL: unreadable; conn NULL: nobody answers */
    bool has_schema;        /* the one that we know */
    bool pooled;            /* the server's pid is not the one that we were told */
    int64_t held_ms;        /* vacuum held back for less is nothing to mention */
    const struct doctor_check *check; /* the one under way */
    bool said;                        /* it has found something */
    cJSON *findings;                  /* with --json */
    size_t counts[DOCTOR_FAIL + 1];
    int exit_code; /* of the first that failed */
};

/* ---- doctor_report.c ---- */

/* A finding of the check under way. remedy NULL: nothing is to be done. Texts that came
 * from elsewhere may hold anything: they are escaped. */
void doctor_say(struct doctor *doctor, enum doctor_level level, const char *found,
                const char *remedy);
void doctor_sayf(struct doctor *doctor, enum doctor_level level, const char *remedy,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Why it could not look, at that level; and what lets it. */
void doctor_say_failure(struct doctor *doctor, enum doctor_level level, int code,
                        const jobq_error *err);

/* All of them, one after the other, printed as they are found; with --json, in the end.
 * Returns the exit code. */
int doctor_examine(struct doctor *doctor);

/* doctor_host.c: what is asked of this host. */
void doctor_look_at_config(struct doctor *doctor);
void doctor_look_at_embedded(struct doctor *doctor);
void doctor_look_at_programs(struct doctor *doctor);
void doctor_look_at_files(struct doctor *doctor);
void doctor_look_at_trust(struct doctor *doctor);

/* doctor_server.c: what is asked of the server as a whole. */
void doctor_connect(struct doctor *doctor);
void doctor_look_at_version(struct doctor *doctor);
void doctor_look_at_schema(struct doctor *doctor);
void doctor_look_at_listening(struct doctor *doctor);
void doctor_look_at_clock(struct doctor *doctor);

#endif
