/* config_crons.c: what the database is told of the configuration: the documents of crons
 * and queues for cron_declare and queue_declare. Checks nothing.
 *
 * args, meta and unique_by are the user's bytes: they go into the document as they are.
 */
#include "jobqd/config/config.h"

#include "jobqd/base/jsontree.h"
#include "jobqd/config/options.h"

/* A choice as its word. */
static void
add_word(cJSON *object, const char *name, const struct cron_config *cron)
{
    struct jobq__buf word = {0};
    option_put(option_find(cron_options, cron_options_count, name), cron, true, &word);
    tree_add_buf(object, name, &word);
    jobq__buf_clear(&word);
}

static void
add_positive(cJSON *object, const char *name, int64_t value)
{
    if (value > 0)
        tree_add_int(object, name, value);
}

/* From max_attempts on, an option that has its default is left out, so that a new option
 * changes no section that does not use it: the database compares a section with what this
 * node declared last. */
static void
add_cron(cJSON *crons, const struct cron_config *cron)
{
    cJSON *o = tree_add_object(crons, cron->name);
    tree_add_text(o, "schedule", cron->schedule);
    tree_add_text(o, "timezone", cron->timezone);
    tree_add_text(o, "kind", cron->kind);
    tree_add_raw(o, "args", cron->args);
    tree_add_raw(o, "meta", cron->meta);
    tree_add_text(o, "queue", cron->queue);
    add_word(o, "missed", cron);
    tree_add_int(o, "priority", cron->priority);
    add_positive(o, "max_attempts", cron->max_attempts);
    add_positive(o, "timeout_ms", cron->timeout_ms);
    if (cron->overlap > 0)
        add_word(o, "overlap", cron);
    add_positive(o, "expires_ms", cron->expires_ms);
    tree_add_raw(o, "unique_by", cron->unique_by);
}

void
config_put_crons(const struct config *config, struct jobq__buf *out)
{
    cJSON *document = cJSON_CreateObject();
    for (size_t i = 0; i < config->n_crons; i++)
        add_cron(document, &config->crons[i]);
    tree_put(out, document);
}

void
config_put_queues(const struct config *config, struct jobq__buf *out)
{
    cJSON *document = cJSON_CreateObject();
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        if (queue->max_attempts > 0)
            tree_add_int(document, queue->name, queue->max_attempts);
        else
            tree_add_text(document, queue->name, NULL);
    }
    tree_put(out, document);
}
