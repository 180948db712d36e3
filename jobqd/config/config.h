/* config.h: what jobqd was told: file, then JOBQ_* environment, then flags, merged and
 * checked.
 *
 * Each option is one row of the tables in options.h (name, type, default, range, help).
 * This struct is the outcome: complete, valid, owned by one `struct config`. Nothing here
 * connects, forks or looks at a clock. config.c loads it, config_file.c reads the file,
 * config_check.c checks what must hold between options, config_print.c prints, and
 * config_crons.c makes the documents for the database.
 */
#ifndef JOBQD_CONFIG_H
#define JOBQD_CONFIG_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/base/log.h"
#include "libjobq/backoff.h"
#include "libjobq/buf.h"

enum queue_mode {
    QUEUE_COMMAND, /* `command = …`: long-lived workers that speak the protocol */
    QUEUE_EXEC     /* `exec = …`: one process a job */
};

struct config;

/* One [queue NAME] section. Never changed once it is read. */
struct queue_config {
    struct config *home; /* what it is a part of */
    char *name;
    enum queue_mode mode;
    char **argv; /* NULL-terminated. The value is split like a shell splits words (quotes,
                    backslash), but never given to a shell. argv[0] is an absolute path: a
                    relative program counts from the configuration file's folder, a bare
                    name is looked up on PATH. Whether it is there is launch_check's
                    question; a bare name that is not on PATH is left as it is. */
    int concurrency; /* worker processes, 1 … 1000, default 4 */
    int mailbox; /* jobs a worker may hold: 0 adaptive (1 … 64, the default), else 1 …
                    1000; exec: always 1 */
    int64_t ageing_ms;  /* so much waiting counts as one priority better; default 0: none
                           does */
    int64_t timeout_ms; /* a job's deadline, default 30m; 0: none */
    int64_t stop_grace_ms;   /* from the cancel message to TERM, and from TERM to KILL,
                                default 5s */
    int64_t boot_timeout_ms; /* fork to hello, default 10s */
    int max_restarts;        /* restart intensity: more than this … default 5 */
    int64_t max_seconds_ms; /* … within this puts the pool into back-off, default 10s */
    int max_jobs;           /* a worker is replaced after so many, default 0: never */
    int64_t max_age_ms;     /* likewise, so long after its start */
    int64_t shutdown_grace_ms; /* how long its running jobs may go on in a drain; -1 (the
                              default): as long as [jobqd] says, which bounds it too */
    bool preload;     /* command: workers are forked from a process that has loaded the
                         program, default off */
    int max_attempts; /* of jobs that were enqueued without; 0: 20. The database applies
                         it: see config_put_queues */
    int max_crashes; /* a job with this many crashes is discarded as poison, default 3; 0:
                        never */
    size_t max_memory;      /* bytes of a worker's process group; more after a job, and it
                               is replaced; 0: no limit; exec: always 0 */
    size_t max_memory_hard; /* bytes; more, and it is killed at once; 0: no limit */
    int64_t cpu_limit_ms; /* processor time of one job, by its process group; 0: no limit
                           */
    int nofile;           /* RLIMIT_NOFILE, soft and hard; 0: as jobqd was given it */
    int nice;             /* added to jobqd's own */
    char *user;           /* name or number; NULL: jobqd's own */
    char *group;          /* name or number; NULL: the user's, else jobqd's own */
    bool no_new_privs;    /* default off */
    char *working_directory; /* absolute; NULL: jobqd's own */
    char **env; /* NULL-terminated words NAME=VALUE or NAME (jobqd's own value is handed
                   over); NULL: none */
    struct jobq__backoff backoff; /* default oban */
    bool keep; /* keep = all | none: whether completed jobs go to the history, default all
                */
    int64_t keep_completed_ms; /* history: completed; -1 (the default): as [jobqd] says,
                                  which bounds it too */
    int64_t keep_failed_ms;    /* likewise, cancelled and discarded */
    int keep_count;            /* the newest so many of all; default 0: no limit */
    char **on_failure; /* argv of a program, as the next one; NULL: that of [jobqd] */
    char **on_discard;
    char *on_discard_kind;  /* NULL: that of [jobqd] */
    char *on_discard_queue; /* likewise */
    int line;               /* of the section */
    int *lines; /* where the file sets each of queue_options; 0: it does not */
};

/* One [cron NAME] section. What it means is up to the database (migrations/schema/cron.sql). */
struct cron_config {
    char *name;
    char *schedule;
    char *timezone; /* looks like a name; whether there is such a zone is asked later */
    char *kind;
    char *args; /* JSON objects */
    char *meta;
    char *queue;
    int priority;
    int max_attempts;   /* 0: the queue's */
    int64_t timeout_ms; /* 0: the queue's */
    int64_t expires_ms; /* 0: never */
    char *unique_by;    /* JSON object; NULL: not unique */
    int missed;         /* row missed's nth choice */
    int overlap;        /* row overlap's nth choice */
    int line;           /* of the section */
    int *lines;         /* where the file sets each of cron_options; 0: it does not */
};

