/* clang-format off */
/* fault_worker: does what a job asks for, above all what no handler should do. For tests.
 *
 * kind             args (all optional)               what happens
 * ok               {"result": …}                     ok, with that result
 * echo                                               ok, the args are the result
 * fail             {"times": N, "error": "…", "detail": "…", "retry_in_ms": N}
 *                                                    an error on attempts 1 … times (absent: on each), then ok
 * sleep            {"ms": N}                         sleeps, ok; answers cancel when told to stop
 * hang             {}                                never returns, ignores SIGTERM
 * snooze           {"ms": N, "unless": PATH}         snoozes; unless that file exists: ok
 * discard          {"error": "…"}                    discards
 * cancel           {"error": "…"}                    cancels
 * return           {"code": N}                       returns N without an answer
 * segfault, abort                                    dies of it
 * kill             {"signal": N}                     sends itself a signal
 * exit             {"code": N}                       exits
 * allocate         {"mb": N, "ms": N}                touches N MB, sleeps, frees them
 * stdout           {"crash": true}                    prints a line there, and dies of SIGSEGV
 * stderr           {"lines": N, "error": "…", "exit": N}
 *                                                    writes N lines; with exit: exits then
 * big              {"bytes": N}                      a result of about N bytes
 * progress         {"steps": N, "ms": N,             reports N steps, ms apart; prints before
 *                   "say": true}                     each
 * garbage          {"error": "…"}                    writes that text to the socket
 * twice                                              answers twice; the second is refused
 * spawn            {"ms": N}                         leaves a child behind that sleeps
 * none                                               no handler for it
 *
 * Any job: {"file": PATH} appends "KIND ID ATTEMPT PID\n" to PATH before anything else (so that a test sees each
 * start), {"done": PATH} the same at its end; {"times": N} with the crashing kinds: only on attempts 1 … N, then ok.
 */
/* clang-format on */
#include <jobq/worker.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libjobq/buf.h"
#include "libjobq/json.h"

/* ---- Arguments: members of the top-level object, raw ---- */

struct member {
    const char *at; /* NULL: absent */
    size_t len;
};

static struct member
member(const jobq_work *work, const char *name)
{
    const char *args = jobq_work_args(work);
    struct jobq__json json = {
        .text = args, .at = args, .end = args + jobq_work_args_len(work)};
    struct member found = {NULL, 0};
    jobq__json_skip_space(&json);
    if (json.at == json.end || *json.at != '{')
        return found;
    json.at++;
    for (;;) {
        bool escaped;
        jobq__json_skip_space(&json);
        const char *key = json.at;
        if (json.at == json.end || *json.at == '}' ||
            !jobq__json_skip_string(&json, &escaped))
            return found;
        bool same = (size_t)(json.at - key) == strlen(name) + 2 &&
                    memcmp(key + 1, name, strlen(name)) == 0;
        jobq__json_skip_space(&json);
        json.at++;
        jobq__json_skip_space(&json);
        const char *value = json.at;
        if (!jobq__json_skip_value(&json))
            return found;
        if (same)
            return (struct member){value, (size_t)(json.at - value)};
        jobq__json_skip_space(&json);
        if (json.at < json.end && *json.at == ',')
            json.at++;
    }
}

static long
number(const jobq_work *work, const char *name, long otherwise)
{
    struct member m = member(work, name);
    return m.at ? strtol(m.at, NULL, 10) : otherwise;
}

/* A copy; the caller's. NULL: absent. */
static char *
text(const jobq_work *work, const char *name)
{
    struct member m = member(work, name);
    if (!m.at || *m.at != '"')
        return NULL;
    char *copy = strndup(m.at + 1, m.len - 2);
    if (!copy)
        abort();
    copy[jobq__json_decode(copy, m.len - 2)] = '\0';
    return copy;
}

