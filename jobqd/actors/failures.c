/* failures.c: see failures.h. */
#include "jobqd/actors/failures.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "jobqd/actors/hooks.h"
#include "jobqd/base/log.h"
#include "jobqd/pure/outcome.h"
#include "jobqd/pure/repeats.h"
#include "jobqd/pure/rfc3339.h"
#include "jobq/error.h"

enum { NAME_TEXT = 160, ERROR_TEXT = 512, KEY_TEXT = 1024 };

/* What the next count of an entry says. */
struct sample {
    char queue[NAME_TEXT];
    char kind[NAME_TEXT];
    char state[16];
    char error_kind[32];
    char error[ERROR_TEXT];
    int64_t last_job;
};

/* Those that end a job are counted apart: no number of retries hides one. */
enum sort { SORT_ENDED, SORT_OTHER, SORTS };

struct failures {
    struct failures_options options;
    struct counter {
        struct repeats repeats;
        struct sample samples[REPEATS_KEYS];
    } counters[SORTS];
    uv_timer_t timer; /* the next count */
};

static void on_timer(uv_timer_t *timer);

/* A failure that is tried again is a warning: policy copes with it. */
static enum log_level
level_of(const char *state)
{
    return strcmp(state, "discarded") == 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING;
}

static enum sort
sort_of(const char *state)
{
    bool ended = strcmp(state, "discarded") == 0 || strcmp(state, "cancelled") == 0;
    return ended ? SORT_ENDED : SORT_OTHER;
}

static const char *
or_empty(const char *text)
{
    return text ? text : "";
}

/* ---- the line ---- */

/* "; trying again at 2026-11-22T10:11:12.345Z" and the like. */
static void
put_next(const struct failure *failure, char *out, size_t size)
{
    char at[RFC3339_SIZE] = "";
    if (strcmp(failure->state, "discarded") == 0)
        snprintf(out, size, "; discarded");
    else if (strcmp(failure->state, "cancelled") == 0)
        snprintf(out, size, "; cancelled");
    else if (failure->retry_at_ms <= 0 || strcmp(failure->state, "available") == 0)
        snprintf(out, size, "; retrying now");
    else {
        rfc3339_print(at, failure->retry_at_ms, 0);
        snprintf(out, size, "; next attempt at %s", at);
    }
}

static void
put_who(const struct failure *failure, char worker[NAME_TEXT], char *out, size_t size)
{
    worker[0] = out[0] = '\0';
    if (failure->slot <= 0)
        return;
    snprintf(worker, NAME_TEXT, "%s/w%d", failure->queue, failure->slot);
    snprintf(out, size, " (worker %s pid %ld)", worker, failure->pid);
}

static void
tell(const struct failure *failure, const char *subject)
{
    char next[80], worker[NAME_TEXT], who[NAME_TEXT + 40], what[60];
    put_next(failure, next, sizeof next);
    put_who(failure, worker, who, sizeof who);
    if (failure->attempt > 0)
        snprintf(what, sizeof what, "attempt %d of %d failed", failure->attempt,
                 failure->max_attempts);
    else
        snprintf(what, sizeof what, "was never started");
    log_about(level_of(failure->state), subject,
              &(struct log_facts){.job = failure->job,
                                  .kind = failure->kind,
                                  .queue = failure->queue,
                                  .attempt = failure->attempt,
                                  .max_attempts = failure->max_attempts,
                                  .state = failure->state,
                                  .error_kind = failure->error_kind,
                                  .error = failure->error,
                                  .retry_at_ms = failure->retry_at_ms,
                                  .worker = *worker ? worker : NULL,
                                  .pid = failure->pid},
              "job %" PRId64 " (kind %s): %s: %s: %s%s%s", failure->job, failure->kind,
              what, failure->error_kind, failure->error, next, who);
}

/* ---- what is counted ---- */

static void
keep_sample(struct sample *sample, const struct failure *failure)
{
    snprintf(sample->queue, sizeof sample->queue, "%s", failure->queue);
    snprintf(sample->kind, sizeof sample->kind, "%s", failure->kind);
    snprintf(sample->state, sizeof sample->state, "%s", failure->state);
    snprintf(sample->error_kind, sizeof sample->error_kind, "%s", failure->error_kind);
    snprintf(sample->error, sizeof sample->error, "%s", failure->error);
    sample->last_job = failure->job;
}