struct config {
    char *file;     /* the configuration file, or NULL */
    char *database; /* a libpq connection string; NULL: libpq's own PG* environment */
    char *database_from; /* who says so, as an error names it: `t.conf:2: [jobqd]
                            database`, `JOBQ_DATABASE`; NULL: nobody */
    char *replaced; /* what the environment silently does: it names a database where the
                       file has an embedded one, or the other way round; NULL: nothing */
    /* data directory of the embedded cluster, or NULL; excludes database */
    char *embedded;
    char *schema;              /* default "jobq"; [a-z_][a-z0-9_]{0,62} */
    char *node;                /* default: host name */
    int64_t lease_ms;          /* default 15s, 1s … 10m */
    int64_t poll_interval_ms;  /* default 1s, 10ms … 1h */
    bool notify;               /* default on */
    int64_t shutdown_grace_ms; /* default 30s */
    bool respawn;              /* default off */
    int64_t keep_completed_ms; /* history: completed, default 7d, at least 1d; days,
                                  rounded up */
    int64_t keep_failed_ms;    /* history: cancelled and discarded, default 30d */
    int64_t keep_cancelled_ms; /* of these; -1 (the default): keep_failed_ms */
    int64_t keep_discarded_ms; /* likewise */
    size_t max_frame; /* bytes a protocol line, default 4 MiB, 1 KiB … 64 MiB */
    struct log_options log;
    char **on_failure; /* argv of a program, as the next one; NULL: none */
    char **on_discard;
    char *on_discard_kind;  /* NULL: none */
    char *on_discard_queue; /* NULL: the discarded job's own */
    int *lines; /* where the file sets each of jobqd_options; 0: it does not, or something
                   else counts */
    struct queue_config *queues;
    size_t n_queues;
    struct cron_config *crons;
    size_t n_crons;
    size_t holders; /* config_free frees it for the last one */
};

/* One `--name value` (or `--name=value`) that a command line gave; `--queue.NAME.option`
 * is not a thing: flags set [jobqd] options alone. */
struct config_flag {
    const char *name; /* without the dashes, with '-' for '_' */
    const char *value;
};

/* Reads file (NULL: none), then the environment, then the flags; DATABASE_URL counts
 * where none of them names a database. Relative paths in the file count from its folder.
 * On JOBQ_EINVAL err says `FILE:LINE: [section] key: what was found, what is allowed`;
 * *out is untouched. environment: `environ`-shaped, so that a test can give its own. */
int config_load(struct config **out, const char *file, char *const *environment,
                const struct config_flag *flags, size_t n_flags, jobq_error *err);
void config_ref(struct config *config);
/* One holder less; the last one's frees it. */
void config_free(struct config *config);

/* Whether a program is run when one of its attempts fails, or its job is discarded. */
bool config_has_hooks(const struct queue_config *queue);

/* A reload leaves the old configuration to those who still work by it: who keeps a
 * pointer to it beyond a call holds it, and the other drops it. */
void queue_config_ref(const struct queue_config *queue);
void queue_config_unref(const struct queue_config *queue);

/* How long each class of the history is kept at most, after which days are dropped whole.
 */
int64_t config_keep_cancelled_ms(const struct config *config);
int64_t config_keep_discarded_ms(const struct config *config);
int64_t config_drop_failed_ms(const struct config *config); /* whole days */

/* Puts `FILE:LINE: [queue NAME] OPTION` for the message of whoever finds later that the
 * option cannot be had here; without a line where the file does not set it. queue NULL:
 * an option of [jobqd]. */
void config_where(const struct config *config, const struct queue_config *queue,
                  const char *option, char *out, size_t size);

/* Whether this host knows the crons' time zones: JOBQ_EINVAL names the file and line of
 * the first that it does not. A host without any time zones leaves it to the database. */
int config_check_zones(const struct config *config, jobq_error *err);

/* The crons as the database takes them (cron_declare): one JSON object, a member each. */
void config_put_crons(const struct config *config, struct jobq__buf *out);
/* The queues as the database takes them (queue_declare): one JSON object, with each
 * queue's max_attempts or null. */
void config_put_queues(const struct config *config, struct jobq__buf *out);

/* The merged configuration to stdout, as an INI file that config_load would read to the
 * same effect; json: as one object, {"jobqd":{option: text, …},"queues":{NAME:{option:
 * text, …}},"crons":{NAME:{option: text, …}}}. Without secrets, **** stands for them
 * (option_put). */
void config_print(const struct config *config, bool json, bool secrets);

/* Whether the file has a password or the like in it. */
bool config_has_secret(const struct config *config);

#endif
