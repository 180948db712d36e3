/* options.c: the table of options, and what is asked of the whole table: the row of a name,
 * the defaults, and the texts of `--help` and the man page. How a type of option is read
 * and shown is in option_types.c; where the values come from, and which source wins, in
 * config.c.
 */
#include "jobqd/config/options.h"

#include <string.h>

#include "jobqd/base/wrap.h"
#include "jobqd/config/config.h"
#include "jobqd/config/units.h"
#include "libjobq/buf.h"

#define C(field) offsetof(struct config, field)
#define Q(field) offsetof(struct queue_config, field)
#define R(field) offsetof(struct cron_config, field)

/* name, type, scope, field, default, what applies without one, min, max, choices, help */
/* clang-format off */
const struct option_row jobqd_options[] = {
    {"database", OPTION_CONNINFO, OPTION_RESTART, C(database), NULL, "DATABASE_URL, else libpq's PG* variables", 0, 0, NULL,
     "the database to use; excludes embedded"},
    {"embedded", OPTION_DIR, OPTION_RESTART, C(embedded), NULL, "no embedded database", 0, 0, NULL,
     "run a private Postgres with its data in this folder; excludes database"},
    {"schema", OPTION_SCHEMA, OPTION_RESTART, C(schema), "jobq", NULL, 0, 0, NULL,
     "the schema that holds jobq's tables and functions"},
    {"node", OPTION_NAME, OPTION_RESTART, C(node), NULL, "the host's name", 0, 0, NULL,
     "this node's name, unique among the nodes of one database"},
    {"lease", OPTION_DURATION, OPTION_RESTART, C(lease_ms), "15s", NULL, 1 * SECOND, 10 * MINUTE, NULL,
     "how long a silent node keeps its jobs; renewed every third of this time"},
    {"poll_interval", OPTION_DURATION, OPTION_RELOAD, C(poll_interval_ms), "1s", NULL, 10, 1 * HOUR, NULL,
     "how often to poll an idle queue, with or without notifications"},
    {"notify", OPTION_SWITCH, OPTION_RESTART, C(notify), "on", NULL, 0, 0, "off|on",
     "listen for notifications from the database; off: only poll"},
    {"shutdown_grace", OPTION_DURATION, OPTION_RELOAD, C(shutdown_grace_ms), "30s", NULL, 0, 1 * DAY, NULL,
     "how long running jobs may continue after TERM or INT"},
    {"respawn", OPTION_SWITCH, OPTION_RESTART, C(respawn), "off", NULL, 0, 0, "off|on",
     "restart jobqd if it is killed (its guard process does this); leave it off under systemd, which restarts jobqd"},
    {"keep_completed", OPTION_DAYS, OPTION_RELOAD, C(keep_completed_ms), "7d", NULL, 1 * DAY, 3650 * DAY, NULL,
     "how long completed jobs stay in the history, rounded up to whole days"},
    {"keep_failed", OPTION_DAYS, OPTION_RELOAD, C(keep_failed_ms), "30d", NULL, 1 * DAY, 3650 * DAY, NULL,
     "how long cancelled and discarded jobs stay in the history, rounded up to whole days"},
    {"keep_cancelled", OPTION_DURATION, OPTION_RELOAD, C(keep_cancelled_ms), NULL, "the value of keep_failed", 1 * SECOND, 3650 * DAY, NULL,
     "how long cancelled jobs stay in the history"},
    {"keep_discarded", OPTION_DURATION, OPTION_RELOAD, C(keep_discarded_ms), NULL, "the value of keep_failed", 1 * SECOND, 3650 * DAY, NULL,
     "how long discarded jobs stay in the history"},
    {"max_frame", OPTION_BYTES, OPTION_RELOAD, C(max_frame), "4MiB", NULL, 1 * KIB, 64 * MIB, NULL,
     "the longest line allowed in the worker protocol"},
    {"log_level", OPTION_CHOICE, OPTION_RELOAD, C(log.level), "info", NULL, 0, 0, "debug|info|warning|error",
     "the lowest level that is logged"},
    {"log_format", OPTION_CHOICE, OPTION_RELOAD, C(log.format), "text", NULL, 0, 0, "text|json|logfmt",
     "the format of log lines"},
    {"on_failure", OPTION_HOOK, OPTION_RELOAD, C(on_failure), NULL, "none", 0, 0, NULL,
     "a program to run after each failed attempt; it gets the details as JSON on stdin"},
    {"on_discard", OPTION_HOOK, OPTION_RELOAD, C(on_discard), NULL, "none", 0, 0, NULL,
     "a program to run after a job was discarded or has expired; it gets the details as JSON on stdin"},
    {"on_discard_kind", OPTION_TEXT, OPTION_RELOAD, C(on_discard_kind), NULL, "none", 0, 0, NULL,
     "enqueue a job of this kind when a job is discarded or expires, with the details as its args"},
    {"on_discard_queue", OPTION_TEXT, OPTION_RELOAD, C(on_discard_queue), NULL, "the queue of the discarded job", 0, 0, NULL,
     "the queue for the job of on_discard_kind"},
};
const size_t jobqd_options_count = sizeof jobqd_options / sizeof jobqd_options[0];

