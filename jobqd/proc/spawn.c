/* spawn.c: see spawn.h. fork, not vfork or posix_spawn: those keep us waiting until the
 * child has executed its program, which on a machine without processor time, or from a
 * file system that hangs, is for long or for ever. A fork costs more from a large parent,
 * so jobqd stays small. Between fork and exec only async-signal-safe calls are made:
 * another library's thread may have held malloc's lock when we forked. */
#include "jobqd/proc/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/base/log.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/descriptors.h"
#include "jobqd/proc/forks.h"
#include "jobqd/proc/process_tree.h"
#include "jobqd/proc/guard_table.h"
#include "libjobq/error.h"

/* What the child finds at which number is arranged above this one, so that no dup2
 * overwrites a source. */
enum { PARKED_FD = 16 };
/* The kernel's sums of resident pages are not exact: by so much, two may differ. */
enum { SLACK_KB = 512 };

/* What spawn_prepare found, for the children. A property of the process, so
 * there is one. */
static struct rlimit files_before;
static bool files_raised;
static bool prepared;

void
spawn_prepare(void)
{
    if (prepared || getrlimit(RLIMIT_NOFILE, &files_before) < 0)
        return;
    prepared = true;
    descriptors_seal(STDERR_FILENO + 1);
    struct rlimit most = files_before;
    most.rlim_cur = most.rlim_max;
    files_raised = setrlimit(RLIMIT_NOFILE, &most) == 0;
}

int64_t
spawn_files_before(void)
{
    return files_raised ? (int64_t)files_before.rlim_cur : -1;
}

void
spawn_inherit(int64_t files)
{
    prepared = true;
    if (files < 0 || getrlimit(RLIMIT_NOFILE, &files_before) < 0)
        return;
    files_before.rlim_cur = (rlim_t)files;
    files_raised = true;
}

/* ---- the child, between fork and exec ---- */

/* What the child needs, found out before the fork. */
struct plan {
    const struct spawn_options *options;
    pid_t parent;
    int stdin_fd; /* never -1 */
    int channel_fd;
    int output_fd;
    int error_fd;
    int guarded; /* its slot in the guard's table */
};

static bool
changes_user(const struct plan *plan)
{
    return plan->options->limits && plan->options->limits->changes_user;
}

/* Moves *fd out of the way of 0 … PARKED_FD. */
static bool
park(int *fd)
{
    if (*fd < 0)
        return true;
    *fd = fcntl(*fd, F_DUPFD_CLOEXEC, PARKED_FD);
    return *fd >= 0;
}

static bool
arrange_descriptors(struct plan *plan)
{
    /* error_fd first: a failure of the others must be told through it. */
    if (!park(&plan->error_fd) || !park(&plan->stdin_fd) || !park(&plan->output_fd) ||
        !park(&plan->channel_fd))
        return false;
    if (dup2(plan->stdin_fd, STDIN_FILENO) < 0 ||
        dup2(plan->output_fd, STDOUT_FILENO) < 0 ||
        dup2(plan->output_fd, STDERR_FILENO) < 0)
        return false;
    int last = STDERR_FILENO;
    if (plan->channel_fd >= 0) {
        last = SPAWN_CHANNEL_FD;
        if (dup2(plan->channel_fd, SPAWN_CHANNEL_FD) < 0)
            return false;
    }
    /* All our descriptors are close-on-exec, and so is what we were started with
     * (spawn_prepare); a library's may not be. */
    descriptors_seal(last + 1);
    return true;
}

/* jobqd's terminal is its operator's: a program that may open it reads what is typed
 * there, and can type itself (TIOCSTI).
 *
 * Another user's program gets a session of its own, which has no terminal. It must not
 * stay in ours, for there SIGCONT needs no right: it could undo an operator's SIGTSTP.
 * Programs of our own user may send us any signal, and stay: where the kernel weighs
 * sessions against each other (autogroup), `nice` is of no effect between them.
 *
 * Before the child leads its group, since the leader of one cannot begin a session. */
