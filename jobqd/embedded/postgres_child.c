/* postgres_child.c: see postgres_child.h. */
#include "jobqd/embedded/postgres_child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/base/log.h"
#include "jobqd/proc/forks.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/descriptors.h"
#include "libjobq/error.h"

extern char **environ;

#define MAX_GROUPS 256

struct postgres_child {
    uv_poll_t poll; /* on pidfd: readable once the child has ended */
    int pidfd;
    pid_t pid;
    int status;
    postgres_child_exit on_exit;
    void *owner;
};

/* What the child could not do before its exec. X(enumerator, words for the message) */
#define STEPS(X)                                                                         \
    X(STEP_GROUPS, "could not join the groups of")                                       \
    X(STEP_USER, "could not become")                                                     \
    X(STEP_DEATH_SIGNAL, "could not ask for a signal at the parent's death, as")         \
    X(STEP_OUTPUT, "could not redirect the output, as")                                  \
    X(STEP_FOLDER, "may not enter the directory (are the folders above it open to "      \
                   "everyone?), as")                                                     \
    X(STEP_EXEC, "could not be executed as")

enum step {
#define X(name, words) name,
    STEPS(X)
#undef X
};

static const char *const step_words[] = {
#define X(name, words) words,
    STEPS(X)
#undef X
};

struct report {
    enum step step;
    int number; /* errno */
};

/* Everything the child needs, made ready before the fork: after it, only
 * async-signal-safe calls are allowed. */
struct plan {
    const struct postgres_child_options *options;
    char **environment;
    gid_t groups[MAX_GROUPS];
    int n_groups;
    pid_t parent;
    int null;
    int report; /* write end of a close-on-exec pipe */
};

static bool
is_for_postgres(const char *variable)
{
    static const char *const unwanted[] = {
        "PG", "DATABASE_URL=", "JOBQ_", "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_"};
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++)
        if (strncmp(variable, unwanted[i], strlen(unwanted[i])) == 0)
            return true;
    return false;
}

/* Pointers into environ, not copies; free the array alone. */
static char **
cleaned_environment(void)
{
    size_t n = 0;
    while (environ[n])
        n++;
    char **kept = calloc(n + 1, sizeof *kept);
    if (!kept)
        return NULL;
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (!is_for_postgres(environ[i]))
            kept[k++] = environ[i];
    return kept;
}

static _Noreturn void
give_up(const struct plan *plan, enum step step)
{
    struct report report = {.step = step, .number = errno};
    ssize_t ignored = write(plan->report, &report, sizeof report);
    (void)ignored; /* the parent is gone: nobody is left to be told */
    _exit(127);
}

static void
become(void *data)
{
    const struct plan *plan = data;
    const struct postgres_child_options *options = plan->options;
    const struct postgres_user *user = options->user;
    setsid();
    umask(077);
    if (user->drop) {
        if (setgroups((size_t)plan->n_groups, plan->groups) != 0 ||
            setresgid(user->gid, user->gid, user->gid) != 0)
            give_up(plan, STEP_GROUPS);
        if (setresuid(user->uid, user->uid, user->uid) != 0)
            give_up(plan, STEP_USER);
    }
    if (!fork_die_with(plan->parent, options->death_signal))
        give_up(plan, STEP_DEATH_SIGNAL);
    if (dup2(plan->null, 0) < 0 || dup2(options->output, 1) < 0 ||
        dup2(options->output, 2) < 0)
        give_up(plan, STEP_OUTPUT);
    if (chdir(options->folder) != 0)
        give_up(plan, STEP_FOLDER);
    descriptors_seal(STDERR_FILENO + 1); /* whatever a library forgot to mark */
    fork_reset_signals();
    execve(options->argv[0], options->argv, plan->environment);
    give_up(plan, STEP_EXEC);
}

/* Waits for the exec (the pipe closes) or for the report that it failed. */
static int
await_exec(int report_end, pid_t pid, const struct postgres_child_options *options,
           jobq_error *err)
{
    struct report report;
    ssize_t got;
    do
        got = read(report_end, &report, sizeof report);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return 0;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    reaper_forget(pid);
    if (got != (ssize_t)sizeof report)
        return jobq__error(err, JOBQ_EIO, "%s did not start", options->argv[0]);
    return jobq__error(err, JOBQ_EIO, "%s in %s %s user %s: %s", options->argv[0],
                       options->folder, step_words[report.step], options->user->name,
                       strerror(report.number));
}

