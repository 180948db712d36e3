/* hooks.c: see hooks.h. */
#include "jobqd/actors/hooks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "jobq/error.h"
#include "jobqd/actors/failures.h"
#include "jobqd/base/log.h"
#include "jobqd/base/seams.h"
#include "jobqd/proc/channel.h"
#include "jobqd/pure/list.h"
#include "jobqd/pure/rfc3339.h"
#include "jobqd/pool/hookrun.h"
#include "libjobq/buf.h"

enum {
    PACE_MS = 20,            /* between two starts: each costs the loop a fork */
    DROPPED_EACH_MS = 10000, /* how often drops are told of */
    RETRY_MS = 5000,         /* after the database has refused, or could not yet */
    VARIABLES = 7,
    VARIABLE_KIND = 2 /* in the order of put_variables */
};

enum event { EVENT_FAILURE, EVENT_DISCARD, EVENT_COUNT };

static const char *const option_names[] = {"on_failure", "on_discard"};
static const char *const event_names[] = {"failure", "discard"};

/* How a queue's hook is started. */
struct plan {
    struct queue_config queue; /* the queue's, with the hook as its program; not owned */
    struct launch_plan launch;
    bool usable;
};

/* Of one configuration; what runs holds it. */
struct plans {
    struct config *config; /* held */
    size_t users;
    struct plan *of; /* EVENT_COUNT for each queue, then those of [jobqd] */
};

struct waiting {
    struct list link;
    enum event event;
    size_t bytes;
    int64_t job;
    char *queue;
    const char *story;
    size_t story_len;
    const char *variables[VARIABLES + 1];
};

struct running {
    struct hookrun *run; /* NULL: free */
    struct plans *plans;
};

struct hooks {
    struct hooks_options options;
    struct plans *plans;
    struct list waiting;
    size_t n_waiting;
    size_t bytes;
    struct running running[HOOKS_AT_ONCE];
    struct hooklines lines;
    size_t n_running;
    uint64_t started_ms; /* the last one */
    uint64_t dropped;    /* not told of yet */
    uint64_t dropped_told_ms;
    char *chunk;
    uv_timer_t timer;
    bool closing;
    /* What the database is told. */
    struct jobq__buf sections;
    bool live, asked, owed;
    uv_timer_t retry;
    int n_handles;
};

static void on_timer(uv_timer_t *timer);

/* ---- the configuration ---- */

static void
plans_release(struct plans *plans)
{
    if (!plans || --plans->users > 0)
        return;
    for (size_t i = 0; plans->of && i < (plans->config->n_queues + 1) * EVENT_COUNT; i++)
        if (plans->of[i].usable)
            launch_plan_clear(&plans->of[i].launch);
    free(plans->of);
    config_free(plans->config);
    free(plans);
}

/* argv: of the hook; NULL: there is none. base: whose user, environment and folder it
 * has. */
static void
make_plan(struct plan *plan, const struct config *config, const struct queue_config *base,
          char **argv, enum event event)
{
    jobq_error err;
    if (!argv)
        return;
    plan->queue = *base;
    plan->queue.argv = argv;
    plan->queue.mode = QUEUE_EXEC;
    plan->queue.preload = false;
    plan->queue.cpu_limit_ms = 0;
    plan->queue.max_memory = plan->queue.max_memory_hard = 0;
    extern char **environ;
    plan->usable = launch_plan_make(&plan->launch, &plan->queue, config->max_frame,
                                    environ, &err) == 0;
    if (!plan->usable) {
        launch_plan_clear(&plan->launch);
        log_error("jobqd", "%s of queue %s cannot be run: %s", option_names[event],
                  base->name, err.message);
    }
}

static struct plans *
make_plans(struct config *config)
{
    struct plans *plans = calloc(1, sizeof *plans);
    if (!plans)
        return NULL;
    plans->of = calloc((config->n_queues + 1) * EVENT_COUNT, sizeof *plans->of);
    if (!plans->of) {
        free(plans);
        return NULL;
    }
    config_hold(config);
    plans->config = config;
    plans->users = 1;
    struct plan *at = plans->of;
    for (size_t i = 0; i < config->n_queues; i++) {
        const struct queue_config *queue = &config->queues[i];
        make_plan(at++, config, queue, queue->on_failure, EVENT_FAILURE);
        make_plan(at++, config, queue, queue->on_discard, EVENT_DISCARD);
    }
    static char none[] = "[jobqd]";
    struct queue_config own = {.name = none, .home = config};
    make_plan(at++, config, &own, config->on_failure, EVENT_FAILURE);
    make_plan(at++, config, &own, config->on_discard, EVENT_DISCARD);
    return plans;
}