static void
leave_terminal(bool changes_user)
{
    int terminal = changes_user ? -1 : open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (changes_user || (terminal < 0 && errno != ENXIO)) {
        setsid();
    } else if (terminal >= 0) {
        ioctl(terminal, TIOCNOTTY);
        close(terminal);
    }
}

/* What our user has put into its session's keyring is not for another user. The new one
 * is made while we are still the old user, who may have more of them. Where it cannot be
 * made, no program can read one either. */
static void
leave_keyring(void)
{
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
}

/* In a session of its own `nice` counts for the session. */
static void
weigh_session(int nice)
{
    char text[8];
    size_t n = 0;
    int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (nice < 0)
        text[n++] = '-';
    unsigned value = (unsigned)(nice < 0 ? -nice : nice);
    if (value >= 10)
        text[n++] = (char)('0' + value / 10 % 10);
    text[n++] = (char)('0' + value % 10);
    ssize_t ignored = write(fd, text, n);
    (void)ignored;
    close(fd);
}

/* What another user's program may do with its own output and input: open them again by
 * name, as `>/dev/stderr` does. */
static void
hand_over_descriptors(const struct plan *plan)
{
    const struct limits *limits = plan->options->limits;
    if (!changes_user(plan))
        return;
    /* Only what is not shared with anybody: never /dev/null. */
    bool done = fchown(STDOUT_FILENO, limits->uid, limits->gid) == 0;
    if (plan->options->stdin_fd >= 0)
        done = fchown(STDIN_FILENO, limits->uid, limits->gid) == 0 && done;
    (void)done;
}

/* Returns LIMITS_DONE, or what failed, with errno. */
static enum limits_step
confine(const struct plan *plan)
{
    const struct limits *limits = plan->options->limits;
    if (plan->options->entrance && !cgroup_enter(*plan->options->entrance))
        return LIMITS_CGROUP;
    if (files_raised)
        setrlimit(RLIMIT_NOFILE, &files_before);
    if (changes_user(plan)) {
        leave_keyring();
        if (limits->queue->nice != 0)
            weigh_session(limits->nice);
    }
    enum limits_step step = limits ? limits_apply(limits) : LIMITS_DONE;
    /* A change of the user has cleared it. */
    fork_die_with(plan->parent, SIGKILL);
    return step;
}

/* What comes through exec_error_fd: one report before the program is executed, a second
 * one when that could not be done. */
struct report {
    struct child_failure failure;
    int64_t before_exec_kb;
};

static void
tell(const struct plan *plan, struct child_failure failure)
{
    struct rusage usage;
    struct report report = {.failure = failure, .before_exec_kb = -1};
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        report.before_exec_kb = usage.ru_maxrss;
    ssize_t ignored = write(plan->error_fd, &report, sizeof report);
    (void)ignored;
}

/* Whether something is wrong with the program's file, in words. */
static bool
explain(const struct spawn_options *options, struct child_failure *failure)
{
    const char *search = program_default_path();
    for (char *const *at = options->environment; at && *at; at++)
        if (strncmp(*at, "PATH=", 5) == 0)
            search = *at + 5;
    return program_fault(options->path ? options->path : options->argv[0], search,
                         failure->text) != PROGRAM_SOUND;
}

/* Returns when it cannot be executed, with errno. */
static void
execute(const struct spawn_options *o, struct child_failure *failure)
{
    if (o->suspect && explain(o, failure)) {
        errno = ENOEXEC;
        return;
    }
    execve(o->path ? o->path : o->argv[0], o->argv, o->environment);
    int why = errno;
    explain(o, failure);
    errno = why;
}

