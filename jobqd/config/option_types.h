/* option_types.h: what a row of the tables of options holds, and what can be done with the
 * field that it fills: read a value into it, show it, compare it, clear it.
 *
 * A type is added by its name here and its row in option_types.c. Which options there are
 * is in options.h; where their values come from, in config.h.
 */
#ifndef JOBQD_OPTION_TYPES_H
#define JOBQD_OPTION_TYPES_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/buf.h"

enum option_type {
    OPTION_CONNINFO, /* char *: a libpq connection string, printed without password */
    OPTION_DIR,      /* char *: a path, made absolute */
    OPTION_NAME,     /* char *: letters, digits and . _ - : @ */
    OPTION_SCHEMA,   /* char *: see sqltext.h */
    OPTION_TEXT,     /* char *: 1 to 128 bytes */
    OPTION_JSON,     /* char *: a JSON object */
    OPTION_SCHEDULE, /* char *: see pure/cron.h */
    OPTION_ZONE,     /* char *: what looks like a time zone's name */
    OPTION_COMMAND,  /* char **: argv of a worker */
    OPTION_EXEC,     /* char **: argv of a process a job */
    OPTION_HOOK,     /* char **: argv of a process a failure */
    OPTION_ENV,      /* char **: see environment.h */
    OPTION_DURATION, /* int64_t, ms */
    OPTION_DAYS,     /* int64_t, ms, rounded up to whole days */
    OPTION_INT,      /* int */
    OPTION_CHOICE,   /* int, or an enum: which of the choices */
    OPTION_SWITCH,   /* bool: false and true are the two choices, in that order */
    OPTION_BYTES,    /* size_t; KiB, MiB and GiB as units */
    OPTION_BACKOFF,  /* struct jobq__backoff */
    OPTION_TYPES     /* how many there are */
};

/* When, or for which queues, an option counts. */
enum option_scope {
    OPTION_ANY,     /* [queue NAME] and [cron NAME]: for each of them */
    OPTION_WORKERS, /* [queue NAME]: for queues with `command` only */
    OPTION_RESTART, /* [jobqd]: a new value counts after a restart */
    OPTION_RELOAD,  /* [jobqd]: a new value counts after a reload */
};

struct option_row {
    /* As in the file; JOBQ_NAME in the environment; as a flag --name, with - for _. */
    const char *name;
    enum option_type type;
    enum option_scope scope;
    size_t offset; /* of the field in struct config, queue_config or cron_config */
    /* The default, as it would be written; NULL: none, and `absent` says what applies. */
    const char *fallback;
    const char *absent;
    int64_t min; /* DURATION, DAYS: ms; INT; BYTES */
    int64_t max;
    const char *choices; /* CHOICE, SWITCH: "a|b" */
    const char *help;    /* one line, no full stop */
};

/* Where relative paths and bare program names are looked up. */
struct option_origin {
    const char *folder; /* absolute */
    const char *path;   /* $PATH */
};

/* Parses value into the row's field of base, freeing what was there; base unchanged on
 * failure. JOBQ_EINVAL says what was found and what is allowed, without the option's
 * name. */
int option_set(const struct option_row *row, void *base, const char *value,
               const struct option_origin *origin, jobq_error *err);
/* Frees the field (for the types that own memory) and sets it to zero. */
void option_clear(const struct option_row *row, void *base);
/* Whether an owning field holds a value, a duration is not below zero, and a number
 * without a default is not 0; true for the others. */
bool option_is_set(const struct option_row *row, const void *base);
/* Whether the field has the same value in both. */
bool option_equal(const struct option_row *row, const void *base_a, const void *base_b);
/* The field's value as option_set reads it. Without secrets **** stands for the values of
 * env, for passwords in connection strings and URIs, and for what an argument of a
 * program calls a password, a token or the like. */
void option_put(const struct option_row *row, const void *base, bool secrets,
                struct jobq__buf *buf);
/* Whether some part of the value looks like a secret. */
bool option_has_secret(const struct option_row *row, const void *base);

/* "URI", "TIME", … */
const char *option_placeholder(enum option_type type);
/* What is allowed: "1s to 10m", "on or off"; appended. */
void option_put_allowed(const struct option_row *row, struct jobq__buf *buf);

#endif
