/* options.h: every option that jobqd knows, one row each.
 *
 * The same rows read the file, the environment and the flags (config.c), print the
 * configuration, `--help` and the man page's tables: an option is added by adding its row
 * and its field in config.h, and cannot be documented differently from what it does.
 */
#ifndef JOBQD_OPTIONS_H
#define JOBQD_OPTIONS_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "libjobq/buf.h"

/* clang-format off */
/* X(enumerator, the placeholder in --help) */
#define OPTION_TYPES(X)                                                                          \
    X(OPTION_CONNINFO, "URI")     /* char *: a libpq connection string, printed without password */ \
    X(OPTION_DIR, "DIR")          /* char *: a path, made absolute */                            \
    X(OPTION_NAME, "NAME")        /* char *: letters, digits and . _ - : @ */                    \
    X(OPTION_SCHEMA, "NAME")      /* char *: see sqltext.h */                                    \
    X(OPTION_DURATION, "TIME")    /* int64_t, ms */                                              \
    X(OPTION_DAYS, "TIME")        /* int64_t, ms, rounded up to whole days */                    \
    X(OPTION_INT, "N")            /* int */                                                      \
    X(OPTION_BYTES, "SIZE")       /* size_t; KiB, MiB and GiB as units */                        \
    X(OPTION_LEVEL, "WORD")       /* enum log_level */                                           \
    X(OPTION_SWITCH, "WORD")      /* bool: false and true are the two choices, in that order */  \
    X(OPTION_COMMAND, "PROGRAM…") /* char **: argv of a worker */                                \
    X(OPTION_EXEC, "PROGRAM…")    /* char **: argv of a process a job */                         \
    X(OPTION_HOOK, "PROGRAM…")    /* char **: argv of a process a failure */                     \
    X(OPTION_ENV, "NAME[=VALUE]…") /* char **: see environment.h */                         \
    X(OPTION_BACKOFF, "FORMULA")  /* struct jobq__backoff */                                     \
    X(OPTION_TEXT, "TEXT")        /* char *: 1 to 128 bytes */                                   \
    X(OPTION_JSON, "JSON")        /* char *: a JSON object */                                    \
    X(OPTION_SCHEDULE, "SCHEDULE") /* char *: see pure/cron.h */                                \
    X(OPTION_ZONE, "ZONE")        /* char *: what looks like a time zone's name */               \
    X(OPTION_CHOICE, "WORD")      /* int: which of the choices */
/* clang-format on */

enum option_type {
#define X(name, placeholder) name,
    OPTION_TYPES(X)
#undef X
};

struct option_row {
    const char *name; /* as in the file; JOBQ_NAME in the environment; --name, with - for
                         _, as a flag */
    enum option_type type;
    size_t offset;        /* of the field in struct config, queue_config or cron_config */
    const char *fallback; /* the default as one would write it; NULL: none, `absent` says
                             what then */
    const char *absent;
    int64_t min; /* DURATION, DAYS: ms; INT; BYTES */
    int64_t max;
    const char *choices; /* LEVEL, SWITCH, CHOICE: "a|b" */
    const char *help;    /* one line, no full stop */
};

extern const struct option_row jobqd_options[]; /* of [jobqd] */
extern const size_t jobqd_options_count;
extern const struct option_row queue_options[]; /* of [queue NAME] */
extern const size_t queue_options_count;
extern const struct option_row cron_options[]; /* of [cron NAME] */
extern const size_t cron_options_count;

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
/* Whether something of it is a secret by its looks. */
bool option_has_secret(const struct option_row *row, const void *base);

/* "URI", "TIME", … */
const char *option_placeholder(enum option_type type);
/* What is allowed: "1s to 10m", "on or off"; appended. */
void option_put_allowed(const struct option_row *row, struct jobq__buf *buf);
/* The row called name, where - and _ are the same; NULL: none. */
const struct option_row *option_find(const struct option_row *rows, size_t n,
                                     const char *name);

/* The rows as `--help` shows them (flags) and as the man page shows them (scdoc text,
 * keys). Returns 0 or JOBQ_ENOMEM. */
int options_print_flags(FILE *out, const struct option_row *rows, size_t n);
int options_print_man(FILE *out, const struct option_row *rows, size_t n);

#endif
