/* settled.c: see settled.h. */
#include "jobqd/actors/settled.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/jsontree.h"
#include "jobqd/base/log.h"
#include "jobqd/pure/digits.h"
#include "libjobq/backoff.h"
#include "libjobq/buf.h"

/* Of a worker's words, as libjobq cuts them: a worker in another language may not. */
enum { ERROR_MAX = 4096, DETAIL_MAX = 64 * 1024 };

/* SHOWN_MAX: bytes of an error that the log shows; HOOKS_MAX: of args and meta that
 * hooks are told. */
enum { SHOWN_MAX = 500, HOOKS_MAX = 64 * 1024 };

static enum settlement_kind
settlement_of(enum verdict_kind kind)
{
    switch (kind) {
    case VERDICT_OK:
        return SETTLE_COMPLETED;
    case VERDICT_SNOOZE:
        return SETTLE_SNOOZED;
    case VERDICT_DISCARD:
        return SETTLE_DISCARDED;
    case VERDICT_CANCELLED:
    case VERDICT_ABORTED:
        return SETTLE_CANCELLED;
    case VERDICT_RELEASED:
        return SETTLE_RELEASED;
    case VERDICT_CRASH:
    case VERDICT_MEMORY: /* takes a worker down as well, so it counts as poison */
        return SETTLE_CRASHED;
    case VERDICT_ERROR:
    case VERDICT_TIMEOUT:
    case VERDICT_PROTOCOL:
    case VERDICT_UNHANDLED:
    case VERDICT_ORPHANED:
        return SETTLE_FAILED;
    }
    abort();
}

static int64_t
delay_of(const struct queue_config *queue, const struct job *job,
         const struct verdict *verdict, uint32_t random)
{
    bool own = verdict->kind == VERDICT_SNOOZE || verdict->kind == VERDICT_ERROR;
    if (own && verdict->delay_ms >= 0)
        return verdict->delay_ms;
    if (verdict->kind == VERDICT_ORPHANED)
        return 0; /* as the lifeline does it */
    return jobq__backoff_ms(&queue->backoff, job->attempt, job->max_attempts, random);
}

static void
add_given(cJSON *entry, const char *name, const char *text)
{
    if (text && *text)
        tree_add_text(entry, name, text);
}

/* The first byte of a character, at or before `at`. */
static size_t
border(const char *text, size_t at)
{
    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80)
        at--;
    return at;
}

/* At most `most` bytes of the text, and what is left out in words: the end counts, too,
 * for that is where a trace says what happened. As _cut in migrations/schema/values.sql.
 */
static void
add_cut(cJSON *entry, const char *name, const char *text, size_t most, size_t ending)
{
    char mark[64];
    size_t len = text ? strlen(text) : 0;
    if (len <= most) {
        add_given(entry, name, text);
        return;
    }
    struct jobq__buf cut = {0};
    size_t tail = border(text, len - ending);
    size_t head = border(text, most - ending - (ending > 0 ? sizeof mark : 0));
    jobq__buf_add(&cut, text, head);
    if (ending > 0) {
        snprintf(mark, sizeof mark, "\n[... %zu bytes are left out ...]\n", tail - head);
        jobq__buf_adds(&cut, mark);
        jobq__buf_add(&cut, text + tail, len - tail);
    }
    tree_add_buf(entry, name, &cut);
    jobq__buf_clear(&cut);
}

static void
add_known(cJSON *entry, const char *name, int64_t value)
{
    if (value >= 0)
        tree_add_int(entry, name, value);
}

static const char *
reason_of(const struct verdict *verdict)
{
    return verdict->error && *verdict->error ? verdict->error : "no reason given";
}

/* The error entry; the database adds attempt and time. */
static cJSON *
entry_of(const struct verdict *verdict)
{
    cJSON *entry = cJSON_CreateObject();
    const char *kind = verdict_error_kind(verdict->kind);
    tree_add_text(entry, "kind", kind ? kind : "error");
    add_cut(entry, "error", reason_of(verdict), ERROR_MAX, 0);
    add_cut(entry, "detail", verdict->detail, DETAIL_MAX, DETAIL_MAX / 2);
    if (verdict->signal > 0) {
        const char *name = sigabbrev_np(verdict->signal);
        char text[24];
        snprintf(text, sizeof text, "SIG%s", name ? name : "?");
        tree_add_text(entry, "signal", text);
    }
    add_known(entry, "exit_code", verdict->exit_code);
    add_given(entry, "output", verdict->output);
    add_known(entry, "run_ms", verdict->run_us < 0 ? -1 : verdict->run_us / 1000);
    add_known(entry, "cpu_ms", verdict->cpu_us < 0 ? -1 : verdict->cpu_us / 1000);
    add_known(entry, "max_rss_kb", verdict->max_rss_kb);
    return entry;
}

static bool
leaves_entry(const struct verdict *verdict)
{
    if (verdict->kind == VERDICT_CANCELLED || verdict->kind == VERDICT_OK)
        return verdict->error != NULL;
    return verdict_error_kind(verdict->kind) != NULL;
}