static void
run_child(void *data)
{
    struct plan *plan = data;
    struct child_failure failure = {.step = LIMITS_EXEC};
    leave_terminal(changes_user(plan));
    setpgid(0, 0);
    fork_die_with(plan->parent, SIGKILL);
    if (!guard_enter(plan->guarded))
        _exit(127);
    if (arrange_descriptors(plan)) {
        hand_over_descriptors(plan);
        failure.step = confine(plan);
        if (failure.step == LIMITS_DONE) {
            failure.step = LIMITS_EXEC;
            fork_reset_signals();
            tell(plan, (struct child_failure){.step = LIMITS_DONE});
            execute(plan->options, &failure);
        }
    }
    failure.why = errno;
    tell(plan, failure);
    _exit(127);
}

/* ---- the parent ---- */

static void
close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Were SIGCHLD ignored (a parent of ours may have left it so), the kernel would reap
 * children by itself, and their pids could be reused while we still mean to signal them.
 */
static void
keep_zombies(void)
{
    struct sigaction now;
    if (sigaction(SIGCHLD, NULL, &now) < 0)
        return;
    bool ignored = !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_IGN;
    if (!ignored && !(now.sa_flags & SA_NOCLDWAIT))
        return;
    now.sa_flags &= ~SA_NOCLDWAIT;
    if (ignored)
        now.sa_handler = SIG_DFL;
    sigaction(SIGCHLD, &now, NULL);
}

static void
kill_and_wait(pid_t pid)
{
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    reaper_forget(pid);
}

