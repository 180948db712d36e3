/* The guard: its table, and what it kills, with a process in jobqd's place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobqd/base/log.h"
#include "jobqd/base/clock.h"
#include "jobqd/proc/guard_main.h"
#include "jobqd/proc/guard_table.h"

#define MS INT64_C(1000000)

static int
open_table(void **state)
{
    (void)state;
    return guard_table_open(4) < 0 ? -1 : 0;
}

static int
close_table(void **state)
{
    (void)state;
    guard_table_on_stuck = NULL;
    guard_table_close();
    return 0;
}

/* ---- the table ---- */

static void
without_a_table_nobody_guards(void **state)
{
    (void)state;
    assert_int_equal(guard_take(), GUARD_NOWHERE);
    assert_true(guard_enter(GUARD_NOWHERE));
    assert_int_equal(guard_add(getpid()), GUARD_NOWHERE);
    assert_false(guard_remove(GUARD_NOWHERE));
    guard_set_deadline(1);
}

static void
slots_are_taken_from_below_and_end(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(guard_take(), i);
    assert_int_equal(guard_take(), GUARD_FULL);
    assert_false(guard_remove(2));
    assert_false(guard_remove(1));
    assert_int_equal(guard_take(), 1);
    assert_int_equal(guard_take(), 2);
    assert_int_equal(guard_add(getpid()), GUARD_FULL);
    assert_int_equal(atomic_load(&guard_table()->high), 4);
}

static void
a_process_is_known_by_its_pid_and_start(void **state)
{
    (void)state;
    struct guard_process self;
    /* A name that looks like the fields behind it. */
    prctl(PR_SET_NAME, "a) Z 1 2 (");
    assert_true(guard_read_process(getpid(), &self));
    assert_int_equal(self.state, 'R');
    assert_int_equal(self.group, getpgrp());
    assert_int_equal(self.session, getsid(0));
    assert_true(self.start > 0);
    assert_int_equal(guard_add(getpid()), 0);
    assert_int_equal(guard_table()->slots[0].start, self.start);
    assert_int_equal(guard_find(getpid()), 0);
    assert_int_equal(guard_find(1), GUARD_NOWHERE);
    assert_false(guard_read_process(4194304, &self));
}

static void
nothing_is_executed_after_the_deadline(void **state)
{
    (void)state;
    assert_int_equal(guard_take(), 0);
    guard_set_deadline(clock_boottime_ns() + 3600 * 1000 * MS);
    assert_true(guard_enter(0));
    assert_false(guard_remove(0));
    assert_int_equal(guard_take(), 0);
    guard_set_deadline(clock_boottime_ns());
    assert_false(guard_enter(0));
    assert_true(guard_remove(0)); /* it counts as killed by the guard */
}

static int stuck;

static void
on_stuck(void)
{
    stuck++;
}

static void
a_guard_that_stands_still_in_a_strike_is_not_waited_for(void **state)
{
    (void)state;
    stuck = 0;
    guard_table_on_stuck = on_stuck;
    assert_int_equal(guard_add(getpid()), 0);
    atomic_store(&guard_table()->slots[0].state, GUARD_STRIKING);
    assert_true(guard_remove(0));
    assert_int_equal(stuck, 1);
    assert_int_equal(guard_take(), 0);
}

static void
a_table_is_taken_over_by_the_next_program(void **state)
{
    (void)state;
    int fd = guard_table_open(4);
    assert_true(fd >= 0);
    assert_int_equal(guard_add(getpid()), 0);
    int kept = dup(fd);
    guard_table_close();
    assert_int_equal(guard_table_adopt(kept), 0);
    assert_int_equal(guard_find(getpid()), 0);
    assert_int_equal(guard_take(), 1);
    guard_table()->version++;
    kept = dup(kept);
    guard_table_close();
    assert_int_equal(guard_table_adopt(kept), -1);
    close(kept);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(guard_table_adopt(nothing), -1);
    close(nothing);
}

/* ---- the guard ---- */

