/* hooks_plan.c: how the configuration says that each hook's program is started: its
 * command, and the user, environment and folder of the queue that it belongs to.
 *
 * It starts no program. Programs that run hold the plans: a reload replaces the plans
 * while they still need the old ones. */
#include "jobqd/actors/hooks_private.h"

#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"

const char *const hooks_option_names[EVENT_COUNT] = {"on_failure", "on_discard"};

void
hooks_plans_release(struct hooks_plans *plans)
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

/* argv: the hook's command; NULL: there is none. base: the queue whose user, environment
 * and folder it has. */
static void
make_plan(struct hooks_plan *plan, const struct config *config,
          const struct queue_config *base, char **argv, enum hooks_event event)
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
        log_error("jobqd", "%s of queue %s cannot be run: %s", hooks_option_names[event],
                  base->name, err.message);
    }
}

struct hooks_plans *
hooks_plans_make(struct config *config)
{
    struct hooks_plans *plans = calloc(1, sizeof *plans);
    if (!plans)
        return NULL;
    plans->of = calloc((config->n_queues + 1) * EVENT_COUNT, sizeof *plans->of);
    if (!plans->of) {
        free(plans);
        return NULL;
    }
    config_ref(config);
    plans->config = config;
    plans->users = 1;
    struct hooks_plan *at = plans->of;
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

struct hooks_plan *
hooks_plan_find(const struct hooks_plans *plans, const char *queue,
                enum hooks_event event)
{
    size_t n = plans->config->n_queues;
    struct hooks_plan *plan;
    for (size_t i = 0; i < n; i++) {
        plan = &plans->of[i * EVENT_COUNT + event];
        /* If it cannot be run, no other program takes its place. */
        if (strcmp(plans->config->queues[i].name, queue) == 0 && plan->queue.argv)
            return plan->usable ? plan : NULL;
    }
    plan = &plans->of[n * EVENT_COUNT + event];
    return plan->usable ? plan : NULL;
}
