/* hooks.c: see hooks.h. The queue of calls and the running of their programs: when one is
 * started, what is dropped, and how it ends. What a program is told, and what the
 * database is told, is in the files that hooks_private.h lists. */
#include "jobqd/actors/hooks_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobq/error.h"
#include "jobqd/base/log.h"
#include "jobqd/base/seams.h"
#include "jobqd/proc/channel.h"

enum {
    PACE_MS = 20,           /* between two starts: each costs the loop a fork */
    DROPPED_EACH_MS = 10000 /* between two log lines about dropped calls */
};

static void on_timer(uv_timer_t *timer);
static void step(struct hooks *hooks);

/* ---- running ---- */

static void
tell_dropped(struct hooks *hooks)
{
    uint64_t now = uv_now(hooks->options.loop);
    if (hooks->dropped == 0 ||
        (hooks->dropped_told_ms != 0 && now - hooks->dropped_told_ms < DROPPED_EACH_MS &&
         !hooks->closing))
        return;
    log_about(LOG_LEVEL_WARNING, "hooks", &(struct log_facts){.count = hooks->dropped},
              "%" PRIu64
              " calls of on_failure and on_discard were dropped: more than %d calls, or "
              "%d MiB, were waiting because the programs take too long",
              hooks->dropped, HOOKS_WAITING, HOOKS_BYTES >> 20);
    hooks->dropped = 0;
    hooks->dropped_told_ms = now;
}

static void
drop(struct hooks *hooks, struct hooks_story *waiting)
{
    list_remove(&waiting->link);
    hooks->n_waiting--;
    hooks->bytes -= waiting->bytes;
    free(waiting);
}

static void
part_closed(uv_handle_t *handle)
{
    struct hooks *hooks = handle->data;
    if (--hooks->n_handles > 0)
        return;
    hooks_plans_release(hooks->plans);
    jobq__buf_clear(&hooks->sections);
    free(hooks->chunk);
    free(hooks);
}

static void
close_if_done(struct hooks *hooks)
{
    if (!hooks->closing || hooks->n_running > 0 || hooks->n_waiting > 0 ||
        uv_is_closing((uv_handle_t *)&hooks->timer))
        return;
    tell_dropped(hooks);
    hooklines_close(&hooks->lines, part_closed);
    uv_close((uv_handle_t *)&hooks->timer, part_closed);
    uv_close((uv_handle_t *)&hooks->retry, part_closed);
}

static void
on_run_end(void *owner, struct hookrun *run)
{
    struct hooks *hooks = owner;
    for (size_t i = 0; i < HOOKS_AT_ONCE; i++) {
        if (hooks->running[i].run != run)
            continue;
        hooks->running[i].run = NULL;
        hooks_plans_release(hooks->running[i].plans);
        hooks->n_running--;
    }
    step(hooks);
}

static int64_t
timeout_ms(void)
{
    int64_t given_ms = seam_number(SEAM_HOOK_MS);
    return given_ms > 0 ? given_ms : HOOKRUN_MS;
}

/* why: after the hook's name. */
static void
tell_of(struct hooks *hooks, const struct hooks_story *waiting, const char *why)
{
    char text[600];
    snprintf(text, sizeof text, "%s %s", hooks_option_names[waiting->event], why);
    hooklines_tell(&hooks->lines,
                   &(struct hook_line){.level = LOG_LEVEL_WARNING,
                                       .hook = hooks_option_names[waiting->event],
                                       .job = waiting->job,
                                       .kind = hooks_story_kind(waiting),
                                       .queue = waiting->queue,
                                       .text = text});
}

static void
start(struct hooks *hooks, struct hooks_story *waiting)
{
    struct hooks_plan *plan =
        hooks_plan_find(hooks->plans, waiting->queue, waiting->event);
    if (!plan) {
        tell_of(hooks, waiting,
                "is no longer configured, or cannot be run: call dropped");
        return;
    }
    struct hooks_running *running = hooks->running;
    while (running->run)
        running++;
    jobq_error err;
    int rc = hookrun_start(
        &running->run,
        &(struct hookrun_options){.loop = hooks->options.loop,
                                  .chunk = hooks->chunk,
                                  .name = hooks_option_names[waiting->event],
                                  .job = waiting->job,
                                  .kind = hooks_story_kind(waiting),
                                  .queue = waiting->queue,
                                  .lines = &hooks->lines,
                                  .timeout_ms = timeout_ms(),
                                  .plan = &plan->launch,
                                  .on_end = on_run_end,
                                  .owner = hooks},
        waiting->variables, waiting->json, waiting->json_len, &err);
    if (rc < 0) {
        char text[sizeof err.message + 20];
        snprintf(text, sizeof text, "cannot be started: %s", err.message);
        tell_of(hooks, waiting, text);
        return;
    }
    running->plans = hooks->plans;
    hooks->plans->users++;
    hooks->n_running++;
}

