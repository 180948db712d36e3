/* hostid.c: see hostid.h. */
#include "jobqd/base/hostid.h"

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

int64_t
hostid_pid_start(int pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    /* The command's name, in parentheses, may hold anything: count fields from the last
     * ')'. */
    char *at = read ? strrchr(line, ')') : NULL;
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoll(at + 1, NULL, 10) : -1;
}

bool
hostid_is_dead(const char *host, int pid, int64_t pid_start)
{
    char here[160];
    hostid_read(here, sizeof here);
    if (here[0] == '\0' || strcmp(here, host) != 0)
        return false;
    return hostid_pid_start(pid) != pid_start;
}
