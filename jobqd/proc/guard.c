/* guard.c: see guard.h. */
#include "jobqd/proc/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/config/environment.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/descriptors.h"
#include "jobqd/proc/forks.h"
#include "jobqd/proc/guard_main.h"
#include "jobqd/base/clock.h"
#include "jobqd/base/seams.h"
#include "jobqd/base/self.h"
#include "jobqd/pure/intensity.h"
#include "libjobq/error.h"
#include "libjobq/duration.h"

enum {
    MAX_DEATHS = 5, /* of guards, within … before the next one waits */
    DEATHS_MS = 10000,
    TICK_MIN_MS = 100,
    TICK_MAX_MS = 1000,
    HUNG_MS = 3000,  /* a guard that has not moved for so long is replaced … */
    HUNG_LOOKS = 5,  /* … and for so many looks: we may have been stopped ourselves */
    BOOT_MS = 20000, /* the first time it may take so long */
    PARKED_FD = 16
};

/* X(enumerator, what we are waiting for) */
#define GUARD_STATES(X)                                                                  \
    X(GUARD_DOWN, "the pause before its next start to end")                              \
    X(GUARD_BOOTING, "its first heartbeat")                                              \
    X(GUARD_UP, "its exit")                                                              \
    X(GUARD_CLOSING, "its handles to close")

enum guard_state {
#define X(name, meaning) name,
    GUARD_STATES(X)
#undef X
};

/* One process that guards. Lives until its handle has closed. */
struct life {
    uv_poll_t poll; /* on pidfd: readable when it has ended */
    pid_t pid;
    int pidfd;
};

struct guard {
    struct guard_options options;
    enum guard_state state;
    int table_fd;
    int self_fd;       /* a pidfd of ours, for it to see our end */
    struct life *life; /* NULL: there is none */
    uint64_t beats;    /* its beats at the last look */
    int still;         /* looks since they have moved */
    uint64_t strikes;  /* of which we have told */
    bool failing;      /* it could not be started, of which we have told */
    struct intensity intensity;
    char **argv;        /* what it is started with */
    char **environment; /* NULL: all of ours, for a jobqd that it becomes */
    uv_timer_t look;    /* repeats */
};

/* A process has one guard, so there is one. */
static struct guard *the_guard;

int64_t
guard_deadline_ns(int64_t lease_end_ns, int64_t lease_ms)
{
    return lease_end_ns - lease_ms * 1000000 / 20;
}

static void
set_state(struct guard *guard, enum guard_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        GUARD_STATES(X)
#undef X
    };
    guard->state = state;
    guard->still = 0;
    log_debug("guard", "jobqd waits for %s", meanings[state]);
}

static int64_t
now_ms(void)
{
    return clock_boottime_ns() / 1000000;
}

/* ---- its process ---- */

/* Every signal stays blocked: the guard never takes one. */
static void
run_child(void *data)
{
    const struct guard *guard = data;
    setsid();
    int table = fcntl(guard->table_fd, F_DUPFD_CLOEXEC, PARKED_FD);
    int self = fcntl(guard->self_fd, F_DUPFD_CLOEXEC, PARKED_FD);
    if (table >= 0 && self >= 0 && dup2(table, GUARD_TABLE_FD) >= 0 &&
        dup2(self, GUARD_JOBQD_FD) >= 0) {
        /* All our descriptors are close-on-exec; a library's may not be. */
        descriptors_seal(GUARD_JOBQD_FD + 1);
        char **environment = guard->environment ? guard->environment : environ;
        execve("/proc/self/exe", guard->argv, environment);
        execve(self_path(), guard->argv, environment); /* there is no /proc */
    }
    _exit(EX_OSERR);
}

/* Kills it, and waits as long as the kernel takes to end a process. Its end is still seen
 * by on_end. */
static void
end_process(const struct life *life)
{
    siginfo_t how;
    syscall(SYS_pidfd_send_signal, life->pidfd, SIGKILL, NULL, 0);
    while (waitid(P_PIDFD, (id_t)life->pidfd, &how, WEXITED | WNOWAIT) < 0 &&
           errno == EINTR)
        continue;
}

static void
on_stuck(void)
{
    if (the_guard && the_guard->life)
        end_process(the_guard->life);
}

static void
on_life_closed(uv_handle_t *handle)
{
    struct life *life = handle->data;
    close(life->pidfd);
    free(life);
}