/* NULL: the queue has no such hook. One of another node's queue has that of [jobqd]. */
static struct plan *
find_plan(const struct plans *plans, const char *queue, enum event event)
{
    size_t n = plans->config->n_queues;
    struct plan *plan;
    for (size_t i = 0; i < n; i++) {
        plan = &plans->of[i * EVENT_COUNT + event];
        /* One that cannot be run is not replaced by another program. */
        if (strcmp(plans->config->queues[i].name, queue) == 0 && plan->queue.argv)
            return plan->usable ? plan : NULL;
    }
    plan = &plans->of[n * EVENT_COUNT + event];
    return plan->usable ? plan : NULL;
}

/* ---- the story ---- */

static void
put_text(struct jobq__buf *out, const char *name, const char *text)
{
    jobq__buf_addc(out, ',');
    jobq__buf_add_json_string(out, name, strlen(name));
    jobq__buf_addc(out, ':');
    if (text)
        jobq__buf_add_json_string(out, text, strlen(text));
    else
        jobq__buf_adds(out, "null");
}

static void
put_number(struct jobq__buf *out, const char *name, int64_t value)
{
    jobq__buf_addc(out, ',');
    jobq__buf_add_json_string(out, name, strlen(name));
    jobq__buf_addc(out, ':');
    jobq__buf_add_i64(out, value);
}

/* json: as it is; NULL: nothing. */
static void
put_json(struct jobq__buf *out, const char *name, const char *json)
{
    if (!json)
        return;
    jobq__buf_addc(out, ',');
    jobq__buf_add_json_string(out, name, strlen(name));
    jobq__buf_addc(out, ':');
    jobq__buf_adds(out, json);
}

static void
put_story(struct jobq__buf *out, const struct failure *failure, enum event event,
          const char *node)
{
    char at[RFC3339_SIZE] = "", retry_at[RFC3339_SIZE] = "";
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    rfc3339_print(at, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, 0);
    if (failure->retry_at_ms > 0)
        rfc3339_print(retry_at, failure->retry_at_ms, 0);
    jobq__buf_adds(out, "{\"event\":\"");
    jobq__buf_adds(out, event_names[event]);
    jobq__buf_addc(out, '"');
    put_number(out, "job", failure->job);
    put_text(out, "kind", failure->kind);
    put_text(out, "queue", failure->queue);
    put_number(out, "attempt", failure->attempt);
    put_number(out, "max_attempts", failure->max_attempts);
    put_text(out, "state", failure->state);
    put_text(out, "node", node);
    put_text(out, "at", at);
    put_text(out, "retry_at", *retry_at ? retry_at : NULL);
    put_json(out, "error", failure->entry);
    put_json(out, "args", failure->args);
    put_json(out, "meta", failure->meta);
    jobq__buf_addc(out, '}');
}

/* On one line: a script may put it into a mail's header. The story has it as it is. */
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
put_variables(struct jobq__buf *out, const struct failure *failure, enum event event)
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

/* One block of memory. NULL: there is none. */
static struct waiting *
new_waiting(const struct failure *failure, enum event event, const char *node)
{
    struct jobq__buf texts = {0};
    jobq__buf_add(&texts, failure->queue, strlen(failure->queue) + 1);
    put_variables(&texts, failure, event);
    size_t story_at = texts.len;
    put_story(&texts, failure, event, node);
    struct waiting *waiting = texts.failed ? NULL : malloc(sizeof *waiting + texts.len);
    if (waiting) {
        char *text = (char *)(waiting + 1);
        memset(waiting, 0, sizeof *waiting);
        list_init(&waiting->link);
        memcpy(text, texts.data, texts.len);
        waiting->event = event;
        waiting->job = failure->job;
        waiting->bytes = texts.len;
        waiting->queue = text;
        waiting->story = text + story_at;
        waiting->story_len = texts.len - story_at;
        for (size_t i = 0; i < VARIABLES; i++) {
            text += strlen(text) + 1;
            waiting->variables[i] = text;
        }
    }
    jobq__buf_clear(&texts);
    return waiting;
}

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
              " calls of on_failure and on_discard were dropped: more than %d, "
              "or %d MiB of them, wait for programs that take too long",
              hooks->dropped, HOOKS_WAITING, HOOKS_BYTES >> 20);
    hooks->dropped = 0;
    hooks->dropped_told_ms = now;
}

static void
drop(struct hooks *hooks, struct waiting *waiting)
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
    plans_release(hooks->plans);
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

static void step(struct hooks *hooks);

