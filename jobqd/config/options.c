/* options.c: the table of options, and how each type of option is read and shown. Where
 * the values come from, and which source wins, is config.c's business.
 */
#include "jobqd/config/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "jobqd/config/config.h"
#include "jobqd/config/conninfo.h"
#include "jobqd/base/folder.h"
#include "jobqd/config/environment.h"
#include "jobqd/base/escape.h"
#include "jobqd/base/sqltext.h"
#include "jobqd/config/timezone.h"
#include "jobqd/config/words.h"
#include "jobqd/base/wrap.h"
#include "jobqd/pure/cron.h"
#include "libjobq/backoff.h"
#include "libjobq/error.h"
#include "libjobq/json.h"
#include "libjobq/utf8.h"

#define SECOND ((int64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KIB ((int64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define C(field) offsetof(struct config, field)
#define Q(field) offsetof(struct queue_config, field)
#define R(field) offsetof(struct cron_config, field)

/* clang-format off */
const struct option_row jobqd_options[] = {
    {"database", OPTION_CONNINFO, C(database), NULL, "DATABASE_URL, else libpq's PG* environment", 0, 0, NULL,
     "the database: a libpq URI or keyword string; excludes embedded"},
    {"embedded", OPTION_DIR, C(embedded), NULL, "no embedded database", 0, 0, NULL,
     "run a private Postgres with its data in this folder; excludes database"},
    {"schema", OPTION_SCHEMA, C(schema), "jobq", NULL, 0, 0, NULL,
     "the schema that holds jobq's tables and functions"},
    {"node", OPTION_NAME, C(node), NULL, "the host's name", 0, 0, NULL,
     "this node's name, unique among the nodes of one database"},
    {"lease", OPTION_DURATION, C(lease_ms), "15s", NULL, 1 * SECOND, 10 * MINUTE, NULL,
     "how long a silent node keeps its jobs; renewed every third of this time"},
    {"poll_interval", OPTION_DURATION, C(poll_interval_ms), "1s", NULL, 10, 1 * HOUR, NULL,
     "how often an idle queue is looked at, whatever notifications say"},
    {"notify", OPTION_SWITCH, C(notify), "on", NULL, 0, 0, "off|on",
     "listen for wake-ups; off: by polling alone"},
    {"shutdown_grace", OPTION_DURATION, C(shutdown_grace_ms), "30s", NULL, 0, 1 * DAY, NULL,
     "how long running jobs may go on after TERM or INT"},
    {"respawn", OPTION_SWITCH, C(respawn), "off", NULL, 0, 0, "off|on",
     "jobqd is started again when it was killed, by its guard (off under systemd, which does that itself)"},
    {"keep_completed", OPTION_DAYS, C(keep_completed_ms), "7d", NULL, 1 * DAY, 3650 * DAY, NULL,
     "how long completed jobs stay in the history, in whole days"},
    {"keep_failed", OPTION_DAYS, C(keep_failed_ms), "30d", NULL, 1 * DAY, 3650 * DAY, NULL,
     "how long cancelled and discarded jobs stay in the history, in whole days"},
    {"keep_cancelled", OPTION_DURATION, C(keep_cancelled_ms), NULL, "that of keep_failed", 1 * SECOND, 3650 * DAY, NULL,
     "how long cancelled jobs stay in the history"},
    {"keep_discarded", OPTION_DURATION, C(keep_discarded_ms), NULL, "that of keep_failed", 1 * SECOND, 3650 * DAY, NULL,
     "how long discarded jobs stay in the history"},
    {"max_frame", OPTION_BYTES, C(max_frame), "4MiB", NULL, 1 * KIB, 64 * MIB, NULL,
     "the longest line of the worker protocol"},
    {"log_level", OPTION_LEVEL, C(log.level), "info", NULL, 0, 0, "debug|info|warning|error",
     "log lines of a lower level are dropped"},
    {"log_format", OPTION_CHOICE, C(log.format), "text", NULL, 0, 0, "text|json|logfmt",
     "the form of a log line"},
    {"on_failure", OPTION_HOOK, C(on_failure), NULL, "none", 0, 0, NULL,
     "a program that is run after a failed attempt, the story as JSON on its stdin"},
    {"on_discard", OPTION_HOOK, C(on_discard), NULL, "none", 0, 0, NULL,
     "a program that is run after a job was discarded or expired, the story as JSON on its stdin"},
    {"on_discard_kind", OPTION_TEXT, C(on_discard_kind), NULL, "none", 0, 0, NULL,
     "a job of this kind is enqueued when a job is discarded or expires, the story as its args"},
    {"on_discard_queue", OPTION_TEXT, C(on_discard_queue), NULL, "the discarded job's own", 0, 0, NULL,
     "the queue of that job"},
};
const size_t jobqd_options_count = sizeof jobqd_options / sizeof jobqd_options[0];

