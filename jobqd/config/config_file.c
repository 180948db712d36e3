/* config_file.c: makes sections and their options of a configuration file: begins a queue
 * or a cron at its header, and gives each value to the row of its option. Knows no other
 * source than the file; what must hold between options is config_check.c's business.
 */
#include "jobqd/config/config_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/config/config_check.h"
#include "jobqd/config/inifile.h"
#include "jobqd/config/options.h"
#include "jobqd/pure/nearest.h"
#include "libjobq/error.h"

#define MAX_QUEUES 1000
#define MAX_CRONS 1000

enum section { SECTION_NONE, SECTION_JOBQD, SECTION_QUEUE, SECTION_CRON };

struct reader {
    struct config *config;
    char *folder;         /* the file's, absolute */
    const char *path;     /* $PATH */
    enum section section; /* the current one */
    int section_line;
    int jobqd_line; /* of the [jobqd] section; 0: none yet */
};

static int
out_of_memory(jobq_error *err)
{
    return jobq__error(err, JOBQ_ENOMEM, "out of memory");
}

static struct queue_config *
current_queue(const struct reader *reader)
{
    return &reader->config->queues[reader->config->n_queues - 1];
}

static struct cron_config *
current_cron(const struct reader *reader)
{
    return &reader->config->crons[reader->config->n_crons - 1];
}

/* The rows of the current section's options, the struct that they fill, and where it
 * keeps their lines. */
static const struct option_row *
current_rows(const struct reader *reader, size_t *n, void **base, int **lines)
{
    switch (reader->section) {
    case SECTION_QUEUE:
        *n = queue_options_count;
        *base = current_queue(reader);
        *lines = current_queue(reader)->lines;
        return queue_options;
    case SECTION_CRON:
        *n = cron_options_count;
        *base = current_cron(reader);
        *lines = current_cron(reader)->lines;
        return cron_options;
    case SECTION_NONE:
    case SECTION_JOBQD:
        break;
    }
    *n = jobqd_options_count;
    *base = reader->config;
    *lines = reader->config->lines;
    return jobqd_options;
}

/* `FILE:LINE: [section] key: WHY`; key may be NULL. */
static int
refuse_at(const struct reader *reader, int code, int line, const char *key,
          const char *why, jobq_error *err)
{
    const char *kind = reader->section == SECTION_QUEUE  ? "queue "
                       : reader->section == SECTION_CRON ? "cron "
                                                         : "jobqd";
    const char *name = reader->section == SECTION_QUEUE  ? current_queue(reader)->name
                       : reader->section == SECTION_CRON ? current_cron(reader)->name
                                                         : "";
    return jobq__error(err, code, "%s:%d: [%s%s]%s%s: %s", reader->config->file, line,
                       kind, name, key != NULL ? " " : "", key != NULL ? key : "", why);
}

static int
end_section(const struct reader *reader, jobq_error *err)
{
    struct queue_config *queue;
    int rc = 0;
    switch (reader->section) {
    case SECTION_NONE:
    case SECTION_JOBQD:
        break;
    case SECTION_QUEUE:
        queue = current_queue(reader);
        rc = config_check_queue(reader->config, queue, err);
        if (queue->mode == QUEUE_EXEC)
            queue->mailbox = 1;
        break;
    case SECTION_CRON:
        rc = config_check_cron(reader->config, current_cron(reader), err);
        break;
    }
    return rc;
}

static int
refuse_second(const struct reader *reader, const char *what, const char *name, int first,
              jobq_error *err)
{
    return jobq__error(err, JOBQ_EINVAL,
                       "%s:%d: [%s%s] is defined twice, first on line %d",
                       reader->config->file, reader->section_line, what, name, first);
}

static int
add_queue(struct reader *reader, const char *name, jobq_error *err)
{
    struct config *config = reader->config;
    for (size_t i = 0; i < config->n_queues; i++) {
        if (strcmp(config->queues[i].name, name) == 0)
            return refuse_second(reader, "queue ", name, config->queues[i].line, err);
    }
    int rc = config_check_name(reader->config, reader->section_line, "queue", name, err);
    if (rc != 0)
        return rc;
    if (config->n_queues == MAX_QUEUES)
        return jobq__error(err, JOBQ_EINVAL, "%s:%d: more than %d queues",
                           reader->config->file, reader->section_line, MAX_QUEUES);
    struct queue_config *queues =
        realloc(config->queues, (config->n_queues + 1) * sizeof *queues);
    if (!queues)
        return out_of_memory(err);
    config->queues = queues;
    struct queue_config *queue = &queues[config->n_queues];
    memset(queue, 0, sizeof *queue);
    queue->home = config;
    queue->shutdown_grace_ms = -1;
    queue->keep_completed_ms = queue->keep_failed_ms = -1;
    queue->line = reader->section_line;
    queue->name = strdup(name);
    queue->lines = calloc(queue_options_count, sizeof queue->lines[0]);
    if (!queue->name || !queue->lines) {
        free(queue->name);
        free(queue->lines);
        return out_of_memory(err);
    }
    config->n_queues++; /* from here on config_free frees it */
    return options_set_defaults(queue_options, queue_options_count, queue, err);
}