const struct option_row queue_options[] = {
    {"command", OPTION_COMMAND, OPTION_ANY, Q(argv), NULL, "none, set either command or exec", 0, 0, NULL,
     "a worker program, which runs job after job and gets them over a socket"},
    {"exec", OPTION_EXEC, OPTION_ANY, Q(argv), NULL, "none, set either command or exec", 0, 0, NULL,
     "a program to start for each job, with the job's args on stdin"},
    {"concurrency", OPTION_INT, OPTION_ANY, Q(concurrency), "4", NULL, 1, 1000, NULL,
     "how many worker processes to run"},
    {"mailbox", OPTION_INT, OPTION_WORKERS, Q(mailbox), "0", NULL, 0, 1000, NULL,
     "how many jobs a worker may hold, plus one for each that it runs beside the first; 0: as many as keep it busy, 1 to 64"},
    {"ageing", OPTION_DURATION, OPTION_ANY, Q(ageing_ms), "0", NULL, 0, 30 * DAY, NULL,
     "a job gains one priority for each such time that it waits, so that none waits for ever; 0: never"},
    {"timeout", OPTION_DURATION, OPTION_ANY, Q(timeout_ms), "30m", NULL, 0, 24 * DAY, NULL,
     "how long an attempt may run if its job sets no timeout; 0: no limit"},
    {"stop_grace", OPTION_DURATION, OPTION_ANY, Q(stop_grace_ms), "5s", NULL, 0, 1 * HOUR, NULL,
     "how long a job may take to stop when asked to: then SIGTERM follows, and after the same time again SIGKILL"},
    {"boot_timeout", OPTION_DURATION, OPTION_WORKERS, Q(boot_timeout_ms), "10s", NULL, 100, 1 * HOUR, NULL,
     "how long a worker may take from its start to its hello"},
    {"preload", OPTION_SWITCH, OPTION_WORKERS, Q(preload), "off", NULL, 0, 0, "off|on",
     "load the program once, in a forkserver process, and fork the workers from there"},
    {"max_restarts", OPTION_INT, OPTION_ANY, Q(max_restarts), "5", NULL, 0, 1000, NULL,
     "more restarts than this within max_seconds make the queue back off"},
    {"max_seconds", OPTION_DURATION, OPTION_ANY, Q(max_seconds_ms), "10s", NULL, 1 * SECOND, 1 * HOUR, NULL,
     "the window in which restarts are counted"},
    {"max_jobs", OPTION_INT, OPTION_WORKERS, Q(max_jobs), "0", NULL, 0, 1000000000, NULL,
     "replace a worker after this many jobs, minus up to 20 % at random; 0: never"},
    {"max_age", OPTION_DURATION, OPTION_WORKERS, Q(max_age_ms), "0", NULL, 0, 365 * DAY, NULL,
     "replace a worker at this age, minus up to 20 % at random; 0: never"},
    {"shutdown_grace", OPTION_DURATION, OPTION_ANY, Q(shutdown_grace_ms), NULL, "that of [jobqd], which is also the upper limit", 0, 1 * DAY, NULL,
     "how long running jobs may continue when jobqd stops or the queue is removed"},
    {"max_attempts", OPTION_INT, OPTION_ANY, Q(max_attempts), NULL, "20", 1, 1000, NULL,
     "how many attempts a job gets if it was enqueued without max_attempts"},
    {"max_crashes", OPTION_INT, OPTION_ANY, Q(max_crashes), "3", NULL, 0, 1000, NULL,
     "discard a job after it has crashed this many workers; 0: never"},
    {"max_memory", OPTION_BYTES, OPTION_WORKERS, Q(max_memory), "0", NULL, 0, 1024 * GIB, NULL,
     "replace a worker if its process group uses more than this after a job; 0: no limit"},
    {"max_memory_hard", OPTION_BYTES, OPTION_ANY, Q(max_memory_hard), "0", NULL, 0, 1024 * GIB, NULL,
     "kill a worker's process group at once if it uses more than this; 0: no limit"},
    {"cpu_limit", OPTION_DURATION, OPTION_ANY, Q(cpu_limit_ms), "0", NULL, 0, 24 * DAY, NULL,
     "how much processor time a job may use; 0: no limit; only for workers that run one job at a time"},
    {"nofile", OPTION_INT, OPTION_ANY, Q(nofile), "0", NULL, 0, 1 << 20, NULL,
     "how many files a process may have open, 16 or more; 0: jobqd's own limit"},
    {"nice", OPTION_INT, OPTION_ANY, Q(nice), "0", NULL, -20, 19, NULL,
     "the nice value, added to jobqd's own; a negative one needs root"},
    {"user", OPTION_NAME, OPTION_ANY, Q(user), NULL, "jobqd's own", 0, 0, NULL,
     "run the program as this user, a name or number; needs root"},
    {"group", OPTION_NAME, OPTION_ANY, Q(group), NULL, "that of the user, else jobqd's own", 0, 0, NULL,
     "run the program as this group, a name or number; needs root"},
    {"no_new_privs", OPTION_SWITCH, OPTION_ANY, Q(no_new_privs), "off", NULL, 0, 0, "off|on",
     "keep the program from gaining rights, such as those of set-user-ID programs"},
    {"working_directory", OPTION_DIR, OPTION_ANY, Q(working_directory), NULL, "jobqd's own", 0, 0, NULL,
     "the folder to start the program in"},
    {"env", OPTION_ENV, OPTION_ANY, Q(env), NULL, "none added", 0, 0, NULL,
     "environment variables for the program: NAME=VALUE sets one, NAME passes on jobqd's own, even one that is otherwise withheld"},
    {"backoff", OPTION_BACKOFF, OPTION_ANY, Q(backoff), "oban", NULL, 0, 0, NULL,
     "how long a failed job waits for its next attempt"},
    {"keep", OPTION_SWITCH, OPTION_ANY, Q(keep), "all", NULL, 0, 0, "none|all",
     "whether completed jobs go to the history; cancelled and discarded jobs always do"},
    {"keep_completed", OPTION_DURATION, OPTION_ANY, Q(keep_completed_ms), NULL, "that of [jobqd], which is also the upper limit", 1 * SECOND, 3650 * DAY, NULL,
     "how long completed jobs stay in the history"},
    {"keep_failed", OPTION_DURATION, OPTION_ANY, Q(keep_failed_ms), NULL, "that of [jobqd], which is also the upper limit", 1 * SECOND, 3650 * DAY, NULL,
     "how long cancelled and discarded jobs stay in the history"},
    {"keep_count", OPTION_INT, OPTION_ANY, Q(keep_count), "0", NULL, 0, 1000000000, NULL,
     "keep only this many ended jobs in the history, the newest; 0: no limit"},
    {"on_failure", OPTION_HOOK, OPTION_ANY, Q(on_failure), NULL, "that of [jobqd]", 0, 0, NULL,
     "a program to run after each failed attempt; it gets the details as JSON on stdin"},
    {"on_discard", OPTION_HOOK, OPTION_ANY, Q(on_discard), NULL, "that of [jobqd]", 0, 0, NULL,
     "a program to run after a job was discarded or has expired; it gets the details as JSON on stdin"},
    {"on_discard_kind", OPTION_TEXT, OPTION_ANY, Q(on_discard_kind), NULL, "that of [jobqd]", 0, 0, NULL,
     "enqueue a job of this kind when a job is discarded or expires, with the details as its args"},
    {"on_discard_queue", OPTION_TEXT, OPTION_ANY, Q(on_discard_queue), NULL, "that of [jobqd], else the queue of the discarded job", 0, 0, NULL,
     "the queue for the job of on_discard_kind"},
};
const size_t queue_options_count = sizeof queue_options / sizeof queue_options[0];