const struct option_row queue_options[] = {
    {"command", OPTION_COMMAND, Q(argv), NULL, "one of command and exec is needed", 0, 0, NULL,
     "a worker that takes job after job over its socket"},
    {"exec", OPTION_EXEC, Q(argv), NULL, "one of command and exec is needed", 0, 0, NULL,
     "a program started for each job, its args on stdin"},
    {"concurrency", OPTION_INT, Q(concurrency), "4", NULL, 1, 1000, NULL,
     "how many worker processes"},
    {"mailbox", OPTION_INT, Q(mailbox), "0", NULL, 0, 1000, NULL,
     "jobs that a worker may hold, and as many more as it runs beside the first; 0: 1 to 64, as many as keep it busy "
     "(command only)"},
    {"ageing", OPTION_DURATION, Q(ageing_ms), "0", NULL, 0, 30 * DAY, NULL,
     "a job that has waited so long ranks as one priority better, so that none waits for ever; 0: never"},
    {"timeout", OPTION_DURATION, Q(timeout_ms), "30m", NULL, 0, 24 * DAY, NULL,
     "a job's deadline where the job names none; 0: no deadline"},
    {"stop_grace", OPTION_DURATION, Q(stop_grace_ms), "5s", NULL, 0, 1 * HOUR, NULL,
     "from the request to stop to SIGTERM, and from there to SIGKILL"},
    {"boot_timeout", OPTION_DURATION, Q(boot_timeout_ms), "10s", NULL, 100, 1 * HOUR, NULL,
     "how soon after its start a worker must say hello (command only)"},
    {"preload", OPTION_SWITCH, Q(preload), "off", NULL, 0, 0, "off|on",
     "load the program once, in a template process, and fork the workers from there (command only)"},
    {"max_restarts", OPTION_INT, Q(max_restarts), "5", NULL, 0, 1000, NULL,
     "more restarts than this within max_seconds make the queue back off"},
    {"max_seconds", OPTION_DURATION, Q(max_seconds_ms), "10s", NULL, 1 * SECOND, 1 * HOUR, NULL,
     "the window in which restarts are counted"},
    {"max_jobs", OPTION_INT, Q(max_jobs), "0", NULL, 0, 1000000000, NULL,
     "a worker that has done so many jobs, or up to a fifth fewer, is replaced; 0: never (command only)"},
    {"max_age", OPTION_DURATION, Q(max_age_ms), "0", NULL, 0, 365 * DAY, NULL,
     "a worker of this age, or up to a fifth younger, is replaced; 0: never (command only)"},
    {"shutdown_grace", OPTION_DURATION, Q(shutdown_grace_ms), NULL, "that of [jobqd], which also bounds it", 0, 1 * DAY, NULL,
     "how long running jobs may go on when jobqd stops or the queue is removed"},
    {"max_attempts", OPTION_INT, Q(max_attempts), NULL, "20", 1, 1000, NULL,
     "how many attempts a job has that was enqueued without max_attempts"},
    {"max_crashes", OPTION_INT, Q(max_crashes), "3", NULL, 0, 1000, NULL,
     "a job that crashed so many workers is discarded; 0: never"},
    {"max_memory", OPTION_BYTES, Q(max_memory), "0", NULL, 0, 1024 * GIB, NULL,
     "a worker whose process group uses more after a job is replaced; 0: no limit (command only)"},
    {"max_memory_hard", OPTION_BYTES, Q(max_memory_hard), "0", NULL, 0, 1024 * GIB, NULL,
     "a process group that uses more is killed at once; 0: no limit"},
    {"cpu_limit", OPTION_DURATION, Q(cpu_limit_ms), "0", NULL, 0, 24 * DAY, NULL,
     "processor time that a job may use; 0: no limit (only where a worker runs one job at a time)"},
    {"nofile", OPTION_INT, Q(nofile), "0", NULL, 0, 1 << 20, NULL,
     "how many files a process may have open, 16 or more; 0: as many as jobqd was given"},
    {"nice", OPTION_INT, Q(nice), "0", NULL, -20, 19, NULL,
     "added to jobqd's own nice value; a negative one needs root"},
    {"user", OPTION_NAME, Q(user), NULL, "jobqd's own", 0, 0, NULL,
     "the user, by name or number, that the program runs as; needs root"},
    {"group", OPTION_NAME, Q(group), NULL, "the user's, else jobqd's own", 0, 0, NULL,
     "the group, by name or number, that the program runs as; needs root"},
    {"no_new_privs", OPTION_SWITCH, Q(no_new_privs), "off", NULL, 0, 0, "off|on",
     "set-user-id programs and the like give no rights"},
    {"working_directory", OPTION_DIR, Q(working_directory), NULL, "jobqd's own", 0, 0, NULL,
     "the folder that the program is started in"},
    {"env", OPTION_ENV, Q(env), NULL, "nothing more", 0, 0, NULL,
     "variables for the program: NAME=VALUE sets one, NAME hands over jobqd's own, even a withheld one"},
    {"backoff", OPTION_BACKOFF, Q(backoff), "oban", NULL, 0, 0, NULL,
     "the wait before a failed job's next attempt"},
    {"keep", OPTION_SWITCH, Q(keep), "all", NULL, 0, 0, "none|all",
     "whether completed jobs go to the history; cancelled and discarded ones always do"},
    {"keep_completed", OPTION_DURATION, Q(keep_completed_ms), NULL, "that of [jobqd], which also bounds it", 1 * SECOND, 3650 * DAY, NULL,
     "how long completed jobs stay in the history"},
    {"keep_failed", OPTION_DURATION, Q(keep_failed_ms), NULL, "as [jobqd] says, which also bounds it", 1 * SECOND, 3650 * DAY, NULL,
     "how long cancelled and discarded jobs stay in the history"},
    {"keep_count", OPTION_INT, Q(keep_count), "0", NULL, 0, 1000000000, NULL,
     "how many ended jobs stay in the history, the newest; 0: no limit"},
    {"on_failure", OPTION_HOOK, Q(on_failure), NULL, "that of [jobqd]", 0, 0, NULL,
     "a program that is run after a failed attempt, the story as JSON on its stdin"},
    {"on_discard", OPTION_HOOK, Q(on_discard), NULL, "that of [jobqd]", 0, 0, NULL,
     "a program that is run after a job was discarded or expired, the story as JSON on its stdin"},
    {"on_discard_kind", OPTION_TEXT, Q(on_discard_kind), NULL, "that of [jobqd]", 0, 0, NULL,
     "a job of this kind is enqueued when a job is discarded or expires, the story as its args"},
    {"on_discard_queue", OPTION_TEXT, Q(on_discard_queue), NULL, "that of [jobqd], else the discarded job's own", 0, 0, NULL,
     "the queue of that job"},
};
const size_t queue_options_count = sizeof queue_options / sizeof queue_options[0];