/* Sleeps, in a group of its own, with a child. *end: readable when both are dead. */
static pid_t
start_process_tree(int *end)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setpgid(0, 0);
        for (int fd = 0; fd < 256; fd++)
            if (fd != ends[1])
                close(fd);
        fork();
        for (;;)
            pause();
    }
    setpgid(pid, pid);
    close(ends[1]);
    *end = ends[0];
    return pid;
}

static void
await_end(int end)
{
    struct pollfd closed = {.fd = end};
    assert_int_equal(poll(&closed, 1, 30000), 1);
    close(end);
}

static void
await_count(_Atomic uint64_t *count, uint64_t wanted)
{
    for (int ms = 0; ms < 30000 && atomic_load(count) < wanted; ms++)
        poll(NULL, 0, 1);
    assert_true(atomic_load(count) >= wanted);
}

static pid_t
start_guard(int table_fd, pid_t jobqd)
{
    static char name[] = "jobqd", command[] = GUARD_COMMAND;
    char *argv[] = {name, command, NULL};
    int jobqd_fd = (int)syscall(SYS_pidfd_open, jobqd, 0);
    assert_true(jobqd_fd >= 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int table = fcntl(table_fd, F_DUPFD, 32), self = fcntl(jobqd_fd, F_DUPFD, 32);
        guard_table_close(); /* whose descriptor may have either number */
        dup2(table, GUARD_TABLE_FD);
        dup2(self, GUARD_JOBQD_FD);
        _exit(guard_main(2, argv));
    }
    close(jobqd_fd);
    return pid;
}

static int
end_of(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

static bool
lives(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

static void
it_kills_at_the_deadline_and_not_who_has_a_number_by_chance(void **state)
{
    (void)state;
    int fd = guard_table_open(4);
    int ends[3];
    pid_t jobqd = start_process_tree(&ends[0]), ours = start_process_tree(&ends[1]),
          stranger = start_process_tree(&ends[2]);
    guard_table()->tick_ms = 20;
    guard_table()->log_level = LOG_LEVEL_ERROR + 1;
    assert_int_equal(guard_add(ours), 0);
    assert_int_equal(guard_add(stranger), 1);
    guard_table()->slots[1].start--; /* the number's former owner */
    pid_t guard = start_guard(fd, jobqd);
    await_count(&guard_table()->guard_beats, 5);
    assert_true(lives(ours)); /* no deadline yet */
    int64_t deadline_ns = clock_boottime_ns() + 100 * MS;
    guard_set_deadline(deadline_ns);
    assert_int_equal(WTERMSIG(end_of(ours)), SIGKILL);
    assert_true(clock_boottime_ns() >= deadline_ns);
    await_end(ends[1]); /* its child too */
    await_count(&guard_table()->strikes, 1);
    assert_true(guard_remove(0));
    assert_true(lives(stranger));

    guard_set_deadline(0);
    assert_int_equal(guard_add(stranger), 0);
    guard_remove(1);
    kill(-jobqd, SIGKILL);
    end_of(jobqd);
    assert_int_equal(end_of(guard), 0); /* exit code 0 */
    assert_int_equal(WTERMSIG(end_of(stranger)), SIGKILL);
    await_end(ends[2]);
    await_end(ends[0]);
    guard_table_close();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_table_nobody_guards),
        cmocka_unit_test_setup_teardown(slots_are_taken_from_below_and_end, open_table,
                                        close_table),
        cmocka_unit_test_setup_teardown(a_process_is_known_by_its_pid_and_start,
                                        open_table, close_table),
        cmocka_unit_test_setup_teardown(nothing_is_executed_after_the_deadline,
                                        open_table, close_table),
        cmocka_unit_test_setup_teardown(
            a_guard_that_stands_still_in_a_strike_is_not_waited_for, open_table,
            close_table),
        cmocka_unit_test(a_table_is_taken_over_by_the_next_program),
        cmocka_unit_test(it_kills_at_the_deadline_and_not_who_has_a_number_by_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
