/* config.c: merges the file, the environment and the flags into one checked
 * configuration.
 *
 * Later sources win: the defaults, the file, JOBQ_* variables, flags. DATABASE_URL, which
 * other programs of the host may have been given, counts only where none of these names a
 * database. An empty variable is none.
 */
#include "jobqd/config/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/escape.h"
#include "jobqd/base/folder.h"
#include "jobqd/config/inifile.h"
#include "jobqd/config/options.h"
#include "jobqd/config/timezone.h"
#include "jobqd/config/unique_by.h"
#include "jobqd/pure/nearest.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

#define MAX_OPTIONS 64 /* rows of either table */
#define MAX_QUEUES 1000
#define MAX_CRONS 1000
#define LEAST_MEMORY ((size_t)1024 * 1024)
#define LEAST_FILES 16
#define MAX_NAME 128 /* bytes; the tables of jobs and crons have the same limit */

enum section { SECTION_NONE, SECTION_JOBQD, SECTION_QUEUE, SECTION_CRON };

/* Where a value came from: a later one wins. */
enum source { SOURCE_NONE, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_FLAG };

struct loader {
    struct config *config;
    const char *file;
    char *folder; /* the file's, absolute */
    char *cwd;    /* what relative paths from elsewhere count from; NULL: it is gone */
    const char *path;
    enum section section;
    int section_line;
    int jobqd_line;        /* of the [jobqd] section; 0: none yet */
    int seen[MAX_OPTIONS]; /* lines of the current section's options; 0: not set */
    enum source database_from;
    enum source embedded_from;
};

static int
out_of_memory(jobq_error *err)
{
    return jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

/* ---- The file ---- */

static struct queue_config *
current_queue(const struct loader *l)
{
    return &l->config->queues[l->config->n_queues - 1];
}

static struct cron_config *
current_cron(const struct loader *l)
{
    return &l->config->crons[l->config->n_crons - 1];
}

/* The rows of the current section's options, the struct that they fill, and where it
 * keeps their lines. */
static const struct option_row *
current_rows(const struct loader *l, size_t *n, void **base, int **lines)
{
    switch (l->section) {
    case SECTION_QUEUE:
        *n = queue_options_count;
        *base = current_queue(l);
        *lines = current_queue(l)->lines;
        return queue_options;
    case SECTION_CRON:
        *n = cron_options_count;
        *base = current_cron(l);
        *lines = current_cron(l)->lines;
        return cron_options;
    case SECTION_NONE:
    case SECTION_JOBQD:
        break;
    }
    *n = jobqd_options_count;
    *base = l->config;
    *lines = l->config->lines;
    return jobqd_options;
}

/* `FILE:LINE: [section] key: WHY`; key may be NULL. */
static int
refuse_at(const struct loader *l, int code, int line, const char *key, const char *why,
          jobq_error *err)
{
    const char *kind = l->section == SECTION_QUEUE  ? "queue "
                       : l->section == SECTION_CRON ? "cron "
                                                    : "jobqd";
    const char *name = l->section == SECTION_QUEUE  ? current_queue(l)->name
                       : l->section == SECTION_CRON ? current_cron(l)->name
                                                    : "";
    return jobq__error(err, code, "%s:%d: [%s%s]%s%s: %s", l->file, line, kind, name,
                       key != NULL ? " " : "", key != NULL ? key : "", why);
}

/* The line of an option of the queue whose section ends. */
static int
line_of(const struct loader *l, const char *name)
{
    return l->seen[option_find(queue_options, queue_options_count, name) - queue_options];
}

/* What one option alone cannot be wrong about. */
static int
check_limits(const struct loader *l, const struct queue_config *queue, jobq_error *err)
{
    static const char too_little[] = "less than any program needs: 1MiB or more, or 0";
    if (queue->max_memory > 0 && queue->max_memory < LEAST_MEMORY)
        return refuse_at(l, JOBQ_EINVAL, line_of(l, "max_memory"), "max_memory",
                         too_little, err);
    if (queue->max_memory_hard > 0 && queue->max_memory_hard < LEAST_MEMORY)
        return refuse_at(l, JOBQ_EINVAL, line_of(l, "max_memory_hard"), "max_memory_hard",
                         too_little, err);
    if (queue->max_memory_hard > 0 && queue->max_memory > queue->max_memory_hard)
        return refuse_at(l, JOBQ_EINVAL, line_of(l, "max_memory"), "max_memory",
                         "more than max_memory_hard, which would always come first", err);
    if (queue->nofile > 0 && queue->nofile < LEAST_FILES)
        return refuse_at(l, JOBQ_EINVAL, line_of(l, "nofile"), "nofile",
                         "less than any program needs: 16 or more, or 0", err);
    return 0;
}

static int
check_unique_by(const struct loader *l, const struct cron_config *cron, jobq_error *err)
{
    const struct option_row *row =
        option_find(cron_options, cron_options_count, "unique_by");
    jobq_error why = {0};
    int rc = cron->unique_by ? unique_by_check(cron->unique_by, row->name, &why) : 0;
    return rc == 0 ? 0
                   : jobq__error(err, rc, "%s:%d: [cron %s] %s", l->file,
                                 l->seen[row - cron_options], cron->name, why.message);
}

/* A queue, or a cron, can be checked once its section has ended. */
static int
end_section(struct loader *l, jobq_error *err)
{
    if (l->section == SECTION_CRON && current_cron(l)->schedule == NULL)
        return refuse_at(l, JOBQ_EINVAL, l->section_line, NULL,
                         "needs schedule = SCHEDULE", err);
    if (l->section == SECTION_CRON && current_cron(l)->kind == NULL)
        return refuse_at(l, JOBQ_EINVAL, l->section_line, NULL, "needs kind = KIND", err);
    if (l->section == SECTION_CRON)
        return check_unique_by(l, current_cron(l), err);
    if (l->section != SECTION_QUEUE)
        return 0;
    struct queue_config *queue = current_queue(l);
    if (queue->argv == NULL)
        return refuse_at(l, JOBQ_EINVAL, l->section_line, NULL,
                         "needs command = PROGRAM or exec = PROGRAM", err);
    int rc = check_limits(l, queue, err);
    if (rc != 0 || queue->mode == QUEUE_COMMAND)
        return rc;
    for (size_t i = 0; i < queue_options_count; i++) {
        const struct option_row *row = &queue_options[i];
        if (row->scope == OPTION_WORKERS && l->seen[i] != 0)
            return refuse_at(l, JOBQ_EINVAL, l->seen[i], row->name,
                             "belongs to command; an exec queue runs one process a job",
                             err);
    }
    queue->mailbox = 1;
    return 0;
}

/* The name in [WHAT NAME]. */
static int
check_name(const struct loader *l, const char *what, const char *name, jobq_error *err)
{
    size_t len = strlen(name);
    if (len < 1 || len > MAX_NAME)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s:%d: [%s %s]: a %s's name has 1 to %d bytes", l->file,
                           l->section_line, what, name, what, MAX_NAME);
    if (escape_find(name) != NULL)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s:%d: [%s %s]: a control character in the name, or one that "
                           "is not shown",
                           l->file, l->section_line, what, name);
    return 0;
}

