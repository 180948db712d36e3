/* test_turns.c: whose turn it is to do what costs time; that the loop says when it stood
 * still; and how many workers boot at a time. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/proc/turns.h"
#include "jobqd/pool/boots.h"

enum { ASKERS = 20, STEPS = 5, LIMIT_MS = 60000 };

struct asker {
    struct turn turn;
    int left;
    int done;
    int cost_ms;
    int *order; /* who had the turns */
    size_t *n_order;
    int number;
};

static void
take_time(int ms)
{
    uint64_t until_ns = uv_hrtime() + (uint64_t)ms * 1000000u;
    while (uv_hrtime() < until_ns)
        continue;
}

static void
work(struct asker *asker)
{
    take_time(asker->cost_ms);
    asker->left--;
    asker->done++;
    if (asker->order)
        asker->order[(*asker->n_order)++] = asker->number;
}

static void
on_step(struct turn *turn)
{
    struct asker *asker = list_entry(turn, struct asker, turn);
    work(asker);
    if (asker->left > 0)
        turn_wait(turn);
}

/* As those do who have several steps to make. */
static void
work_while_it_may(struct asker *asker)
{
    while (asker->left > 0 && turn_now(&asker->turn))
        work(asker);
}

static void
close_loop(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static int
left_of(const struct asker *askers, size_t n)
{
    int left = 0;
    for (size_t i = 0; i < n; i++)
        left += askers[i].left;
    return left;
}

static void
without_a_line_everybody_may(void **state)
{
    (void)state;
    struct asker asker = {.left = STEPS};
    turn_init(&asker.turn, TURN_START, on_step);
    work_while_it_may(&asker);
    assert_int_equal(asker.done, STEPS);
}

static void
what_is_quick_is_done_at_once(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct asker asker = {.left = STEPS};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(turns_join(&loop), 0);
    turn_init(&asker.turn, TURN_START, on_step);
    work_while_it_may(&asker);
    assert_int_equal(asker.done, STEPS);
    turns_leave();
    close_loop(&loop);
}

/* Each step takes a quarter of the time that there is. */
static void
one_after_the_other_has_a_step(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct asker askers[ASKERS] = {{.left = 0}};
    int order[ASKERS * STEPS];
    size_t n_order = 0;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(turns_join(&loop), 0);
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.left = STEPS,
                                   .cost_ms = TURNS_BUDGET_MS / 4,
                                   .order = order,
                                   .n_order = &n_order,
                                   .number = i};
        turn_init(&askers[i].turn, TURN_START, on_step);
        work_while_it_may(&askers[i]);
    }
    size_t at_once = n_order;
    assert_true(at_once >= 1 && at_once <= 4);
    size_t rounds = 0;
    while (left_of(askers, ASKERS) > 0) {
        size_t before = n_order;
        uv_run(&loop, UV_RUN_NOWAIT);
        assert_true(n_order - before >= 1 && n_order - before <= 5);
        rounds++;
    }
    assert_true(rounds >= (ASKERS * STEPS - at_once) / 5);
    for (int i = 0; i < ASKERS; i++) /* then it went round */
        assert_int_equal(order[at_once + (size_t)i], i);
    turns_leave();
    close_loop(&loop);
}

static void
a_step_longer_than_all_time_is_made(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct asker slow = {.left = 3, .cost_ms = 3 * TURNS_BUDGET_MS};
    struct asker quick = {.left = 3};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(turns_join(&loop), 0);
    turn_init(&slow.turn, TURN_START, on_step);
    turn_init(&quick.turn, TURN_HEAR, on_step);
    turn_wait(&slow.turn);
    for (int i = 1; i <= 3; i++) {
        turn_wait(&quick.turn);
        uv_run(&loop, UV_RUN_NOWAIT);
        assert_int_equal(slow.done, i);
        assert_int_equal(quick.left, 0); /* it does not wait behind starts */
        quick.left = 1;
    }
    assert_false(turn_waits(&slow.turn));
    turns_leave();
    close_loop(&loop);
}

static void
who_has_left_has_no_turn(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct asker asker = {.left = 1};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(turns_join(&loop), 0);
    turn_init(&asker.turn, TURN_START, on_step);
    turn_leave(&asker.turn); /* harmless */
    turn_wait(&asker.turn);
    turn_wait(&asker.turn); /* likewise */
    turn_leave(&asker.turn);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(asker.done, 0);
    turns_leave();
    close_loop(&loop);
}