static int
add_cron(struct reader *reader, const char *name, jobq_error *err)
{
    struct config *config = reader->config;
    for (size_t i = 0; i < config->n_crons; i++) {
        if (strcmp(config->crons[i].name, name) == 0)
            return refuse_second(reader, "cron ", name, config->crons[i].line, err);
    }
    int rc = config_check_name(reader->config, reader->section_line, "cron", name, err);
    if (rc != 0)
        return rc;
    if (config->n_crons == MAX_CRONS)
        return jobq__error(err, JOBQ_EINVAL, "%s:%d: more than %d crons",
                           reader->config->file, reader->section_line, MAX_CRONS);
    struct cron_config *crons =
        realloc(config->crons, (config->n_crons + 1) * sizeof *crons);
    if (!crons)
        return out_of_memory(err);
    config->crons = crons;
    struct cron_config *cron = &crons[config->n_crons];
    memset(cron, 0, sizeof *cron);
    cron->line = reader->section_line;
    cron->name = strdup(name);
    cron->lines = calloc(cron_options_count, sizeof cron->lines[0]);
    if (!cron->name || !cron->lines) {
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
refuse_section(const struct reader *reader, const char *section, int line,
               jobq_error *err)
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
                       reader->config->file, line, section,
                       near ? "; did you mean [" : "", near ? nearest.best : "",
                       near ? section + strlen(word) : "", near ? "]?" : "");
}

static int
on_section(void *data, const char *section, int line, jobq_error *err)
{
    struct reader *reader = data;
    int rc = end_section(reader, err);
    if (rc != 0)
        return rc;
    reader->section_line = line;
    if (strcmp(section, "jobqd") == 0) {
        if (reader->jobqd_line != 0)
            return refuse_second(reader, "jobqd", "", reader->jobqd_line, err);
        reader->section = SECTION_JOBQD;
        reader->jobqd_line = line;
        return 0;
    }
    const char *queue = section_name(section, "queue");
    const char *cron = section_name(section, "cron");
    if (queue != NULL) {
        rc = add_queue(reader, queue, err);
        reader->section = SECTION_QUEUE;
        return rc;
    }
    if (cron != NULL) {
        rc = add_cron(reader, cron, err);
        reader->section = SECTION_CRON;
        return rc;
    }
    return refuse_section(reader, section, line, err);
}

/* The section that has one of that name; else the option that is most like it. Returns
 * whether there is one. */
static bool
put_meant(const struct reader *reader, const struct option_row *rows, size_t n,
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
        if (all[i].section == reader->section ||
            !option_find(all[i].rows, *all[i].n, key))
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
refuse_unknown(const struct reader *reader, const struct option_row *rows, size_t n,
               const char *key, int line, jobq_error *err)
{
    struct jobq__buf why = {0};
    jobq__buf_adds(&why, "no such option");
    bool meant = put_meant(reader, rows, n, key, &why);
    jobq__buf_adds(&why, meant ? " Allowed here are " : "; allowed are ");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            jobq__buf_adds(&why, i + 1 < n ? ", " : " and ");
        jobq__buf_adds(&why, rows[i].name);
    }
    const char *text = jobq__buf_cstr(&why);
    int rc =
        !text ? out_of_memory(err) : refuse_at(reader, JOBQ_EINVAL, line, key, text, err);
    jobq__buf_clear(&why);
    return rc;
}

static int
on_value(void *data, const char *key, const char *value, int line, jobq_error *err)
{
    struct reader *reader = data;
    if (reader->section == SECTION_NONE)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s:%d: %s is outside any section; begin with [jobqd]",
                           reader->config->file, line, key);
    size_t n;
    void *base;
    int *lines;
    const struct option_row *rows = current_rows(reader, &n, &base, &lines);
    const struct option_row *row = option_find(rows, n, key);
    if (!row || strcmp(row->name, key) != 0)
        return refuse_unknown(reader, rows, n, key, line, err);
    if (lines[row - rows] != 0) {
        char why[64];
        snprintf(why, sizeof why, "set twice, first on line %d", lines[row - rows]);
        return refuse_at(reader, JOBQ_EINVAL, line, key, why, err);
    }
    if ((row->type == OPTION_COMMAND || row->type == OPTION_EXEC) &&
        option_is_set(row, base))
        return refuse_at(reader, JOBQ_EINVAL, line, key,
                         "a queue has either command or exec, not both", err);
    jobq_error why = {0};
    struct option_origin origin = {.folder = reader->folder, .path = reader->path};
    int rc = option_set(row, base, value, &origin, &why);
    if (rc != 0)
        return refuse_at(reader, rc, line, key, why.message, err);
    lines[row - rows] = line;
    if (row->type == OPTION_EXEC)
        current_queue(reader)->mode = QUEUE_EXEC;
    return 0;
}

int
config_file_read(struct config *config, const char *path, jobq_error *err)
{
    static const struct inifile_events events = {.on_section = on_section,
                                                 .on_value = on_value};
    struct reader reader = {.config = config, .path = path};
    const char *file = config->file, *slash = strrchr(file, '/');
    char *folder = !slash          ? strdup(".")
                   : slash == file ? strdup("/")
                                   : strndup(file, (size_t)(slash - file));
    if (!folder)
        return out_of_memory(err);
    reader.folder = realpath(folder, NULL);
    free(folder);
    if (!reader.folder)
        return jobq__error(err, JOBQ_EIO, "%s: %s", file, strerror(errno));
    int rc = inifile_read(file, &events, &reader, err);
    if (rc == 0)
        rc = end_section(&reader, err);
    free(reader.folder);
    return rc;
}
