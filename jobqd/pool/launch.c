/* launch.c: see launch.h. */
#include "jobqd/base/program.h"
#include "jobqd/pool/launch.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/config/environment.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/guard_table.h"
#include "libjobq/buf.h"
#include "libjobq/error.h"

enum { MAX_VARIABLES = 6, MAX_PATIENCE_MS = 2000 };

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
    const char *own[MAX_VARIABLES + 1] = {NULL};
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

/* The PATH that its program will have. */
static const char *
search_path(const struct queue_config *queue)
{
    const char *path = getenv("PATH");
    for (char *const *word = queue->env; word && *word; word++)
        if (strncmp(*word, "PATH=", 5) == 0)
            path = *word + 5;
    return path ? path : program_default_path();
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
    char why[PROGRAM_WHY];
    plan->is_suspect =
        program_fault(queue->argv[0], search_path(queue), why) != PROGRAM_SOUND &&
        !program_is_registered(PROGRAM_FORMATS, queue->argv[0]);
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

/* Its programs run as we do, and nothing is wrong with the file: so there is nothing to
 * try. A hundred such queues are a hundred processes fewer. */
static bool
is_as_we_are(const struct limits *limits, const char *search)
{
    const struct queue_config *queue = limits->queue;
    char why[PROGRAM_WHY];
    return program_fault(queue->argv[0], search, why) == PROGRAM_SOUND &&
           !limits->changes_user && !limits->changes_group && !limits->cpu.rlim_cur &&
           !queue->nice && !queue->nofile && !queue->no_new_privs &&
           !queue->working_directory;
}

static bool
same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* What was found out for the one holds for the other. */
static bool
are_alike(const struct queue_config *a, const struct queue_config *b)
{
    return a->mode == b->mode && a->nice == b->nice && a->nofile == b->nofile &&
           a->no_new_privs == b->no_new_privs && a->cpu_limit_ms == b->cpu_limit_ms &&
           a->stop_grace_ms == b->stop_grace_ms && same_text(a->user, b->user) &&
           same_text(a->group, b->group) &&
           same_text(a->working_directory, b->working_directory) &&
           strcmp(a->argv[0], b->argv[0]) == 0;
}

static bool
was_tried(const struct config *config, const struct queue_config *queue)
{
    const struct queue_config *other = config->queues;
    while (other != queue && !are_alike(other, queue))
        other++;
    return other != queue;
}

/* What is measured by reading /proc, where there is none. NULL: nothing. */
static const char *
unmeasurable(const struct queue_config *queue)
{
    struct guard_process self;
    if (guard_read_process(getpid(), &self))
        return NULL;
    if (queue->max_memory > 0)
        return "max_memory";
    if (queue->max_memory_hard > 0)
        return "max_memory_hard";
    return queue->cpu_limit_ms > 0 ? "cpu_limit" : NULL;
}

static int
check_queue(const struct config *config, const struct queue_config *queue,
            enum launch_use use, int64_t until_ms, jobq_error *err)
{
    struct limits limits;
    enum limits_step step;
    jobq_error why;
    if (queue->argv[0][0] != '/') {
        jobq__error(
            &why, JOBQ_EINVAL,
            "no program \"%s\" on PATH (for a program beside this file write ./%s)",
            queue->argv[0], queue->argv[0]);
        return refuse_queue(config, queue, queue->mode == QUEUE_EXEC ? "exec" : "command",
                            &why, err);
    }
    const char *option = unmeasurable(queue);
    if (option) {
        jobq__error(&why, JOBQ_EINVAL,
                    "it is measured through /proc, which is not mounted: mount it (mount "
                    "-t proc proc /proc)");
        return refuse_queue(config, queue, option, &why, err);
    }
    int rc = limits_resolve(&limits, queue, &step, &why);
    int64_t own_until_ms = clock_ms(CLOCK_MONOTONIC) + MAX_PATIENCE_MS;
    if (rc == 0 && !is_as_we_are(&limits, search_path(queue)))
        rc = limits_probe(&limits, search_path(queue),
                          own_until_ms < until_ms ? own_until_ms : until_ms, &step, &why);
    if (rc < 0) {
        jobq_error where;
        rc = refuse_queue(config, queue, limits_option(&limits, step), &why, &where);
        if (why.code == JOBQ_ESTATE && use == LAUNCH_STARTS) {
            log_error("jobqd", "%s; the queue runs no jobs until this is fixed",
                      where.message);
            rc = 0;
        } else if (err) {
            *err = where;
        }
    }
    limits_clear(&limits);
    return rc;
}

/* A hook that cannot be run stops no job: where the queues are about to be served it is
 * logged. queue NULL: one of [jobqd]. */
static int
check_hook(const struct config *config, const struct queue_config *queue,
           const char *option, char *const *argv, enum launch_use use, jobq_error *err)
{
    char where[PATH_MAX + 256], why[PROGRAM_WHY] = "";
    if (!argv)
        return 0;
    config_where(config, queue, option, where, sizeof where);
    if (argv[0][0] != '/')
        snprintf(why, sizeof why, "there is no such program on PATH");
    else if (program_is_registered(PROGRAM_FORMATS, argv[0]) ||
             program_fault(argv[0], queue ? search_path(queue) : NULL, why) ==
                 PROGRAM_SOUND)
        return 0;
    if (use == LAUNCH_STARTS) {
        log_error("jobqd",
                  "%s: cannot run %s: %s: this hook is not run until this is fixed",
                  where, argv[0], why);
        return 0;
    }
    return jobq__error(err, JOBQ_EINVAL, "%s: cannot run %s: %s", where, argv[0], why);
}

static int
check_hooks(const struct config *config, enum launch_use use, jobq_error *err)
{
    int rc = check_hook(config, NULL, "on_failure", config->on_failure, use, err);
    if (rc == 0)
        rc = check_hook(config, NULL, "on_discard", config->on_discard, use, err);
    for (size_t i = 0; i < config->n_queues && rc == 0; i++) {
        const struct queue_config *queue = &config->queues[i];
        rc = check_hook(config, queue, "on_failure", queue->on_failure, use, err);
        if (rc == 0)
            rc = check_hook(config, queue, "on_discard", queue->on_discard, use, err);
    }
    return rc;
}

int
launch_check(const struct config *config, enum launch_use use, jobq_error *err)
{
    /* A running daemon stands still meanwhile: it must not lose its lease by it. */
    int64_t until_ms = clock_ms(CLOCK_MONOTONIC) + config->lease_ms / 2;
    int rc = 0;
    for (size_t i = 0; i < config->n_queues && rc == 0; i++)
        if (!was_tried(config, &config->queues[i]))
            rc = check_queue(config, &config->queues[i], use, until_ms, err);
    return rc < 0 ? rc : check_hooks(config, use, err);
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
    size_t n = MAX_VARIABLES - 1;
    int64_t timeout_ms = launch_timeout_ms(queue, job);
    put_text(&text, "JOBQ_KIND", job->kind);
    put_text(&text, "JOBQ_QUEUE", queue->name);
    put_number(&text, "JOBQ_JOB_ID", job->id);
    put_number(&text, "JOBQ_ATTEMPT", job->attempt);
    put_number(&text, "JOBQ_MAX_ATTEMPTS", job->max_attempts);
    if (timeout_ms > 0) {
        put_number(&text, "JOBQ_DEADLINE_MS", clock_ms(CLOCK_REALTIME) + timeout_ms);
        n = MAX_VARIABLES;
    }
    char **environment = with_variables(&sources, &text, n);
    jobq__buf_clear(&text);
    return environment;
}

static bool
write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* A program's input as a file: unlike a pipe it never makes us wait for a program that
 * does not read, nor breaks under our hands. A line ends in a newline: without one the
 * shell's `read` takes the line and fails. Returns the descriptor, or -1. */
static int
open_input(const char *text, size_t len)
{
    int fd = memfd_create("jobq-input", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    if (write_all(fd, text, len) && write_all(fd, "\n", 1) && lseek(fd, 0, SEEK_SET) == 0)
        return fd;
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
    fd = open_input(job->args, job->args_len);
    if (fd < 0) {
        rc = jobq__error(err, JOBQ_EIO,
                         "cannot write the args of job %" PRId64 " to a file: %s",
                         job->id, strerror(errno));
        goto out;
    }
    rc = spawn_child(out,
                     &(struct spawn_options){.argv = plan->queue->argv,
                                             .environment = environment,
                                             .stdin_fd = fd,
                                             .suspect = plan->is_suspect,
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
launch_hook(struct child *out, const struct launch_plan *plan,
            const char *const *variables, const char *story, size_t len, jobq_error *err)
{
    struct environment_sources sources = {.words = plan->environment, .own = variables};
    char **environment = environment_make(&sources);
    if (!environment)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for its environment");
    int rc;
    int fd = open_input(story, len);
    if (fd < 0)
        rc = jobq__error(err, JOBQ_EIO, "cannot write its input to a file: %s",
                         strerror(errno));
    else
        rc = spawn_child(out,
                         &(struct spawn_options){.argv = plan->queue->argv,
                                                 .environment = environment,
                                                 .stdin_fd = fd,
                                                 .suspect = plan->is_suspect,
                                                 .limits = &plan->limits},
                         err);
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
                                               .suspect = plan->is_suspect,
                                               .channel = true,
                                               .limits = &plan->limits,
                                               .entrance = way_in},
                       err);
}
