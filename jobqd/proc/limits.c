/* limits.c: see limits.h. */
#include "jobqd/proc/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/program.h"
#include "jobqd/proc/forks.h"
#include "jobqd/proc/reaper.h"
#include "libjobq/error.h"

/* ---- the user and the group ---- */

/* All digits: an id. (gid_t)-1 and (uid_t)-1 mean "leave it" to the kernel. */
static bool
parse_id(const char *text, unsigned *out)
{
    char *end;
    errno = 0;
    unsigned long long id = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || id >= 0xffffffffu)
        return false;
    *out = (unsigned)id;
    return true;
}

/* Where a name is looked up, *found is NULL and 0 is returned when there is none. */
static int
look_up_user(const char *user, struct passwd *entry, char **text, struct passwd **found)
{
    size_t size = 1024;
    unsigned id;
    int rc;
    bool numeric = parse_id(user, &id);
    do {
        free(*text);
        size *= 4;
        *text = malloc(size);
        if (!*text)
            return ENOMEM;
        rc = numeric ? getpwuid_r((uid_t)id, entry, *text, size, found)
                     : getpwnam_r(user, entry, *text, size, found);
    } while (rc == ERANGE && size < (size_t)1 << 22);
    return rc;
}

static int
look_up_group(const char *group, gid_t *gid, bool *found)
{
    struct group entry, *answer = NULL;
    size_t size = 1024;
    unsigned id;
    char *text = NULL;
    int rc;
    *found = parse_id(group, &id);
    if (*found) {
        *gid = (gid_t)id;
        return 0;
    }
    do {
        free(text);
        size *= 4;
        text = malloc(size);
        if (!text)
            return ENOMEM;
        rc = getgrnam_r(group, &entry, text, size, &answer);
    } while (rc == ERANGE && size < (size_t)1 << 22);
    *found = rc == 0 && answer;
    if (*found)
        *gid = answer->gr_gid;
    free(text);
    return rc;
}

static char *
variable(const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 2;
    char *text = malloc(size);
    if (text)
        snprintf(text, size, "%s=%s", name, value);
    return text;
}

/* As a login would set them: those of jobqd's own user would lead its programs into a
 * folder that they may not read. */
static int
describe_account(struct limits *limits, const char *name, const struct passwd *entry)
{
    const char *values[] = {entry ? entry->pw_dir : "/", name, name,
                            entry && *entry->pw_shell ? entry->pw_shell : "/bin/sh"};
    static const char *const names[] = {"HOME", "USER", "LOGNAME", "SHELL"};
    for (size_t i = 0; i < 4; i++) {
        limits->account[i] = variable(names[i], values[i]);
        if (!limits->account[i])
            return JOBQ_ENOMEM;
    }
    return 0;
}

static int
take_groups(struct limits *limits, const char *name)
{
    int n = 32;
    for (;;) {
        int had = n;
        gid_t *groups = realloc(limits->groups, (size_t)n * sizeof groups[0]);
        if (!groups)
            return JOBQ_ENOMEM;
        limits->groups = groups;
        if (getgrouplist(name, limits->gid, groups, &n) >= 0) {
            limits->n_groups = (size_t)n;
            return 0;
        }
        if (n <= had)
            n = had * 2;
    }
}

static int
resolve_user(struct limits *limits, const char *user, bool has_group, jobq_error *err)
{
    struct passwd entry, *found = NULL;
    char *text = NULL;
    int why = look_up_user(user, &entry, &text, &found);
    unsigned id = 0;
    int rc = 0;
    if (!found && !parse_id(user, &id)) {
        rc = why && why != ENOENT
                 ? jobq__error(err, JOBQ_EIO, "cannot look up user \"%s\": %s", user,
                               strerror(why))
                 : jobq__error(err, JOBQ_EINVAL, "there is no user \"%s\"", user);
        goto out;
    }
    if (!found && !has_group) {
        rc = jobq__error(err, JOBQ_EINVAL,
                         "user %s has no name and therefore no group: set group too",
                         user);
        goto out;
    }
    limits->uid = found ? found->pw_uid : (uid_t)id;
    if (!has_group)
        limits->gid = found->pw_gid;
    limits->changes_user = true;
    rc = describe_account(limits, found ? found->pw_name : user, found);
    if (rc == 0 && found)
        rc = take_groups(limits, found->pw_name);
    if (rc < 0)
        jobq__error(err, rc, "out of memory");
out:
    free(text);
    return rc;
}

