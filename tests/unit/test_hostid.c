/* test_hostid.c: whether a process that was noted still lives. To take a living one for
 * dead would let two nodes have one name, so what cannot be seen is no proof. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/base/hostid.h"

static char here[160];

/* A /proc of the test's own: who we are there, and what it says of one process. */
static char proc[] = "/tmp/jobq-hostid-XXXXXX";

static void
make_proc(int self, int pid, const char *stat_line)
{
    char path[100], text[20];
    snprintf(path, sizeof path, "%s/self", proc);
    snprintf(text, sizeof text, "%d", self);
    unlink(path);
    assert_int_equal(symlink(text, path), 0);
    snprintf(path, sizeof path, "%s/%d", proc, pid);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%d/stat", proc, pid);
    unlink(path);
    if (!stat_line)
        return;
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(stat_line, file);
    fclose(file);
}

static int
set_up(void **state)
{
    (void)state;
    hostid_read(here, sizeof here);
    return mkdtemp(proc) && here[0] ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    char path[100];
    make_proc(getpid(), getpid(), NULL);
    snprintf(path, sizeof path, "%s/%d", proc, (int)getpid());
    rmdir(path);
    snprintf(path, sizeof path, "%s/self", proc);
    unlink(path);
    return rmdir(proc);
}

static void
a_living_process_lives(void **state)
{
    (void)state;
    int64_t start = hostid_own_start();
    assert_true(start > 0);
    assert_int_equal(hostid_fate(here, getpid(), start), HOSTID_LIVES);
    assert_int_equal(hostid_fate(here, getpid(), start - 1), HOSTID_ENDED); /* reused */
    assert_int_equal(hostid_fate("elsewhere", getpid(), start - 1), HOSTID_UNKNOWN);
    assert_int_equal(hostid_fate("", getpid(), start - 1), HOSTID_UNKNOWN);
}

static pid_t
ended_child(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    return pid;
}

static void
a_zombie_has_ended(void **state)
{
    (void)state;
    pid_t pid = ended_child();
    assert_int_equal(hostid_fate(here, pid, hostid_own_start()), HOSTID_ENDED);
    assert_int_equal(hostid_fate(here, pid, -1), HOSTID_ENDED);
    waitpid(pid, NULL, 0);
    assert_int_equal(hostid_fate(here, pid, hostid_own_start()), HOSTID_ENDED);
}

#define STAT "7 (a (b) c) %c 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n"

static void
assert_seen(char letter, int64_t noted, enum hostid_fate fate)
{
    char line[200];
    snprintf(line, sizeof line, STAT, letter);
    make_proc(getpid(), getpid(), line);
    assert_int_equal(hostid_fate_here(proc, getpid(), noted), fate);
}

static void
what_its_stat_says_counts(void **state)
{
    (void)state;
    assert_seen('S', 4711, HOSTID_LIVES);
    assert_seen('T', 4711, HOSTID_LIVES); /* stopped: goes on some day */
    assert_seen('D', 4712, HOSTID_ENDED);
    assert_seen('Z', 4711, HOSTID_ENDED);
    assert_seen('X', 4711, HOSTID_ENDED);
    assert_seen('S', -1, HOSTID_UNKNOWN); /* its start could not be read back then */
}

/* hidepid, ProtectProc=invisible, no descriptor left. */
static void
one_that_is_hidden_may_live(void **state)
{
    (void)state;
    static const char *const lines[] = {NULL, "", "7 (cut off", "7 (cut) S 1 2 3\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        make_proc(getpid(), getpid(), lines[i]);
        assert_int_equal(hostid_fate_here(proc, getpid(), 4711), HOSTID_UNKNOWN);
    }
    assert_int_equal(hostid_fate_here("/nowhere", getpid(), 4711), HOSTID_UNKNOWN);
    assert_int_equal(hostid_fate_here("/proc", 0, 4711), HOSTID_UNKNOWN);
    assert_int_equal(hostid_fate_here("/proc", -1, 4711), HOSTID_UNKNOWN);
}

static void
a_proc_of_another_namespace_says_nothing(void **state)
{
    (void)state;
    char line[200];
    snprintf(line, sizeof line, STAT, 'Z');
    make_proc(getpid() + 1, getpid(), line);
    assert_int_equal(hostid_fate_here(proc, getpid(), 4712), HOSTID_UNKNOWN);
    pid_t pid = ended_child(); /* but the kernel does */
    waitpid(pid, NULL, 0);
    assert_int_equal(hostid_fate_here(proc, pid, 4712), HOSTID_ENDED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_living_process_lives),
        cmocka_unit_test(a_zombie_has_ended),
        cmocka_unit_test(what_its_stat_says_counts),
        cmocka_unit_test(one_that_is_hidden_may_live),
        cmocka_unit_test(a_proc_of_another_namespace_says_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
