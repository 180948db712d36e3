/* preload_worker: says what a worker finds around itself, and what its hooks did. For
 * tests of `preload`.
 *
 *     preload_worker LOG MB
 *
 * The preload hook fills MB megabytes; it and on_fork append "preload PID" and "fork PID"
 * to LOG, which main opens and leaves open.
 *
 * kind    what happens
 * facts   ok, with an object: pid, parent, group, session, the signal of its parent's
 *         death, whether a signal is blocked, what its descriptors are, its JOBQ_*
 *         variables and the sum of the bytes that were loaded
 * fail    segfaults
 * leave   leaves a child behind in a session of its own, which ends when its standard
 *         input, a FIFO named by TEST_FIFO, does; ok, with its pid
 */
#include <jobq/worker.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "libjobq/buf.h"

extern char **environ;

static struct {
    int log;
    size_t size;
    unsigned char *data;
} loaded;

static int
record(const char *what)
{
    char line[64];
    int len = snprintf(line, sizeof line, "%s %d\n", what, (int)getpid());
    return write(loaded.log, line, (size_t)len) == len ? 0 : 1;
}

static int
on_preload(void *data)
{
    (void)data;
    loaded.data = malloc(loaded.size);
    if (!loaded.data)
        return 1;
    for (size_t i = 0; i < loaded.size; i++)
        loaded.data[i] = (unsigned char)i;
    return record("preload");
}

static int
on_fork(void *data)
{
    (void)data;
    return record("fork");
}

static void
put_number(struct jobq__buf *out, const char *name, int64_t value)
{
    jobq__buf_addc(out, '"');
    jobq__buf_adds(out, name);
    jobq__buf_adds(out, "\":");
    jobq__buf_add_i64(out, value);
    jobq__buf_addc(out, ',');
}

static void
put_descriptors(struct jobq__buf *out)
{
    const char *comma = "";
    jobq__buf_adds(out, "\"fds\":{");
    for (int fd = 0; fd < 100; fd++) {
        char path[64], target[256];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target);
        if (n < 0)
            continue;
        snprintf(path, sizeof path, "%s\"%d\":", comma, fd);
        jobq__buf_adds(out, path);
        jobq__buf_add_json_string(out, target, (size_t)n);
        comma = ",";
    }
    jobq__buf_adds(out, "},");
}

static void
put_variables(struct jobq__buf *out)
{
    const char *comma = "";
    jobq__buf_adds(out, "\"env\":[");
    for (char **at = environ; *at; at++) {
        if (strncmp(*at, "JOBQ", 4) != 0 && strncmp(*at, "PG", 2) != 0)
            continue;
        jobq__buf_adds(out, comma);
        jobq__buf_add_json_string(out, *at, strlen(*at));
        comma = ",";
    }
    jobq__buf_adds(out, "]}");
}

static int
facts(jobq_work *work, void *data)
{
    struct jobq__buf out = {0};
    int death = 0;
    int64_t sum = 0;
    sigset_t mask;
    (void)data;
    prctl(PR_GET_PDEATHSIG, &death);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (size_t i = 0; i < loaded.size; i++)
        sum += loaded.data[i];
    jobq__buf_addc(&out, '{');
    put_number(&out, "pid", getpid());
    put_number(&out, "parent", getppid());
    put_number(&out, "group", getpgrp());
    put_number(&out, "session", getsid(0));
    put_number(&out, "death", death);
    put_number(&out, "blocked", sigismember(&mask, SIGTERM));
    put_number(&out, "sum", sum);
    put_descriptors(&out);
    put_variables(&out);
    const char *text = jobq__buf_cstr(&out);
    int rc = text ? jobq_work_ok(work, text, NULL) : 1;
    jobq__buf_clear(&out);
    return rc;
}

static int
fail(jobq_work *work, void *data)
{
    (void)work;
    (void)data;
    raise(SIGSEGV);
    return 1;
}

static int
leave(jobq_work *work, void *data)
{
    char text[32], byte;
    int gone[2]; /* ends when the child has left our group */
    (void)data;
    if (pipe2(gone, O_CLOEXEC) != 0)
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        close(gone[0]);
        close(gone[1]);
        const char *fifo = getenv("TEST_FIFO");
        int fd = fifo ? open(fifo, O_RDONLY) : -1;
        while (fd >= 0 && read(fd, &byte, 1) > 0)
            continue;
        _exit(0);
    }
    close(gone[1]);
    while (read(gone[0], &byte, 1) > 0)
        continue;
    close(gone[0]);
    snprintf(text, sizeof text, "%d", (int)pid);
    return pid < 0 ? 1 : jobq_work_ok(work, text, NULL);
}

int
main(int argc, char **argv)
{
    const jobq_worker_kind kinds[] = {
        {"facts", facts, NULL}, {"fail", fail, NULL}, {"leave", leave, NULL}};
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_error err;
    if (argc == 3) {
        loaded.log = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        loaded.size = (size_t)strtoul(argv[2], NULL, 10) * 1024 * 1024;
    }
    if (argc != 3 || loaded.log < 0) {
        fprintf(stderr, "usage: preload_worker LOG MB\n");
        return 64;
    }
    options.kinds = kinds;
    options.n_kinds = sizeof kinds / sizeof kinds[0];
    options.preload = on_preload;
    options.on_fork = on_fork;
    if (jobq_worker_run(&options, &err) != 0) {
        fprintf(stderr, "preload_worker: %s\n", err.message);
        return 1;
    }
    return 0;
}