const struct option_row cron_options[] = {
    {"schedule", OPTION_SCHEDULE, R(schedule), NULL, "needed", 0, 0, NULL,
     "when it comes"},
    {"timezone", OPTION_ZONE, R(timezone), "UTC", NULL, 0, 0, NULL,
     "the zone whose clocks count, such as Europe/Stockholm"},
    {"kind", OPTION_TEXT, R(kind), NULL, "needed", 0, 0, NULL,
     "the kind of its jobs"},
    {"args", OPTION_JSON, R(args), "{}", NULL, 0, 0, NULL,
     "their args"},
    {"queue", OPTION_TEXT, R(queue), "default", NULL, 0, 0, NULL,
     "their queue"},
    {"priority", OPTION_INT, R(priority), "0", NULL, 0, 9, NULL,
     "0 first, 9 last"},
    {"max_attempts", OPTION_INT, R(max_attempts), NULL, "that of the queue", 1, 1000, NULL,
     "how many attempts each of its jobs has"},
    {"timeout", OPTION_DURATION, R(timeout_ms), "0", NULL, 0, 24 * DAY, NULL,
     "their deadline; 0: the queue's"},
    {"missed", OPTION_CHOICE, R(missed), "once", NULL, 0, 0, "skip|once|all",
     "of slots that nobody was there for: none more than a minute late, the newest, or all are enqueued"},
    {"overlap", OPTION_CHOICE, R(overlap), "allow", NULL, 0, 0, "allow|skip|wait",
     "when a slot comes while a job of this cron is live: allow enqueues another job, skip enqueues none, wait enqueues "
     "one that starts when the running one has ended, and at most one waits"},
    {"expires", OPTION_DURATION, R(expires_ms), "0", NULL, 0, 3650 * DAY, NULL,
     "a job that has not started this long after it was enqueued is cancelled; 0: never"},
    {"unique_by", OPTION_JSON, R(unique_by), NULL, "not unique", 0, 0, NULL,
     "enqueue no job while another is in its way by these rules; {} compares kind, queue and args"},
    {"meta", OPTION_JSON, R(meta), "{}", NULL, 0, 0, NULL,
     "an object that is kept with each job"},
};
const size_t cron_options_count = sizeof cron_options / sizeof cron_options[0];
/* clang-format on */

static int
out_of_memory(jobq_error *err)
{
    return jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

/* ---- Reading ---- */

static void
put_duration(struct jobq__buf *buf, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {{DAY, "d"}, {HOUR, "h"}, {MINUTE, "m"}, {SECOND, "s"}, {1, "ms"}};
    if (ms == 0)
        jobq__buf_addc(buf, '0');
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (ms < units[i].ms)
            continue;
        jobq__buf_add_i64(buf, ms / units[i].ms);
        jobq__buf_adds(buf, units[i].unit);
        ms %= units[i].ms;
    }
}

static void
put_bytes(struct jobq__buf *buf, int64_t bytes)
{
    static const struct {
        int64_t bytes;
        const char *name;
    } units[] = {{GIB, "GiB"}, {MIB, "MiB"}, {KIB, "KiB"}, {1, ""}};
    size_t i = 0;
    while (bytes % units[i].bytes != 0)
        i++;
    jobq__buf_add_i64(buf, bytes / units[i].bytes);
    jobq__buf_adds(buf, bytes == 0 ? "" : units[i].name);
}

/* `"WHAT" is not allowed: ALLOWED` */
static int
refuse(const struct option_row *row, const char *value, jobq_error *err)
{
    struct jobq__buf allowed = {0};
    option_put_allowed(row, &allowed);
    const char *text = jobq__buf_cstr(&allowed);
    int rc = text == NULL ? out_of_memory(err)
                          : jobq__error(err, JOBQ_EINVAL, "\"%s\" is not allowed: %s",
                                        value, text);
    jobq__buf_clear(&allowed);
    return rc;
}

/* A decimal number, optionally with a sign; false on anything else and on overflow. *rest
 * is what follows it. */