static void
step(struct hooks *hooks)
{
    uint64_t now = uv_now(hooks->options.loop);
    while (hooks->n_waiting > 0 && hooks->n_running < HOOKS_AT_ONCE) {
        if (!hooks->closing && hooks->started_ms != 0 &&
            now - hooks->started_ms < PACE_MS) {
            uv_timer_start(&hooks->timer, on_timer, PACE_MS, 0);
            break;
        }
        struct hooks_story *first =
            list_entry(hooks->waiting.next, struct hooks_story, link);
        hooks->started_ms = now;
        start(hooks, first);
        drop(hooks, first);
    }
    tell_dropped(hooks);
    close_if_done(hooks);
}

static void
give_up(struct hooks *hooks)
{
    if (hooks->n_waiting > 0)
        log_warning(
            "hooks",
            "%zu calls of on_failure and on_discard were dropped: jobqd is stopping",
            hooks->n_waiting);
    while (!list_empty(&hooks->waiting))
        drop(hooks, list_entry(hooks->waiting.next, struct hooks_story, link));
    for (size_t i = 0; i < HOOKS_AT_ONCE; i++)
        if (hooks->running[i].run)
            hookrun_kill(hooks->running[i].run);
    close_if_done(hooks);
}

static void
on_timer(uv_timer_t *timer)
{
    struct hooks *hooks = timer->data;
    if (hooks->closing)
        give_up(hooks);
    else
        step(hooks);
}

static void
wait_for(struct hooks *hooks, const struct failure *failure, enum hooks_event event)
{
    if (!hooks_plan_find(hooks->plans, failure->queue, event))
        return;
    bool full = hooks->n_waiting >= HOOKS_WAITING || hooks->bytes >= HOOKS_BYTES;
    struct hooks_story *waiting =
        full ? NULL : hooks_story_new(failure, event, hooks->options.node);
    if (!waiting) {
        hooks->dropped++;
        return;
    }
    list_push(&hooks->waiting, &waiting->link);
    hooks->n_waiting++;
    hooks->bytes += waiting->bytes;
}

void
hooks_note(struct hooks *hooks, const struct failure *failure)
{
    if (failure->hooks || !hooks->plans || hooks->closing)
        return;
    if (failure->attempt > 0)
        wait_for(hooks, failure, EVENT_FAILURE);
    if (strcmp(failure->state, "discarded") == 0 ||
        strcmp(failure->error_kind, "expired") == 0)
        wait_for(hooks, failure, EVENT_DISCARD);
    step(hooks);
}

/* ---- its life ---- */

int
hooks_configure(struct hooks *hooks, struct config *config)
{
    struct jobq__buf sections = {0};
    struct hooks_plans *plans = hooks_plans_make(config);
    hooks_put_sections(&sections, config);
    if (!plans || !jobq__buf_cstr(&sections)) {
        hooks_plans_release(plans);
        jobq__buf_clear(&sections);
        return JOBQ_ENOMEM;
    }
    hooks_plans_release(hooks->plans);
    hooks->plans = plans;
    jobq__buf_clear(&hooks->sections);
    hooks->sections = sections;
    hooks_tell(hooks);
    return 0;
}

int
hooks_new(struct hooks **out, const struct hooks_options *options)
{
    struct hooks *hooks = calloc(1, sizeof *hooks);
    if (!hooks)
        return JOBQ_ENOMEM;
    hooks->options = *options;
    hooks->chunk = malloc(IO_CHUNK);
    if (!hooks->chunk) {
        free(hooks);
        return JOBQ_ENOMEM;
    }
    list_init(&hooks->waiting);
    uv_timer_init(options->loop, &hooks->timer);
    uv_timer_init(options->loop, &hooks->retry);
    hooklines_open(&hooks->lines, options->loop);
    hooks->timer.data = hooks->retry.data = hooks->lines.timer.data = hooks;
    hooks->n_handles = 3;
    *out = hooks;
    return 0;
}

void
hooks_start(struct hooks *hooks)
{
    hooks->live = true;
    hooks_tell(hooks);
}

void
hooks_stop(struct hooks *hooks)
{
    hooks->live = false;
    hooks->owed = false;
    uv_timer_stop(&hooks->retry);
}

void
hooks_leave(const struct hooks *hooks)
{
    if (hooks->n_waiting + hooks->n_running > 0)
        log_warning("hooks",
                    "the upgrade drops %zu waiting calls of on_failure and on_discard; "
                    "%zu running ones continue without a time limit",
                    hooks->n_waiting, hooks->n_running);
}

void
hooks_close(struct hooks *hooks, bool at_once)
{
    hooks_stop(hooks);
    hooks->closing = true;
    if (at_once) {
        give_up(hooks);
        return;
    }
    uv_timer_start(&hooks->timer, on_timer, HOOKS_LAST_MS, 0);
    step(hooks);
}