int
spawn_child(struct child *out, const struct spawn_options *options, jobq_error *err)
{
    int channel[2] = {-1, -1};
    int output[2] = {-1, -1};
    int error[2] = {-1, -1};
    int nothing = -1;
    int pidfd = -1;
    int guarded = guard_take();
    const char *what = "cannot open /dev/null";
    int rc = JOBQ_EIO;

    if (guarded == GUARD_FULL)
        return jobq__error(err, JOBQ_EIO,
                           "the guard's table is full: %u processes are running",
                           guard_table()->capacity);

    if (options->stdin_fd < 0 && (nothing = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        goto fail;
    what = "cannot make a pipe";
    /* Only our ends may be non-blocking: the child expects ordinary ones. */
    if (pipe2(output, O_CLOEXEC) < 0 || pipe2(error, O_CLOEXEC) < 0)
        goto fail;
    what = "cannot make a socket pair";
    if (options->channel &&
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0)
        goto fail;

    keep_zombies();
    struct plan plan = {
        .options = options,
        .parent = getpid(),
        .stdin_fd = options->stdin_fd >= 0 ? options->stdin_fd : nothing,
        .channel_fd = channel[1],
        .output_fd = output[1],
        .error_fd = error[1],
        .guarded = guarded,
    };
    what = "cannot fork";
    pid_t pid = fork_child(run_child, &plan);
    if (pid < 0)
        goto fail;
    /* Its group is the child's to make, since it may have to begin a session first. Until
     * then nothing else is in it, and what is sent to the child reaches it by its pid. */
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        int why = errno;
        kill_and_wait(pid);
        errno = why;
        what = "cannot open a pidfd (Linux 5.3 or newer is needed)";
        goto fail;
    }
    fcntl(error[0], F_SETFL, O_NONBLOCK);
    *out = (struct child){.pid = pid,
                          .pidfd = pidfd,
                          .channel_fd = channel[0],
                          .output_fd = output[0],
                          .exec_error_fd = error[0],
                          .before_exec_kb = -1,
                          .guarded = guarded};
    channel[0] = output[0] = error[0] = -1; /* *out's from here on */
    rc = 0;
fail:
    if (rc < 0) {
        rc = jobq__error(err, JOBQ_EIO, "%s: %s", what, strerror(errno));
        guard_remove(guarded);
    }
    for (int i = 0; i < 2; i++) {
        close_fd(&error[i]);
        close_fd(&output[i]);
        close_fd(&channel[i]);
    }
    close_fd(&nothing);
    return rc;
}

/* Takes what the child has told of its start so far. */
static void
hear(struct child *child)
{
    struct report report;
    ssize_t n = -1;
    while (child->exec_error_fd >= 0 &&
           (n = read(child->exec_error_fd, &report, sizeof report)) ==
               (ssize_t)sizeof report) {
        child->failure = report.failure;
        child->before_exec_kb = report.before_exec_kb;
    }
    if (n == 0 && child->failure.step == LIMITS_DONE)
        child->executes = true; /* the exec has closed the other end */
}

struct child_failure
child_failure(struct child *child)
{
    hear(child);
    return child->failure;
}

bool
child_executes(struct child *child)
{
    hear(child);
    return child->executes;
}

void
child_started(struct child *child)
{
    hear(child);
    child->executes = true;
    close_fd(&child->exec_error_fd);
}

/* A program that takes on another user by itself, or jobqd without what it needs for its
 * `user`: there is nothing to be done about it here. */
static void
tell_what_may_not_be_signalled(pid_t pid)
{
    static bool told;
    if (told || kill(pid, 0) == 0 || errno != EPERM)
        return;
    told = true;
    log_error(
        "jobqd",
        "process %ld belongs to another user and cannot be killed: jobqd lacks CAP_KILL",
        (long)pid);
}

void
child_signal(const struct child *child, int signal)
{
    tell_what_may_not_be_signalled(child->pid);
    /* The leader through its pidfd too: it may have left its group, or not be in it yet.
     * It cannot get the signal twice in a way that matters: TERM does not queue up. */
    if (signal == SIGKILL)
        process_tree_kill(child->pid);
    else
        kill(-child->pid, signal);
    if (signal == SIGKILL || getpgid(child->pid) != child->pid)
        syscall(SYS_pidfd_send_signal, child->pidfd, signal, NULL, 0);
}

bool
child_has_ended(const struct child *child)
{
    siginfo_t info = {.si_pid = 0};
    int rc = waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    return rc < 0 || info.si_pid != 0;
}

/* The kernel's figure is that of the process, and the process was a copy of ours before
 * it executed the program: what is not above that says nothing of the program. */
static int64_t
peak_of_program_kb(struct child *child, int64_t peak_kb)
{
    hear(child);
    bool known = child->before_exec_kb >= 0;
    bool above = child->before_exec_kb == 0 || peak_kb > child->before_exec_kb + SLACK_KB;
    return known && above ? peak_kb : -1;
}

int
child_reap(struct child *child, struct child_end *out, jobq_error *err)
{
    int status = 0;
    struct rusage usage;
    memset(&usage, 0, sizeof usage);
    /* The zombie still holds the pid, and with it the group's number: nobody else's group
     * can be hit. */
    kill(-child->pid, SIGKILL);
    out->by_guard = guard_remove(child->guarded); /* it strikes no more from here on */
    pid_t pid;
    while ((pid = wait4(child->pid, &status, WNOHANG, &usage)) < 0 && errno == EINTR)
        continue;
    if (pid < 0)
        return jobq__error(err, JOBQ_EIO, "cannot wait for process %ld: %s",
                           (long)child->pid, strerror(errno));
    if (pid == 0)
        return jobq__error(err, JOBQ_EIO, "process %ld has not ended", (long)child->pid);
    reaper_forget(child->pid);
    out->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    out->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    out->cpu_us = ((int64_t)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                  usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    out->max_rss_kb = peak_of_program_kb(child, usage.ru_maxrss);
    return 0;
}

void
child_discard(struct child *child)
{
    guard_remove(child->guarded);
    kill_and_wait(child->pid);
    child_close(child);
}

void
child_close(struct child *child)
{
    close_fd(&child->pidfd);
    close_fd(&child->channel_fd);
    close_fd(&child->output_fd);
    close_fd(&child->exec_error_fd);
}