const struct option_row cron_options[] = {
    {"schedule", OPTION_SCHEDULE, OPTION_ANY, R(schedule), NULL, "none, required", 0, 0, NULL,
     "when the cron enqueues a job"},
    {"timezone", OPTION_ZONE, OPTION_ANY, R(timezone), "UTC", NULL, 0, 0, NULL,
     "the time zone of the schedule"},
    {"kind", OPTION_TEXT, OPTION_ANY, R(kind), NULL, "none, required", 0, 0, NULL,
     "the kind of its jobs"},
    {"args", OPTION_JSON, OPTION_ANY, R(args), "{}", NULL, 0, 0, NULL,
     "the args of its jobs"},
    {"queue", OPTION_TEXT, OPTION_ANY, R(queue), "default", NULL, 0, 0, NULL,
     "the queue of its jobs"},
    {"priority", OPTION_INT, OPTION_ANY, R(priority), "0", NULL, 0, 9, NULL,
     "the priority of its jobs: 0 runs first, 9 last"},
    {"max_attempts", OPTION_INT, OPTION_ANY, R(max_attempts), NULL, "that of the queue", 1, 1000, NULL,
     "how many attempts each of its jobs gets"},
    {"timeout", OPTION_DURATION, OPTION_ANY, R(timeout_ms), "0", NULL, 0, 24 * DAY, NULL,
     "how long an attempt of its jobs may run; 0: as the queue says"},
    {"missed", OPTION_CHOICE, OPTION_ANY, R(missed), "once", NULL, 0, 0, "skip|once|all",
     "runs missed while no node was up: skip (those more than a minute late), once (only the latest), or all"},
    {"overlap", OPTION_CHOICE, OPTION_ANY, R(overlap), "allow", NULL, 0, 0, "allow|skip|wait",
     "if a job of this cron is still live when the next is due: allow enqueues another, skip enqueues none, wait enqueues "
     "one that starts when the running one has ended (at most one waits)"},
    {"expires", OPTION_DURATION, OPTION_ANY, R(expires_ms), "0", NULL, 0, 3650 * DAY, NULL,
     "cancel a job that has not started this long after it was enqueued; 0: never"},
    {"unique_by", OPTION_JSON, OPTION_ANY, R(unique_by), NULL, "not unique", 0, 0, NULL,
     "enqueue no job while an equal one exists by these rules; {} compares kind, queue and args"},
    {"meta", OPTION_JSON, OPTION_ANY, R(meta), "{}", NULL, 0, 0, NULL,
     "a JSON object to store with each job"},
};
const size_t cron_options_count = sizeof cron_options / sizeof cron_options[0];
/* clang-format on */