static bool
take_number(const char *text, int64_t *out, const char **rest)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]) &&
        !(text[0] == '-' && isdigit((unsigned char)text[1])))
        return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    *rest = end;
    return errno == 0;
}

static int
parse_int(const struct option_row *row, const char *value, int *out, jobq_error *err)
{
    int64_t number = 0;
    const char *rest = "";
    if (!take_number(value, &number, &rest) || *rest != '\0' || number < row->min ||
        number > row->max)
        return refuse(row, value, err);
    *out = (int)number;
    return 0;
}

static int
parse_bytes(const struct option_row *row, const char *value, size_t *out, jobq_error *err)
{
    int64_t number = 0;
    int64_t unit = 0;
    const char *rest = "";
    bool ok = take_number(value, &number, &rest);
    rest += strspn(rest, " ");
    if (*rest == '\0')
        unit = 1;
    else if (strcmp(rest, "KiB") == 0)
        unit = KIB;
    else if (strcmp(rest, "MiB") == 0)
        unit = MIB;
    else if (strcmp(rest, "GiB") == 0)
        unit = GIB;
    if (!ok || unit == 0 || number < 0 || number > row->max / unit ||
        number * unit < row->min)
        return refuse(row, value, err);
    *out = (size_t)(number * unit);
    return 0;
}

static int
parse_duration(const struct option_row *row, const char *value, int64_t *out,
               jobq_error *err)
{
    int64_t ms = 0;
    int rc = jobq__duration_parse(value, &ms, err);
    if (rc == JOBQ_ENOMEM)
        return rc;
    if (rc != 0 || ms < row->min || ms > row->max)
        return refuse(row, value, err);
    if (row->type == OPTION_DAYS)
        ms = (ms + DAY - 1) / DAY * DAY;
    *out = ms;
    return 0;
}

/* Which of the row's choices value is; -1: none of them. true is on, false is off. */
static int
find_choice(const struct option_row *row, const char *value)
{
    int nth = 0;
    if (strcmp(row->choices, "off|on") == 0)
        value = strcmp(value, "true") == 0    ? "on"
                : strcmp(value, "false") == 0 ? "off"
                                              : value;
    size_t len = strlen(value);
    for (const char *at = row->choices; *at != '\0'; nth++) {
        size_t choice = strcspn(at, "|");
        if (choice == len && strncmp(at, value, len) == 0)
            return nth;
        at += choice + (at[choice] == '|' ? 1 : 0);
    }
    return -1;
}

static bool
is_name(const char *value)
{
    size_t len = strlen(value);
    return len >= 1 && len <= 128 &&
           strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                         "._-:@") == len;
}

static int
set_text(char **field, char *text, jobq_error *err)
{
    if (text == NULL)
        return out_of_memory(err);
    free(*field);
    *field = text; /* the field's */
    return 0;
}

/* JSON's own error says more than what is allowed; a schedule's says that, too. */
static int
set_checked(const struct option_row *row, char **field, const char *value,
            jobq_error *err)
{
    struct cron cron;
    jobq_error why = {0};
    int rc = row->type == OPTION_SCHEDULE
                 ? cron_parse(value, &cron, err)
                 : jobq__json_check_object(value, strlen(value), "the value", &why);
    if (row->type == OPTION_JSON && rc == JOBQ_EINVAL)
        return jobq__error(err, rc, "%s; a JSON object is allowed", why.message);
    return rc == 0 ? set_text(field, strdup(value), err) : rc;
}

static bool
is_text(const char *value)
{
    size_t len = strlen(value);
    for (size_t i = 0; i < len; i++) {
        if (iscntrl((unsigned char)value[i]))
            return false;
    }
    return len >= 1 && len <= 128;
}

static int
set_dir(char **field, const char *value, const struct option_origin *origin,
        jobq_error *err)
{
    struct jobq__buf path = {0};
    if (value[0] != '/' && origin->folder == NULL)
        return jobq__error(err, JOBQ_EINVAL,
                           "\"%s\" is relative, and the folder that jobqd was started "
                           "in, %s, is gone: give an absolute path",
                           value, folder_name());
    if (value[0] != '/') {
        jobq__buf_adds(&path, origin->folder);
        jobq__buf_addc(&path, '/');
        while (value[0] == '.' && value[1] == '/')
            value += 2;
    }
    jobq__buf_adds(&path, value);
    /* One is kept behind a blank, which would be trimmed if it were the last byte. */
    while (path.len > 1 && path.data[path.len - 1] == '/' &&
           !isspace((unsigned char)path.data[path.len - 2]))
        path.len--;
    if (jobq__buf_cstr(&path) == NULL)
        jobq__buf_clear(&path);
    return set_text(field, path.data, err);
}

static int
set_program(char ***field, const char *value, const struct option_origin *origin,
            jobq_error *err)
{
    char **words = NULL;
    int rc = words_split(value, &words, err);
    if (rc == 0)
        rc = words_place_program(words, origin->folder, origin->path, err);
    if (rc != 0) {
        words_free(words);
        return rc;
    }
    words_free(*field);
    *field = words; /* the field's */
    return 0;
}

static int
set_env(char ***field, const char *value, jobq_error *err)
{
    char **words = NULL;
    int rc = words_split(value, &words, err);
    if (rc == 0)
        rc = environment_check(words, err);
    if (rc != 0) {
        words_free(words);
        return rc;
    }
    words_free(*field);
    *field = words; /* the field's */
    return 0;
}

