/* hooklines.c: see hooklines.h. */
#include "jobqd/pool/hooklines.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "jobqd/pure/list.h"
#include "libjobq/duration.h"

static void on_timer(uv_timer_t *timer);

static void
tell_count(const struct hooklines *lines, const struct repeats_count *count)
{
    int64_t seconds = (int64_t)((count->within_ms + 999) / 1000);
    struct jobq__duration within = jobq__duration_show(seconds * 1000);
    if (count->entry == REPEATS_KEYS) {
        log_about(LOG_LEVEL_WARNING, "hooks", &(struct log_facts){.count = count->n},
                  "%" PRIu64
                  " more lines within %s, with too many different texts to log each",
                  count->n, within.text);
        return;
    }
    const struct hook_sample *sample = &lines->samples[count->entry];
    char subject[32];
    snprintf(subject, sizeof subject, "hook %s", sample->hook);
    log_about(sample->level, subject,
              &(struct log_facts){.job = sample->job, .count = count->n},
              "%" PRIu64 " more times within %s, the last for job %" PRId64 ": %s",
              count->n, within.text, sample->job, sample->text);
}

static void
tell_counts(struct hooklines *lines, bool all)
{
    struct repeats_count count;
    while (repeats_due(&lines->repeats, uv_now(lines->timer.loop), all, &count))
        tell_count(lines, &count);
}

static void
arm(struct hooklines *lines)
{
    uint64_t now = uv_now(lines->timer.loop);
    uint64_t due = repeats_due_ms(&lines->repeats);
    if (due == UINT64_MAX)
        uv_timer_stop(&lines->timer);
    else
        uv_timer_start(&lines->timer, on_timer, due > now ? due - now : 0, 0);
}

static void
on_timer(uv_timer_t *timer)
{
    struct hooklines *lines = list_entry(timer, struct hooklines, timer);
    tell_counts(lines, false);
    arm(lines);
}

void
hooklines_open(struct hooklines *lines, uv_loop_t *loop)
{
    uv_timer_init(loop, &lines->timer);
}

static void
show(const struct hook_line *line)
{
    char subject[64] = "hooks";
    if (line->pid != 0)
        snprintf(subject, sizeof subject, "hook %s pid %ld", line->hook, line->pid);
    struct log_facts facts = {
        .job = line->job, .kind = line->kind, .queue = line->queue, .pid = line->pid};
    if (line->level == LOG_LEVEL_INFO)
        log_about(line->level, subject, &facts, "job %" PRId64 " says: %s", line->job,
                  line->text);
    else
        log_about(line->level, subject, &facts, "%s (job %" PRId64 ", kind %s, queue %s)",
                  line->text, line->job, line->kind, line->queue);
}

void
hooklines_tell(struct hooklines *lines, const struct hook_line *line)
{
    char key[REPEATS_KEY];
    size_t entry;
    snprintf(key, sizeof key, "%s %.60s %.60s %s", line->hook, line->queue, line->kind,
             line->text);
    if (repeats_note(&lines->repeats, key, uv_now(lines->timer.loop), &entry))
        show(line);
    if (entry < REPEATS_KEYS) {
        struct hook_sample *sample = &lines->samples[entry];
        sample->level = line->level;
        sample->job = line->job;
        snprintf(sample->hook, sizeof sample->hook, "%s", line->hook);
        snprintf(sample->text, sizeof sample->text, "%s", line->text);
    }
    arm(lines);
}

void
hooklines_close(struct hooklines *lines, uv_close_cb on_closed)
{
    tell_counts(lines, true);
    uv_close((uv_handle_t *)&lines->timer, on_closed);
}
