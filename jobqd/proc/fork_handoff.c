/* fork_handoff.c: see fork_handoff.h. Why the worker is our child although another process forks it:
 * libjobq/forkserver.h. */
#include "jobqd/proc/fork_handoff.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/proc/reaper.h"
#include "jobqd/proc/guard_table.h"
#include "libjobq/error.h"

/* Which descriptor comes first is part of the protocol. */
enum { THE_SOCKET, THE_OUTPUT, N_PASSED };

static void
close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void
fork_handoff_drop(struct fork_handoff *handoff)
{
    close_fd(&handoff->channel_fd);
    close_fd(&handoff->output_fd);
}

/* Returns 0 or errno. The forkserver reads all the time but while it forks, and has one
 * request at a time: a line that does not fit shows that something is wrong with it. */
static int
send_with(int socket, const char *line, size_t len, const int *passed)
{
    union { /* so that it is aligned */
        struct cmsghdr header;
        char bytes[CMSG_SPACE(N_PASSED * sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    union {
        const char *lent;
        void *base;
    } text = {.lent = line};
    struct iovec part = {.iov_base = text.base, .iov_len = len};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(N_PASSED * sizeof(int));
    memcpy(CMSG_DATA(header), passed, N_PASSED * sizeof(int));
    ssize_t n;
    do
        n = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno;
    return (size_t)n == len ? 0 : EMSGSIZE;
}

int
fork_handoff_ask(struct fork_handoff *handoff, int forkserver_fd, const char *line,
                 size_t len, jobq_error *err)
{
    int channel[2] = {-1, -1};
    int output[2] = {-1, -1};
    const char *what = "cannot make a pipe";
    int rc = JOBQ_EIO;
    int why = 0;
    if (pipe2(output, O_CLOEXEC) < 0) {
        why = errno;
        goto out;
    }
    what = "cannot make a socket pair";
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0) {
        why = errno;
        goto out;
    }
    what = "cannot be asked for a worker";
    rc = JOBQ_ESTATE;
    int passed[N_PASSED] = {[THE_SOCKET] = channel[1], [THE_OUTPUT] = output[1]};
    why = send_with(forkserver_fd, line, len, passed);
    if (why == 0) {
        *handoff =
            (struct fork_handoff){.channel_fd = channel[0], .output_fd = output[0]};
        channel[0] = output[0] = -1; /* *handoff's from here on */
    }
out:
    for (int i = 0; i < 2; i++) {
        close_fd(&output[i]);
        close_fd(&channel[i]);
    }
    if (why == 0)
        return 0;
    return jobq__error(err, rc, "%s: %s", what, strerror(why));
}

int
fork_handoff_take(struct fork_handoff *handoff, pid_t pid, struct child *out,
                  jobq_error *err)
{
    siginfo_t info;
    if (reaper_is_noted(pid))
        return jobq__error(
            err, JOBQ_EINVAL,
            "jobqd already knows process %ld: it was not forked for this request",
            (long)pid);
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return jobq__error(err, JOBQ_EINVAL,
                           "process %ld is not jobqd's child: fork twice, and answer "
                           "after the intermediate process has exited",
                           (long)pid);
    /* Where the forkserver leads a session, only the worker itself can leave its group.
     * Else it cannot have executed another program, so that this could fail; it is still
     * told to start, and until then in the forkserver's group. */
    if (getsid(pid) != getsid(0) && getsid(pid) != pid)
        return jobq__error(err, JOBQ_EINVAL,
                           "process %ld is in the forkserver's session: the queue sets "
                           "user, so call setsid() in the process before answering",
                           (long)pid);
    if (getsid(pid) != pid && setpgid(pid, pid) < 0)
        return jobq__error(err, JOBQ_EIO, "cannot give process %ld a group: %s",
                           (long)pid, strerror(errno));
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return jobq__error(err, JOBQ_EIO, "cannot open a pidfd for process %ld: %s",
                           (long)pid, strerror(errno));
    int guarded = guard_add(pid);
    if (guarded == GUARD_FULL) {
        close(pidfd);
        return jobq__error(err, JOBQ_EIO,
                           "the guard's table is full: %u processes are running",
                           guard_table()->capacity);
    }
    reaper_note(pid);
    *out = (struct child){.pid = pid,
                          .pidfd = pidfd,
                          .channel_fd = handoff->channel_fd,
                          .output_fd = handoff->output_fd,
                          .exec_error_fd = -1,
                          .guarded = guarded};
    *handoff = FORK_HANDOFF_NONE; /* *out's from here on */
    return 0;
}