/* U+200C and U+200D, which are no more than the spelling of some words: Persian and Hindi
 * have them, and emoji of several parts. */
static bool
is_joiner(const char *at)
{
    return strncmp(at, "\xe2\x80\x8c", 3) == 0 || strncmp(at, "\xe2\x80\x8d", 3) == 0;
}

/* What a terminal would obey or not show is not seen by who reads the file, either. A
 * job's own texts may join letters. */
static int
refuse_hidden(const char *value, bool is_json, jobq_error *err)
{
    struct jobq__buf shown = {0};
    const char *at = escape_find(value);
    while (at != NULL && (*at == '\t' || (is_json && is_joiner(at))))
        at = escape_find(at + (*at == '\t' ? 1 : 3));
    if (at == NULL)
        return 0;
    escape_put(&shown, at, jobq__utf8_len((const unsigned char *)at, strlen(at)));
    int rc =
        jobq__error(err, JOBQ_EINVAL,
                    "byte %td of the value is %s, a control character or one that is "
                    "not shown: not allowed",
                    at - value + 1, jobq__buf_cstr(&shown) ? shown.data : "");
    jobq__buf_clear(&shown);
    return rc;
}

int
option_set(const struct option_row *row, void *base, const char *value,
           const struct option_origin *origin, jobq_error *err)
{
    void *field = (char *)base + row->offset;
    int nth;
    const unsigned char *fault = jobq__utf8_fault(value);
    if (fault)
        return jobq__error(err, JOBQ_EINVAL,
                           "byte %td of the value, 0x%02X, is not UTF-8",
                           (const char *)fault - value + 1, *fault);
    if (*value == '\0')
        return refuse(row, value, err);
    int rc = refuse_hidden(value, row->type == OPTION_JSON, err);
    if (rc != 0)
        return rc;
    switch (row->type) {
    case OPTION_CONNINFO:
        return set_text(field, strdup(value), err);
    case OPTION_DIR:
        return set_dir(field, value, origin, err);
    case OPTION_NAME:
        return is_name(value) ? set_text(field, strdup(value), err)
                              : refuse(row, value, err);
    case OPTION_SCHEMA:
        return sqltext_is_schema(value) ? set_text(field, strdup(value), err)
                                        : refuse(row, value, err);
    case OPTION_DURATION:
    case OPTION_DAYS:
        return parse_duration(row, value, field, err);
    case OPTION_INT:
        return parse_int(row, value, field, err);
    case OPTION_BYTES:
        return parse_bytes(row, value, field, err);
    case OPTION_LEVEL:
        if ((nth = find_choice(row, value)) < 0)
            return refuse(row, value, err);
        *(enum log_level *)field = (enum log_level)nth;
        return 0;
    case OPTION_SWITCH:
        if ((nth = find_choice(row, value)) < 0)
            return refuse(row, value, err);
        *(bool *)field = nth == 1;
        return 0;
    case OPTION_COMMAND:
    case OPTION_EXEC:
    case OPTION_HOOK:
        return set_program(field, value, origin, err);
    case OPTION_ENV:
        return set_env(field, value, err);
    case OPTION_BACKOFF:
        rc = jobq__backoff_parse(value, field, err);
        return rc == JOBQ_EINVAL ? refuse(row, value, err) : rc;
    case OPTION_TEXT:
        return is_text(value) ? set_text(field, strdup(value), err)
                              : refuse(row, value, err);
    case OPTION_ZONE:
        return timezone_is_name(value) ? set_text(field, strdup(value), err)
                                       : refuse(row, value, err);
    case OPTION_JSON:
    case OPTION_SCHEDULE:
        return set_checked(row, field, value, err);
    case OPTION_CHOICE:
        if ((nth = find_choice(row, value)) < 0)
            return refuse(row, value, err);
        *(int *)field = nth;
        return 0;
    }
    return jobq__error(err, JOBQ_EINVAL, "unknown type of option");
}

void
option_clear(const struct option_row *row, void *base)
{
    void *field = (char *)base + row->offset;
    switch (row->type) {
    case OPTION_CONNINFO:
    case OPTION_DIR:
    case OPTION_NAME:
    case OPTION_SCHEMA:
    case OPTION_TEXT:
    case OPTION_JSON:
    case OPTION_SCHEDULE:
    case OPTION_ZONE:
        free(*(char **)field);
        *(char **)field = NULL;
        break;
    case OPTION_COMMAND:
    case OPTION_EXEC:
    case OPTION_HOOK:
    case OPTION_ENV:
        words_free(*(char ***)field);
        *(char ***)field = NULL;
        break;
    case OPTION_DURATION:
    case OPTION_DAYS:
    case OPTION_INT:
    case OPTION_BYTES:
    case OPTION_LEVEL:
    case OPTION_SWITCH:
    case OPTION_BACKOFF:
    case OPTION_CHOICE:
        break; /* own nothing */
    }
}

/* ---- Showing ---- */

