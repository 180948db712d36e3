/* launch.c: see launch.h. */
#include "jobqd/service/launch.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/base/environment.h"
#include "jobqd/base/words.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

enum { MOST_VARIABLES = 6, MOST_PATIENCE_MS = 2000 };

int64_t
launch_timeout_ms(const struct queue_config *queue, const struct job *job)
{
    return job->timeout_ms > 0 ? job->timeout_ms : queue->timeout_ms;
}

static int64_t
clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The variables stand one after the other, each with its NUL, in one buffer. */
static void
put_text(struct jobq__buf *buf, const char *name, const char *value)
{
    jobq__buf_adds(buf, name);
    jobq__buf_addc(buf, '=');
    jobq__buf_add(buf, value, strlen(value) + 1);
}

static void
put_number(struct jobq__buf *buf, const char *name, int64_t value)
{
    jobq__buf_adds(buf, name);
    jobq__buf_addc(buf, '=');
    jobq__buf_add_i64(buf, value);
    jobq__buf_addc(buf, '\0');
}

/* base: complete already, but for these n variables. */
static char **
with_variables(const struct environment_sources *sources, const struct jobq__buf *text,
               size_t n)
{
    const char *own[MOST_VARIABLES + 1] = {NULL};
    struct environment_sources all = *sources;
    const char *at = text->data;
    for (size_t i = 0; i < n; i++) {
        own[i] = at;
        at += strlen(at) + 1;
    }
    all.own = own;
    return text->failed ? NULL : environment_make(&all);
}

/* What is the same for every process. */
static char **
plan_environment(const struct launch_plan *plan, size_t max_frame, char *const *base)
{
    const struct queue_config *queue = plan->queue;
    struct environment_sources sources = {
        .inherited = base,
        .account = plan->limits.account,
        .words = queue->env,
    };
    if (queue->mode == QUEUE_EXEC)
        return environment_make(&sources);
    struct jobq__buf text = {0};
    put_text(&text, "JOBQ_QUEUE", queue->name);
    put_number(&text, "JOBQ_FD", SPAWN_CHANNEL_FD);
    put_number(&text, "JOBQ_MAX_FRAME", (int64_t)max_frame);
    if (queue->preload)
        put_number(&text, "JOBQ_PRELOAD", 1);
    char **environment = with_variables(&sources, &text, queue->preload ? 4 : 3);
    jobq__buf_clear(&text);
    return environment;
}

int
launch_plan_make(struct launch_plan *plan, const struct queue_config *queue,
                 size_t max_frame, char *const *base, jobq_error *err)
{
    enum limits_step step;
    *plan = (struct launch_plan){.queue = queue};
    int rc = limits_resolve(&plan->limits, queue, &step, err);
    if (rc < 0)
        return rc;
    plan->environment = plan_environment(plan, max_frame, base);
    if (!plan->environment)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for the environment of queue %s",
                           queue->name);
    return 0;
}

void
launch_plan_clear(struct launch_plan *plan)
{
    limits_clear(&plan->limits);
    free(plan->environment);
    plan->environment = NULL;
}

/* With the value's length, so that no value looks like another option. */
static void
describe_text(struct jobq__buf *out, const char *name, const char *value)
{
    if (!value)
        return;
    jobq__buf_adds(out, name);
    jobq__buf_addc(out, ' ');
    jobq__buf_add_i64(out, (int64_t)strlen(value));
    jobq__buf_addc(out, ' ');
    jobq__buf_adds(out, value);
    jobq__buf_addc(out, '\n');
}

static void
describe_number(struct jobq__buf *out, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    describe_text(out, name, value != 0 ? text : NULL);
}

static void
describe_words(struct jobq__buf *out, const char *name, char *const *words)
{
    for (; words && *words; words++)
        describe_text(out, name, *words);
}

void
launch_describe(const struct queue_config *queue, size_t max_frame, struct jobq__buf *out)
{
    describe_words(out, "command", queue->argv);
    describe_words(out, "env", queue->env);
    describe_text(out, "user", queue->user);
    describe_text(out, "group", queue->group);
    describe_text(out, "working_directory", queue->working_directory);
    describe_number(out, "max_frame", (int64_t)max_frame);
    describe_number(out, "max_memory_hard", (int64_t)queue->max_memory_hard);
    describe_number(out, "nofile", queue->nofile);
    describe_number(out, "nice", queue->nice);
    describe_number(out, "no_new_privs", queue->no_new_privs);
    describe_number(out, "preload", queue->preload);
}

static int
refuse_queue(const struct config *config, const struct queue_config *queue,
             const char *option, const jobq_error *why, jobq_error *err)
{
    char where[PATH_MAX + 256];
    config_where(config, queue, option ? option : "", where, sizeof where);
    return jobq__error(err, why->code, "%s: %s", where, why->message);
}

