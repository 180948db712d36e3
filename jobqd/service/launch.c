/* launch.c: see launch.h. */
#include "jobqd/service/launch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "libjobq/buf.h"
#include "libjobq/error.h"

enum { MOST_VARIABLES = 6 };

int64_t
launch_timeout_ms(const struct queue_config *queue, const struct job *job)
{
    return job->timeout_ms > 0 ? job->timeout_ms : queue->timeout_ms;
}

static int64_t
wall_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
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

static char **
with_variables(char *const *base, const struct jobq__buf *text, size_t n)
{
    const char *extra[MOST_VARIABLES];
    const char *at = text->data;
    for (size_t i = 0; i < n; i++) {
        extra[i] = at;
        at += strlen(at) + 1;
    }
    return spawn_environment(base, extra, n);
}

char **
launch_environment(const struct queue_config *queue, size_t max_frame, char *const *base)
{
    /* What is the same for every process. An exec program's job brings the rest along. */
    if (queue->mode == QUEUE_EXEC)
        return spawn_environment(base, NULL, 0);
    struct jobq__buf text = {0};
    put_text(&text, "JOBQ_QUEUE", queue->name);
    put_number(&text, "JOBQ_FD", SPAWN_CHANNEL_FD);
    put_number(&text, "JOBQ_MAX_FRAME", (int64_t)max_frame);
    char **environment = text.failed ? NULL : with_variables(base, &text, 3);
    jobq__buf_clear(&text);
    return environment;
}

/* JOBQ_DEADLINE_MS is a moment, in milliseconds since 1970; absent when the job has no
 * deadline. */
static char **
job_environment(char *const *base, const struct queue_config *queue,
                const struct job *job)
{
    struct jobq__buf text = {0};
    size_t n = MOST_VARIABLES - 1;
    int64_t timeout_ms = launch_timeout_ms(queue, job);
    put_text(&text, "JOBQ_KIND", job->kind);
    put_text(&text, "JOBQ_QUEUE", queue->name);
    put_number(&text, "JOBQ_JOB_ID", job->id);
    put_number(&text, "JOBQ_ATTEMPT", job->attempt);
    put_number(&text, "JOBQ_MAX_ATTEMPTS", job->max_attempts);
    if (timeout_ms > 0) {
        put_number(&text, "JOBQ_DEADLINE_MS", wall_clock_ms() + timeout_ms);
        n = MOST_VARIABLES;
    }
    char **environment = text.failed ? NULL : with_variables(base, &text, n);
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
launch_exec(struct child *out, const struct queue_config *queue, char *const *base,
            const struct job *job, jobq_error *err)
{
    int fd = -1;
    int rc = JOBQ_ENOMEM;
    char **environment = job_environment(base, queue, job);
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
                     &(struct spawn_options){
                         .argv = queue->argv, .environment = environment, .stdin_fd = fd},
                     err);
out:
    if (fd >= 0)
        close(fd);
    free(environment);
    return rc;
}

int
launch(struct child *out, const struct queue_config *queue, char *const *environment,
       const struct job *job, jobq_error *err)
{
    if (job)
        return launch_exec(out, queue, environment, job, err);
    return spawn_child(out,
                       &(struct spawn_options){.argv = queue->argv,
                                               .environment = environment,
                                               .stdin_fd = -1,
                                               .channel = true},
                       err);
}
