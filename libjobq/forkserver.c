/* forkserver.c: see forkserver.h. Knows the socket and its two messages, and how a process
 * becomes jobqd's child; what a worker does then is worker.c's.
 *
 * The order of a fork, so that no moment leaves an orphan behind:
 *   1. jobqd asks, and passes the ends of the worker's socket and pipe along.
 *   2. The forkserver forks, the process in between forks the worker and exits, the
 * forkserver waits for that exit: from here on the worker is jobqd's child.
 *   3. The worker sees the same exit through a pidfd, checks its parent, and asks to be
 * killed with it. Until 5 it is in the forkserver's process group, and runs none of the
 * program's code: should the forkserver be killed, so is the worker. A forkserver that leads
 * a session (jobqd has given it another user) cannot have its workers taken out of its
 * group by jobqd: there the worker begins its own session, before 4, and only the end of
 * its socket tells it that jobqd does not take it.
 *   4. The forkserver answers with the pid; jobqd takes the child over, and gives it a
 * process group of its own.
 *   5. jobqd says start. If it never does, the socket ends, and the worker exits. */
#include "libjobq/forkserver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libjobq/buf.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"

/* REQUEST_MAX: jobqd's messages to a forkserver are short. NOT_BORN: the exit
 * code of a worker that nobody waits for. */
enum { REQUEST_MAX = 512, NOT_BORN = 127 };

enum { THE_SOCKET, THE_OUTPUT, N_PASSED };

struct forkserver {
    int fd;
    int wake_fd;
    pid_t pid;
    char line[REQUEST_MAX];
    size_t len;           /* of what has been read */
    int passed[N_PASSED]; /* descriptors that came with it; -1: none */
};

bool
jobq__forkserver_is_wanted(void)
{
    const char *text = getenv("JOBQ_PRELOAD");
    return text && strcmp(text, "1") == 0;
}

/* ---- the socket ---- */

static void
close_passed(struct forkserver *forkserver)
{
    for (int i = 0; i < N_PASSED; i++) {
        if (forkserver->passed[i] >= 0)
            close(forkserver->passed[i]);
        forkserver->passed[i] = -1;
    }
}

/* Keeps the first ones, above the numbers that a worker finds things at, and no higher:
 * there may be few. Closes what else there is. */
static void
keep_passed(struct forkserver *forkserver, struct msghdr *message)
{
    int least = (forkserver->fd > STDERR_FILENO ? forkserver->fd : STDERR_FILENO) + 1;
    int n = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (n < N_PASSED && forkserver->passed[n] < 0)
                forkserver->passed[n++] = fcntl(fd, F_DUPFD_CLOEXEC, least);
            close(fd);
        }
    }
}

