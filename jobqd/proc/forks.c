/* forks.c: see forks.h. */
#include "jobqd/proc/forks.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "jobqd/proc/reaper.h"

pid_t
fork_child(void (*run)(void *plan), void *plan)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        run(plan);
        _exit(127);
    }
    int why = errno;
    if (pid > 0)
        reaper_note(pid);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = why;
    return pid;
}

void
fork_reset_signals(void)
{
    struct sigaction plain;
    memset(&plain, 0, sizeof plain);
    plain.sa_handler = SIG_DFL;
    sigemptyset(&plain.sa_mask);
    /* KILL, STOP and the C library's own two are refused, as they should be. */
    for (int signal = 1; signal < NSIG; signal++)
        sigaction(signal, &plain, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The signal first, then the look: so there is no moment in which the parent's death goes
 * unnoticed. */
bool
fork_die_with(pid_t parent, int signal)
{
    bool asked = prctl(PR_SET_PDEATHSIG, signal) == 0;
    if (getppid() != parent)
        _exit(127);
    return asked;
}
