/* libslow_fork: processes that take long to start, for a program that loads this before
 * the C library.
 *
 *     LD_PRELOAD=libslow_fork.so SLOW_FORK_MS=20 jobqd run
 *
 * As on a machine without processor time, or from a parent with much memory. What it
 * starts loads this as well; only the program that has SLOW_FORK_PID, or was the first to
 * fork, is slow.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

pid_t
fork(void)
{
    pid_t (*real)(void);
    void *found = dlsym(RTLD_NEXT, "fork");
    memcpy(&real, &found, sizeof real); /* an object pointer is no function pointer */
    const char *ms = getenv("SLOW_FORK_MS");
    char self[24];
    snprintf(self, sizeof self, "%ld", (long)getpid());
    setenv("SLOW_FORK_PID", self, 0);
    const char *slow = getenv("SLOW_FORK_PID");
    if (ms && slow && strcmp(slow, self) == 0)
        nanosleep(&(struct timespec){.tv_nsec = atol(ms) * 1000000}, NULL);
    return real();
}
