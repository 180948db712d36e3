/* hooks_story.c: what a hook's program is told about a failure: JSON on its stdin, and
 * some of it as environment variables, for short scripts.
 *
 * The failure itself is gone when the program starts: a story is a copy. */
#include "jobqd/actors/hooks_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/pure/rfc3339.h"

enum { VARIABLE_KIND = 2 }; /* in the order of put_variables */

static const char *const event_names[] = {"failure", "discard"};

static void
put_story(struct jobq__buf *out, const struct failure *failure, enum hooks_event event,
          const char *node)
{
    char at[RFC3339_SIZE] = "", retry_at[RFC3339_SIZE] = "";
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    rfc3339_print(at, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, 0);
    if (failure->retry_at_ms > 0)
        rfc3339_print(retry_at, failure->retry_at_ms, 0);
    cJSON *story = cJSON_CreateObject();
    tree_add_text(story, "event", event_names[event]);
    tree_add_int(story, "job", failure->job);
    tree_add_text(story, "kind", failure->kind);
    tree_add_text(story, "queue", failure->queue);
    tree_add_int(story, "attempt", failure->attempt);
    tree_add_int(story, "max_attempts", failure->max_attempts);
    tree_add_text(story, "state", failure->state);
    tree_add_text(story, "node", node);
    tree_add_text(story, "at", at);
    tree_add_text(story, "retry_at", *retry_at ? retry_at : NULL);
    tree_add_raw(story, "error", failure->entry);
    tree_add_raw(story, "args", failure->args);
    tree_add_raw(story, "meta", failure->meta);
    tree_put(out, story);
}

/* On one line: a script may put it into a mail's header. The JSON has it unchanged. */
static void
put_line(struct jobq__buf *out, const char *value)
{
    for (; *value; value++)
        jobq__buf_addc(out, (unsigned char)*value < ' ' || *value == 0x7f ? ' ' : *value);
    jobq__buf_addc(out, '\0');
}

static void
put_variable(struct jobq__buf *out, const char *name, const char *value)
{
    jobq__buf_adds(out, name);
    jobq__buf_addc(out, '=');
    put_line(out, value);
}

static void
put_variables(struct jobq__buf *out, const struct failure *failure,
              enum hooks_event event)
{
    char number[24];
    put_variable(out, "JOBQ_EVENT", event_names[event]);
    snprintf(number, sizeof number, "%" PRId64, failure->job);
    put_variable(out, "JOBQ_JOB_ID", number);
    put_variable(out, "JOBQ_KIND", failure->kind);
    put_variable(out, "JOBQ_QUEUE", failure->queue);
    snprintf(number, sizeof number, "%d", failure->attempt);
    put_variable(out, "JOBQ_ATTEMPT", number);
    put_variable(out, "JOBQ_STATE", failure->state);
    jobq__buf_adds(out, "JOBQ_ERROR=");
    jobq__buf_adds(out, failure->error_kind);
    jobq__buf_adds(out, ": ");
    put_line(out, failure->error);
}

struct hooks_story *
hooks_story_new(const struct failure *failure, enum hooks_event event, const char *node)
{
    struct jobq__buf texts = {0};
    jobq__buf_add(&texts, failure->queue, strlen(failure->queue) + 1);
    put_variables(&texts, failure, event);
    size_t story_at = texts.len;
    put_story(&texts, failure, event, node);
    struct hooks_story *story = texts.failed ? NULL : malloc(sizeof *story + texts.len);
    if (story) {
        char *text = (char *)(story + 1);
        memset(story, 0, sizeof *story);
        list_init(&story->link);
        memcpy(text, texts.data, texts.len);
        story->event = event;
        story->job = failure->job;
        story->bytes = texts.len;
        story->queue = text;
        story->json = text + story_at;
        story->json_len = texts.len - story_at;
        for (size_t i = 0; i < HOOKS_VARIABLES; i++) {
            text += strlen(text) + 1;
            story->variables[i] = text;
        }
    }
    jobq__buf_clear(&texts);
    return story;
}

const char *
hooks_story_kind(const struct hooks_story *story)
{
    return story->variables[VARIABLE_KIND] + strlen("JOBQ_KIND=");
}