bool
option_is_set(const struct option_row *row, const void *base)
{
    const void *field = (const char *)base + row->offset;
    if (row->type == OPTION_CONNINFO || row->type == OPTION_DIR ||
        row->type == OPTION_NAME || row->type == OPTION_SCHEMA ||
        row->type == OPTION_TEXT || row->type == OPTION_JSON ||
        row->type == OPTION_SCHEDULE || row->type == OPTION_ZONE)
        return *(char *const *)field != NULL;
    if (row->type == OPTION_COMMAND || row->type == OPTION_EXEC ||
        row->type == OPTION_HOOK || row->type == OPTION_ENV)
        return *(char **const *)field != NULL;
    if (row->type == OPTION_DURATION)
        return *(const int64_t *)field >= 0;
    if (row->type == OPTION_INT && row->fallback == NULL)
        return *(const int *)field != 0;
    return true;
}

static bool
same_words(char **a, char **b)
{
    size_t i = 0;
    if (a == NULL || b == NULL)
        return a == b;
    while (a[i] != NULL && b[i] != NULL && strcmp(a[i], b[i]) == 0)
        i++;
    return a[i] == b[i];
}

bool
option_equal(const struct option_row *row, const void *base_a, const void *base_b)
{
    const void *a = (const char *)base_a + row->offset;
    const void *b = (const char *)base_b + row->offset;
    const struct jobq__backoff *one = a, *other = b;
    const char *text_a, *text_b;
    switch (row->type) {
    case OPTION_CONNINFO:
    case OPTION_DIR:
    case OPTION_NAME:
    case OPTION_SCHEMA:
    case OPTION_TEXT:
    case OPTION_JSON:
    case OPTION_SCHEDULE:
    case OPTION_ZONE:
        text_a = *(char *const *)a;
        text_b = *(char *const *)b;
        return text_a && text_b ? strcmp(text_a, text_b) == 0 : text_a == text_b;
    case OPTION_DURATION:
    case OPTION_DAYS:
        return *(const int64_t *)a == *(const int64_t *)b;
    case OPTION_INT:
    case OPTION_CHOICE:
        return *(const int *)a == *(const int *)b;
    case OPTION_BYTES:
        return *(const size_t *)a == *(const size_t *)b;
    case OPTION_LEVEL:
        return *(const enum log_level *)a == *(const enum log_level *)b;
    case OPTION_SWITCH:
        return *(const bool *)a == *(const bool *)b;
    case OPTION_COMMAND:
    case OPTION_EXEC:
    case OPTION_HOOK:
    case OPTION_ENV:
        return same_words(*(char **const *)a, *(char **const *)b);
    case OPTION_BACKOFF:
        return one->formula == other->formula && one->base_ms == other->base_ms &&
               one->step_ms == other->step_ms && one->cap_ms == other->cap_ms &&
               one->jitter_percent == other->jitter_percent;
    }
    return false;
}

static void
put_backoff(struct jobq__buf *buf, const struct jobq__backoff *backoff)
{
    switch (backoff->formula) {
    case JOBQ__BACKOFF_OBAN:
        jobq__buf_adds(buf, "oban(");
        break;
    case JOBQ__BACKOFF_EXPONENTIAL:
        jobq__buf_adds(buf, "exponential(base=");
        break;
    case JOBQ__BACKOFF_LINEAR:
        jobq__buf_adds(buf, "linear(base=");
        break;
    case JOBQ__BACKOFF_CONSTANT:
        jobq__buf_adds(buf, "constant(");
        break;
    }
    if (backoff->formula != JOBQ__BACKOFF_OBAN)
        put_duration(buf, backoff->base_ms);
    if (backoff->formula == JOBQ__BACKOFF_LINEAR) {
        jobq__buf_adds(buf, ", step=");
        put_duration(buf, backoff->step_ms);
    }
    if (backoff->formula == JOBQ__BACKOFF_EXPONENTIAL ||
        backoff->formula == JOBQ__BACKOFF_LINEAR) {
        jobq__buf_adds(buf, ", cap=");
        put_duration(buf, backoff->cap_ms);
    }
    jobq__buf_adds(buf, backoff->formula == JOBQ__BACKOFF_OBAN ? "jitter=" : ", jitter=");
    jobq__buf_add_i64(buf, backoff->jitter_percent);
    jobq__buf_adds(buf, "%)");
}

/* ---- secrets ---- */

static bool
names_a_secret(const char *word, size_t len)
{
    static const char *const parts[] = {"PASS", "SECRET", "TOKEN", "KEY",   "CREDENTIAL",
                                        "PWD",  "AUTH",   "DSN",   "COOKIE"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t part = strlen(parts[i]);
        for (size_t at = 0; at + part <= len; at++) {
            if (strncasecmp(word + at, parts[i], part) == 0)
                return true;
        }
    }
    return false;
}

/* Appends a word of a command line as it may be shown: `--token=…`, what follows
 * `--token`, and the password of a URI or a keyword string are hidden. before: the word
 * before it, or "". */
static void
put_argument(struct jobq__buf *buf, const char *before, const char *word)
{
    size_t name = strcspn(word, "=");
    if (*before == '-' && strchr(before, '=') == NULL && *word != '-' &&
        names_a_secret(before, strlen(before)))
        jobq__buf_adds(buf, CONNINFO_HIDDEN);
    else if (word[name] == '=' && names_a_secret(word, name) &&
             strpbrk(word, " :/") == NULL) {
        jobq__buf_add(buf, word, name + 1);
        jobq__buf_adds(buf, CONNINFO_HIDDEN);
    } else if (strstr(word, "://") == NULL && strcasestr(word, "password") != NULL &&
               strchr(word, '=') != NULL)
        conninfo_redact(buf, word);
    else
        conninfo_redact_uri(buf, word);
}

