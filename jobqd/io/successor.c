/* successor.c: see successor.h. What runs in a signal handler uses async-signal-safe
 * calls alone: the environments of the way back are made beforehand. */
#include "jobqd/io/successor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/base/folder.h"
#include "jobqd/base/log.h"
#include "jobqd/io/descriptors.h"
#include "libjobq/error.h"

extern char **environ;

/* Descriptors, as decimal numbers. PREDECESSOR: the old program, for the way back. */
#define DOCUMENT "JOBQ_HANDOVER"
#define PREDECESSOR "JOBQ_HANDOVER_FROM"
/* Where programs are found, either way: the old one, which comes back, may have no name
 * any more, or another one. */
#define PROGRAM "JOBQ_HANDOVER_PROGRAM"
#define FAILURE "JOBQ_HANDOVER_FAILED"

enum { TEXT = 512 };

/* What take_number gives instead of a descriptor. */
enum { NONE = -1, GARBLED = -2 };

static struct {
    char path[PATH_MAX];
    char **argv;
    int document;
    int predecessor;     /* -1: there is no way back, or none any more */
    pid_t stray;         /* ends with this program if it does not come up; 0: none */
    char *failure;       /* NULL: none */
    char why[TEXT - 64]; /* this program cannot go on; "": it has not said so */
    /* For the way back: one environment, whose first entry is the reason. */
    char **environment;
    char reason[sizeof FAILURE + TEXT];
} self = {.document = -1, .predecessor = -1};

static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};

/* ---- the way back ---- */

static void
go_back(void)
{
    if (self.predecessor < 0)
        return;
    alarm(0);
    /* Only if it is a child that nobody has waited for: the number is its own then. */
    if (self.stray > 0 && waitpid(self.stray, NULL, WNOHANG) == 0) {
        kill(self.stray, SIGKILL);
        waitpid(self.stray, NULL, 0);
    }
    syscall(SYS_execveat, self.predecessor, "", self.argv, self.environment,
            AT_EMPTY_PATH);
    _exit(EX_SOFTWARE); /* the kernel kills the workers, the lifeline rescues the jobs */
}

static void
on_fatal(int number)
{
    static const char late[] = "it was not up in time";
    static const char died[] = "it was ended by signal ";
    char *at = self.reason + sizeof FAILURE; /* behind the = */
    if (number == SIGALRM) {
        memcpy(at, late, sizeof late);
    } else {
        memcpy(at, died, sizeof died);
        at += sizeof died - 1;
        *at++ = (char)('0' + number / 10);
        *at++ = (char)('0' + number % 10);
        *at = '\0';
    }
    go_back();
    _exit(EX_SOFTWARE);
}

/* The signal that brought us here would stay blocked in the old program. */
static void
arm(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_fatal;
    action.sa_flags = SA_NODEFER | (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        sigaction(fatal[i], &action, NULL);
    alarm(SUCCESSOR_LIMIT_S);
}

static void
disarm(void)
{
    alarm(0);
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], SIG_DFL);
}

static char *
make_variable(const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 2;
    char *variable = malloc(size);
    if (variable)
        snprintf(variable, size, "%s=%s", name, value);
    return variable;
}

/* What environ holds, less our own variables, plus the way back's. */
static bool
make_environment(const char *document)
{
    size_t n = 0;
    while (environ[n])
        n++;
    self.environment = calloc(n + 4, sizeof *self.environment);
    if (!self.environment)
        return false;
    snprintf(self.reason, sizeof self.reason, "%s=it ended", FAILURE);
    self.environment[0] = self.reason;
    self.environment[1] = make_variable(DOCUMENT, document);
    self.environment[2] = make_variable(PROGRAM, self.path);
    memcpy(self.environment + 3, environ, n * sizeof *environ);
    return self.environment[1] && self.environment[2];
}

/* ---- what main calls ---- */

static int
take_number(const char *name)
{
    const char *text = getenv(name);
    if (!text)
        return NONE;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && value > 2 && value < 1 << 20
               ? (int)value
               : GARBLED;
}

/* ---- where the program is found ---- */

/* The file that this program is, as the kernel names it. */
static void
ask_kernel(char *out, size_t size)
{
    static const char deleted[] = " (deleted)";
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    size_t len = n > 0 ? (size_t)n : 0;
    out[len] = '\0';
    /* The file was replaced while we ran, and its new version is what we want. */
    size_t tail = sizeof deleted - 1;
    if (len > tail && strcmp(out + len - tail, deleted) == 0)
        out[len - tail] = '\0';
}

/* Whether the file FOLDER/NAME is this program; then *out is its absolute path. The
 * folder may be relative; len 0 is the one we are in. */
static bool
is_here(const char *folder, size_t len, const char *name, char *out, size_t size)
{
    char path[PATH_MAX];
    struct stat ours, found;
    bool absolute = len > 0 ? *folder == '/' : *name == '/';
    const char *cwd = absolute ? "" : folder_name();
    if (!absolute && *cwd == '\0')
        return false;
    int n = snprintf(path, sizeof path, "%s%s%.*s%s%s", cwd, absolute ? "" : "/",
                     (int)len, folder, len > 0 ? "/" : "", name);
    if (n < 0 || (size_t)n >= sizeof path || (size_t)n >= size)
        return false;
    if (stat("/proc/self/exe", &ours) < 0 || stat(path, &found) < 0 ||
        ours.st_dev != found.st_dev || ours.st_ino != found.st_ino)
        return false;
    memcpy(out, path, (size_t)n + 1);
    return true;
}

