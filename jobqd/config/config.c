/* config.c: merges the defaults, the file, the environment and the flags into one checked
 * configuration, and counts who holds it.
 *
 * Later sources win: the defaults, the file, JOBQ_* variables, flags. DATABASE_URL, which
 * other programs of the host may have been given, counts only where none of these names a
 * database. An empty variable is none. How the file is read is in config_file.c.
 */
#include "jobqd/config/config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/folder.h"
#include "jobqd/config/config_check.h"
#include "jobqd/config/config_file.h"
#include "jobqd/config/options.h"
#include "libjobq/error.h"

/* Where a value came from: a later one wins. */
enum source { SOURCE_NONE, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_FLAG };

struct loader {
    struct config *config;
    char *cwd; /* what relative paths outside the file count from; NULL: it is gone */
    const char *path; /* $PATH */
    enum source database_from;
    enum source embedded_from;
};

static int
out_of_memory(jobq_error *err)
{
    return jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

/* ---- Holders ---- */

void
config_free(struct config *config)
{
    if (!config)
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
config_ref(struct config *config)
{
    config->holders++;
}

void
queue_config_ref(const struct queue_config *queue)
{
    if (queue->home != NULL)
        config_ref(queue->home);
}

void
queue_config_unref(const struct queue_config *queue)
{
    config_free(queue->home);
}

/* ---- Sources ---- */

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
    if (!copy)
        return out_of_memory(err);
    free(l->config->database_from);
    l->config->database_from = copy; /* the configuration's */
    return 0;
}

/* Notes where the file sets database and embedded. */
static int
note_file(struct loader *l, jobq_error *err)
{
    char label[PATH_MAX + 64];
    for (size_t i = 0; i < jobqd_options_count; i++) {
        if (l->config->lines[i] == 0)
            continue;
        config_where(l->config, NULL, jobqd_options[i].name, label, sizeof label);
        int rc = note_source(l, &jobqd_options[i], label, SOURCE_FILE, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

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
    if (!copy)
        return out_of_memory(err);
    const char *why = NULL;
    if (strpbrk(copy, "\r\n") != NULL)
        why = "the value has a line break; it must be on one line";
    else if (copy[0] == ';')
        why = "a ; at the beginning is not allowed: in the file it would begin a comment";
    else if (row->type == OPTION_DIR && has_comment(copy))
        why = "a ; after a blank is not allowed: in the file it would begin a comment";
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
        if (!value || *value == '\0')
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
        if (!row)
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
                "%s is set in the environment and overrides %s in %s: unset %s, remove "
                "%s from the file, or give the one that you mean on the command line",
                name, key, l->config->file, name, key);
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
        return jobq__error(
            err, JOBQ_EINVAL,
            "database and embedded are both set by %s; set only one of them",
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
        return jobq__error(err, JOBQ_EIO, "the host's name cannot be read: %s; set node",
                           strerror(errno));
    host[sizeof host - 1] = '\0';
    jobq_error why = {0};
    int rc = option_set(option_find(jobqd_options, jobqd_options_count, "node"), config,
                        host, NULL, &why);
    return rc == 0 ? 0
                   : jobq__error(err, rc,
                                 "the host's name cannot name the node: %s; set node",
                                 why.message);
}

/* All sources, lowest first. */
static int
load_sources(struct loader *l, char *const *environment, const struct config_flag *flags,
             size_t n_flags, jobq_error *err)
{
    int rc = options_set_defaults(jobqd_options, jobqd_options_count, l->config, err);
    if (rc == 0 && l->config->file != NULL)
        rc = config_file_read(l->config, l->path, err);
    if (rc == 0)
        rc = note_file(l, err);
    if (rc == 0)
        rc = load_environment(l, environment, err);
    if (rc == 0)
        rc = load_flags(l, flags, n_flags, err);
    if (rc == 0)
        rc = choose_database(l, environment, err);
    if (rc == 0)
        rc = name_node(l->config, err);
    return rc;
}

/* Without any values. NULL: out of memory. */
static struct config *
new_config(const char *file)
{
    struct config *config = calloc(1, sizeof *config);
    if (!config)
        return NULL;
    config->keep_cancelled_ms = config->keep_discarded_ms = -1;
    config->lines = calloc(jobqd_options_count, sizeof config->lines[0]);
    config->file = file != NULL ? strdup(file) : NULL;
    config->holders = 1;
    if (!config->lines || (file != NULL && config->file == NULL)) {
        config_free(config);
        return NULL;
    }
    return config;
}

int
config_load(struct config **out, const char *file, char *const *environment,
            const struct config_flag *flags, size_t n_flags, jobq_error *err)
{
    struct loader l = {.config = new_config(file)};
    if (!l.config)
        return out_of_memory(err);
    l.cwd = realpath(folder_name(), NULL); /* NULL: only relative paths need it */
    l.path = environment_get(environment, "PATH");
    int rc = load_sources(&l, environment, flags, n_flags, err);
    if (rc == 0)
        rc = config_check_retention(l.config, err);
    if (rc == 0)
        *out = l.config;
    else
        config_free(l.config);
    free(l.cwd);
    return rc;
}

bool
config_has_hooks(const struct queue_config *queue)
{
    const struct config *home = queue->home;
    return queue->on_failure || queue->on_discard ||
           (home && (home->on_failure || home->on_discard));
}