/* A variable that is handed over has no value here. */
static void
put_variable(struct jobq__buf *buf, const char *before, const char *word)
{
    size_t name = strcspn(word, "=");
    (void)before;
    jobq__buf_add(buf, word, name);
    if (word[name] == '=')
        jobq__buf_adds(buf, "=" CONNINFO_HIDDEN);
}

static void
put_words(struct jobq__buf *buf, char *const *words, bool secrets,
          void (*put)(struct jobq__buf *, const char *, const char *))
{
    struct jobq__buf shown = {0};
    if (secrets) {
        words_join(buf, words);
        return;
    }
    for (char *const *at = words; *at != NULL; at++) {
        jobq__buf_reset(&shown);
        put(&shown, at > words ? at[-1] : "", *at);
        char *word[] = {jobq__buf_cstr(&shown) != NULL ? shown.data : NULL, NULL};
        buf->failed = buf->failed || word[0] == NULL;
        words_join(buf, word);
        if (at[1] != NULL)
            jobq__buf_addc(buf, ' ');
    }
    jobq__buf_clear(&shown);
}

static bool
is_secret_variable(const char *word)
{
    struct jobq__buf shown = {0};
    size_t name = strcspn(word, "=");
    if (word[name] != '=')
        return false;
    conninfo_redact_uri(&shown, word + name + 1);
    bool differs = jobq__buf_cstr(&shown) && strcmp(shown.data, word + name + 1) != 0;
    jobq__buf_clear(&shown);
    return differs || names_a_secret(word, name);
}

bool
option_has_secret(const struct option_row *row, const void *base)
{
    struct jobq__buf open = {0}, closed = {0};
    bool found = false;
    if (!option_is_set(row, base))
        return false;
    if (row->type == OPTION_ENV) {
        for (char *const *word = *(char **const *)((const char *)base + row->offset);
             *word; word++)
            found = found || is_secret_variable(*word);
        return found;
    }
    option_put(row, base, true, &open);
    option_put(row, base, false, &closed);
    found = jobq__buf_cstr(&open) && jobq__buf_cstr(&closed) &&
            strcmp(open.data, closed.data) != 0;
    jobq__buf_clear(&open);
    jobq__buf_clear(&closed);
    return found;
}

/* ---- texts ---- */

static void
put_choice(struct jobq__buf *buf, const char *choices, int nth)
{
    for (; nth > 0; nth--)
        choices += strcspn(choices, "|") + 1;
    jobq__buf_add(buf, choices, strcspn(choices, "|"));
}

/* So that no blank stands before a ;, which would begin a comment in a file: both of
 * libpq's forms have another way to write it. */
static void
put_conninfo(struct jobq__buf *buf, const char *conninfo, bool secrets)
{
    struct jobq__buf redacted = {0};
    bool uri = conninfo_is_uri(conninfo);
    if (secrets)
        jobq__buf_adds(&redacted, conninfo);
    else
        conninfo_redact(&redacted, conninfo);
    const char *text = jobq__buf_cstr(&redacted);
    buf->failed = buf->failed || text == NULL;
    for (; text != NULL && *text != '\0'; text++) {
        bool comment = isspace((unsigned char)text[0]) && text[1] == ';';
        char coded[8];
        snprintf(coded, sizeof coded, "%%%02X", (unsigned char)*text);
        if (comment && uri)
            jobq__buf_adds(buf, coded);
        else
            jobq__buf_addc(buf, *text);
        if (comment && !uri)
            jobq__buf_addc(buf, '\\');
    }
    jobq__buf_clear(&redacted);
}

void
option_put(const struct option_row *row, const void *base, bool secrets,
           struct jobq__buf *buf)
{
    const void *field = (const char *)base + row->offset;
    switch (row->type) {
    case OPTION_CONNINFO:
        put_conninfo(buf, *(char *const *)field, secrets);
        break;
    case OPTION_DIR:
    case OPTION_NAME:
    case OPTION_SCHEMA:
    case OPTION_TEXT:
    case OPTION_JSON:
    case OPTION_SCHEDULE:
    case OPTION_ZONE:
        jobq__buf_adds(buf, *(char *const *)field);
        break;
    case OPTION_DURATION:
    case OPTION_DAYS:
        put_duration(buf, *(const int64_t *)field);
        break;
    case OPTION_INT:
        jobq__buf_add_i64(buf, *(const int *)field);
        break;
    case OPTION_BYTES:
        put_bytes(buf, (int64_t) * (const size_t *)field);
        break;
    case OPTION_LEVEL:
        put_choice(buf, row->choices, (int)*(const enum log_level *)field);
        break;
    case OPTION_SWITCH:
        put_choice(buf, row->choices, *(const bool *)field ? 1 : 0);
        break;
    case OPTION_COMMAND:
    case OPTION_EXEC:
    case OPTION_HOOK:
        put_words(buf, *(char **const *)field, secrets, put_argument);
        break;
    case OPTION_ENV:
        put_words(buf, *(char **const *)field, secrets, put_variable);
        break;
    case OPTION_BACKOFF:
        put_backoff(buf, field);
        break;
    case OPTION_CHOICE:
        put_choice(buf, row->choices, *(const int *)field);
        break;
    }
}