static void
reap(struct guard *guard)
{
    struct life *life = guard->life;
    int how = 0;
    while (waitpid(life->pid, &how, 0) < 0 && errno == EINTR)
        continue;
    reaper_forget(life->pid);
    if (guard->state != GUARD_CLOSING && WIFEXITED(how))
        log_error("guard", "pid %d exited with code %d; starting another", (int)life->pid,
                  WEXITSTATUS(how));
    else if (guard->state != GUARD_CLOSING)
        log_error("guard", "pid %d was killed by SIG%s; starting another", (int)life->pid,
                  sigabbrev_np(WTERMSIG(how)));
    guard->life = NULL;
    uv_close((uv_handle_t *)&life->poll, on_life_closed); /* the loop's from here on */
}

/* ---- starting it ---- */

static void on_end(uv_poll_t *poll, int status, int events);

static int
start(struct guard *guard, jobq_error *err)
{
    struct life *life = calloc(1, sizeof *life);
    if (!life)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for the guard");
    life->pid = fork_child(run_child, guard);
    life->pidfd = life->pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, life->pid, 0);
    int rc = life->pidfd < 0
                 ? -errno
                 : uv_poll_init(guard->options.loop, &life->poll, life->pidfd);
    if (rc < 0) {
        jobq__error(err, JOBQ_EIO, "cannot start the guard: %s", uv_strerror(rc));
        if (life->pid > 0) {
            kill(life->pid, SIGKILL);
            waitpid(life->pid, NULL, 0);
            reaper_forget(life->pid);
        }
        if (life->pidfd >= 0)
            close(life->pidfd);
        free(life);
        return JOBQ_EIO;
    }
    life->poll.data = life;
    uv_poll_start(&life->poll, UV_READABLE, on_end);
    guard->life = life;
    guard->beats = atomic_load(&guard_table()->guard_beats);
    set_state(guard, GUARD_BOOTING);
    log_debug("guard", "started as pid %d", (int)life->pid);
    return 0;
}

/* Out of descriptors or processes, say: that lasts, and the next look tries again. */
static void
try_to_start(struct guard *guard)
{
    jobq_error err;
    bool failed = start(guard, &err) < 0;
    if (failed && !guard->failing)
        log_error("guard", "%s; retrying. Until then no guard is running", err.message);
    if (!failed && guard->failing)
        log_warning("guard", "started again");
    guard->failing = failed;
}

/* It is down. Starts another, unless too many have died: then the next look may. */
static void
start_again(struct guard *guard)
{
    if (guard->state != GUARD_DOWN)
        set_state(guard, GUARD_DOWN);
    if (intensity_pause_left(&guard->intensity, now_ms()) == 0)
        try_to_start(guard);
}

static void
on_end(uv_poll_t *poll, int status, int events)
{
    struct guard *guard = the_guard;
    (void)poll;
    (void)status;
    (void)events;
    reap(guard);
    int64_t pause_ms =
        intensity_bad_end(&guard->intensity, now_ms(), (uint32_t)clock_ns());
    if (pause_ms > 0)
        log_error("guard",
                  "more than %d guards died within %s; starting the next in %s. Until "
                  "then no guard is running",
                  MAX_DEATHS, jobq__duration_show(DEATHS_MS).text,
                  jobq__duration_show(pause_ms).text);
    start_again(guard);
}

/* ---- watching it ---- */

static void
tell_of_strikes(struct guard *guard)
{
    uint64_t strikes = atomic_load(&guard_table()->strikes);
    if (strikes == guard->strikes)
        return;
    log_error(
        "guard",
        "process groups killed: %llu; jobqd was stopped, hung or starved of CPU time and "
        "did not renew its lease in time",
        (unsigned long long)(strikes - guard->strikes));
    guard->strikes = strikes;
}

/* Counted in looks, not in time: after we were stopped ourselves, or the whole machine,
 * it has not stood still. */
static void
look_at_beats(struct guard *guard)
{
    uint64_t beats = atomic_load(&guard_table()->guard_beats);
    int tick_ms = guard_table()->tick_ms;
    int patience_ms = guard->state == GUARD_BOOTING ? BOOT_MS : HUNG_MS;
    if (beats != guard->beats) {
        guard->beats = beats;
        guard->still = 0;
        if (guard->state == GUARD_BOOTING)
            set_state(guard, GUARD_UP);
        return;
    }
    if (++guard->still < HUNG_LOOKS || guard->still * tick_ms < patience_ms)
        return;
    log_error("guard", "pid %d has not responded for %s; killing it",
              (int)guard->life->pid,
              jobq__duration_show((int64_t)guard->still * tick_ms).text);
    guard->still = 0;
    end_process(guard->life);
}