static int
refuse_second(const struct loader *l, const char *what, const char *name, int first,
              jobq_error *err)
{
    return jobq__error(err, JOBQ_EINVAL,
                       "%s:%d: [%s%s] is defined twice, first in line %d", l->file,
                       l->section_line, what, name, first);
}

static int
add_queue(struct loader *l, const char *name, jobq_error *err)
{
    struct config *config = l->config;
    for (size_t i = 0; i < config->n_queues; i++) {
        if (strcmp(config->queues[i].name, name) == 0)
            return refuse_second(l, "queue ", name, config->queues[i].line, err);
    }
    int rc = check_name(l, "queue", name, err);
    if (rc != 0)
        return rc;
    if (config->n_queues == MAX_QUEUES)
        return jobq__error(err, JOBQ_EINVAL, "%s:%d: more than %d queues", l->file,
                           l->section_line, MAX_QUEUES);
    struct queue_config *queues =
        realloc(config->queues, (config->n_queues + 1) * sizeof *queues);
    if (queues == NULL)
        return out_of_memory(err);
    config->queues = queues;
    struct queue_config *queue = &queues[config->n_queues];
    memset(queue, 0, sizeof *queue);
    queue->home = config;
    queue->shutdown_grace_ms = -1;
    queue->keep_completed_ms = queue->keep_failed_ms = -1;
    queue->line = l->section_line;
    queue->name = strdup(name);
    queue->lines = calloc(queue_options_count, sizeof queue->lines[0]);
    if (queue->name == NULL || queue->lines == NULL) {
        free(queue->name);
        free(queue->lines);
        return out_of_memory(err);
    }
    config->n_queues++; /* from here on config_free frees it */
    return options_set_defaults(queue_options, queue_options_count, queue, err);
}