/* By what name it was started: where that is a symbolic link, the next program is what it
 * then points to. A name may also be made up (exec -a), so it has to lead here. */
static bool
find_by_name(const char *name, char *out, size_t size)
{
    if (!name || *name == '\0')
        return false;
    if (strchr(name, '/'))
        return is_here("", 0, name, out, size);
    const char *at = getenv("PATH");
    while (at) {
        size_t len = strcspn(at, ":");
        if (is_here(at, len, name, out, size))
            return true;
        at = at[len] == ':' ? at + len + 1 : NULL;
    }
    return false;
}

/* Where nothing else tells: by what path the kernel executed us. */
static void
take_executed(char *out, size_t size)
{
    union {
        unsigned long number;
        const char *text;
    } executed = {.number = getauxval(AT_EXECFN)};
    const char *path = executed.text ? executed.text : "";
    bool absolute = *path == '/';
    const char *cwd = absolute ? "" : folder_name();
    int n = -1;
    if (*path != '\0' && (absolute || *cwd != '\0'))
        n = snprintf(out, size, "%s%s%s", cwd, absolute ? "" : "/", path);
    if (n < 0 || (size_t)n >= size)
        *out = '\0';
}

static void
find_path(void)
{
    const char *given = getenv(PROGRAM); /* only with a document: see successor_begin */
    if (self.document >= 0 && given && *given == '/' && strlen(given) < sizeof self.path)
        snprintf(self.path, sizeof self.path, "%s", given);
    else if (!find_by_name(self.argv[0], self.path, sizeof self.path))
        ask_kernel(self.path, sizeof self.path);
    if (self.path[0] == '\0')
        take_executed(self.path, sizeof self.path);
}

/* ---- the beginning ---- */

void
successor_begin(char **argv)
{
    self.argv = argv;
    char document[16];
    self.document = take_number(DOCUMENT);
    self.predecessor = take_number(PREDECESSOR);
    find_path();
    snprintf(document, sizeof document, "%d", self.document);
    const char *failure = getenv(FAILURE);
    if (failure)
        self.failure = strdup(failure);
    unsetenv(DOCUMENT);
    unsetenv(PREDECESSOR);
    unsetenv(PROGRAM);
    unsetenv(FAILURE);
    /* Close-on-exec, so that the way back does not leave it behind. */
    if (self.document < 0 || self.predecessor < 0 || fcntl(self.document, F_GETFD) < 0 ||
        fcntl(self.predecessor, F_SETFD, FD_CLOEXEC) < 0)
        self.predecessor = -1;
    else if (make_environment(document))
        arm();
    else
        self.predecessor = -1;
}

const char *
successor_path(void)
{
    return self.path;
}

char *const *
successor_argv(void)
{
    return self.argv;
}

int
successor_document(int *out, jobq_error *err)
{
    if (self.document == GARBLED)
        return jobq__error(err, JOBQ_EINVAL,
                           "the environment's " DOCUMENT " is no descriptor: only a "
                           "jobqd sets it, for the program that takes its place");
    if (self.document >= 0 && fcntl(self.document, F_GETFD) < 0)
        return jobq__error(err, JOBQ_EINVAL,
                           "the environment's " DOCUMENT " is %d, which is not open: "
                           "only a jobqd sets it, for the program that takes its place",
                           self.document);
    *out = self.document;
    return 0;
}

void
successor_takes_along(pid_t pid)
{
    self.stray = pid;
}

const char *
successor_failure(void)
{
    return self.failure;
}

static void
close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void
successor_is_up(void)
{
    if (self.document < 0)
        return;
    disarm();
    self.stray = 0;
    close_fd(&self.predecessor);
    close_fd(&self.document);
    descriptors_seal(STDERR_FILENO + 1);
}

bool
successor_may_go_back(void)
{
    return self.predecessor >= 0;
}

void
successor_explain(const char *why)
{
    if (self.why[0] == '\0') /* the first failure is the cause of what follows */
        snprintf(self.why, sizeof self.why, "%s", why);
}

void
successor_give_up(int code)
{
    if (self.predecessor < 0)
        return;
    snprintf(self.reason, sizeof self.reason, "%s=it ended with exit code %d%s%s",
             FAILURE, code, self.why[0] ? ": " : "", self.why);
    go_back();
}

/* ---- the way forward ---- */

static int
set_number(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    return setenv(name, text, 1);
}

int
successor_execute(const struct handover *handover, int document, jobq_error *err)
{
    int old = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (old < 0)
        return jobq__error(err, JOBQ_EIO, "/proc/self/exe: %s", strerror(errno));
    int rc = handover_inherit(handover, true, err);
    if (rc == 0 &&
        (fcntl(document, F_SETFD, 0) < 0 || fcntl(old, F_SETFD, 0) < 0 ||
         set_number(DOCUMENT, document) < 0 || set_number(PREDECESSOR, old) < 0 ||
         setenv(PROGRAM, self.path, 1) < 0))
        rc = jobq__error(err, JOBQ_EIO, "cannot hand over: %s", strerror(errno));
    if (rc == 0) {
        log_leave();
        execve(self.path, self.argv, environ);
        rc = jobq__error(err, JOBQ_EIO, "cannot execute %s: %s", self.path,
                         strerror(errno));
        log_stay();
    }
    unsetenv(DOCUMENT);
    unsetenv(PREDECESSOR);
    unsetenv(PROGRAM);
    jobq_error ignored; /* descriptors that are open can be marked */
    handover_inherit(handover, false, &ignored);
    close(old);
    return rc;
}