const char *
option_placeholder(enum option_type type)
{
    static const char *const placeholders[] = {
#define X(name, placeholder) placeholder,
        OPTION_TYPES(X)
#undef X
    };
    return placeholders[type];
}

static void
put_range(struct jobq__buf *buf, const struct option_row *row,
          void (*put)(struct jobq__buf *, int64_t))
{
    put(buf, row->min);
    jobq__buf_adds(buf, " to ");
    put(buf, row->max);
}

void
option_put_allowed(const struct option_row *row, struct jobq__buf *buf)
{
    switch (row->type) {
    case OPTION_CONNINFO:
        jobq__buf_adds(buf, "a libpq URI or keyword string, such as postgresql:///app");
        break;
    case OPTION_DIR:
        jobq__buf_adds(buf, "the path of a folder");
        break;
    case OPTION_NAME:
        jobq__buf_adds(buf, "1 to 128 letters, digits and . _ - : @");
        break;
    case OPTION_SCHEMA:
        jobq__buf_adds(buf,
                       "lower-case letters, digits and _, not beginning with a digit "
                       "or pg_, at most 63");
        break;
    case OPTION_DURATION:
        put_range(buf, row, put_duration);
        jobq__buf_adds(buf, ", with a unit (ms, s, m, h, d)");
        break;
    case OPTION_DAYS:
        put_range(buf, row, put_duration);
        jobq__buf_adds(buf, ", with a unit (h, d)");
        break;
    case OPTION_INT:
        put_range(buf, row, jobq__buf_add_i64);
        break;
    case OPTION_BYTES:
        put_range(buf, row, put_bytes);
        jobq__buf_adds(buf, ", with a unit (KiB, MiB, GiB) or in bytes");
        break;
    case OPTION_LEVEL:
    case OPTION_SWITCH:
    case OPTION_CHOICE:
        for (const char *at = row->choices; *at != '\0'; at++) {
            if (*at != '|')
                jobq__buf_addc(buf, *at);
            else
                jobq__buf_adds(buf, strchr(at + 1, '|') != NULL ? ", " : " or ");
        }
        break;
    case OPTION_COMMAND:
    case OPTION_EXEC:
    case OPTION_HOOK:
        jobq__buf_adds(buf, "a program and its arguments");
        break;
    case OPTION_ENV:
        jobq__buf_adds(buf, "words NAME or NAME=VALUE");
        break;
    case OPTION_BACKOFF:
        jobq__buf_adds(buf,
                       "oban, exponential(base=15s, cap=24h), linear(base=15s, step=15s, "
                       "cap=1h) or constant(30s), each also with jitter=N%");
        break;
    case OPTION_TEXT:
        jobq__buf_adds(buf, "1 to 128 bytes");
        break;
    case OPTION_JSON:
        jobq__buf_adds(buf, "a JSON object");
        break;
    case OPTION_SCHEDULE:
        jobq__buf_adds(buf, "five fields (minute, hour, day of month, month, day of "
                            "week), @yearly, @annually, @monthly, @weekly, @daily, "
                            "@midnight, @hourly, @reboot or @every TIME");
        break;
    case OPTION_ZONE:
        jobq__buf_adds(buf, "a time zone's name, such as Europe/Stockholm");
        break;
    }
}

/* lease and LEASE-like spellings are one option: a flag has '-' where the file has '_'.
 */
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

/* "1s to 10m; default 15s" */
static void
put_facts(struct jobq__buf *buf, const struct option_row *row)
{
    option_put_allowed(row, buf);
    jobq__buf_adds(buf, "; default: ");
    jobq__buf_adds(buf, row->fallback != NULL ? row->fallback : row->absent);
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
    struct jobq__buf buf = {0}, text = {0};
    for (const struct option_row *row = rows; row < rows + n; row++) {
        jobq__buf_adds(&buf, "      --");
        for (const char *at = row->name; *at != '\0'; at++)
            jobq__buf_addc(&buf, *at == '_' ? '-' : *at);
        jobq__buf_addc(&buf, ' ');
        jobq__buf_adds(&buf, option_placeholder(row->type));
        jobq__buf_adds(&buf, "\n          ");
        jobq__buf_reset(&text);
        jobq__buf_adds(&text, row->help);
        jobq__buf_adds(&text, " (");
        put_facts(&text, row);
        jobq__buf_adds(&text, ")");
        if (jobq__buf_cstr(&text) != NULL)
            wrap_put(&buf, text.data, HELP_INDENT, HELP_INDENT);
        else
            buf.failed = true;
    }
    jobq__buf_clear(&text);
    return write_out(out, &buf);
}

/* scdoc gives a meaning to these at least. */
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
        jobq__buf_adds(&buf, " (");
        if (text != NULL)
            put_scdoc(&buf, text);
        else
            buf.failed = true;
        jobq__buf_adds(&buf, ")\n\n");
    }
    jobq__buf_clear(&facts);
    return write_out(out, &buf);
}