static int
add_cron(struct loader *l, const char *name, jobq_error *err)
{
    struct config *config = l->config;
    for (size_t i = 0; i < config->n_crons; i++) {
        if (strcmp(config->crons[i].name, name) == 0)
            return refuse_second(l, "cron ", name, config->crons[i].line, err);
    }
    int rc = check_name(l, "cron", name, err);
    if (rc != 0)
        return rc;
    if (config->n_crons == MAX_CRONS)
        return jobq__error(err, JOBQ_EINVAL, "%s:%d: more than %d crons", l->file,
                           l->section_line, MAX_CRONS);
    struct cron_config *crons =
        realloc(config->crons, (config->n_crons + 1) * sizeof *crons);
    if (crons == NULL)
        return out_of_memory(err);
    config->crons = crons;
    struct cron_config *cron = &crons[config->n_crons];
    memset(cron, 0, sizeof *cron);
    cron->line = l->section_line;
    cron->name = strdup(name);
    cron->lines = calloc(cron_options_count, sizeof cron->lines[0]);
    if (cron->name == NULL || cron->lines == NULL) {
        free(cron->name);
        free(cron->lines);
        return out_of_memory(err);
    }
    config->n_crons++; /* from here on config_free frees it */
    return options_set_defaults(cron_options, cron_options_count, cron, err);
}

/* The NAME of `WHAT NAME`, which may be missing; NULL: it is no such section. */
static const char *
section_name(const char *section, const char *what)
{
    size_t len = strlen(what);
    if (strncmp(section, what, len) != 0 ||
        (section[len] != '\0' && !isblank((unsigned char)section[len])))
        return NULL;
    return section + len + strspn(section + len, " \t");
}

static int
refuse_section(const struct loader *l, const char *section, int line, jobq_error *err)
{
    char word[NEAREST_MAX];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(section, " \t"), section);
    struct nearest nearest;
    nearest_begin(&nearest, word);
    nearest_offer(&nearest, "queue");
    nearest_offer(&nearest, "cron");
    nearest_offer(&nearest, "jobqd");
    bool near = nearest.best != NULL;
    return jobq__error(err, JOBQ_EINVAL,
                       "%s:%d: [%s]: no such section; [jobqd], [queue NAME] and [cron "
                       "NAME] are allowed%s%s%s%s",
                       l->file, line, section, near ? "; did you mean [" : "",
                       near ? nearest.best : "", near ? section + strlen(word) : "",
                       near ? "]?" : "");
}

static int
on_section(void *data, const char *section, int line, jobq_error *err)
{
    struct loader *l = data;
    int rc = end_section(l, err);
    if (rc != 0)
        return rc;
    memset(l->seen, 0, sizeof l->seen);
    l->section_line = line;
    if (strcmp(section, "jobqd") == 0) {
        if (l->jobqd_line != 0)
            return refuse_second(l, "jobqd", "", l->jobqd_line, err);
        l->section = SECTION_JOBQD;
        l->jobqd_line = line;
        return 0;
    }
    const char *queue = section_name(section, "queue");
    const char *cron = section_name(section, "cron");
    if (queue != NULL) {
        rc = add_queue(l, queue, err);
        l->section = SECTION_QUEUE;
        return rc;
    }
    if (cron != NULL) {
        rc = add_cron(l, cron, err);
        l->section = SECTION_CRON;
        return rc;
    }
    return refuse_section(l, section, line, err);
}

/* The section that has one of that name; else the option that is most like it. Returns
 * whether there is one. */
static bool
put_meant(const struct loader *l, const struct option_row *rows, size_t n,
          const char *key, struct jobq__buf *why)
{
    static const struct {
        enum section section;
        const struct option_row *rows;
        const size_t *n;
        const char *name;
    } all[] = {{SECTION_JOBQD, jobqd_options, &jobqd_options_count, "[jobqd]"},
               {SECTION_QUEUE, queue_options, &queue_options_count, "[queue NAME]"},
               {SECTION_CRON, cron_options, &cron_options_count, "[cron NAME]"}};
    struct nearest nearest;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].section == l->section || !option_find(all[i].rows, *all[i].n, key))
            continue;
        jobq__buf_adds(why, "; it is an option of ");
        jobq__buf_adds(why, all[i].name);
        jobq__buf_addc(why, '.');
        return true;
    }
    nearest_begin(&nearest, key);
    for (size_t i = 0; i < n; i++)
        nearest_offer(&nearest, rows[i].name);
    if (nearest.best != NULL) {
        jobq__buf_adds(why, "; did you mean ");
        jobq__buf_adds(why, nearest.best);
        jobq__buf_addc(why, '?');
    }
    return nearest.best != NULL;
}