static int
resolve_group(struct limits *limits, const char *group, jobq_error *err)
{
    bool found = false;
    int why = look_up_group(group, &limits->gid, &found);
    if (why && why != ENOENT)
        return jobq__error(err, JOBQ_EIO, "cannot look up group \"%s\": %s", group,
                           strerror(why));
    if (!found)
        return jobq__error(err, JOBQ_EINVAL, "there is no group \"%s\"", group);
    return 0;
}

/* Nothing to change means that no rights are needed for it, and none are given up. */
static void
drop_what_is_so_already(struct limits *limits)
{
    if (limits->changes_user && limits->uid == getuid() && limits->uid == geteuid() &&
        limits->uid != 0 && limits->gid == getgid() && limits->gid == getegid())
        limits->changes_user = limits->changes_group = false;
}

int
limits_resolve(struct limits *limits, const struct queue_config *queue,
               enum limits_step *step, jobq_error *err)
{
    int rc = 0;
    memset(limits, 0, sizeof *limits);
    limits->queue = queue;
    limits->gid = getegid();
    limits->changes_group = queue->group || queue->user;
    *step = LIMITS_GROUP;
    if (queue->group)
        rc = resolve_group(limits, queue->group, err);
    if (rc == 0 && queue->user) {
        *step = LIMITS_USER;
        rc = resolve_user(limits, queue->user, queue->group != NULL, err);
    }
    if (rc < 0)
        return rc;
    drop_what_is_so_already(limits);
    errno = 0;
    int nice = getpriority(PRIO_PROCESS, 0) + queue->nice;
    limits->nice = nice < -20 ? -20 : nice > 19 ? 19 : nice;
    if (queue->mode == QUEUE_EXEC && queue->cpu_limit_ms > 0) {
        /* For a program that burns processor time while jobqd is away; jobqd itself
         * counts the whole process group, and is earlier. */
        limits->cpu.rlim_cur = (rlim_t)((queue->cpu_limit_ms + 999) / 1000);
        limits->cpu.rlim_max =
            limits->cpu.rlim_cur + 1 + (rlim_t)((queue->stop_grace_ms + 999) / 1000);
    }
    *step = LIMITS_DONE;
    return 0;
}

void
limits_clear(struct limits *limits)
{
    for (size_t i = 0; i < 4; i++)
        free(limits->account[i]);
    free(limits->groups);
    memset(limits, 0, sizeof *limits);
}

/* ---- in the child ---- */

/* The system calls themselves: the C library's functions of these names would take locks
 * and tell every thread, of which a forked child has one. */
static long
set_groups(size_t n, const gid_t *groups)
{
#ifdef SYS_setgroups32
    return syscall(SYS_setgroups32, n, groups);
#else
    return syscall(SYS_setgroups, n, groups);
#endif
}

static long
set_group(gid_t gid)
{
#ifdef SYS_setresgid32
    return syscall(SYS_setresgid32, gid, gid, gid);
#else
    return syscall(SYS_setresgid, gid, gid, gid);
#endif
}

static long
set_user(uid_t uid)
{
#ifdef SYS_setresuid32
    return syscall(SYS_setresuid32, uid, uid, uid);
#else
    return syscall(SYS_setresuid, uid, uid, uid);
#endif
}

static bool
limit_files(int nofile)
{
    struct rlimit limit = {.rlim_cur = (rlim_t)nofile, .rlim_max = (rlim_t)nofile};
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* A hard limit that is there already may be lower. */
static bool
limit_cpu(struct rlimit limit)
{
    struct rlimit now;
    if (getrlimit(RLIMIT_CPU, &now) < 0)
        return false;
    if (limit.rlim_max > now.rlim_max)
        limit.rlim_max = now.rlim_max;
    if (limit.rlim_cur > limit.rlim_max)
        limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_CPU, &limit) == 0;
}