static void
how_many_can_be_started_is_learned(void **state)
{
    (void)state;
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(turns_join(&loop), 0);
    for (int i = 0; i < 20; i++) {
        uint64_t from_ns = uv_hrtime();
        take_time(50);
        turns_started(from_ns);
    }
    assert_true(turns_start_ms() >= 45);
    assert_true(turns_starts_within(500) <= 11);
    assert_true(turns_starts_within(1) == 1);
    turns_leave();
    close_loop(&loop);
}

/* ---- the loop that stands still ---- */

static void
on_long_timer(uv_timer_t *timer)
{
    loop_is_at("counting the stars", "queue sky");
    take_time(120);
    loop_is_at("something short", NULL);
    uv_close((uv_handle_t *)timer, NULL);
}

static void
on_short_timer(uv_timer_t *timer)
{
    loop_is_at("blinking", NULL);
    uv_close((uv_handle_t *)timer, NULL);
}

static void
run_with_timer(uv_timer_cb on_timer, char *said, size_t size)
{
    uv_loop_t loop;
    uv_timer_t timer;
    FILE *captured = tmpfile();
    int before = dup(STDERR_FILENO);
    assert_non_null(captured);
    assert_int_equal(uv_loop_init(&loop), 0);
    loopwatch_open(&loop, 100);
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, on_timer, 200, 0); /* it waits first, which does not count */
    dup2(fileno(captured), STDERR_FILENO);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_run(&loop, UV_RUN_NOWAIT); /* about to wait again */
    dup2(before, STDERR_FILENO);
    close(before);
    rewind(captured);
    said[fread(said, 1, size - 1, captured)] = '\0';
    fclose(captured);
    loopwatch_close();
    close_loop(&loop);
}

static void
a_loop_that_stood_still_says_what_it_was_at(void **state)
{
    (void)state;
    char said[1000];
    run_with_timer(on_long_timer, said, sizeof said);
    assert_non_null(strstr(said, " WARNING jobqd: the event loop was blocked for 0."));
    assert_non_null(strstr(said, " s of it counting the stars (queue sky); it used 0."));
    assert_true(loopwatch_take_longest_ms() >= 120);
    assert_int_equal(loopwatch_take_longest_ms(), 0);
}

static void
a_loop_that_only_waits_says_nothing(void **state)
{
    (void)state;
    char said[1000];
    /* A busy machine may hold us up all the same. */
    for (int i = 0; i < 20; i++) {
        run_with_timer(on_short_timer, said, sizeof said);
        if (said[0] == '\0')
            return;
    }
    fail_msg("%s", said);
}

/* ---- boots ---- */

enum { MANY = 10000 };

struct booter {
    struct boots_asker asker;
    int calls;
};

static void
on_room(struct boots_asker *asker)
{
    list_entry(asker, struct booter, asker)->calls++;
}

static void
others_boot_when_some_are_up(void **state)
{
    (void)state;
    static struct boot boots[MANY];
    struct booter booter = {.calls = 0};
    uv_loop_t loop;
    size_t n = 0;
    assert_int_equal(uv_loop_init(&loop), 0);
    list_init(&booter.asker.link);
    booter.asker.on_room = on_room;
    while (n < MANY && boots_have_room(&booter.asker, &loop))
        boot_begin(&boots[n++]);
    assert_true(n >= 2 && n < MANY);
    assert_false(boots_have_room(&booter.asker, &loop));
    assert_int_equal(booter.calls, 0);
    boot_end(&boots[0]); /* hello */
    assert_int_equal(booter.calls, 1);
    assert_true(boots_have_room(&booter.asker, &loop));
    boot_begin(&boots[0]);
    assert_false(boots_have_room(&booter.asker, &loop));
    /* Those that take their time are not counted for ever. */
    uint64_t limit = uv_hrtime() + (uint64_t)LIMIT_MS * 1000000u;
    while (booter.calls < 2 && uv_hrtime() < limit)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(booter.calls, 2);
    for (size_t i = 0; i < n; i++)
        boot_end(&boots[i]);
    close_loop(&loop);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_line_everybody_may),
        cmocka_unit_test(what_is_quick_is_done_at_once),
        cmocka_unit_test(one_after_the_other_has_a_step),
        cmocka_unit_test(a_step_longer_than_all_time_is_made),
        cmocka_unit_test(who_has_left_has_no_turn),
        cmocka_unit_test(how_many_can_be_started_is_learned),
        cmocka_unit_test(a_loop_that_stood_still_says_what_it_was_at),
        cmocka_unit_test(a_loop_that_only_waits_says_nothing),
        cmocka_unit_test(others_boot_when_some_are_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
