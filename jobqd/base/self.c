/* self.c: see self.h. */
#include "jobqd/base/self.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobqd/base/folder.h"

static struct {
    char path[PATH_MAX];
    char **argv;
} self;

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

void
self_remember(char **argv, const char *given)
{
    self.argv = argv;
    if (given && *given == '/' && strlen(given) < sizeof self.path)
        snprintf(self.path, sizeof self.path, "%s", given);
    else if (!find_by_name(argv[0], self.path, sizeof self.path))
        ask_kernel(self.path, sizeof self.path);
    if (self.path[0] == '\0')
        take_executed(self.path, sizeof self.path);
}

const char *
self_path(void)
{
    return self.path;
}

char *const *
self_argv(void)
{
    return self.argv;
}