enum limits_step
limits_apply(const struct limits *limits)
{
    const struct queue_config *queue = limits->queue;
    if (queue->nofile > 0 && !limit_files(queue->nofile))
        return LIMITS_NOFILE;
    if (limits->cpu.rlim_cur > 0 && !limit_cpu(limits->cpu))
        return LIMITS_CPU;
    if (queue->nice != 0 && setpriority(PRIO_PROCESS, 0, limits->nice) < 0)
        return LIMITS_NICE;
    /* Groups before the user: afterwards there is no right to. A queue with a group alone
     * keeps none of jobqd's others. */
    if (limits->changes_group && set_groups(limits->n_groups, limits->groups) < 0)
        return LIMITS_GROUPS;
    if (limits->changes_group && set_group(limits->gid) < 0)
        return LIMITS_GROUP;
    if (limits->changes_user) {
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0,
              0); /* before Linux 4.3: none */
        if (set_user(limits->uid) < 0)
            return LIMITS_USER;
    }
    /* By the rights that the program will have. */
    if (queue->working_directory && chdir(queue->working_directory) < 0)
        return LIMITS_DIRECTORY;
    if (queue->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return LIMITS_PRIVILEGES;
    return LIMITS_DONE;
}

/* ---- words ---- */

const char *
limits_option(const struct limits *limits, enum limits_step step)
{
    static const char *const options[] = {
#define X(name, option) [name] = option,
        LIMITS_STEPS(X)
#undef X
    };
    if (step == LIMITS_EXEC && limits->queue->mode == QUEUE_EXEC)
        return "exec";
    if (step == LIMITS_GROUPS && !limits->queue->user)
        return "group";
    return options[step];
}

void
limits_describe(const struct limits *limits, enum limits_step step, char *out,
                size_t size)
{
    const struct queue_config *queue = limits->queue;
    switch (step) {
    case LIMITS_DONE:
        *out = '\0';
        return;
    case LIMITS_CGROUP:
        snprintf(out, size, "entering its control group");
        return;
    case LIMITS_NOFILE:
        snprintf(out, size, "setting its nofile limit to %d", queue->nofile);
        return;
    case LIMITS_CPU:
        snprintf(out, size, "setting its processor time limit to %lld s",
                 (long long)limits->cpu.rlim_cur);
        return;
    case LIMITS_NICE:
        snprintf(out, size, "setting its nice value to %d", limits->nice);
        return;
    case LIMITS_GROUPS:
        snprintf(out, size, "taking on the groups of %s \"%s\"",
                 queue->user ? "user" : "group",
                 queue->user ? queue->user : queue->group);
        return;
    case LIMITS_GROUP:
        snprintf(out, size, "changing to group %ld", (long)limits->gid);
        return;
    case LIMITS_USER:
        snprintf(out, size, "changing to user \"%s\"", queue->user);
        return;
    case LIMITS_DIRECTORY:
        snprintf(out, size, "entering its working_directory %s",
                 queue->working_directory);
        return;
    case LIMITS_PRIVILEGES:
        snprintf(out, size, "setting no_new_privs");
        return;
    case LIMITS_EXEC:
        snprintf(out, size, "executing %s", queue->argv[0]);
        return;
    }
}

/* ---- trying ---- */

struct probe {
    const struct limits *limits;
    const char *search;
    int ours, its; /* the ends of the socket pair */
};

struct probe_report {
    enum limits_step step;
    int why;                /* errno */
    bool is_there;          /* LIMITS_EXEC: the program's file */
    char text[PROGRAM_WHY]; /* and what it lacks */
};

/* In the child. The program's file may not be reached by the user that it is to run as.
 * Stays until the parent has seen what it may do to such a process. */
static void
probe(void *data)
{
    const struct probe *plan = data;
    const struct limits *limits = plan->limits;
    close(plan->ours);
    struct probe_report report = {.step = limits_apply(limits)};
    report.why = report.step == LIMITS_DONE ? 0 : errno;
    if (report.step == LIMITS_DONE) {
        enum program_fault fault =
            program_fault(limits->queue->argv[0], plan->search, report.text);
        report.is_there = fault != PROGRAM_MISSING;
        report.step = fault != PROGRAM_SOUND ? LIMITS_EXEC : LIMITS_DONE;
    }
    char word;
    if (write(plan->its, &report, sizeof report) == (ssize_t)sizeof report)
        while (read(plan->its, &word, 1) < 0 && errno == EINTR)
            continue;
    _exit(0);
}

