/* hostid.c: see hostid.h. */
#include "jobqd/base/hostid.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
hostid_read(char *out, size_t size)
{
    char boot[64] = "";
    char space[64] = "";
    out[0] = '\0';
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file)
        return;
    bool read = fgets(boot, sizeof boot, file) != NULL;
    fclose(file);
    ssize_t n = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    if (!read || n < 0)
        return;
    space[n] = '\0';
    boot[strcspn(boot, "\n")] = '\0';
    snprintf(out, size, "%s %s", boot, space);
}

/* What /proc/PID/stat says. */
struct stat_line {
    char state;
    int64_t start;
};

static bool
read_stat(const char *path, struct stat_line *out)
{
    char line[1024];
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    /* The command's name, in parentheses, may hold anything: count fields from the last
     * ')'. */
    char *at = read ? strrchr(line, ')') : NULL;
    if (!at || at[1] != ' ')
        return false;
    out->state = at[2];
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (at)
        out->start = strtoll(at + 1, NULL, 10);
    return at != NULL;
}

/* Right even where /proc belongs to another pid namespace than we do. */
int64_t
hostid_own_start(void)
{
    struct stat_line own;
    return read_stat("/proc/self/stat", &own) ? own.start : -1;
}

/* In a /proc of another pid namespace a pid of ours is somebody else's. */
static bool
counts_as_we_do(const char *proc)
{
    char path[200], self[32];
    snprintf(path, sizeof path, "%s/self", proc);
    ssize_t n = readlink(path, self, sizeof self - 1);
    if (n <= 0)
        return false;
    self[n] = '\0';
    return strtol(self, NULL, 10) == (long)getpid();
}

/* Only what was seen counts as an end: a stat that cannot be read may be one that is
 * hidden from us (hidepid, ProtectProc=), or we may have no descriptor left. */
enum hostid_fate
hostid_fate_here(const char *proc, int pid, int64_t pid_start)
{
    char path[200];
    struct stat_line seen;
    if (pid <= 0) /* kill would mean a group, or everybody */
        return HOSTID_UNKNOWN;
    if (kill(pid, 0) < 0 && errno == ESRCH)
        return HOSTID_ENDED;
    snprintf(path, sizeof path, "%s/%d/stat", proc, pid);
    if (!counts_as_we_do(proc) || !read_stat(path, &seen))
        return HOSTID_UNKNOWN;
    /* Its parent may never wait for it; its children were told of its end before. */
    if (seen.state == 'Z' || seen.state == 'X')
        return HOSTID_ENDED;
    if (pid_start < 0) /* could not be read when it was noted */
        return HOSTID_UNKNOWN;
    return seen.start == pid_start ? HOSTID_LIVES : HOSTID_ENDED;
}

enum hostid_fate
hostid_fate(const char *host, int pid, int64_t pid_start)
{
    char here[160];
    hostid_read(here, sizeof here);
    if (here[0] == '\0' || strcmp(here, host) != 0)
        return HOSTID_UNKNOWN;
    return hostid_fate_here("/proc", pid, pid_start);
}

/* ---- what it is ---- */

static bool
read_line(const char *proc, int pid, const char *name, char *out, size_t size)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%d/%s", proc, pid, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool read = fgets(out, (int)size, file) != NULL;
    fclose(file);
    out[strcspn(out, "\n")] = '\0';
    return read;
}

/* Its executable may have been replaced (" (deleted)") or have a version in its name.
 * Only root may read it: jobqd keeps it from its own user, too. */
static bool
is_executable_of_ours(const char *proc, int pid)
{
    char path[200], file[4096];
    snprintf(path, sizeof path, "%s/%d/exe", proc, pid);
    ssize_t n = readlink(path, file, sizeof file - 1);
    if (n < 0)
        return errno == EACCES || errno == EPERM;
    file[n] = '\0';
    const char *name = strrchr(file, '/');
    return name && strncmp(name + 1, "jobqd", 5) == 0;
}

/* Whether it handles, holds or ignores the signal: one that does not is ended by it. */
static bool
bears(const char *proc, int pid, int number)
{
    char path[200], line[200];
    unsigned long long all = 0, mask;
    snprintf(path, sizeof path, "%s/%d/status", proc, pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "SigBlk: %llx", &mask) == 1 ||
            sscanf(line, "SigIgn: %llx", &mask) == 1 ||
            sscanf(line, "SigCgt: %llx", &mask) == 1)
            all |= mask;
    }
    if (file)
        fclose(file);
    return (all >> (number - 1)) & 1;
}

bool
hostid_is_jobqd(const char *proc, int pid)
{
    char name[32];
    return read_line(proc, pid, "comm", name, sizeof name) &&
           strcmp(name, "jobqd") == 0 && is_executable_of_ours(proc, pid) &&
           bears(proc, pid, SIGUSR2);
}
