/* descriptors.c: see descriptors.h. */
#include "jobqd/proc/descriptors.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

bool
descriptors_open_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        int mode = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;
        /* The lowest free number is this one, as those below are open. */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", mode) != fd)
            return false;
    }
    return true;
}

/* By the kernel's call and into our own stack: opendir asks for memory, and another
 * thread may have held malloc's lock when we forked. Trying each number instead would be
 * a million calls where the limit of open files is high. */
static void
seal_one_by_one(int first)
{
    alignas(struct dirent64) char entries[2048];
    int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long n;
    if (dir < 0)
        return;
    while ((n = syscall(SYS_getdents64, dir, entries, sizeof entries)) > 0) {
        for (long at = 0; at < n;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            int fd = atoi(entry->d_name); /* "." and "..": 0 */
            if (fd >= first && fd > STDERR_FILENO)
                fcntl(fd, F_SETFD, FD_CLOEXEC);
            at += entry->d_reclen;
        }
    }
    close(dir);
}

void
descriptors_seal(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
        seal_one_by_one(first);
}
