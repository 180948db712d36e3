/* test_watch.c: what a process group is said to use between two exact looks at it, on
 * real processes. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "jobqd/pool/watch.h"

enum { MIB = 1024 }; /* in KiB */

/* The leader of a group of its own, which does as it is told. */
static struct hand {
    pid_t pid;
    int to;
    int from;
    struct watch *watch;
    struct watched watched;
    int n_measured;
} hand;

static uv_loop_t loop;

static void
obey(int orders, int answers)
{
    char order;
    while (read(orders, &order, 1) == 1) {
        if (order == 'g') {
            char *more = malloc((size_t)32 << 20);
            if (!more)
                _exit(1);
            memset(more, 1, (size_t)32 << 20);
        } else if (order == 'f' && fork() == 0) {
            for (;;)
                pause();
        }
        if (write(answers, &order, 1) != 1)
            _exit(1);
    }
    _exit(0);
}

/* 'g': 32 MiB more; 'f': a child in the group, which has nothing but what it shares. */
static void
tell(char order)
{
    char done;
    assert_int_equal(write(hand.to, &order, 1), 1);
    assert_int_equal(read(hand.from, &done, 1), 1);
}

static void
on_measured(struct watched *watched)
{
    assert_ptr_equal(watched, &hand.watched);
    hand.n_measured++;
}

static int
set_up(void **state)
{
    (void)state;
    int orders[2], answers[2];
    memset(&hand, 0, sizeof hand);
    if (pipe(orders) < 0 || pipe(answers) < 0)
        return -1;
    hand.pid = fork();
    if (hand.pid == 0) {
        setpgid(0, 0);
        close(orders[1]);
        obey(orders[0], answers[1]);
    }
    setpgid(hand.pid, hand.pid);
    close(orders[0]);
    close(answers[1]);
    hand.to = orders[1];
    hand.from = answers[0];
    uv_loop_init(&loop);
    hand.watch = watch_join(&loop);
    hand.watched.on_measured = on_measured;
    hand.watched.exact_from_kb = 40 * MIB;
    watch_add(hand.watch, &hand.watched, hand.pid, false, "hand");
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    watch_remove(hand.watch, &hand.watched);
    watch_leave(hand.watch);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    kill(-hand.pid, SIGKILL);
    waitpid(hand.pid, NULL, 0);
    close(hand.to);
    close(hand.from);
    return 0;
}

static int64_t
measured_kb(void)
{
    int before = hand.n_measured;
    watch_measure(hand.watch, &hand.watched);
    assert_int_equal(hand.n_measured, before + 1);
    return hand.watched.memory_kb;
}

/* As after a look that took long. */
static void
look_exactly_no_more(void)
{
    hand.watched.exact_after_ns = UINT64_MAX;
}

static bool
was_looked_at_exactly(void)
{
    return hand.watched.exact_after_ns != UINT64_MAX;
}

static void
growth_is_seen_between_exact_looks(void **state)
{
    (void)state;
    tell('g');
    tell('g');
    int64_t first_kb = measured_kb();
    assert_in_range(first_kb, 64 * MIB, 130 * MIB);
    look_exactly_no_more();
    tell('g');
    int64_t second_kb = measured_kb();
    assert_false(was_looked_at_exactly());
    /* 32 MiB, and up to an eighth of it for the sanitizer's shadow. */
    assert_in_range(second_kb, first_kb + 31 * MIB, first_kb + 38 * MIB);
    /* What is not exact is not put down as the most. */
    assert_int_equal(hand.watched.peak_kb, first_kb);
}

static void
the_limit_is_crossed_by_an_exact_figure_alone(void **state)
{
    (void)state;
    tell('g');
    tell('g');
    tell('g');
    int64_t first_kb = measured_kb();
    hand.watched.limit_kb = first_kb + 80 * MIB;
    look_exactly_no_more();
    tell('f'); /* the plain sum is above the limit now */
    int64_t second_kb = measured_kb();
    assert_true(was_looked_at_exactly());
    assert_in_range(second_kb, first_kb - 4 * MIB, first_kb + 8 * MIB);
    /* And what is over it is found at once, though the two share 96 MiB. */
    look_exactly_no_more();
    tell('g');
    tell('g');
    assert_false(measured_kb() > hand.watched.limit_kb);
    assert_false(was_looked_at_exactly());
    tell('g');
    assert_true(measured_kb() > hand.watched.limit_kb);
    assert_true(was_looked_at_exactly());
    assert_int_equal(hand.watched.peak_kb, hand.watched.memory_kb);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(growth_is_seen_between_exact_looks, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_limit_is_crossed_by_an_exact_figure_alone,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
