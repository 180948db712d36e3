/* hooks_declare.c: tells the database which jobs on_discard_kind asks for: when the node
 * has registered, when the connection is back, after a reload, and again after a failure.
 *
 * The database inserts these jobs itself when it records a discard
 * (migrations/schema/hooks.sql). */
#include "jobqd/actors/hooks_private.h"

#include "jobqd/base/jsontree.h"
#include "jobqd/base/log.h"

enum { RETRY_MS = 5000 }; /* after the database has refused, or without memory */

static void
on_retry(uv_timer_t *timer)
{
    hooks_tell(timer->data);
}

static void
on_declared(void *data, const struct store_answer *answer)
{
    struct hooks *hooks = data;
    hooks->asked = false;
    if (answer->code < 0 && answer->code != JOBQ_ECONN) {
        log_warning(
            "hooks",
            "could not write the configuration's on_discard_kind, retrying in 5 s: %s",
            answer->error->message);
        if (hooks->live)
            uv_timer_start(&hooks->retry, on_retry, RETRY_MS, 0);
    } else if (answer->code == 0 && answer->queues_changed > 0) {
        log_info("hooks", "the configuration changed on_discard_kind of %lld queue%s",
                 (long long)answer->queues_changed,
                 answer->queues_changed == 1 ? "" : "s");
    }
    if (hooks->owed)
        hooks_tell(hooks);
}

void
hooks_tell(struct hooks *hooks)
{
    hooks->owed = hooks->asked;
    if (!hooks->live || hooks->asked || !hooks->sections.data)
        return;
    uv_timer_stop(&hooks->retry);
    hooks->asked = store_hooks_declare(hooks->options.store, hooks->options.node,
                                       hooks->sections.data, on_declared, hooks) == 0;
    if (!hooks->asked)
        uv_timer_start(&hooks->retry, on_retry, RETRY_MS, 0);
}

static void
add_section(cJSON *sections, const struct config *config,
            const struct queue_config *queue)
{
    cJSON *section = tree_add_object(sections, NULL);
    tree_add_text(section, "queue", queue->name);
    tree_add_text(section, "kind",
                  queue->on_discard_kind ? queue->on_discard_kind
                                         : config->on_discard_kind);
    tree_add_text(section, "to_queue",
                  queue->on_discard_queue ? queue->on_discard_queue
                                          : config->on_discard_queue);
}

void
hooks_put_sections(struct jobq__buf *out, const struct config *config)
{
    cJSON *sections = cJSON_CreateArray();
    for (size_t i = 0; i < config->n_queues; i++)
        add_section(sections, config, &config->queues[i]);
    tree_put(out, sections);
}
