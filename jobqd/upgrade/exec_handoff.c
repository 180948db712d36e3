/* exec_handoff.c: see exec_handoff.h. What runs in a signal handler uses async-signal-safe
 * calls alone: the environments of the way back are made beforehand. */
#include "jobqd/upgrade/exec_handoff.h"

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

#include "jobqd/base/log.h"
#include "jobqd/base/self.h"
#include "jobqd/proc/descriptors.h"
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
    syscall(SYS_execveat, self.predecessor, "", self_argv(), self.environment,
            AT_EMPTY_PATH);
    _exit(EX_SOFTWARE); /* the kernel kills the workers, the lifeline rescues the jobs */
}

static void
on_fatal(int number)
{
    static const char late[] = "it was not ready in time";
    static const char died[] = "it was killed by signal ";
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
    snprintf(self.reason, sizeof self.reason, "%s=it exited", FAILURE);
    self.environment[0] = self.reason;
    self.environment[1] = make_variable(DOCUMENT, document);
    self.environment[2] = make_variable(PROGRAM, self_path());
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

/* ---- the beginning ---- */

void
exec_handoff_begin(char **argv)
{
    char document[16];
    self.document = take_number(DOCUMENT);
    self.predecessor = take_number(PREDECESSOR);
    self_remember(argv, self.document >= 0 ? getenv(PROGRAM) : NULL);
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

int
exec_handoff_document(int *out, jobq_error *err)
{
    if (self.document == GARBLED)
        return jobq__error(err, JOBQ_EINVAL,
                           "the environment's " DOCUMENT
                           " is not a file descriptor: only a running jobqd sets it, for "
                           "an upgrade; unset it");
    if (self.document >= 0 && fcntl(self.document, F_GETFD) < 0)
        return jobq__error(err, JOBQ_EINVAL,
                           "the environment's " DOCUMENT
                           " is %d, which is not an open file descriptor: only a running "
                           "jobqd sets it, for an upgrade; unset it",
                           self.document);
    *out = self.document;
    return 0;
}

void
exec_handoff_takes_along(pid_t pid)
{
    self.stray = pid;
}

const char *
exec_handoff_failure(void)
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
exec_handoff_is_up(void)
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
exec_handoff_may_go_back(void)
{
    return self.predecessor >= 0;
}

void
exec_handoff_explain(const char *why)
{
    if (self.why[0] == '\0') /* the first failure is the cause of what follows */
        snprintf(self.why, sizeof self.why, "%s", why);
}

void
exec_handoff_give_up(int code)
{
    if (self.predecessor < 0)
        return;
    snprintf(self.reason, sizeof self.reason, "%s=it exited with code %d%s%s", FAILURE,
             code, self.why[0] ? ": " : "", self.why);
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
exec_handoff_execute(const struct handover *handover, int document, jobq_error *err)
{
    int old = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (old < 0)
        return jobq__error(err, JOBQ_EIO, "/proc/self/exe: %s", strerror(errno));
    int rc = handover_inherit(handover, true, err);
    if (rc == 0 &&
        (fcntl(document, F_SETFD, 0) < 0 || fcntl(old, F_SETFD, 0) < 0 ||
         set_number(DOCUMENT, document) < 0 || set_number(PREDECESSOR, old) < 0 ||
         setenv(PROGRAM, self_path(), 1) < 0))
        rc = jobq__error(err, JOBQ_EIO, "cannot hand over: %s", strerror(errno));
    if (rc == 0) {
        log_leave();
        execve(self_path(), self_argv(), environ);
        rc = jobq__error(err, JOBQ_EIO, "cannot execute %s: %s", self_path(),
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
