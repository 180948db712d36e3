/* smallfile.c: see smallfile.h. */
#include "jobqd/proc/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool
smallfile_read(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t len = 0;
    ssize_t n = 0;
    while (len < size - 1 && (n = read(fd, out + len, size - 1 - len)) > 0)
        len += (size_t)n;
    int why = errno;
    out[len] = '\0';
    close(fd);
    errno = why;
    return n >= 0;
}

int64_t
smallfile_number(const char *text, const char *label)
{
    size_t len = strlen(label);
    while (text && strncmp(text, label, len) != 0) {
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    return text ? strtoll(text + len, NULL, 10) : -1;
}