/* A running daemon stands still meanwhile: it must not lose its lease by it. */
static int64_t
patience_ms(const struct config *config)
{
    return config->lease_ms / 2 < MOST_PATIENCE_MS ? config->lease_ms / 2
                                                   : MOST_PATIENCE_MS;
}

static int
check_queue(const struct config *config, const struct queue_config *queue,
            int64_t until_ms, jobq_error *err)
{
    struct limits limits;
    enum limits_step step;
    jobq_error why;
    if (words_check_program(queue->argv[0], &why) < 0)
        return refuse_queue(config, queue, queue->mode == QUEUE_EXEC ? "exec" : "command",
                            &why, err);
    int rc = limits_resolve(&limits, queue, &step, &why);
    if (rc == 0)
        rc = limits_probe(&limits, until_ms, &step, &why);
    if (rc < 0)
        refuse_queue(config, queue, limits_option(&limits, step), &why, err);
    limits_clear(&limits);
    return rc;
}

int
launch_check(const struct config *config, jobq_error *err)
{
    int64_t until_ms = clock_ms(CLOCK_MONOTONIC) + patience_ms(config);
    int rc = 0;
    for (size_t i = 0; i < config->n_queues && rc == 0; i++)
        rc = check_queue(config, &config->queues[i], until_ms, err);
    return rc;
}

/* JOBQ_DEADLINE_MS is a moment, in milliseconds since 1970; absent when the job has no
 * deadline. */
static char **
job_environment(const struct launch_plan *plan, const struct job *job)
{
    const struct queue_config *queue = plan->queue;
    /* What the plan has was sifted already: all of it is the program's. */
    struct environment_sources sources = {.words = plan->environment};
    struct jobq__buf text = {0};
    size_t n = MOST_VARIABLES - 1;
    int64_t timeout_ms = launch_timeout_ms(queue, job);
    put_text(&text, "JOBQ_KIND", job->kind);
    put_text(&text, "JOBQ_QUEUE", queue->name);
    put_number(&text, "JOBQ_JOB_ID", job->id);
    put_number(&text, "JOBQ_ATTEMPT", job->attempt);
    put_number(&text, "JOBQ_MAX_ATTEMPTS", job->max_attempts);
    if (timeout_ms > 0) {
        put_number(&text, "JOBQ_DEADLINE_MS", clock_ms(CLOCK_REALTIME) + timeout_ms);
        n = MOST_VARIABLES;
    }
    char **environment = with_variables(&sources, &text, n);
    jobq__buf_clear(&text);
    return environment;
}

/* The args as a file: unlike a pipe it never makes us wait for a program that does not
 * read, nor breaks under our hands. Returns the descriptor, or -1. */
static int
open_args(const struct job *job)
{
    int fd = memfd_create("jobq-args", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t done = 0;
    while (done < job->args_len) {
        ssize_t n = write(fd, job->args + done, job->args_len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            goto fail;
        done += (size_t)n;
    }
    if (lseek(fd, 0, SEEK_SET) == 0)
        return fd;
fail:
    close(fd);
    return -1;
}

static int
launch_exec(struct child *out, const struct launch_plan *plan, const int *entrance,
            const struct job *job, jobq_error *err)
{
    int fd = -1;
    int rc = JOBQ_ENOMEM;
    char **environment = job_environment(plan, job);
    if (!environment) {
        jobq__error(err, rc, "no memory for the environment of job %" PRId64, job->id);
        goto out;
    }
    fd = open_args(job);
    if (fd < 0) {
        rc = jobq__error(err, JOBQ_EIO,
                         "cannot put the args of job %" PRId64 " into a file: %s",
                         job->id, strerror(errno));
        goto out;
    }
    rc = spawn_child(out,
                     &(struct spawn_options){.argv = plan->queue->argv,
                                             .environment = environment,
                                             .stdin_fd = fd,
                                             .limits = &plan->limits,
                                             .entrance = entrance},
                     err);
out:
    if (fd >= 0)
        close(fd);
    free(environment);
    return rc;
}

int
launch(struct child *out, const struct launch_plan *plan, int entrance,
       const struct job *job, jobq_error *err)
{
    const int *way_in = entrance >= 0 ? &entrance : NULL;
    if (job)
        return launch_exec(out, plan, way_in, job, err);
    return spawn_child(out,
                       &(struct spawn_options){.argv = plan->queue->argv,
                                               .environment = plan->environment,
                                               .stdin_fd = -1,
                                               .channel = true,
                                               .limits = &plan->limits,
                                               .entrance = way_in},
                       err);
}