/* A flag has '-' where the file has '_'. */
static bool
same_name(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
            return false;
    }
    return *a == *b;
}

const struct option_row *
option_find(const struct option_row *rows, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (same_name(rows[i].name, name))
            return &rows[i];
    }
    return NULL;
}

int
options_set_defaults(const struct option_row *rows, size_t n, void *base, jobq_error *err)
{
    for (const struct option_row *row = rows; row < rows + n; row++) {
        if (!row->fallback)
            continue;
        int rc = option_set(row, base, row->fallback, NULL, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* What `help` leaves out, because the row's scope says it. */
static const char *
scope_of(const struct option_row *row)
{
    return row->scope == OPTION_WORKERS ? " (only with command)" : "";
}

/* "1s to 10m; default: 15s" */
static void
put_facts(struct jobq__buf *buf, const struct option_row *row)
{
    option_put_allowed(row, buf);
    jobq__buf_adds(buf, "; default: ");
    jobq__buf_adds(buf, row->fallback != NULL ? row->fallback : row->absent);
}

static void
put_help(struct jobq__buf *buf, const struct option_row *row)
{
    jobq__buf_adds(buf, row->help);
    jobq__buf_adds(buf, scope_of(row));
}

/* What put says of the row, in lines for a terminal, of which the first has begun. */
static void
put_wrapped(struct jobq__buf *buf, const struct option_row *row,
            void (*put)(struct jobq__buf *, const struct option_row *), size_t indent)
{
    struct jobq__buf text = {0};
    put(&text, row);
    if (jobq__buf_cstr(&text) != NULL)
        wrap_put(buf, text.data, indent, indent);
    else
        buf->failed = true;
    jobq__buf_clear(&text);
}

static int
write_out(FILE *out, struct jobq__buf *buf)
{
    const char *text = jobq__buf_cstr(buf);
    if (text != NULL)
        fputs(text, out);
    jobq__buf_clear(buf);
    return text != NULL ? 0 : JOBQ_ENOMEM;
}

int
options_print_flags(FILE *out, const struct option_row *rows, size_t n)
{
    enum { HELP_INDENT = 10 };
    struct jobq__buf buf = {0};
    for (const struct option_row *row = rows; row < rows + n; row++) {
        jobq__buf_adds(&buf, "      --");
        for (const char *at = row->name; *at != '\0'; at++)
            jobq__buf_addc(&buf, *at == '_' ? '-' : *at);
        jobq__buf_addc(&buf, ' ');
        jobq__buf_adds(&buf, option_placeholder(row->type));
        jobq__buf_adds(&buf, "\n          ");
        put_wrapped(&buf, row, put_help, HELP_INDENT);
        jobq__buf_adds(&buf, "          ");
        put_wrapped(&buf, row, put_facts, HELP_INDENT);
    }
    return write_out(out, &buf);
}

/* Escapes what scdoc would take for markup. */
static void
put_scdoc(struct jobq__buf *buf, const char *text)
{
    for (; *text != '\0'; text++) {
        if (strchr("\\*_", *text) != NULL)
            jobq__buf_addc(buf, '\\');
        jobq__buf_addc(buf, *text);
    }
}

int
options_print_man(FILE *out, const struct option_row *rows, size_t n)
{
    struct jobq__buf buf = {0};
    struct jobq__buf facts = {0};
    for (const struct option_row *row = rows; row < rows + n; row++) {
        jobq__buf_reset(&facts);
        put_facts(&facts, row);
        const char *text = jobq__buf_cstr(&facts);
        jobq__buf_addc(&buf, '*');
        put_scdoc(&buf, row->name);
        jobq__buf_adds(&buf, "* = _");
        put_scdoc(&buf, option_placeholder(row->type));
        jobq__buf_adds(&buf, "_\n\t");
        put_scdoc(&buf, row->help);
        put_scdoc(&buf, scope_of(row));
        jobq__buf_adds(&buf, "++\n"); /* scdoc's line break */
        if (text != NULL)
            put_scdoc(&buf, text);
        else
            buf.failed = true;
        jobq__buf_adds(&buf, "\n\n");
    }
    jobq__buf_clear(&facts);
    return write_out(out, &buf);
}
