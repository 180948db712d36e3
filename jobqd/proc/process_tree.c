/* process_tree.c: see process_tree.h. No memory is asked for: there may be none when it is needed. */
#include "jobqd/proc/process_tree.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/proc/guard_table.h"

/* For so long altogether, and for so much longer with each member, the members may be on
 * their way to a stop: jobqd stands still meanwhile, and waits only a little longer for a
 * guard that strikes. A tree of many processes is likely to be forking, on a machine that it
 * keeps busy, where a fork may take as long as its turns at the processor are apart.
 * Counted by the clock, not in looks: where the processor is short, each look may take as
 * long as all of them should. */
enum { STOP_NS = 10000000, STOP_MAX_NS = 300000000, LOOK_NS = 200000 };

struct process_tree {
    pid_t members[PROCESS_TREE_MAX]; /* the leader first; all told to stop */
    size_t n;
    int64_t waited_ns; /* for members to stop, in all */
};

static void
add(struct process_tree *process_tree, pid_t pid)
{
    if (process_tree->n == PROCESS_TREE_MAX || pid <= 1)
        return;
    kill(pid, SIGSTOP);
    process_tree->members[process_tree->n++] = pid;
}

/* The children that one thread has started: "12 34 ", cut anywhere between two reads. */
static void
add_children(struct process_tree *process_tree, const char *path)
{
    char text[512];
    pid_t pid = 0;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    while ((n = read(fd, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (isdigit((unsigned char)text[i])) {
                pid = pid * 10 + (text[i] - '0');
            } else {
                add(process_tree, pid);
                pid = 0;
            }
        }
    }
    close(fd);
}

/* A fork that was under way when the stop came is finished before the stop is heeded, and
 * what it has made is among the children only then. What sleeps (S) has no fork under
 * way: the stop comes before its next step. */
static void
await_stop(struct process_tree *process_tree, pid_t thread)
{
    const struct timespec pause = {0, LOOK_NS};
    int64_t most_ns = STOP_NS * (int64_t)process_tree->n;
    int64_t began_ns = 0, now_ns;
    struct guard_process process;
    if (most_ns > STOP_MAX_NS)
        most_ns = STOP_MAX_NS;
    while (guard_read_process(thread, &process) &&
           (process.state == 'R' || process.state == 'D')) {
        now_ns = clock_boottime_ns();
        if (began_ns == 0)
            began_ns = now_ns;
        if (process_tree->waited_ns + now_ns - began_ns >= most_ns)
            break;
        nanosleep(&pause, NULL);
    }
    if (began_ns != 0)
        process_tree->waited_ns += clock_boottime_ns() - began_ns;
}

static void
add_process_tree_of(struct process_tree *process_tree, pid_t pid)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *threads = opendir(path);
    if (!threads)
        return;
    const struct dirent *entry;
    while ((entry = readdir(threads)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        pid_t thread = (pid_t)atoi(entry->d_name);
        await_stop(process_tree, thread);
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)thread);
        add_children(process_tree, path);
    }
    closedir(threads);
}

bool
process_tree_kill(pid_t leader)
{
    struct process_tree process_tree = {0};
    struct guard_process process;
    bool alive = guard_read_process(leader, &process) && process.state != 'Z';
    if (alive) {
        kill(-leader, SIGSTOP);
        add(&process_tree, leader);
    }
    for (size_t i = 0; i < process_tree.n; i++) /* it grows meanwhile */
        add_process_tree_of(&process_tree, process_tree.members[i]);
    bool any = kill(-leader, SIGKILL) == 0;
    for (size_t i = 0; i < process_tree.n; i++)
        any = kill(process_tree.members[i], SIGKILL) == 0 || any;
    return any;
}