static int64_t
now_ms(void)
{
    return (int64_t)(clock_ns() / 1000000);
}

static int
explain(const struct limits *limits, const struct probe_report *report, jobq_error *err)
{
    char what[512];
    bool needs_root = report->step == LIMITS_GROUPS || report->step == LIMITS_GROUP ||
                      report->step == LIMITS_USER || report->step == LIMITS_NICE ||
                      report->step == LIMITS_NOFILE;
    if (report->step == LIMITS_EXEC)
        return jobq__error(err, report->is_there ? JOBQ_ESTATE : JOBQ_EINVAL,
                           "cannot run %s: %s", limits->queue->argv[0], report->text);
    limits_describe(limits, report->step, what, sizeof what);
    if ((report->why == EPERM || report->why == EACCES) && needs_root && geteuid() != 0)
        return jobq__error(err, JOBQ_EINVAL, "%s: %s: jobqd would have to run as root",
                           what, strerror(report->why));
    return jobq__error(err, JOBQ_EINVAL, "%s: %s", what, strerror(report->why));
}

/* Whether there is something to read, or the end, within what is left of the time. */
static bool
comes_until(int fd, int64_t until_ms)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    for (;;) {
        int64_t left_ms = until_ms - now_ms();
        int n = left_ms > 0 ? poll(&waiting, 1, (int)left_ms) : 0;
        if (n >= 0 || errno != EINTR)
            return n > 0;
    }
}

/* It has nothing more to say. One that hangs, in a file system that does not answer for
 * one, may not even die: its end is taken with those of other strays (reaper.h). */
static void
dismiss(pid_t pid, int fd, int64_t until_ms)
{
    char word;
    shutdown(fd, SHUT_WR);
    bool goes = comes_until(fd, until_ms) && read(fd, &word, 1) == 0;
    if (!goes)
        kill(pid, SIGKILL);
    while (waitpid(pid, NULL, goes ? 0 : WNOHANG) < 0 && errno == EINTR)
        continue;
    reaper_forget(pid);
}

static int
judge_probe(const struct limits *limits, pid_t pid, int fd, int64_t until_ms,
            enum limits_step *step, jobq_error *err)
{
    struct probe_report report;
    if (!comes_until(fd, until_ms)) {
        const char *folder = limits->queue->working_directory;
        *step = folder ? LIMITS_DIRECTORY : LIMITS_EXEC;
        return jobq__error(err, JOBQ_EIO,
                           "%s did not answer in time; is its file system hanging?",
                           folder ? folder : limits->queue->argv[0]);
    }
    if (read(fd, &report, sizeof report) != (ssize_t)sizeof report)
        return jobq__error(err, JOBQ_EIO, "cannot try out the limits in a process");
    *step = report.step;
    if (report.step == LIMITS_EXEC &&
        program_is_registered(PROGRAM_FORMATS, limits->queue->argv[0]))
        *step = LIMITS_DONE;
    if (*step != LIMITS_DONE)
        return explain(limits, &report, err);
    if (limits->changes_user && kill(pid, 0) < 0 && errno == EPERM) {
        *step = LIMITS_USER;
        return jobq__error(err, JOBQ_EINVAL,
                           "jobqd may not kill processes of user \"%s\": it would need "
                           "CAP_KILL",
                           limits->queue->user);
    }
    return 0;
}

int
limits_probe(const struct limits *limits, const char *search, int64_t until_ms,
             enum limits_step *step, jobq_error *err)
{
    int ends[2];
    *step = LIMITS_DONE;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return jobq__error(err, JOBQ_EIO, "cannot make a socket pair: %s",
                           strerror(errno));
    struct probe plan = {
        .limits = limits, .search = search, .ours = ends[0], .its = ends[1]};
    pid_t pid = fork_child(probe, &plan);
    int why = errno;
    close(ends[1]);
    int rc = pid < 0 ? jobq__error(err, JOBQ_EIO, "cannot fork: %s", strerror(why))
                     : judge_probe(limits, pid, ends[0], until_ms, step, err);
    if (pid > 0)
        dismiss(pid, ends[0], until_ms);
    close(ends[0]);
    return rc;
}
