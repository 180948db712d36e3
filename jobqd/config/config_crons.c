/* config_crons.c: what the database is told of the configuration: the documents of crons
 * and queues for cron_declare and queue_declare. Checks nothing.
 *
 * args, meta and unique_by are the user's bytes: they go into the document as they are, for
 * a number above 2^53 would not survive a tree of doubles.
 */
#include "jobqd/config/config.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>

#include "jobqd/config/options.h"

/* The functions of this file that add something return false: out of memory. */

static bool
add_text(cJSON *object, const char *name, const char *text)
{
    return cJSON_AddStringToObject(object, name, text) != NULL;
}

static bool
add_raw(cJSON *object, const char *name, const char *json)
{
    return cJSON_AddRawToObject(object, name, json) != NULL;
}

static bool
add_number(cJSON *object, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    return add_raw(object, name, text);
}

/* A choice as its word. */
static bool
add_word(cJSON *object, const char *name, const struct cron_config *cron)
{
    struct jobq__buf word = {0};
    option_put(option_find(cron_options, cron_options_count, name), cron, true, &word);
    const char *text = jobq__buf_cstr(&word);
    bool ok = text != NULL && add_text(object, name, text);
    jobq__buf_clear(&word);
    return ok;
}

static bool
add_positive(cJSON *object, const char *name, int64_t value)
{
    return value <= 0 || add_number(object, name, value);
}

/* From max_attempts on, an option that has its default is left out, so that a new option
 * changes no section that does not use it: the database compares a section with what this
 * node declared last. */
static bool
add_cron(cJSON *crons, const struct cron_config *cron)
{
    cJSON *o = cJSON_AddObjectToObject(crons, cron->name);
    return o != NULL && add_text(o, "schedule", cron->schedule) &&
           add_text(o, "timezone", cron->timezone) && add_text(o, "kind", cron->kind) &&
           add_raw(o, "args", cron->args) && add_raw(o, "meta", cron->meta) &&
           add_text(o, "queue", cron->queue) && add_word(o, "missed", cron) &&
           add_number(o, "priority", cron->priority) &&
           add_positive(o, "max_attempts", cron->max_attempts) &&
           add_positive(o, "timeout_ms", cron->timeout_ms) &&
           (cron->overlap <= 0 || add_word(o, "overlap", cron)) &&
           add_positive(o, "expires_ms", cron->expires_ms) &&
           (!cron->unique_by || add_raw(o, "unique_by", cron->unique_by));
}

/* Appends the document, and deletes it. */
static void
put_document(struct jobq__buf *out, cJSON *document, bool ok)
{
    char *text = ok ? cJSON_PrintUnformatted(document) : NULL;
    if (text != NULL)
        jobq__buf_adds(out, text);
    else
        out->failed = true;
    cJSON_free(text);
    cJSON_Delete(document);
}

void
config_put_crons(const struct config *config, struct jobq__buf *out)
{
    cJSON *document = cJSON_CreateObject();
    bool ok = document != NULL;
    for (size_t i = 0; ok && i < config->n_crons; i++)
        ok = add_cron(document, &config->crons[i]);
    put_document(out, document, ok);
}

void
config_put_queues(const struct config *config, struct jobq__buf *out)
{
    cJSON *document = cJSON_CreateObject();
    bool ok = document != NULL;
    for (size_t i = 0; ok && i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        ok = queue->max_attempts > 0
                 ? add_number(document, queue->name, queue->max_attempts)
                 : cJSON_AddNullToObject(document, queue->name) != NULL;
    }
    put_document(out, document, ok);
}
