/* start_check.c: see start_check.h. */
#include "jobqd/commands/start_check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <uv.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/escape.h"
#include "jobqd/base/folder.h"
#include "jobqd/base/jsontree.h"
#include "jobqd/pool/pool.h"

enum { LOOK_EVERY_MS = 20, STOP_MS = 5000 };

/* What ends it: what it has started has to go before, with all that this has started. */
static const int endings[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
enum { N_ENDINGS = sizeof endings / sizeof endings[0] };

/* X(enumerator, what it is called in JSON) */
#define ENDS(X)                                                                          \
    X(END_AWAITED, "awaited")                                                            \
    X(END_UP, "up")                                                                      \
    X(END_NOTHING, "nothing to start")                                                   \
    X(END_FAILED, "failed")

enum end {
#define X(name, text) name,
    ENDS(X)
#undef X
};

static const char *const end_names[] = {
#define X(name, text) [name] = text,
    ENDS(X)
#undef X
};

struct start {
    struct trial *trial;
    const char *queue;
    struct pool *pool; /* NULL: none, or gone */
    enum end end;
    uint64_t took_ns;
    char why[600]; /* END_FAILED */
};

struct trial {
    uv_loop_t loop;
    uv_timer_t timer;
    uv_signal_t signals[N_ENDINGS];
    int signal; /* that came; 0: none */
    uint64_t began_ns;
    struct start *starts;
    size_t n;
    size_t n_pools;
};

static void
unwatch(struct trial *trial)
{
    uv_close((uv_handle_t *)&trial->timer, NULL);
    for (size_t i = 0; i < N_ENDINGS; i++)
        uv_close((uv_handle_t *)&trial->signals[i], NULL);
}

static void
on_stopped(void *owner)
{
    struct start *start = owner;
    struct trial *trial = start->trial;
    pool_free(start->pool);
    start->pool = NULL;
    if (--trial->n_pools == 0)
        unwatch(trial);
}

/* It gives no jobs. */
static void
on_room(void *owner)
{
    (void)owner;
}

static const struct pool_events events = {.on_room = on_room, .on_stopped = on_stopped};

static void
look(struct start *start)
{
    struct pool_status now;
    pool_status(start->pool, &now);
    if (now.backing_off || now.failed_boots > 0) {
        start->end = END_FAILED;
        snprintf(start->why, sizeof start->why, "%s", now.trouble);
        pool_kill(start->pool);
    } else if (now.missing == 0 && !now.unproven) {
        start->end = END_UP;
        start->took_ns = clock_ns() - start->trial->began_ns;
        pool_stop(start->pool, STOP_MS);
    }
}

static void
on_look(uv_timer_t *timer)
{
    struct trial *trial = timer->data;
    for (size_t i = 0; i < trial->n; i++) {
        struct start *start = &trial->starts[i];
        if (start->end == END_AWAITED)
            look(start);
    }
}

static void
on_signal(uv_signal_t *handle, int number)
{
    struct trial *trial = handle->data;
    trial->signal = number;
    for (size_t i = 0; i < trial->n; i++) {
        struct start *start = &trial->starts[i];
        if (start->end == END_AWAITED)
            start->end = END_FAILED;
        if (start->pool)
            pool_kill(start->pool);
    }
}

static void
watch(struct trial *trial)
{
    uv_timer_init(&trial->loop, &trial->timer);
    trial->timer.data = trial;
    uv_timer_start(&trial->timer, on_look, LOOK_EVERY_MS, LOOK_EVERY_MS);
    for (size_t i = 0; i < N_ENDINGS; i++) {
        struct sigaction was;
        uv_signal_init(&trial->loop, &trial->signals[i]);
        trial->signals[i].data = trial;
        /* What is ignored, as nohup has SIGHUP, stays so. */
        if (sigaction(endings[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            uv_signal_start(&trial->signals[i], on_signal, endings[i]);
    }
}

static void
begin(struct trial *trial, struct start *start, struct queue_config *queue,
      size_t max_frame)
{
    *start = (struct start){.trial = trial, .queue = queue->name};
    queue->concurrency = 1;
    if (queue->mode == QUEUE_EXEC) {
        start->end = END_NOTHING;
    } else if (pool_new(&start->pool, &trial->loop, queue, max_frame, &events, start) <
               0) {
        start->end = END_FAILED;
        snprintf(start->why, sizeof start->why,
                 "out of memory, or its program cannot be prepared");
    } else {
        trial->n_pools++;
    }
}

static void
say(const struct start *start)
{
    fputs("queue ", stdout);
    escape_print(stdout, start->queue);
    switch (start->end) {
    case END_UP:
        printf(": a worker came up in %.2f s\n", (double)start->took_ns / 1e9);
        break;
    case END_NOTHING:
        puts(": starts a program for each job; there is no worker to start");
        break;
    case END_AWAITED:
    case END_FAILED:
        fputs(": its worker did not come up: ", stdout);
        escape_print(stdout, start->why);
        putchar('\n');
        break;
    }
}

static void
add_start(cJSON *list, const struct start *start)
{
    cJSON *o = tree_add_object(list, NULL);
    tree_add_text(o, "queue", start->queue);
    tree_add_text(o, "start", end_names[start->end]);
    if (start->end == END_UP)
        tree_add_int(o, "took_ms", (int64_t)(start->took_ns / 1000000u));
    if (start->end == END_FAILED)
        tree_add_text(o, "error", start->why);
}

static int
report(const struct trial *trial, cJSON *answer)
{
    int code = EX_OK;
    cJSON *list = answer ? tree_add_list(answer, "started") : NULL;
    for (size_t i = 0; i < trial->n; i++) {
        if (trial->starts[i].end == END_FAILED)
            code = EX_UNAVAILABLE;
        if (answer)
            add_start(list, &trial->starts[i]);
        else
            say(&trial->starts[i]);
    }
    return code;
}

int
start_check(struct config *config, cJSON *answer)
{
    struct trial trial = {.n = config->n_queues, .began_ns = clock_ns()};
    folder_enter();
    trial.starts = calloc(trial.n + 1, sizeof *trial.starts);
    if (!trial.starts || uv_loop_init(&trial.loop) < 0) {
        fputs("jobqd config: out of memory or file descriptors; cannot start workers\n",
              stderr);
        free(trial.starts);
        return EX_OSERR;
    }
    watch(&trial);
    for (size_t i = 0; i < trial.n; i++)
        begin(&trial, &trial.starts[i], &config->queues[i], config->max_frame);
    if (trial.n_pools == 0)
        unwatch(&trial);
    uv_run(&trial.loop, UV_RUN_DEFAULT);
    uv_loop_close(&trial.loop);
    if (trial.signal != 0)
        raise(trial.signal); /* libuv has given it back: we end as without us */
    int code = report(&trial, answer);
    free(trial.starts);
    return code;
}
