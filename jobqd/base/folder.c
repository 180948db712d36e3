/* folder.c: see folder.h. */
#include "jobqd/base/folder.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VARIABLE "JOBQ_FOLDER"

/* A property of the process, so there is one. */
static char noted[PATH_MAX];
static bool is_noted;

static bool
is_here(const char *name)
{
    struct stat here, there;
    return *name == '/' && stat(".", &here) == 0 && stat(name, &there) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/* Of the folder that we are in: the shell's name for it, if it is that. */
static void
find_name(char *out, size_t size)
{
    const char *shells = getenv("PWD");
    if (shells && strlen(shells) < size && is_here(shells))
        strcpy(out, shells);
    else if (!getcwd(out, size) || *out != '/') /* "(unreachable)…" */
        *out = '\0';
}

void
folder_note(void)
{
    const char *before = getenv(VARIABLE);
    if (before && *before == '/' && strlen(before) < sizeof noted)
        strcpy(noted, before);
    else
        find_name(noted, sizeof noted);
    is_noted = true;
    if (*noted != '\0')
        setenv(VARIABLE, noted, 1);
}

const char *
folder_name(void)
{
    if (!is_noted)
        find_name(noted, sizeof noted);
    return noted;
}

char *
folder_resolve(const char *path)
{
    const char *folder = folder_name();
    size_t size = strlen(folder) + strlen(path) + 2;
    if (*path == '/' || *folder == '\0')
        return strdup(path);
    char *out = malloc(size);
    if (out)
        snprintf(out, size, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, path);
    return out;
}

bool
folder_enter(void)
{
    char cwd[PATH_MAX];
    const char *name = folder_name();
    if ((*name != '\0' && chdir(name) == 0) || getcwd(cwd, sizeof cwd))
        return true;
    int ignored = chdir("/");
    (void)ignored; /* it is there */
    return false;
}
