/* config_check.c: what must hold between options, and where in the file an option is set.
 * Changes nothing: config_file.c asks it at the end of a section, and config.c when all
 * sources were read. What a value must be by itself is in the row of its option.
 */
#include "jobqd/config/config_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "jobqd/base/escape.h"
#include "jobqd/config/options.h"
#include "jobqd/config/timezone.h"
#include "jobqd/config/unique_by.h"
#include "jobqd/config/units.h"
#include "libjobq/error.h"

#define MIN_MEMORY ((size_t)MIB)
#define MIN_FILES 16
#define MAX_NAME 128 /* bytes; the tables of jobs and crons have the same limit */

/* ---- sections ---- */

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

/* `FILE:LINE: [queue NAME] OPTION: WHY` */
static int
refuse_option(const struct config *config, const struct queue_config *queue,
              const char *option, const char *why, jobq_error *err)
{
    char where[sizeof err->message];
    config_where(config, queue, option, where, sizeof where);
    return jobq__error(err, JOBQ_EINVAL, "%s: %s", where, why);
}

int
config_check_name(const struct config *config, int line, const char *what,
                  const char *name, jobq_error *err)
{
    size_t len = strlen(name);
    if (len < 1 || len > MAX_NAME)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s:%d: [%s %s]: the name of a %s must have 1 to %d bytes",
                           config->file, line, what, name, what, MAX_NAME);
    if (escape_find(name) != NULL)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s:%d: [%s %s]: control characters and invisible characters "
                           "are not allowed in the name",
                           config->file, line, what, name);
    return 0;
}

/* A row has one range, which begins with 0 for no limit: what is too little is said here. */
static int
check_limits(const struct config *config, const struct queue_config *queue,
             jobq_error *err)
{
    static const char too_little[] =
        "too little for any program: must be 1MiB or more, or 0";
    if (queue->max_memory > 0 && queue->max_memory < MIN_MEMORY)
        return refuse_option(config, queue, "max_memory", too_little, err);
    if (queue->max_memory_hard > 0 && queue->max_memory_hard < MIN_MEMORY)
        return refuse_option(config, queue, "max_memory_hard", too_little, err);
    if (queue->max_memory_hard > 0 && queue->max_memory > queue->max_memory_hard)
        return refuse_option(config, queue, "max_memory",
                             "more than max_memory_hard, which would always apply first",
                             err);
    if (queue->nofile > 0 && queue->nofile < MIN_FILES)
        return refuse_option(config, queue, "nofile",
                             "too few for any program: must be 16 or more, or 0", err);
    return 0;
}

int
config_check_queue(const struct config *config, const struct queue_config *queue,
                   jobq_error *err)
{
    if (!queue->argv)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s:%d: [queue %s]: needs command = PROGRAM or exec = PROGRAM",
                           config->file, queue->line, queue->name);
    int rc = check_limits(config, queue, err);
    if (rc != 0 || queue->mode == QUEUE_COMMAND)
        return rc;
    for (size_t i = 0; i < queue_options_count; i++) {
        if (queue_options[i].scope == OPTION_WORKERS && queue->lines[i] != 0)
            return refuse_option(
                config, queue, queue_options[i].name,
                "is only for command; an exec queue runs one process per job", err);
    }
    return 0;
}

static const struct option_row *
cron_row(const char *name)
{
    return option_find(cron_options, cron_options_count, name);
}

static int
check_unique_by(const struct config *config, const struct cron_config *cron,
                jobq_error *err)
{
    const struct option_row *row = cron_row("unique_by");
    jobq_error why = {0};
    int rc = cron->unique_by ? unique_by_check(cron->unique_by, row->name, &why) : 0;
    return rc == 0
               ? 0
               : jobq__error(err, rc, "%s:%d: [cron %s] %s", config->file,
                             cron->lines[row - cron_options], cron->name, why.message);
}

int
config_check_cron(const struct config *config, const struct cron_config *cron,
                  jobq_error *err)
{
    const char *needed = !cron->schedule ? "schedule = SCHEDULE"
                         : !cron->kind   ? "kind = KIND"
                                         : NULL;
    if (needed != NULL)
        return jobq__error(err, JOBQ_EINVAL, "%s:%d: [cron %s]: needs %s", config->file,
                           cron->line, cron->name, needed);
    return check_unique_by(config, cron, err);
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

/* ---- retention ---- */

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
    int64_t cancelled_ms = config_keep_cancelled_ms(config);
    int64_t discarded_ms = config_keep_discarded_ms(config);
    int64_t longest_ms = cancelled_ms > discarded_ms ? cancelled_ms : discarded_ms;
    return (longest_ms + DAY - 1) / DAY * DAY;
}

/* A queue's history cannot outlive the days of the history, which are dropped whole. */
static int
check_keep(const struct config *config, const struct queue_config *queue,
           const char *option, int64_t keep_ms, int64_t most_ms, jobq_error *err)
{
    char where[300];
    if (keep_ms <= most_ms)
        return 0;
    config_where(config, queue, option, where, sizeof where);
    return jobq__error(err, JOBQ_EINVAL,
                       "%s: longer than the %" PRId64
                       "d after which [jobqd] drops the history",
                       where, most_ms / DAY);
}

int
config_check_retention(const struct config *config, jobq_error *err)
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