static void
on_run_end(void *owner, struct hookrun *run)
{
    struct hooks *hooks = owner;
    for (size_t i = 0; i < HOOKS_AT_ONCE; i++) {
        if (hooks->running[i].run != run)
            continue;
        hooks->running[i].run = NULL;
        plans_release(hooks->running[i].plans);
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

static const char *
kind_of(const struct waiting *waiting)
{
    return waiting->variables[VARIABLE_KIND] + strlen("JOBQ_KIND=");
}

/* why: after the hook's name. */
static void
tell_of(struct hooks *hooks, const struct waiting *waiting, const char *why)
{
    char text[600];
    snprintf(text, sizeof text, "%s %s", option_names[waiting->event], why);
    hooklines_tell(&hooks->lines,
                   &(struct hook_line){.level = LOG_LEVEL_WARNING,
                                       .hook = option_names[waiting->event],
                                       .job = waiting->job,
                                       .kind = kind_of(waiting),
                                       .queue = waiting->queue,
                                       .text = text});
}

static void
start(struct hooks *hooks, struct waiting *waiting)
{
    struct plan *plan = find_plan(hooks->plans, waiting->queue, waiting->event);
    if (!plan) {
        tell_of(hooks, waiting,
                "is not configured any more, or cannot be run: the call is dropped");
        return;
    }
    struct running *running = hooks->running;
    while (running->run)
        running++;
    jobq_error err;
    int rc = hookrun_start(&running->run,
                           &(struct hookrun_options){.loop = hooks->options.loop,
                                                     .chunk = hooks->chunk,
                                                     .name = option_names[waiting->event],
                                                     .job = waiting->job,
                                                     .kind = kind_of(waiting),
                                                     .queue = waiting->queue,
                                                     .lines = &hooks->lines,
                                                     .timeout_ms = timeout_ms(),
                                                     .plan = &plan->launch,
                                                     .on_end = on_run_end,
                                                     .owner = hooks},
                           waiting->variables, waiting->story, waiting->story_len, &err);
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
        struct waiting *first = list_entry(hooks->waiting.next, struct waiting, link);
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
        log_warning("hooks",
                    "%zu calls of on_failure and on_discard were dropped: jobqd "
                    "ends",
                    hooks->n_waiting);
    while (!list_empty(&hooks->waiting))
        drop(hooks, list_entry(hooks->waiting.next, struct waiting, link));
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
wait_for(struct hooks *hooks, const struct failure *failure, enum event event)
{
    if (!find_plan(hooks->plans, failure->queue, event))
        return;
    bool full = hooks->n_waiting >= HOOKS_WAITING || hooks->bytes >= HOOKS_BYTES;
    struct waiting *waiting =
        full ? NULL : new_waiting(failure, event, hooks->options.node);
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

/* ---- what the database is told ---- */

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
        log_warning("hooks", "the configuration's on_discard_kind, again in 5 s: %s",
                    answer->error->message);
        if (hooks->live)
            uv_timer_start(&hooks->retry, on_retry, RETRY_MS, 0);
    } else if (answer->code == 0 && answer->values[0] > 0) {
        log_info("hooks", "the configuration changed on_discard_kind of %lld queue%s",
                 (long long)answer->values[0], answer->values[0] == 1 ? "" : "s");
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
put_section(struct jobq__buf *out, const struct config *config,
            const struct queue_config *queue)
{
    const char *kind =
        queue->on_discard_kind ? queue->on_discard_kind : config->on_discard_kind;
    const char *into =
        queue->on_discard_queue ? queue->on_discard_queue : config->on_discard_queue;
    jobq__buf_adds(out, out->len > 1 ? ",{\"queue\":" : "{\"queue\":");
    jobq__buf_add_json_string(out, queue->name, strlen(queue->name));
    put_text(out, "kind", kind);
    put_text(out, "to_queue", into);
    jobq__buf_addc(out, '}');
}

int
hooks_configure(struct hooks *hooks, struct config *config)
{
    struct jobq__buf sections = {0};
    struct plans *plans = make_plans(config);
    jobq__buf_addc(&sections, '[');
    for (size_t i = 0; i < config->n_queues; i++)
        put_section(&sections, config, &config->queues[i]);
    jobq__buf_addc(&sections, ']');
    if (!plans || !jobq__buf_cstr(&sections)) {
        plans_release(plans);
        jobq__buf_clear(&sections);
        return JOBQ_ENOMEM;
    }
    plans_release(hooks->plans);
    hooks->plans = plans;
    jobq__buf_clear(&hooks->sections);
    hooks->sections = sections;
    hooks_tell(hooks);
    return 0;
}

/* ---- its life ---- */

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
        log_warning(
            "hooks",
            "%zu calls of on_failure and on_discard wait: they are dropped by the "
            "upgrade; %zu run, and go on without a limit of time",
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
