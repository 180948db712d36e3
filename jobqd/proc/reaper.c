/* reaper.c: see reaper.h. The pids lie sorted in one array: there are a thousand of
 * them at most, and one comes or goes with a fork. */
#include "jobqd/proc/reaper.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "jobqd/base/log.h"

static pid_t *noted;
static size_t n_noted;
static size_t cap_noted;
static bool incomplete;   /* one found no memory: nothing can be told apart any more */
static unsigned adopting; /* how many want orphans */
static unsigned held;
static bool cut_short;   /* there may be more to take than we could */
static uv_signal_t ends; /* SIGCHLD */

/* Where pid stands, or would. */
static size_t
place_of(pid_t pid)
{
    size_t low = 0, high = n_noted;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (noted[middle] < pid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool
reaper_is_noted(pid_t pid)
{
    size_t at = place_of(pid);
    return at < n_noted && noted[at] == pid;
}

void
reaper_note(pid_t pid)
{
    size_t at = place_of(pid);
    if (at < n_noted && noted[at] == pid)
        return;
    if (n_noted == cap_noted) {
        size_t cap = cap_noted ? cap_noted * 2 : 64;
        pid_t *more = realloc(noted, cap * sizeof *more);
        if (!more) {
            incomplete = true;
            return;
        }
        noted = more;
        cap_noted = cap;
    }
    memmove(noted + at + 1, noted + at, (n_noted - at) * sizeof *noted);
    noted[at] = pid;
    n_noted++;
}

void
reaper_forget(pid_t pid)
{
    size_t at = place_of(pid);
    if (at < n_noted && noted[at] == pid) {
        n_noted--;
        memmove(noted + at, noted + at + 1, (n_noted - at) * sizeof *noted);
    }
    if (n_noted == 0) {
        free(noted);
        noted = NULL;
        cap_noted = 0;
    }
    if (cut_short)
        reaper_reap_orphans();
}

void
reaper_adopt(void)
{
    if (adopting++ == 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* since Linux 3.4 */
}

void
reaper_leave(void)
{
    assert(adopting > 0);
    if (--adopting == 0)
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
}

void
reaper_inherit(void)
{
    if (adopting == 0)
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); /* an exec does not end it */
}

void
reaper_hold(void)
{
    held++;
}

void
reaper_release(void)
{
    assert(held > 0);
    if (--held == 0 && cut_short)
        reaper_reap_orphans();
}

/* The kernel shows the first ended child alone. If that one is noted, whoever waits for
 * it takes it soon, says so to reaper_forget, and we look again. */
size_t
reaper_reap_orphans(void)
{
    size_t n = 0;
    if (incomplete)
        return 0;
    cut_short = held > 0;
    while (!cut_short) {
        siginfo_t info;
        memset(&info, 0, sizeof info);
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
            if (errno == EINTR)
                continue;
            break;
        }
        if (info.si_pid == 0)
            break;
        cut_short = reaper_is_noted(info.si_pid);
        if (!cut_short && waitpid(info.si_pid, NULL, WNOHANG) == info.si_pid)
            n++;
    }
    return n;
}

static void
on_child(uv_signal_t *signal, int number)
{
    (void)signal;
    (void)number;
    size_t n = reaper_reap_orphans();
    if (n > 0)
        log_debug("jobqd", "reaped %zu processes that workers had left behind", n);
}

int
reaper_watch(uv_loop_t *loop)
{
    int rc = uv_signal_init(loop, &ends);
    if (rc == 0)
        rc = uv_signal_start(&ends, on_child, SIGCHLD);
    if (rc == 0)
        raise(SIGCHLD); /* for those that ended before this */
    return rc;
}

void
reaper_unwatch(void)
{
    uv_close((uv_handle_t *)&ends, NULL);
}
