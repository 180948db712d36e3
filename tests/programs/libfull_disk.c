/* libfull_disk: a disk that is full, for a program that loads this before the C library.
 *
 *     LD_PRELOAD=libfull_disk.so FULL_DISK=FOLDER FULL_DISK_FLAG=FILE postgres ...
 *
 * While FILE exists, no file below FOLDER can grow: whoever tries has ENOSPC, and what is
 * there can be read and written over, as on a disk without a free block. Neither a mount
 * nor a quota is needed for it, so it works where tests may do neither.
 *
 * Not covered: what the C library writes by itself (stdio), and ftruncate.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static bool
is_on_disk(int fd)
{
    char link[64], path[PATH_MAX];
    const char *folder = getenv("FULL_DISK");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path);
    size_t folder_len = folder ? strlen(folder) : 0;
    return folder_len > 0 && len > (ssize_t)folder_len &&
           memcmp(path, folder, folder_len) == 0 && path[folder_len] == '/';
}

/* Whether a file that reaches to `end` then would need room that is not there. */
static bool
refuses(int fd, off_t end)
{
    struct stat file;
    const char *flag = getenv("FULL_DISK_FLAG");
    int saved = errno;
    bool refused = flag && fstat(fd, &file) == 0 && S_ISREG(file.st_mode) &&
                   end > file.st_size && access(flag, F_OK) == 0 && is_on_disk(fd);
    errno = refused ? ENOSPC : saved;
    return refused;
}

static off_t
length(const struct iovec *parts, int n)
{
    off_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += (off_t)parts[i].iov_len;
    return sum;
}

/* Where a write() goes. */
static off_t
place(int fd)
{
    struct stat file;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_APPEND) && fstat(fd, &file) == 0)
        return file.st_size;
    int saved = errno;
    off_t at = lseek(fd, 0, SEEK_CUR);
    errno = saved;
    return at < 0 ? 0 : at;
}

/* The C library's own function of this name. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t
write(int fd, const void *data, size_t len)
{
    return refuses(fd, place(fd) + (off_t)len) ? -1 : NEXT(write)(fd, data, len);
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t at)
{
    return refuses(fd, at + (off_t)len) ? -1 : NEXT(pwrite)(fd, data, len, at);
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off64_t at)
{
    return refuses(fd, at + (off_t)len) ? -1 : NEXT(pwrite64)(fd, data, len, at);
}

ssize_t
pwritev(int fd, const struct iovec *parts, int n, off_t at)
{
    return refuses(fd, at + length(parts, n)) ? -1 : NEXT(pwritev)(fd, parts, n, at);
}

ssize_t
pwritev64(int fd, const struct iovec *parts, int n, off64_t at)
{
    return refuses(fd, at + length(parts, n)) ? -1 : NEXT(pwritev64)(fd, parts, n, at);
}

/* These two return the error. */
int
posix_fallocate(int fd, off_t at, off_t len)
{
    return refuses(fd, at + len) ? ENOSPC : NEXT(posix_fallocate)(fd, at, len);
}

int
posix_fallocate64(int fd, off64_t at, off64_t len)
{
    return refuses(fd, at + len) ? ENOSPC : NEXT(posix_fallocate64)(fd, at, len);
}