static void
note(const jobq_work *work, const char *name)
{
    char *path = text(work, name);
    if (!path)
        return;
    char line[256];
    int len =
        snprintf(line, sizeof line, "%s %lld %d %d\n", jobq_work_kind(work),
                 (long long)jobq_work_id(work), jobq_work_attempt(work), (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, line, (size_t)len) != len)
        fprintf(stderr, "fault_worker: %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    free(path);
}

/* ---- What a job can ask for ---- */

static uint64_t
now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* True once it should stop. */
static bool
nap(jobq_work *work, long ms)
{
    uint64_t until = now_ms() + (uint64_t)(ms > 0 ? ms : 0);
    for (;;) {
        uint64_t now = now_ms();
        if (jobq_work_should_stop(work) >= JOBQ_STOP_CANCEL)
            return true;
        if (now >= until)
            return false;
        uint64_t left = until - now < 5 ? until - now : 5;
        nanosleep(&(struct timespec){0, (long)left * 1000000}, NULL);
    }
}

static int
do_ok(jobq_work *work)
{
    struct member m = member(work, "result");
    if (!m.at)
        return 0;
    char *result = strndup(m.at, m.len);
    int rc = jobq_work_ok(work, result, NULL);
    free(result);
    return rc;
}

static int
do_echo(jobq_work *work)
{
    return jobq_work_ok(work, jobq_work_args(work), NULL);
}

static int
do_fail(jobq_work *work)
{
    char *error = text(work, "error"), *detail = text(work, "detail");
    int rc = jobq_work_error(work, error ? error : "asked to fail", detail,
                             number(work, "retry_in_ms", -1), NULL);
    free(detail);
    free(error);
    return rc;
}

static int
do_sleep(jobq_work *work)
{
    if (nap(work, number(work, "ms", 1000)))
        return jobq_work_cancel(work, "stopped as asked", NULL);
    return 0;
}

static int
do_hang(jobq_work *work)
{
    (void)work;
    signal(SIGTERM, SIG_IGN);
    while (pause() != 0)
        continue;
    return 0;
}

static int
do_snooze(jobq_work *work)
{
    char *unless = text(work, "unless");
    bool enough = unless && access(unless, F_OK) == 0;
    free(unless);
    return enough ? 0 : jobq_work_snooze(work, number(work, "ms", 100), NULL);
}

static int
do_discard(jobq_work *work)
{
    char *error = text(work, "error");
    int rc = jobq_work_discard(work, error, NULL);
    free(error);
    return rc;
}

static int
do_cancel(jobq_work *work)
{
    char *error = text(work, "error");
    int rc = jobq_work_cancel(work, error, NULL);
    free(error);
    return rc;
}

static int
do_return(jobq_work *work)
{
    return (int)number(work, "code", 1);
}

static int
do_segfault(jobq_work *work)
{
    (void)work;
    fprintf(stderr, "about to touch what is not there\n");
    signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would make an exit of it */
    raise(SIGSEGV);
    return 0;
}

static int
do_abort(jobq_work *work)
{
    (void)work;
    abort();
}

static int
do_kill(jobq_work *work)
{
    raise((int)number(work, "signal", SIGKILL));
    return 0;
}

static int
do_exit(jobq_work *work)
{
    exit((int)number(work, "code", 1));
}

static int
do_allocate(jobq_work *work)
{
    size_t bytes = (size_t)number(work, "mb", 64) << 20;
    char *memory = malloc(bytes);
    if (!memory)
        return jobq_work_error(work, "malloc refused", NULL, -1, NULL);
    for (size_t i = 0; i < bytes; i += 4096)
        ((volatile char *)memory)[i] = 1;
    nap(work, number(work, "ms", 0));
    free(memory);
    return 0;
}

/* No flush: libjobq has made it line buffered. */
static int
do_stdout(jobq_work *work)
{
    printf("said by job %lld\n", (long long)jobq_work_id(work));
    if (member(work, "crash").at)
        raise(SIGSEGV);
    return 0;
}

static int
do_stderr(jobq_work *work)
{
    char *error = text(work, "error");
    for (long i = 1, lines = number(work, "lines", 1); i <= lines; i++)
        fprintf(stderr, "%s %ld\n", error ? error : "line", i);
    free(error);
    if (member(work, "exit").at)
        exit((int)number(work, "exit", 1));
    return 0;
}

static int
do_big(jobq_work *work)
{
    size_t bytes = (size_t)number(work, "bytes", 1000);
    struct jobq__buf result = {0};
    jobq__buf_addc(&result, '"');
    while (result.len < bytes && !result.failed)
        jobq__buf_adds(&result, "0123456789abcdef");
    jobq__buf_addc(&result, '"');
    const char *json = jobq__buf_cstr(&result);
    int rc = json ? jobq_work_ok(work, json, NULL) : 1;
    jobq__buf_clear(&result);
    return rc;
}

static int
do_progress(jobq_work *work)
{
    long steps = number(work, "steps", 10), ms = number(work, "ms", 60);
    bool says = member(work, "say").at;
    for (long i = 1; i <= steps; i++) {
        if (says)
            printf("step %ld of job %lld\n", i, (long long)jobq_work_id(work));
        if (jobq_work_progress(work, (double)i / (double)steps, "a step", NULL) != 0)
            return 1;
        nap(work, ms);
    }
    return 0;
}

static int
do_garbage(jobq_work *work)
{
    char *error = text(work, "error");
    const char *line = error ? error : "this is no frame\n";
    const char *fd = getenv("JOBQ_FD");
    if (!fd || write(atoi(fd), line, strlen(line)) < 0)
        fprintf(stderr, "fault_worker: write: %s\n", strerror(errno));
    free(error);
    nap(work, 60000); /* the daemon ends us */
    return 0;
}

static int
do_twice(jobq_work *work)
{
    jobq_error err;
    jobq_work_ok(work, "1", NULL);
    if (jobq_work_ok(work, "2", &err) != JOBQ_ESTATE)
        abort();
    return 0;
}

static int
do_spawn(jobq_work *work)
{
    long ms = number(work, "ms", 60000);
    pid_t child = fork();
    if (child == 0) {
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
        _exit(0);
    }
    char result[32];
    snprintf(result, sizeof result, "%d", (int)child);
    return child < 0 ? 1 : jobq_work_ok(work, result, NULL);
}

static const struct fault {
    const char *kind;
    int (*act)(jobq_work *);
    bool until_times; /* with {"times": N}: only on the attempts up to N */
} faults[] = {
    {"ok", do_ok, false},           {"echo", do_echo, false},
    {"fail", do_fail, true},        {"sleep", do_sleep, false},
    {"hang", do_hang, true},        {"snooze", do_snooze, false},
    {"discard", do_discard, false}, {"cancel", do_cancel, false},
    {"return", do_return, true},    {"segfault", do_segfault, true},
    {"abort", do_abort, true},      {"kill", do_kill, true},
    {"exit", do_exit, true},        {"allocate", do_allocate, true},
    {"stderr", do_stderr, true},    {"stdout", do_stdout, false},
    {"big", do_big, false},         {"progress", do_progress, false},
    {"garbage", do_garbage, true},  {"twice", do_twice, false},
    {"spawn", do_spawn, false},
};
enum { N_FAULTS = sizeof faults / sizeof *faults };

static int
handle(jobq_work *work, void *data)
{
    const struct fault *fault = data;
    note(work, "file");
    long times = number(work, "times", -1);
    bool over = fault->until_times && times >= 0 && jobq_work_attempt(work) > times;
    int rc = over ? 0 : fault->act(work);
    note(work, "done");
    return rc;
}

int
main(void)
{
    jobq_worker_kind kinds[N_FAULTS];
    struct fault own[N_FAULTS]; /* handed to the handlers, whose data is not const */
    for (size_t i = 0; i < N_FAULTS; i++) {
        own[i] = faults[i];
        kinds[i] = (jobq_worker_kind){faults[i].kind, handle, &own[i]};
    }
    jobq_worker_options options = JOBQ_WORKER_OPTIONS_INIT;
    jobq_error err;
    options.kinds = kinds;
    options.n_kinds = N_FAULTS;
    if (jobq_worker_run(&options, &err) != 0) {
        fprintf(stderr, "fault_worker: %s\n", err.message);
        return 1;
    }
    return 0;
}