/* One read, with what descriptors come along. *got = 0: jobqd has closed its end. */
static int
receive(struct forkserver *forkserver, size_t *got, jobq_error *err)
{
    union { /* so that it is aligned */
        struct cmsghdr header;
        char bytes[CMSG_SPACE(N_PASSED * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = forkserver->line + forkserver->len,
                         .iov_len = REQUEST_MAX - forkserver->len};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t n;
    do
        n = recvmsg(forkserver->fd, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != ECONNRESET)
        return jobq__error(err, JOBQ_EIO, "forkserver: cannot read from jobqd: %s",
                           strerror(errno));
    *got = n > 0 ? (size_t)n : 0;
    if (n > 0)
        keep_passed(forkserver, &message);
    return JOBQ_OK;
}

/* Waits for jobqd's next message, or the wish to end. *stop: there is no next one. */
static int
wait_for_line(struct forkserver *forkserver, char **newline, bool *stop, jobq_error *err)
{
    while (!(*newline = memchr(forkserver->line, '\n', forkserver->len))) {
        struct pollfd fds[] = {{.fd = forkserver->fd, .events = POLLIN},
                               {.fd = forkserver->wake_fd, .events = POLLIN}};
        size_t got = 0;
        if (forkserver->len == REQUEST_MAX)
            return jobq__error(err, JOBQ_EPROTO,
                               "forkserver: jobqd sent a line of more than %d bytes",
                               REQUEST_MAX);
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return jobq__error(err, JOBQ_EIO, "forkserver: poll: %s", strerror(errno));
        if (fds[1].revents) {
            *stop = true;
            return JOBQ_OK;
        }
        if (!fds[0].revents)
            continue;
        int rc = receive(forkserver, &got, err);
        if (rc)
            return rc;
        if (got == 0)
            return jobq__error(err, JOBQ_EIO,
                               "forkserver: jobqd is gone: it closed the socket");
        forkserver->len += got;
    }
    return JOBQ_OK;
}

static int
send_out(struct forkserver *forkserver, struct jobq__buf *out, jobq_error *err)
{
    size_t sent = 0;
    int rc = out->failed ? jobq__error(err, JOBQ_ENOMEM, "forkserver: out of memory") : 0;
    while (!rc && sent < out->len) {
        ssize_t n = send(forkserver->fd, out->data + sent, out->len - sent, MSG_NOSIGNAL);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno != EINTR)
            rc = jobq__error(err, JOBQ_EIO, "forkserver: cannot write to jobqd: %s",
                             strerror(errno));
    }
    jobq__buf_clear(out);
    return rc;
}

/* ---- the worker, until it may start ---- */

static _Noreturn void
give_up(const char *why)
{
    fprintf(stderr, "worker: forked by a forkserver, but %s\n", why);
    _exit(NOT_BORN);
}

/* middle: a pidfd of the process that forked us. */
static void
become_child_of(pid_t parent, int middle)
{
    struct pollfd exited = {.fd = middle, .events = POLLIN};
    while (poll(&exited, 1, -1) < 0 && errno == EINTR)
        continue;
    close(middle);
    /* Asked before the check, so that there is no moment in which jobqd's death goes
     * unnoticed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        give_up("its parent is not jobqd");
}

/* The worker's socket takes the number, and so the place, of the forkserver's: nothing of
 * the forkserver's stays open but what the program itself has opened. */
static void
arrange_descriptors(struct forkserver *forkserver)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 ||
        dup2(forkserver->passed[THE_OUTPUT], STDOUT_FILENO) < 0 ||
        dup2(forkserver->passed[THE_OUTPUT], STDERR_FILENO) < 0 ||
        dup3(forkserver->passed[THE_SOCKET], forkserver->fd, O_CLOEXEC) < 0)
        give_up("could not set up its file descriptors");
    if (nothing > STDERR_FILENO)
        close(nothing);
    close_passed(forkserver);
}

/* Byte by byte: what follows belongs to the worker's own reader. */
static void
wait_for_start(const struct forkserver *forkserver)
{
    char line[64];
    size_t len = 0;
    enum jobq__frame_type type;
    int64_t id;
    for (;;) {
        ssize_t n = recv(forkserver->fd, line + len, 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(NOT_BORN); /* jobqd has not taken us */
        if (line[len] == '\n')
            break;
        if (++len == sizeof line)
            give_up("the first line from jobqd is not a start message");
    }
    if (jobq__frame_peek(line, len, &type, &id, NULL) != JOBQ_OK ||
        type != JOBQ__FRAME_START)
        give_up("the first line from jobqd is not a start message");
    setpgid(0, 0); /* jobqd has done it; were it not so, a signal to us would miss */
}

/* ---- forking ---- */

/* What the forkserver is told through a pipe: by the process in between the worker's pid,
 * or a negative errno; by the worker, at any moment, that it is where it should be. */
enum { SETTLED = 0 };

/* In the worker, first of all. */
static void
settle(const struct forkserver *forkserver, int said)
{
    int answer = SETTLED;
    if (getsid(0) == forkserver->pid)
        setsid();
    ssize_t ignored = write(said, &answer, sizeof answer);
    (void)ignored;
}

/* Between the forkserver and the worker: forks it, tells its pid, and is gone. Returns in
 * the worker alone, with a pidfd of this process. */
static int
in_the_middle(const struct forkserver *forkserver, int said)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != forkserver->pid)
        _exit(NOT_BORN);
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    pid_t pid = self < 0 ? -1 : fork();
    if (pid == 0)
        return self;
    int answer = pid < 0 ? -errno : pid;
    ssize_t ignored = write(said, &answer, sizeof answer);
    (void)ignored;
    _exit(0);
}

/* Returns the worker's pid, once it has settled or is dead, or a negative errno. */
static int
hear_of_worker(int said)
{
    int worker = -EIO;
    bool settled = false;
    while (worker == -EIO || (worker > 0 && !settled)) {
        int answer;
        ssize_t n = read(said, &answer, sizeof answer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof answer)
            break;
        if (answer == SETTLED)
            settled = true;
        else
            worker = answer;
    }
    return worker;
}

