/* test_usage.c: what process groups use, and the control groups that jobqd refuses. That
 * the kernel keeps a limit by them is test_limits.py's, where it can. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "jobqd/proc/cgroup.h"
#include "jobqd/proc/usage.h"

enum { MIB = 1024 * 1024 };

static void
touch(size_t mib)
{
    char *memory = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        _exit(1);
}

static void
burn_ms(int64_t ms)
{
    int64_t from_us = usage_cpu_us(getpid());
    while (usage_cpu_us(getpid()) < from_us + ms * 1000)
        continue;
}

/* A group of a parent with 64 MiB, which it shares with two children, one of which has 32
 * more and is nobody's child any more. Returns when all of it is so. */
static pid_t
start_group(void)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        touch(64);
        burn_ms(60);
        if (fork() == 0) {
            ssize_t n = write(ready[1], "x", 1);
            pause();
            _exit((int)n);
        }
        pid_t middle = fork();
        if (middle == 0) {
            if (fork() == 0) {
                touch(32);
                ssize_t n = write(ready[1], "x", 1);
                pause();
                _exit((int)n);
            }
            _exit(0);
        }
        waitpid(middle, NULL, 0);
        pause();
        _exit(0);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void
a_group_is_counted_with_all_that_belongs_to_it(void **state)
{
    (void)state;
    pid_t group = start_group();
    struct usage rows[2] = {{.group = group}, {.group = getpgrp()}};
    if (rows[0].group > rows[1].group) {
        struct usage first = rows[0];
        rows[0] = rows[1];
        rows[1] = first;
    }
    assert_int_equal(usage_read(rows, 2), 0);
    const struct usage *row = rows[0].group == group ? &rows[0] : &rows[1];
    assert_int_equal(row->processes, 3);
    assert_in_range(row->rss_kb, (64 + 64 + 64 + 32) * 1024, 400 * 1024);
    assert_true(row->cpu_us >= 50000);
    /* Each page once. */
    assert_in_range(usage_pss_kb(group), 96 * 1024, 160 * 1024);
    assert_in_range(usage_peak_kb(group), 64 * 1024, 200 * 1024);
    kill(-group, SIGKILL);
    /* A zombie has no memory any more, but its time. */
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)group, &info, WEXITED | WNOWAIT), 0);
    assert_true(usage_cpu_us(group) >= 50000);
    assert_int_equal(usage_peak_kb(group), -1);
    assert_int_equal(waitpid(group, NULL, 0), group);
    struct usage gone = {.group = group};
    for (int i = 0; i < 30000 && usage_read(&gone, 1) == 0 && gone.processes > 0; i++)
        poll(NULL, 0, 1);
    assert_int_equal(gone.processes, 0);
    assert_int_equal(gone.rss_kb, 0);
    assert_int_equal(usage_pss_kb(group), -1);
    assert_int_equal(usage_cpu_us(group), -1);
}

static void
the_kernel_tells_how_often_it_killed_for_memory(void **state)
{
    (void)state;
    assert_true(usage_oom_kills() >= 0);
}

/* ---- control groups: folders as they might be found ---- */

static char folder[] = "/tmp/jobq-test-cgroup-XXXXXX";

static void
put(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

static void
refused(bool systemd, const char *why)
{
    struct cgroup *cgroup = NULL;
    jobq_error err;
    char expected[256];
    snprintf(expected, sizeof expected, "the control group %s %s", folder, why);
    assert_int_equal(cgroup_open_at(&cgroup, folder, systemd, &err), JOBQ_ESTATE);
    assert_string_equal(err.message, expected);
    assert_null(cgroup);
}

static void
a_group_that_is_not_ours_is_left_alone(void **state)
{
    (void)state;
    char text[32], path[128];
    assert_non_null(mkdtemp(folder));
    refused(false, "cannot be read");
    put("cgroup.controllers", "cpu io memory_recursiveprot pids\n");
    refused(false, "has no memory controller");
    put("cgroup.controllers", "cpu io memory pids\n");
    refused(false, "is not writable for jobqd");
    put("cgroup.subtree_control", "");
    refused(true, "belongs to systemd (the unit needs Delegate=memory)");
    refused(false, "also has processes that are not ours");
    snprintf(text, sizeof text, "%d\n1\n", (int)getpid());
    put("cgroup.procs", text);
    refused(false, "also has processes that are not ours");
    /* Nothing was made in it. */
    snprintf(path, sizeof path, "%s/jobqd", folder);
    assert_int_equal(rmdir(path), -1);
    assert_int_equal(errno, ENOENT);
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {"cgroup.controllers",
                                            "cgroup.subtree_control", "cgroup.procs"};
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_is_counted_with_all_that_belongs_to_it),
        cmocka_unit_test(the_kernel_tells_how_often_it_killed_for_memory),
        cmocka_unit_test(a_group_that_is_not_ours_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