/* What was meant comes first: the list may be cut. */
static int
refuse_unknown(const struct loader *l, const struct option_row *rows, size_t n,
               const char *key, int line, jobq_error *err)
{
    struct jobq__buf why = {0};
    jobq__buf_adds(&why, "no such option");
    bool meant = put_meant(l, rows, n, key, &why);
    jobq__buf_adds(&why, meant ? " Allowed here are " : "; allowed are ");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            jobq__buf_adds(&why, i + 1 < n ? ", " : " and ");
        jobq__buf_adds(&why, rows[i].name);
    }
    const char *text = jobq__buf_cstr(&why);
    int rc = text == NULL ? out_of_memory(err)
                          : refuse_at(l, JOBQ_EINVAL, line, key, text, err);
    jobq__buf_clear(&why);
    return rc;
}

/* A connection string is libpq's to judge, in a higher layer: label is for its error. */
static int
note_source(struct loader *l, const struct option_row *row, const char *label,
            enum source source, jobq_error *err)
{
    if (row->type == OPTION_DIR)
        l->embedded_from = source;
    if (row->type != OPTION_CONNINFO)
        return 0;
    l->database_from = source;
    char *copy = strdup(label);
    if (copy == NULL)
        return out_of_memory(err);
    free(l->config->database_from);
    l->config->database_from = copy; /* the configuration's */
    return 0;
}

static int
on_value(void *data, const char *key, const char *value, int line, jobq_error *err)
{
    struct loader *l = data;
    if (l->section == SECTION_NONE)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s:%d: %s stands before any section; begin with [jobqd]",
                           l->file, line, key);
    size_t n;
    void *base;
    int *lines;
    const struct option_row *rows = current_rows(l, &n, &base, &lines);
    const struct option_row *row = option_find(rows, n, key);
    if (row == NULL || strcmp(row->name, key) != 0)
        return refuse_unknown(l, rows, n, key, line, err);
    if (l->seen[row - rows] != 0) {
        char why[64];
        snprintf(why, sizeof why, "there already, in line %d", l->seen[row - rows]);
        return refuse_at(l, JOBQ_EINVAL, line, key, why, err);
    }
    if ((row->type == OPTION_COMMAND || row->type == OPTION_EXEC) &&
        option_is_set(row, base))
        return refuse_at(l, JOBQ_EINVAL, line, key,
                         "a queue has either command or exec, not both", err);
    jobq_error why = {0};
    struct option_origin origin = {.folder = l->folder, .path = l->path};
    int rc = option_set(row, base, value, &origin, &why);
    if (rc != 0)
        return refuse_at(l, rc, line, key, why.message, err);
    l->seen[row - rows] = line;
    if (row->type == OPTION_EXEC)
        current_queue(l)->mode = QUEUE_EXEC;
    lines[row - rows] = line;
    if (l->section != SECTION_JOBQD)
        return 0;
    char label[PATH_MAX + 64];
    snprintf(label, sizeof label, "%s:%d: [jobqd] %s", l->file, line, key);
    return note_source(l, row, label, SOURCE_FILE, err);
}

static int
load_file(struct loader *l, jobq_error *err)
{
    static const struct inifile_events events = {.on_section = on_section,
                                                 .on_value = on_value};
    const char *slash = strrchr(l->file, '/');
    char *folder = slash == NULL      ? strdup(".")
                   : slash == l->file ? strdup("/")
                                      : strndup(l->file, (size_t)(slash - l->file));
    if (folder == NULL)
        return out_of_memory(err);
    l->folder = realpath(folder, NULL);
    free(folder);
    if (l->folder == NULL)
        return jobq__error(err, JOBQ_EIO, "%s: %s", l->file, strerror(errno));
    int rc = inifile_read(l->file, &events, l, err);
    return rc != 0 ? rc : end_section(l, err);
}

/* ---- The environment and the flags ---- */

static const char *
environment_get(char *const *environment, const char *name)
{
    size_t len = strlen(name);
    for (; environment != NULL && *environment != NULL; environment++) {
        if (strncmp(*environment, name, len) == 0 && (*environment)[len] == '=')
            return *environment + len + 1;
    }
    return NULL;
}

/* Whether a file would have a comment begin in it, behind its first byte. */
static bool
has_comment(const char *value)
{
    for (; *value != '\0'; value++) {
        if (isspace((unsigned char)value[0]) && value[1] == ';')
            return true;
    }
    return false;
}

/* A copy of a value from outside the file as a file would give it: without the blanks
 * around it. What a file cannot hold is refused, so that the configuration can be printed
 * as one; a connection string writes a blank and a ; in another way (option_put). The
 * value may hold a password, and is not shown. */
