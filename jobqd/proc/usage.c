/* usage.c: see usage.h. Processes come and go while we read: one that is gone when its
 * turn comes has used nothing. */
#include "jobqd/proc/usage.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/proc/smallfile.h"

enum { FILE_SIZE = 4096, VMSTAT_SIZE = 32768 };

static bool
read_of(pid_t pid, const char *name, char *out)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    return smallfile_read(path, out, FILE_SIZE);
}

/* ---- walking ---- */

static int
compare_groups(const void *a, const void *b)
{
    const struct usage *left = a, *right = b;
    return (left->group > right->group) - (left->group < right->group);
}

/* Calls act for each process of a group that has a row. */
static int
walk(struct usage *rows, size_t n,
     void (*act)(struct usage *row, pid_t pid, int64_t *sum), int64_t *sum)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    if (!dir)
        return -errno;
    while ((entry = readdir(dir)) != NULL) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (pid <= 0 || *end != '\0')
            continue;
        struct usage key = {.group = getpgid((pid_t)pid)};
        struct usage *row =
            key.group <= 0 ? NULL : bsearch(&key, rows, n, sizeof *rows, compare_groups);
        if (row)
            act(row, (pid_t)pid, sum);
    }
    closedir(dir);
    return 0;
}

/* ---- memory and processor time ---- */

static int64_t
rss_kb(pid_t pid)
{
    char text[FILE_SIZE];
    long resident = 0;
    if (!read_of(pid, "statm", text) || sscanf(text, "%*d %ld", &resident) != 1)
        return 0;
    return (int64_t)resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* utime, stime, cutime, cstime: fields 14 to 17. The name before them may hold anything.
 */
static int64_t
cpu_with_children_us(pid_t pid)
{
    char text[FILE_SIZE];
    unsigned long user, system;
    long children_user, children_system;
    if (!read_of(pid, "stat", text))
        return 0;
    const char *rest = strrchr(text, ')');
    if (!rest ||
        sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld",
               &user, &system, &children_user, &children_system) != 4)
        return 0;
    int64_t ticks = (int64_t)(user + system) + children_user + children_system;
    return ticks * 1000000 / sysconf(_SC_CLK_TCK);
}

static void
add_process(struct usage *row, pid_t pid, int64_t *sum)
{
    (void)sum;
    row->processes++;
    row->rss_kb += rss_kb(pid);
    row->cpu_us += cpu_with_children_us(pid);
}

int
usage_read(struct usage *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rows[i].processes = 0;
        rows[i].rss_kb = rows[i].cpu_us = 0;
    }
    return walk(rows, n, add_process, NULL);
}

static void
add_pss(struct usage *row, pid_t pid, int64_t *sum)
{
    char text[FILE_SIZE];
    row->processes++;
    if (*sum < 0)
        return;
    int64_t pss =
        read_of(pid, "smaps_rollup", text) ? smallfile_number(text, "Pss:") : -1;
    if (pss >= 0)
        *sum += pss;
    else if (rss_kb(pid) > 0) /* not a zombie, nor gone: it is kept from us */
        *sum = -1;
}

int64_t
usage_pss_kb(pid_t group)
{
    struct usage row = {.group = group};
    int64_t sum = 0;
    if (walk(&row, 1, add_pss, &sum) < 0 || row.processes == 0)
        return -1;
    return sum;
}

int64_t
usage_cpu_us(pid_t pid)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
        return -1;
    return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

int64_t
usage_peak_kb(pid_t pid)
{
    char text[FILE_SIZE];
    return read_of(pid, "status", text) ? smallfile_number(text, "VmHWM:") : -1;
}

int64_t
usage_oom_kills(void)
{
    char text[VMSTAT_SIZE];
    return smallfile_read("/proc/vmstat", text, sizeof text)
               ? smallfile_number(text, "oom_kill ")
               : -1;
}