/* A text for the block of a settlement; NULL: none. */
struct text {
    const char *bytes;
    size_t len;
};

struct texts {
    struct text entry, result, kind, error, args, meta;
};

/* Copies a text behind what is there, with its NUL. */
static const char *
put_behind(char **at, struct text text)
{
    char *copy = *at;
    if (!text.bytes)
        return NULL;
    memcpy(copy, text.bytes, text.len);
    copy[text.len] = '\0';
    *at += text.len + 1;
    return copy;
}

/* One block: the struct, then the texts. */
static struct settled *
new_settled(const struct texts *texts)
{
    size_t weight = texts->entry.len + texts->result.len + texts->kind.len +
                    texts->error.len + texts->args.len + texts->meta.len;
    struct settled *s = malloc(sizeof *s + weight + 6);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    char *at = (char *)(s + 1);
    s->what.entry = put_behind(&at, texts->entry);
    s->what.result = put_behind(&at, texts->result);
    s->kind = put_behind(&at, texts->kind);
    s->error = put_behind(&at, texts->error);
    s->args = put_behind(&at, texts->args);
    s->meta = put_behind(&at, texts->meta);
    s->weight = weight;
    list_init(&s->link);
    return s;
}

static struct text
whole(const char *text)
{
    return (struct text){text, text ? strlen(text) : 0};
}

/* Whether the log tells of it: an attempt failed, or the handler gave its job up. */
static bool
is_failure(const struct verdict *verdict)
{
    return verdict->kind != VERDICT_ABORTED && verdict_error_kind(verdict->kind) != NULL;
}

/* The job is completed, and what its handler returned is lost. */
static void
warn_of_result(const struct queue_config *queue, const struct job *job, const char *why)
{
    char subject[160];
    snprintf(subject, sizeof subject, "queue %s", queue->name);
    log_about(LOG_LEVEL_WARNING, subject,
              &(struct log_facts){.job = job->id,
                                  .kind = job->kind,
                                  .queue = queue->name,
                                  .attempt = (int)job->attempt,
                                  .max_attempts = (int)job->max_attempts,
                                  .error = why},
              "job %lld (kind %s): attempt %d completed, but %s", (long long)job->id,
              job->kind, (int)job->attempt, why);
}

struct settled *
settled_new(const struct queue_config *queue, const struct job *job,
            const struct verdict *verdict, uint32_t random)
{
    struct jobq__buf entry = {0};
    const char *result = verdict->result;
    if (leaves_entry(verdict))
        tree_put(&entry, entry_of(verdict));
    if (result && digits_too_many(result, verdict->result_len)) {
        static const char why[] = "the result was left out: it holds a number with more "
                                  "than 4000 digits before or after the decimal point";
        result = NULL; /* the work is done: it is not done again because of that */
        cJSON *lost = cJSON_CreateObject();
        tree_add_text(lost, "kind", "error");
        tree_add_text(lost, "error", why);
        jobq__buf_reset(&entry);
        tree_put(&entry, lost);
        warn_of_result(queue, job, why);
    } else if (verdict->kind == VERDICT_OK && verdict->error) {
        warn_of_result(queue, job, verdict->error);
    }
    bool failure = is_failure(verdict);
    struct texts texts = {.entry = {entry.data, entry.len},
                          .result = {result, result ? verdict->result_len : 0}};
    if (failure) {
        texts.kind = whole(job->kind);
        texts.error = whole(reason_of(verdict));
        if (texts.error.len > SHOWN_MAX)
            texts.error.len = border(texts.error.bytes, SHOWN_MAX);
    }
    if (failure && config_has_hooks(queue) && job->args &&
        job->args_len + job->meta_len <= HOOKS_MAX) {
        texts.args = (struct text){job->args, job->args_len};
        texts.meta = (struct text){job->meta, job->meta_len};
    }
    struct settled *s = entry.failed ? NULL : new_settled(&texts);
    jobq__buf_clear(&entry);
    if (!s)
        return NULL;
    s->error_kind = verdict_error_kind(verdict->kind);
    s->max_attempts = job->max_attempts;
    s->slot = verdict->slot;
    s->pid = verdict->pid;
    s->what.id = job->id;
    s->what.attempt = job->attempt;
    s->what.kind = settlement_of(verdict->kind);
    s->what.delay_ms = delay_of(queue, job, verdict, random);
    s->what.run_us = verdict->run_us;
    s->what.cpu_us = verdict->cpu_us;
    s->what.max_rss_kb = verdict->max_rss_kb;
    return s;
}

struct settled *
settled_completed(int64_t id, int32_t attempt)
{
    struct settled *s = new_settled(&(struct texts){0});
    if (!s)
        return NULL;
    s->what = (struct settlement){.id = id,
                                  .attempt = attempt,
                                  .kind = SETTLE_COMPLETED,
                                  .run_us = -1,
                                  .cpu_us = -1,
                                  .max_rss_kb = -1};
    return s;
}