static int
copy_value(const struct option_row *row, const char *value, char **out, jobq_error *err)
{
    while (isspace((unsigned char)*value))
        value++;
    size_t len = strlen(value);
    while (len > 0 && isspace((unsigned char)value[len - 1]))
        len--;
    char *copy = strndup(value, len);
    if (copy == NULL)
        return out_of_memory(err);
    const char *why = NULL;
    if (strpbrk(copy, "\r\n") != NULL)
        why = "a line break in the value; everything has to stand on one line";
    else if (copy[0] == ';')
        why = "a ; at the beginning is not allowed: in the file it begins a comment";
    else if (row->type == OPTION_DIR && has_comment(copy))
        why = "a ; behind a blank is not allowed: in the file it begins a comment";
    if (why != NULL) {
        free(copy);
        return jobq__error(err, JOBQ_EINVAL, "%s", why);
    }
    *out = copy;
    return 0;
}

/* label: how the user wrote the option, for the message. */
static int
set_from(struct loader *l, const struct option_row *row, const char *label,
         const char *value, enum source source, jobq_error *err)
{
    jobq_error why = {0};
    struct option_origin origin = {.folder = l->cwd, .path = l->path};
    char *copy = NULL;
    int rc = copy_value(row, value, &copy, &why);
    if (rc == 0)
        rc = option_set(row, l->config, copy, &origin, &why);
    free(copy);
    if (rc != 0)
        return jobq__error(err, rc, "%s: %s", label, why.message);
    l->config->lines[row - jobqd_options] = 0;
    return note_source(l, row, label, source, err);
}