/* Forks and waits for the exec. On success *pid is running. */
static int
launch(const struct postgres_child_options *options, pid_t *pid, jobq_error *err)
{
    struct plan plan = {
        .options = options, .n_groups = MAX_GROUPS, .parent = getpid(), .null = -1};
    int ends[2] = {-1, -1};
    int code = 0;
    if (options->user->drop && getgrouplist(options->user->name, options->user->gid,
                                            plan.groups, &plan.n_groups) < 0)
        return jobq__error(err, JOBQ_EIO, "user %s is in more than %d groups",
                           options->user->name, MAX_GROUPS);
    plan.environment = cleaned_environment();
    if (!plan.environment)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    plan.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (plan.null < 0 || pipe2(ends, O_CLOEXEC) != 0) {
        code = jobq__error(err, JOBQ_EIO, "cannot start %s: %s", options->argv[0],
                           strerror(errno));
        goto out;
    }
    plan.report = ends[1];
    pid_t started = fork_child(become, &plan);
    if (started < 0) {
        code = jobq__error(err, JOBQ_EIO, "cannot fork for %s: %s", options->argv[0],
                           strerror(errno));
        goto out;
    }
    close(ends[1]);
    ends[1] = -1;
    code = await_exec(ends[0], started, options, err);
    if (code == 0)
        *pid = started;
out:
    if (ends[0] >= 0)
        close(ends[0]);
    if (ends[1] >= 0)
        close(ends[1]);
    if (plan.null >= 0)
        close(plan.null);
    free(plan.environment);
    return code;
}

static void
on_closed(uv_handle_t *handle)
{
    struct postgres_child *child = handle->data;
    postgres_child_exit on_exit = child->on_exit;
    void *owner = child->owner;
    int status = child->status;
    close(child->pidfd);
    free(child);
    if (on_exit)
        on_exit(owner, status);
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct postgres_child *child = poll->data;
    pid_t reaped = waitpid(child->pid, &child->status, WNOHANG);
    if (reaped == 0)
        return;
    if (reaped < 0)
        log_error("postgres", "cannot learn how process %d ended: %s", (int)child->pid,
                  strerror(errno));
    reaper_forget(child->pid);
    uv_close((uv_handle_t *)poll, on_closed);
}

/* Returns libuv's error, or what errno says, negative; then *is_handle tells whether the
 * poll is one that has to be closed. */
static int
watch(struct postgres_child *child, uv_loop_t *loop, bool *is_handle)
{
    child->poll.data = child;
    child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    int failed = child->pidfd < 0 ? -errno : 0;
    if (failed == 0) {
        failed = uv_poll_init(loop, &child->poll, child->pidfd);
        *is_handle = failed == 0;
    }
    if (failed == 0)
        failed = uv_poll_start(&child->poll, UV_READABLE, on_readable);
    return failed;
}

static void
forget(struct postgres_child *child, bool is_handle)
{
    child->on_exit = NULL;
    if (is_handle) {
        uv_close((uv_handle_t *)&child->poll, on_closed);
        return;
    }
    if (child->pidfd >= 0)
        close(child->pidfd);
    free(child);
}

int
postgres_child_start(struct postgres_child **out, uv_loop_t *loop,
                     const struct postgres_child_options *options,
                     postgres_child_exit on_exit, void *owner, jobq_error *err)
{
    struct postgres_child *child = calloc(1, sizeof *child);
    if (!child)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    int code = launch(options, &child->pid, err);
    if (code != 0) {
        free(child);
        return code;
    }
    child->on_exit = on_exit;
    child->owner = owner;
    bool is_handle = false;
    int failed = watch(child, loop, &is_handle);
    if (failed == 0) {
        *out = child;
        return 0;
    }
    code = jobq__error(err, JOBQ_EIO, "cannot watch %s: %s", options->argv[0],
                       uv_strerror(failed));
    kill(child->pid, SIGKILL); /* not reaped yet, so the pid is still its own */
    while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    reaper_forget(child->pid);
    forget(child, is_handle);
    return code;
}

int
postgres_child_adopt(struct postgres_child **out, uv_loop_t *loop, pid_t pid,
                     postgres_child_exit on_exit, void *owner, jobq_error *err)
{
    struct postgres_child *child = calloc(1, sizeof *child);
    if (!child)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    child->pid = pid;
    reaper_note(pid);
    child->on_exit = on_exit;
    child->owner = owner;
    bool is_handle = false;
    int failed = watch(child, loop, &is_handle);
    if (failed == 0) {
        *out = child;
        return 0;
    }
    forget(child, is_handle);
    return jobq__error(err, JOBQ_EIO, "cannot watch process %ld: %s", (long)pid,
                       uv_strerror(failed));
}

pid_t
postgres_child_pid(const struct postgres_child *child)
{
    return child->pid;
}

void
postgres_child_signal(struct postgres_child *child, int signal)
{
    if (syscall(SYS_pidfd_send_signal, child->pidfd, signal, NULL, 0U) != 0 &&
        errno != ESRCH)
        log_error("postgres", "cannot send signal %d to process %d: %s", signal,
                  (int)child->pid, strerror(errno));
}

void
postgres_child_describe(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exited with code %d", WEXITSTATUS(status));
}
