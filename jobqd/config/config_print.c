/* config_print.c: prints the merged configuration, as a file or as JSON, and knows whether
 * it holds a secret. How a value is written is in its option's row.
 */
#include "jobqd/config/config.h"

#include <stdio.h>
#include <string.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/config/options.h"

/* Whether the option is set, and one that the queue's mode knows. queue NULL: the option
 * is not one of a queue. */
static bool
is_shown(const struct option_row *row, const void *base, const struct queue_config *queue)
{
    if (!option_is_set(row, base))
        return false;
    if (!queue)
        return true;
    if (row->type == OPTION_EXEC)
        return queue->mode == QUEUE_EXEC;
    if (row->type == OPTION_COMMAND)
        return queue->mode == QUEUE_COMMAND;
    return queue->mode == QUEUE_COMMAND || row->scope != OPTION_WORKERS;
}

/* ---- As a file ---- */

static void
put_options(struct jobq__buf *out, const struct option_row *rows, size_t n,
            const void *base, const struct queue_config *queue, bool secrets)
{
    struct jobq__buf value = {0};
    for (const struct option_row *row = rows; row < rows + n; row++) {
        if (!is_shown(row, base, queue))
            continue;
        jobq__buf_reset(&value);
        option_put(row, base, secrets, &value);
        out->failed = out->failed || value.failed;
        jobq__buf_adds(out, row->name);
        /* After a blank it would begin a comment. */
        jobq__buf_adds(out, value.len > 0 && value.data[0] == ';' ? " =" : " = ");
        jobq__buf_add(out, value.data, value.len);
        jobq__buf_addc(out, '\n');
    }
    jobq__buf_clear(&value);
}

static void
put_head(struct jobq__buf *out, const char *what, const char *name)
{
    jobq__buf_adds(out, "\n[");
    jobq__buf_adds(out, what);
    jobq__buf_addc(out, ' ');
    jobq__buf_adds(out, name);
    jobq__buf_adds(out, "]\n");
}

static void
print_file(const struct config *config, bool secrets)
{
    struct jobq__buf out = {0};
    jobq__buf_adds(&out, "[jobqd]\n");
    put_options(&out, jobqd_options, jobqd_options_count, config, NULL, secrets);
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        put_head(&out, "queue", queue->name);
        put_options(&out, queue_options, queue_options_count, queue, queue, secrets);
    }
    for (size_t i = 0; i < config->n_crons; i++) {
        const struct cron_config *cron = &config->crons[i];
        put_head(&out, "cron", cron->name);
        put_options(&out, cron_options, cron_options_count, cron, NULL, secrets);
    }
    if (jobq__buf_cstr(&out) != NULL)
        fputs(out.data, stdout);
    jobq__buf_clear(&out);
}

/* ---- As JSON ---- */

/* Each value is the text that the file would have. */
static void
add_options(cJSON *parent, const char *name, const struct option_row *rows, size_t n,
            const void *base, const struct queue_config *queue, bool secrets)
{
    struct jobq__buf value = {0};
    cJSON *object = tree_add_object(parent, name);
    for (const struct option_row *row = rows; row < rows + n; row++) {
        if (!is_shown(row, base, queue))
            continue;
        jobq__buf_reset(&value);
        option_put(row, base, secrets, &value);
        tree_add_buf(object, row->name, &value);
    }
    jobq__buf_clear(&value);
}

static void
print_json(const struct config *config, bool secrets)
{
    cJSON *document = cJSON_CreateObject();
    add_options(document, "jobqd", jobqd_options, jobqd_options_count, config, NULL,
                secrets);
    cJSON *queues = tree_add_object(document, "queues");
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        add_options(queues, queue->name, queue_options, queue_options_count, queue, queue,
                    secrets);
    }
    cJSON *crons = tree_add_object(document, "crons");
    for (size_t i = 0; i < config->n_crons; i++) {
        const struct cron_config *cron = &config->crons[i];
        add_options(crons, cron->name, cron_options, cron_options_count, cron, NULL,
                    secrets);
    }
    tree_print(document);
}

void
config_print(const struct config *config, bool json, bool secrets)
{
    if (json)
        print_json(config, secrets);
    else
        print_file(config, secrets);
}

/* ---- Secrets ---- */

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
