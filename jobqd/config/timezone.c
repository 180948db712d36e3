/* timezone.c: see timezone.h. */
#include "jobqd/config/timezone.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "libjobq/error.h"

#define MAX_BYTES 100

/* As the C library looks for it. */
static const char *
zone_folder(void)
{
    const char *folder = getenv("TZDIR");
    return folder != NULL && *folder != '\0' ? folder : "/usr/share/zoneinfo";
}

bool
timezone_is_name(const char *name)
{
    static const char legal[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/";
    size_t len = strlen(name);
    return len >= 1 && len <= MAX_BYTES && strspn(name, legal) == len && name[0] != '/' &&
           name[len - 1] != '/' && strstr(name, "//") == NULL;
}

/* The folder also holds lists, and zones that count leap seconds, which no database
 * takes. */
static bool
is_zone_file(const char *path)
{
    struct stat found;
    char magic[4] = "";
    if (stat(path, &found) != 0 || !S_ISREG(found.st_mode))
        return false;
    FILE *file = fopen(path, "re");
    bool right = file != NULL && fread(magic, 1, sizeof magic, file) == sizeof magic &&
                 memcmp(magic, "TZif", sizeof magic) == 0;
    if (file != NULL)
        fclose(file);
    return right;
}

int
timezone_check(const char *name, jobq_error *err)
{
    char path[PATH_MAX];
    struct stat found;
    const char *folder = zone_folder();
    if (strcmp(name, "UTC") == 0)
        return 0;
    bool may_be = timezone_is_name(name) && strncmp(name, "right/", 6) != 0;
    if (may_be && (stat(folder, &found) != 0 || !S_ISDIR(found.st_mode)))
        return jobq__error(err, JOBQ_ENOTFOUND,
                           "\"%s\" is not known: this host has no time zones in %s, only "
                           "UTC; install tzdata",
                           name, folder);
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (may_be && len > 0 && (size_t)len < sizeof path && is_zone_file(path))
        return 0;
    return jobq__error(err, JOBQ_EINVAL,
                       "\"%s\" is not a time zone: write a name from the time zone "
                       "database (tzdata, in %s), such as Europe/Stockholm",
                       name, folder);
}

int
timezone_use(const char *name, jobq_error *err)
{
    char value[MAX_BYTES + 2] = ":"; /* a file, no formula */
    strncat(value, name, sizeof value - 2);
    if (setenv("TZ", strcmp(name, "UTC") == 0 ? "UTC0" : value, 1) != 0)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    tzset();
    return 0;
}

int64_t
timezone_offset(void *data, int64_t at_s)
{
    struct tm shown;
    time_t at = (time_t)at_s;
    (void)data;
    return localtime_r(&at, &shown) != NULL ? (int64_t)shown.tm_gmtoff : 0;
}
