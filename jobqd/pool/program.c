/* program.c: what a worker is started with, counted by who needs it. */
#include "jobqd/pool/pool_private.h"

#include <stdlib.h>
#include <unistd.h>

#include "jobqd/base/log.h"
#include "jobqd/pool/launch.h"

struct worker_program *
worker_program_ref(struct worker_program *program)
{
    program->users++;
    return program;
}

void
worker_program_unref(struct worker_program *program)
{
    if (!program || --program->users > 0)
        return;
    queue_config_unref(program->queue);
    launch_plan_clear(&program->plan);
    free(program);
}

int
worker_program_new(struct worker_program **out, struct pool *pool, uv_loop_t *loop,
                   const struct queue_config *queue, size_t max_frame)
{
    jobq_error err = {.message = "out of memory"};
    struct worker_program *program = calloc(1, sizeof *program);
    int rc = program ? launch_plan_make(&program->plan, queue, max_frame, environ, &err)
                     : JOBQ_ENOMEM;
    if (rc < 0) {
        log_error(pool->subject, "cannot prepare its programs: %s", err.message);
        if (program)
            launch_plan_clear(&program->plan);
        free(program);
        return rc;
    }
    if (queue->max_memory_hard > 0)
        watch_choose(pool->watch);
    queue_config_ref(queue);
    program->loop = loop;
    program->queue = queue;
    program->max_frame = max_frame;
    program->watch = pool->watch;
    program->chunk = pool->chunk;
    program->users = 1;
    list_init(&program->nursed);
    *out = program;
    return 0;
}