static int
load_environment(struct loader *l, char *const *environment, jobq_error *err)
{
    for (size_t i = 0; i < jobqd_options_count; i++) {
        char name[64] = "JOBQ_";
        size_t len = strlen(name);
        for (const char *at = jobqd_options[i].name; *at != '\0' && len < sizeof name - 1;
             at++)
            name[len++] = (char)toupper((unsigned char)*at);
        name[len] = '\0';
        const char *value = environment_get(environment, name);
        if (value == NULL || *value == '\0')
            continue;
        int rc = set_from(l, &jobqd_options[i], name, value, SOURCE_ENVIRONMENT, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int
load_flags(struct loader *l, const struct config_flag *flags, size_t n, jobq_error *err)
{
    for (size_t i = 0; i < n; i++) { /* flags may be NULL for none */
        const struct config_flag *flag = &flags[i];
        char label[80];
        snprintf(label, sizeof label, "--%s", flag->name);
        const struct option_row *row =
            option_find(jobqd_options, jobqd_options_count, flag->name);
        if (row == NULL)
            return jobq__error(err, JOBQ_EINVAL, "%s: no such option", label);
        int rc = set_from(l, row, label, flag->value, SOURCE_FLAG, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* A variable that was exported for an application's client, say, and not for jobqd. Who
 * gives a flag means it. */
static int
note_replaced(struct loader *l, bool database_counts, jobq_error *err)
{
    enum source wins = database_counts ? l->database_from : l->embedded_from;
    enum source loses = database_counts ? l->embedded_from : l->database_from;
    if (wins != SOURCE_ENVIRONMENT || loses != SOURCE_FILE)
        return 0;
    const char *name = database_counts ? "JOBQ_DATABASE" : "JOBQ_EMBEDDED";
    const char *key = database_counts ? "embedded" : "database";
    jobq_error text = {0};
    jobq__error(&text, JOBQ_EINVAL,
                "%s is set in the environment and replaces %s of %s: unset %s, take %s "
                "out of the file, or say on the command line which one is meant",
                name, key, l->file, name, key);
    l->config->replaced = strdup(text.message);
    return l->config->replaced ? 0 : out_of_memory(err);
}

/* Of database and embedded, the one from the later source counts; from one source there
 * may be only one. */
static int
choose_database(struct loader *l, char *const *environment, jobq_error *err)
{
    static const char *const where[] = {"", "the configuration file", "the environment",
                                        "the command line"};
    const struct option_row *database =
        option_find(jobqd_options, jobqd_options_count, "database");
    const struct option_row *embedded =
        option_find(jobqd_options, jobqd_options_count, "embedded");
    if (l->database_from == SOURCE_NONE && l->embedded_from == SOURCE_NONE) {
        const char *url = environment_get(environment, "DATABASE_URL");
        if (url != NULL && *url != '\0')
            return set_from(l, database, "DATABASE_URL", url, SOURCE_ENVIRONMENT, err);
        return 0;
    }
    if (l->database_from == l->embedded_from)
        return jobq__error(err, JOBQ_EINVAL,
                           "database and embedded are both set by %s; give one of them",
                           where[l->database_from]);
    bool keep_database = l->database_from > l->embedded_from;
    option_clear(keep_database ? embedded : database, l->config);
    return note_replaced(l, keep_database, err);
}

static int
name_node(struct config *config, jobq_error *err)
{
    char host[HOST_NAME_MAX + 1] = "";
    if (config->node != NULL)
        return 0;
    if (gethostname(host, sizeof host) != 0)
        return jobq__error(err, JOBQ_EIO, "the host's name: %s; set node",
                           strerror(errno));
    host[sizeof host - 1] = '\0';
    jobq_error why = {0};
    int rc = option_set(option_find(jobqd_options, jobqd_options_count, "node"), config,
                        host, NULL, &why);
    return rc == 0 ? 0
                   : jobq__error(err, rc, "the host's name: %s; set node", why.message);
}

int64_t
config_keep_cancelled_ms(const struct config *config)
{
    return config->keep_cancelled_ms >= 0 ? config->keep_cancelled_ms
                                          : config->keep_failed_ms;
}

int64_t
config_keep_discarded_ms(const struct config *config)
{
    return config->keep_discarded_ms >= 0 ? config->keep_discarded_ms
                                          : config->keep_failed_ms;
}

int64_t
config_drop_failed_ms(const struct config *config)
{
    static const int64_t day_ms = INT64_C(24) * 3600 * 1000;
    int64_t cancelled_ms = config_keep_cancelled_ms(config);
    int64_t discarded_ms = config_keep_discarded_ms(config);
    int64_t most_ms = cancelled_ms > discarded_ms ? cancelled_ms : discarded_ms;
    return (most_ms + day_ms - 1) / day_ms * day_ms;
}

/* A queue's history cannot outlive the days, which are dropped whole. */
static int
check_keep(const struct config *config, const struct queue_config *queue,
           const char *option, int64_t keep_ms, int64_t most_ms, jobq_error *err)
{
    char where[300];
    if (keep_ms <= most_ms)
        return 0;
    config_where(config, queue, option, where, sizeof where);
    return jobq__error(err, JOBQ_EINVAL,
                       "%s: it is more than the %" PRId64
                       "d after which [jobqd] has the history dropped",
                       where, most_ms / (INT64_C(24) * 3600 * 1000));
}

static int
check_retention(const struct config *config, jobq_error *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        rc = check_keep(config, queue, "keep_completed", queue->keep_completed_ms,
                        config->keep_completed_ms, err);
        if (rc == 0)
            rc = check_keep(config, queue, "keep_failed", queue->keep_failed_ms,
                            config_drop_failed_ms(config), err);
    }
    return rc;
}

int
config_load(struct config **out, const char *file, char *const *environment,
            const struct config_flag *flags, size_t n_flags, jobq_error *err)
{
    struct loader l = {.file = file, .config = calloc(1, sizeof *l.config)};
    int rc = 0;
    l.cwd = realpath(folder_name(), NULL); /* NULL: only relative paths need it */
    l.path = environment_get(environment, "PATH");
    if (l.config == NULL) {
        rc = out_of_memory(err);
        goto done;
    }
    if (file != NULL && (l.config->file = strdup(file)) == NULL) {
        rc = out_of_memory(err);
        goto done;
    }
    l.config->lines = calloc(jobqd_options_count, sizeof l.config->lines[0]);
    if (l.config->lines == NULL) {
        rc = out_of_memory(err);
        goto done;
    }
    l.config->keep_cancelled_ms = l.config->keep_discarded_ms = -1;
    rc = options_set_defaults(jobqd_options, jobqd_options_count, l.config, err);
    if (rc == 0 && file != NULL)
        rc = load_file(&l, err);
    if (rc == 0)
        rc = load_environment(&l, environment, err);
    if (rc == 0)
        rc = load_flags(&l, flags, n_flags, err);
    if (rc == 0)
        rc = choose_database(&l, environment, err);
    if (rc == 0)
        rc = name_node(l.config, err);
    if (rc == 0)
        rc = check_retention(l.config, err);
    if (rc == 0) {
        l.config->holders = 1;
        *out = l.config;
        l.config = NULL; /* the caller's */
    }
done:
    config_free(l.config);
    free(l.folder);
    free(l.cwd);
    return rc;
}

void
config_where(const struct config *config, const struct queue_config *queue,
             const char *option, char *out, size_t size)
{
    const struct option_row *rows = queue ? queue_options : jobqd_options;
    size_t n = queue ? queue_options_count : jobqd_options_count;
    const struct option_row *row = option_find(rows, n, option);
    int line = row != NULL ? (queue ? queue->lines : config->lines)[row - rows] : 0;
    const char *file = config->file != NULL ? config->file : "";
    char section[MAX_NAME + 16];
    snprintf(section, sizeof section, "[%s%s]", queue ? "queue " : "jobqd",
             queue ? queue->name : "");
    if (line > 0)
        snprintf(out, size, "%s:%d: %s %s", file, line, section, option);
    else
        snprintf(out, size, "%s%s%s%s%s", file, *file != '\0' ? ": " : "", section,
                 queue ? "" : " ", queue ? "" : option);
}

static const struct option_row *
cron_row(const char *name)
{
    return option_find(cron_options, cron_options_count, name);
}

int
config_check_zones(const struct config *config, jobq_error *err)
{
    const struct option_row *row = cron_row("timezone");
    for (size_t i = 0; i < config->n_crons; i++) {
        const struct cron_config *cron = &config->crons[i];
        jobq_error why = {0};
        if (timezone_check(cron->timezone, &why) == JOBQ_EINVAL)
            return jobq__error(err, JOBQ_EINVAL, "%s:%d: [cron %s] timezone: %s",
                               config->file, cron->lines[row - cron_options], cron->name,
                               why.message);
    }
    return 0;
}

/* `"name":`, and a comma before it. */
static void
put_name(struct jobq__buf *out, const char *name)
{
    if (out->len > 0 && out->data[out->len - 1] != '{')
        jobq__buf_addc(out, ',');
    jobq__buf_add_json_string(out, name, strlen(name));
    jobq__buf_addc(out, ':');
}

static void
put_text(struct jobq__buf *out, const char *name, const char *value)
{
    put_name(out, name);
    jobq__buf_add_json_string(out, value, strlen(value));
}

static void
put_raw(struct jobq__buf *out, const char *name, const char *json)
{
    put_name(out, name);
    jobq__buf_adds(out, json);
}

static void
put_number(struct jobq__buf *out, const char *name, int64_t value)
{
    put_name(out, name);
    jobq__buf_add_i64(out, value);
}

/* A choice as its word. */
static void
put_word(struct jobq__buf *out, const char *name, const struct cron_config *cron)
{
    put_name(out, name);
    jobq__buf_addc(out, '"');
    option_put(cron_row(name), cron, true, out);
    jobq__buf_addc(out, '"');
}

/* What has its default is left out, so that a new option changes no section that does not
 * use it: the database compares a section with what this node said last. */
static void
put_cron(struct jobq__buf *out, const struct cron_config *cron)
{
    put_text(out, "schedule", cron->schedule);
    put_text(out, "timezone", cron->timezone);
    put_text(out, "kind", cron->kind);
    put_raw(out, "args", cron->args);
    put_raw(out, "meta", cron->meta);
    put_text(out, "queue", cron->queue);
    put_word(out, "missed", cron);
    put_number(out, "priority", cron->priority);
    if (cron->max_attempts > 0)
        put_number(out, "max_attempts", cron->max_attempts);
    if (cron->timeout_ms > 0)
        put_number(out, "timeout_ms", cron->timeout_ms);
    if (cron->overlap > 0)
        put_word(out, "overlap", cron);
    if (cron->expires_ms > 0)
        put_number(out, "expires_ms", cron->expires_ms);
    if (cron->unique_by != NULL)
        put_raw(out, "unique_by", cron->unique_by);
}

void
config_put_crons(const struct config *config, struct jobq__buf *out)
{
    jobq__buf_addc(out, '{');
    for (size_t i = 0; i < config->n_crons; i++) {
        put_raw(out, config->crons[i].name, "{");
        put_cron(out, &config->crons[i]);
        jobq__buf_addc(out, '}');
    }
    jobq__buf_addc(out, '}');
}

void
config_put_queues(const struct config *config, struct jobq__buf *out)
{
    jobq__buf_addc(out, '{');
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        if (queue->max_attempts > 0)
            put_number(out, queue->name, queue->max_attempts);
        else
            put_raw(out, queue->name, "null");
    }
    jobq__buf_addc(out, '}');
}

void
config_free(struct config *config)
{
    if (config == NULL)
        return;
    if (config->holders > 1) {
        config->holders--;
        return;
    }
    for (size_t i = 0; i < config->n_queues; i++) {
        for (size_t row = 0; row < queue_options_count; row++)
            option_clear(&queue_options[row], &config->queues[i]);
        free(config->queues[i].name);
        free(config->queues[i].lines);
    }
    for (size_t i = 0; i < config->n_crons; i++) {
        for (size_t row = 0; row < cron_options_count; row++)
            option_clear(&cron_options[row], &config->crons[i]);
        free(config->crons[i].name);
        free(config->crons[i].lines);
    }
    free(config->crons);
    free(config->queues);
    free(config->database_from);
    free(config->replaced);
    for (size_t row = 0; row < jobqd_options_count; row++)
        option_clear(&jobqd_options[row], config);
    free(config->lines);
    free(config->file);
    free(config);
}

void
config_hold(struct config *config)
{
    config->holders++;
}

bool
config_has_hooks(const struct queue_config *queue)
{
    const struct config *home = queue->home;
    return queue->on_failure || queue->on_discard ||
           (home && (home->on_failure || home->on_discard));
}

void
queue_config_hold(const struct queue_config *queue)
{
    if (queue->home != NULL)
        config_hold(queue->home);
}

void
queue_config_drop(const struct queue_config *queue)
{
    config_free(queue->home);
}

/* ---- Printing ---- */

struct form {
    bool json;
    bool secrets; /* shown */
};

/* The options of a queue that its mode does not know. */
static bool
is_shown(const struct option_row *row, const void *base, const struct queue_config *queue)
{
    if (!option_is_set(row, base))
        return false;
    if (queue == NULL)
        return true;
    if (row->type == OPTION_EXEC)
        return queue->mode == QUEUE_EXEC;
    if (row->type == OPTION_COMMAND)
        return queue->mode == QUEUE_COMMAND;
    return queue->mode == QUEUE_COMMAND || row->scope != OPTION_WORKERS;
}

static void
put_options(struct jobq__buf *out, const struct option_row *rows, size_t n,
            const void *base, const struct queue_config *queue, const struct form *form)
{
    struct jobq__buf value = {0};
    bool first = true;
    for (const struct option_row *row = rows; row < rows + n; row++) {
        if (!is_shown(row, base, queue))
            continue;
        jobq__buf_reset(&value);
        option_put(row, base, form->secrets, &value);
        out->failed = out->failed || value.failed;
        if (form->json) {
            jobq__buf_adds(out, first ? "" : ",");
            jobq__buf_add_json_string(out, row->name, strlen(row->name));
            jobq__buf_addc(out, ':');
            jobq__buf_add_json_string(out, value.data, value.len);
        } else {
            jobq__buf_adds(out, row->name);
            /* After a blank it would begin a comment. */
            jobq__buf_adds(out, value.len > 0 && value.data[0] == ';' ? " =" : " = ");
            jobq__buf_add(out, value.data, value.len);
            jobq__buf_addc(out, '\n');
        }
        first = false;
    }
    jobq__buf_clear(&value);
}

/* What stands before a section's options. */
static void
put_head(struct jobq__buf *out, const char *what, const char *name, bool first, bool json)
{
    if (json) {
        jobq__buf_adds(out, first ? "" : ",");
        jobq__buf_add_json_string(out, name, strlen(name));
        jobq__buf_adds(out, ":{");
        return;
    }
    jobq__buf_adds(out, "\n[");
    jobq__buf_adds(out, what);
    jobq__buf_addc(out, ' ');
    jobq__buf_adds(out, name);
    jobq__buf_adds(out, "]\n");
}

static void
put_config(struct jobq__buf *out, const struct config *config, const struct form *form)
{
    bool json = form->json;
    jobq__buf_adds(out, json ? "{\"jobqd\":{" : "[jobqd]\n");
    put_options(out, jobqd_options, jobqd_options_count, config, NULL, form);
    jobq__buf_adds(out, json ? "},\"queues\":{" : "");
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        put_head(out, "queue", queue->name, i == 0, json);
        put_options(out, queue_options, queue_options_count, queue, queue, form);
        jobq__buf_adds(out, json ? "}" : "");
    }
    jobq__buf_adds(out, json ? "},\"crons\":{" : "");
    for (size_t i = 0; i < config->n_crons; i++) {
        const struct cron_config *cron = &config->crons[i];
        put_head(out, "cron", cron->name, i == 0, json);
        put_options(out, cron_options, cron_options_count, cron, NULL, form);
        jobq__buf_adds(out, json ? "}" : "");
    }
    jobq__buf_adds(out, json ? "}}\n" : "");
}

void
config_print(const struct config *config, bool json, bool secrets)
{
    const struct form form = {.json = json, .secrets = secrets};
    struct jobq__buf out = {0};
    put_config(&out, config, &form);
    if (jobq__buf_cstr(&out) != NULL)
        fputs(out.data, stdout);
    jobq__buf_clear(&out);
}

bool
config_has_secret(const struct config *config)
{
    const struct option_row *database =
        option_find(jobqd_options, jobqd_options_count, "database");
    size_t len = config->file ? strlen(config->file) : 0;
    bool from_file = len > 0 && config->database_from &&
                     strncmp(config->database_from, config->file, len) == 0;
    bool found = from_file && option_has_secret(database, config);
    for (size_t row = 0; len > 0 && row < jobqd_options_count; row++)
        if (jobqd_options[row].type == OPTION_HOOK)
            found = found || option_has_secret(&jobqd_options[row], config);
    for (size_t i = 0; i < config->n_queues; i++)
        for (size_t row = 0; row < queue_options_count; row++)
            found = found || option_has_secret(&queue_options[row], &config->queues[i]);
    return found;
}