/* The one in the middle is made by vfork: it borrows our memory while we wait, so that
 * the page tables of what was loaded are copied once for a worker, not twice (with 1 GiB
 * of it a worker is up in 20 ms instead of 60). That fork is called in there, and that
 * the worker returns from here in its own copy of this stack, is more than POSIX
 * promises; Linux does: the frame stays as it is until the middle has ended.
 *
 * Forks one worker. Returns its pid, or a negative errno; in the worker itself 0. */
static int
fork_worker(struct forkserver *forkserver, pid_t parent)
{
    int said[2];
    if (pipe2(said, O_CLOEXEC) < 0)
        return -errno;
    fflush(NULL); /* or each worker would print what the forkserver has not written yet */
    pid_t middle = vfork();
    if (middle == 0) {
        int self = in_the_middle(forkserver, said[1]);
        settle(forkserver, said[1]);
        close(said[0]);
        close(said[1]);
        become_child_of(parent, self);
        arrange_descriptors(forkserver);
        wait_for_start(forkserver);
        return 0;
    }
    int failure = -errno; /* where there is no middle */
    close(said[1]);
    int worker = middle > 0 ? hear_of_worker(said[0]) : failure;
    close(said[0]);
    /* Where the program ignores SIGCHLD this fails with ECHILD, once the process has
     * ended all the same. */
    while (middle > 0 && waitpid(middle, NULL, 0) < 0 && errno == EINTR)
        continue;
    return worker;
}

/* With every signal blocked: no handler of the program's may run in a process that is
 * neither forkserver nor worker yet. */
static int
fork_worker_undisturbed(struct forkserver *forkserver, pid_t parent)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int pid = fork_worker(forkserver, parent);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static int
answer_request(struct forkserver *forkserver, const struct jobq__frame *request,
               bool *is_worker, jobq_error *err)
{
    struct jobq__buf out = {0};
    if (forkserver->passed[THE_SOCKET] < 0 || forkserver->passed[THE_OUTPUT] < 0) {
        jobq__frame_put_error(&out, request->id,
                              "fork: the request's two descriptors did not arrive: are "
                              "too many files open (nofile)?",
                              NULL, -1);
    } else {
        int pid = fork_worker_undisturbed(forkserver, request->pid);
        *is_worker = pid == 0;
        if (*is_worker)
            return JOBQ_OK;
        char why[160];
        snprintf(why, sizeof why, "fork: %s", pid < 0 ? strerror(-pid) : "");
        if (pid < 0)
            jobq__frame_put_error(&out, request->id, why, NULL, -1);
        else
            jobq__frame_put_forked(&out, request->id, pid);
    }
    return send_out(forkserver, &out, err);
}

/* One line of jobqd's, at the front of the buffer. */
static int
handle_line(struct forkserver *forkserver, char *newline, bool *stop, bool *is_worker,
            jobq_error *err)
{
    struct jobq__frame frame;
    size_t len = (size_t)(newline - forkserver->line);
    int rc = jobq__frame_parse(forkserver->line, len, &frame, err);
    if (!rc && frame.type == JOBQ__FRAME_STOP)
        *stop = true;
    else if (!rc && frame.type == JOBQ__FRAME_FORK)
        rc = answer_request(forkserver, &frame, is_worker, err);
    else if (!rc)
        rc = jobq__error(
            err, JOBQ_EPROTO,
            "forkserver: jobqd sent a frame that a forkserver does not take: %.*s",
            len > 60 ? 60 : (int)len, forkserver->line);
    close_passed(forkserver); /* of a message that was no request */
    forkserver->len -= len + 1;
    memmove(forkserver->line, newline + 1, forkserver->len);
    return rc;
}

int
jobq__forkserver_run(int fd, int wake_fd, bool *is_worker, jobq_error *err)
{
    struct forkserver forkserver = {
        .fd = fd, .wake_fd = wake_fd, .pid = getpid(), .passed = {-1, -1}};
    struct jobq__buf out = {0};
    bool stop = false;
    char *newline;
    *is_worker = false;
    jobq__frame_put_forkserver_hello(&out);
    int rc = send_out(&forkserver, &out, err);
    while (!rc && !stop && !*is_worker) {
        rc = wait_for_line(&forkserver, &newline, &stop, err);
        if (!rc && !stop)
            rc = handle_line(&forkserver, newline, &stop, is_worker, err);
    }
    close_passed(&forkserver);
    if (!rc && *is_worker)
        unsetenv("JOBQ_PRELOAD"); /* what it starts is no forkserver */
    return rc;
}