static void
on_look(uv_timer_t *timer)
{
    struct guard *guard = timer->data;
    atomic_store(&guard_table()->jobqd_ns, clock_boottime_ns());
    tell_of_strikes(guard);
    if (guard->life)
        look_at_beats(guard);
    else
        start_again(guard);
}

/* ---- guard.h ---- */

static int
make_argv(struct guard *guard)
{
    static char name[] = "jobqd", command[] = GUARD_COMMAND, dashes[] = "--";
    char *const *again = guard->options.respawn ? self_argv() : NULL;
    size_t n = 0, at = 0;
    while (again && again[n])
        n++;
    guard->argv = calloc(n + 4, sizeof *guard->argv);
    if (!guard->argv)
        return JOBQ_ENOMEM;
    guard->argv[at++] = name;
    guard->argv[at++] = command;
    if (n > 0)
        guard->argv[at++] = dashes;
    for (size_t i = 0; i < n; i++)
        guard->argv[at++] = again[i];
    return 0;
}

/* It is executed while workers of our own user may run, and can be looked into until it
 * has begun: what it does not need it does not get. */
static int
make_environment(struct guard *guard)
{
    const struct environment_sources sources = {.inherited = environ};
    if (guard->options.respawn)
        return 0;
    guard->environment = environment_make(&sources);
    return guard->environment ? 0 : JOBQ_ENOMEM;
}

static void
free_memory(struct guard *guard)
{
    if (guard->self_fd >= 0)
        close(guard->self_fd);
    guard_table_close();
    intensity_clear(&guard->intensity);
    free(guard->argv);
    free(guard->environment);
    free(guard);
    the_guard = NULL;
}

static uint32_t
capacity(void)
{
    int64_t n = seam_number(SEAM_GUARD_SLOTS);
    return n > 0 && n < GUARD_SLOTS ? (uint32_t)n : GUARD_SLOTS;
}

static int
make_table(struct guard *guard, jobq_error *err)
{
    int64_t tick_ms = guard->options.lease_ms / 10;
    guard->table_fd = guard_table_open(capacity());
    guard->self_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (guard->table_fd < 0 || guard->self_fd < 0)
        return jobq__error(err, JOBQ_EIO, "cannot create the guard's table: %s",
                           strerror(errno));
    struct guard_table *table = guard_table();
    table->tick_ms = tick_ms < TICK_MIN_MS   ? TICK_MIN_MS
                     : tick_ms > TICK_MAX_MS ? TICK_MAX_MS
                                             : (int32_t)tick_ms;
    table->log_level = (int32_t)guard->options.log.level;
    table->log_format = guard->options.log.format;
    atomic_store(&table->jobqd_ns, clock_boottime_ns());
    return 0;
}

int
guard_new(struct guard **out, const struct guard_options *options, jobq_error *err)
{
    struct guard *guard = calloc(1, sizeof *guard);
    if (!guard)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for the guard");
    guard->options = *options;
    guard->self_fd = -1;
    int rc = make_table(guard, err);
    if (rc == 0 && (intensity_init(&guard->intensity, MAX_DEATHS, DEATHS_MS) < 0 ||
                    make_argv(guard) < 0 || make_environment(guard) < 0))
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory for the guard");
    the_guard = guard;
    guard_table_on_stuck = on_stuck;
    if (rc == 0)
        rc = start(guard, err);
    if (rc < 0) {
        free_memory(guard);
        return rc;
    }
    uv_timer_init(options->loop, &guard->look);
    guard->look.data = guard;
    uint64_t tick_ms = (uint64_t)guard_table()->tick_ms;
    uv_timer_start(&guard->look, on_look, tick_ms, tick_ms);
    *out = guard;
    return 0;
}

static void
on_look_closed(uv_handle_t *handle)
{
    free_memory(handle->data);
}

void
guard_close(struct guard *guard)
{
    if (!guard)
        return;
    set_state(guard, GUARD_CLOSING);
    atomic_store(&guard_table()->ending, 1);
    if (guard->life) {
        uv_poll_stop(&guard->life->poll);
        end_process(guard->life);
        reap(guard);
    }
    uv_close((uv_handle_t *)&guard->look, on_look_closed);
}

pid_t
guard_pid(const struct guard *guard)
{
    return guard && guard->life ? guard->life->pid : 0;
}

void
guard_dismiss(pid_t pid)
{
    /* A child of this process, so the number is its own until it is reaped here. */
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}