static void
tell_count(const struct failures *failures, enum sort sort,
           const struct repeats_count *count)
{
    uint64_t seconds = (count->within_ms + 999) / 1000;
    if (count->entry == REPEATS_KEYS) {
        log_about(sort == SORT_ENDED ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, "jobqd",
                  &(struct log_facts){.count = count->n},
                  "%" PRIu64 " more %s within %" PRIu64
                  " s, with too many different errors to log each",
                  count->n,
                  sort == SORT_ENDED ? "jobs were discarded or cancelled"
                                     : "attempts failed",
                  seconds);
        return;
    }
    char subject[NAME_TEXT + 10];
    const struct sample *sample = &failures->counters[sort].samples[count->entry];
    snprintf(subject, sizeof subject, "queue %s", sample->queue);
    log_about(level_of(sample->state), subject,
              &(struct log_facts){.job = sample->last_job,
                                  .kind = sample->kind,
                                  .queue = sample->queue,
                                  .state = sample->state,
                                  .error_kind = sample->error_kind,
                                  .error = sample->error,
                                  .count = count->n},
              "%" PRIu64
              " more jobs of kind %s failed the same way (now %s) within %" PRIu64
              " s, most recently job %" PRId64 ": %s: %s",
              count->n, sample->kind, sample->state, seconds, sample->last_job,
              sample->error_kind, sample->error);
}

static void
tell_counts(struct failures *failures, bool all)
{
    struct repeats_count count;
    uint64_t now = uv_now(failures->options.loop);
    for (enum sort sort = 0; sort < SORTS; sort++) {
        while (repeats_due(&failures->counters[sort].repeats, now, all, &count))
            tell_count(failures, sort, &count);
    }
}

static void
arm(struct failures *failures)
{
    uint64_t now = uv_now(failures->options.loop);
    uint64_t due = UINT64_MAX;
    for (enum sort sort = 0; sort < SORTS; sort++) {
        uint64_t first = repeats_due_ms(&failures->counters[sort].repeats);
        due = first < due ? first : due;
    }
    if (due == UINT64_MAX)
        uv_timer_stop(&failures->timer);
    else
        uv_timer_start(&failures->timer, on_timer, due > now ? due - now : 0, 0);
}

static void
on_timer(uv_timer_t *timer)
{
    struct failures *failures = timer->data;
    tell_counts(failures, false);
    arm(failures);
}

void
failures_note(struct failures *failures, const struct failure *given)
{
    char key[KEY_TEXT], subject[NAME_TEXT + 10];
    size_t entry;
    struct failure failure = *given;
    failure.kind = or_empty(given->kind);
    failure.queue = or_empty(given->queue);
    failure.state = or_empty(given->state);
    failure.error_kind = given->error_kind ? given->error_kind : "error";
    failure.error = or_empty(given->error);
    snprintf(key, sizeof key, "%s: %.60s %.60s %.*s", failure.state, failure.queue,
             failure.kind, (int)outcome_common_bytes(failure.error), failure.error);
    snprintf(subject, sizeof subject, "queue %s", failure.queue);
    struct counter *counter = &failures->counters[sort_of(failure.state)];
    if (repeats_note(&counter->repeats, key, uv_now(failures->options.loop), &entry))
        tell(&failure, subject);
    if (entry < REPEATS_KEYS)
        keep_sample(&counter->samples[entry], &failure);
    arm(failures);
    hooks_note(failures->options.hooks, &failure);
}

/* ---- stories ---- */

static const char *
text_of(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static int64_t
number_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? (int64_t)item->valuedouble : 0;
}

static void
note_story(struct failures *failures, const cJSON *story)
{
    long long untold = number_of(story, "untold");
    if (untold > 0) {
        log_warning(
            "jobqd",
            "%lld more jobs of dead nodes lost their attempt; they are not logged one by "
            "one, and on_failure and on_discard are not run for them",
            untold);
        return;
    }
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(story, "error");
    const cJSON *hooks = cJSON_GetObjectItemCaseSensitive(story, "hooks");
    char *entry = error ? cJSON_PrintUnformatted(error) : NULL;
    struct failure failure = {.job = number_of(story, "job"),
                              .kind = text_of(story, "kind"),
                              .queue = text_of(story, "queue"),
                              .attempt = (int)number_of(story, "attempt"),
                              .max_attempts = (int)number_of(story, "max_attempts"),
                              .state = text_of(story, "state"),
                              .retry_at_ms = number_of(story, "retry_at_ms"),
                              .error_kind = text_of(error, "kind"),
                              .error = text_of(error, "error"),
                              .hooks = cJSON_IsTrue(hooks),
                              .entry = entry};
    failures_note(failures, &failure);
    cJSON_free(entry);
}

void
failures_note_stories(struct failures *failures, const char *json)
{
    if (!json || !*json)
        return;
    cJSON *stories = cJSON_Parse(json);
    const cJSON *story;
    cJSON_ArrayForEach(story, stories)
    {
        note_story(failures, story);
    }
    cJSON_Delete(stories);
}

/* ---- its life ---- */

int
failures_new(struct failures **out, const struct failures_options *options)
{
    struct failures *failures = calloc(1, sizeof *failures);
    if (!failures)
        return JOBQ_ENOMEM;
    failures->options = *options;
    uv_timer_init(options->loop, &failures->timer);
    failures->timer.data = failures;
    *out = failures;
    return 0;
}

static void
on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
failures_leave(struct failures *failures)
{
    tell_counts(failures, true);
}

void
failures_close(struct failures *failures)
{
    if (!failures)
        return;
    tell_counts(failures, true);
    uv_close((uv_handle_t *)&failures->timer, on_timer_closed);
}
