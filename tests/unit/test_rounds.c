/* test_rounds.c: the machine that the housekeeping actors share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "jobqd/actors/rounds.h"

enum { FIRST_MS = 5, MAX_MS = 15 };

struct world {
    uv_loop_t loop;
    struct rounds rounds;
    int asked;
    bool refuses; /* ask sends nothing */
    bool stops;   /* ask stops its own rounds, and sends nothing */
    bool closed;
};

static bool
on_ask(void *owner)
{
    struct world *world = owner;
    world->asked++;
    if (world->stops)
        rounds_stop(&world->rounds);
    return !world->refuses && !world->stops;
}

static void
on_closed(void *owner)
{
    struct world *world = owner;
    world->closed = true;
}

static int
setup(void **state)
{
    static struct world world;
    memset(&world, 0, sizeof world);
    uv_loop_init(&world.loop);
    rounds_init(&world.rounds, &(struct rounds_options){.loop = &world.loop,
                                                        .ask = on_ask,
                                                        .owner = &world,
                                                        .idle_ms = FIRST_MS,
                                                        .retry_first_ms = FIRST_MS,
                                                        .retry_most_ms = MAX_MS});
    *state = &world;
    return 0;
}

static int
teardown(void **state)
{
    struct world *world = *state;
    rounds_close(&world->rounds, on_closed);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_true(world->closed);
    return uv_loop_close(&world->loop);
}

/* Until it has asked so many times; each time the loop waits for its timer. */
static void
run_until_asked(struct world *world, int n)
{
    for (int i = 0; i < 1000 && world->asked < n; i++)
        uv_run(&world->loop, UV_RUN_ONCE);
    assert_int_equal(world->asked, n);
}

static void
asks_once_it_is_started(void **state)
{
    struct world *world = *state;
    uv_run(&world->loop, UV_RUN_NOWAIT);
    assert_int_equal(world->asked, 0);
    rounds_start(&world->rounds);
    run_until_asked(world, 1);
    assert_int_equal(world->rounds.state, ROUNDS_ASKING);
}

static void
sleeps_for_as_long_as_the_answer_says(void **state)
{
    struct world *world = *state;
    rounds_start(&world->rounds);
    run_until_asked(world, 1);
    assert_true(rounds_take(&world->rounds));
    rounds_answered(&world->rounds, ROUNDS_NEVER);
    assert_false(uv_is_active((uv_handle_t *)&world->rounds.timer));
    rounds_poke(&world->rounds);
    assert_int_equal(world->asked, 2);
    assert_true(rounds_take(&world->rounds));
    rounds_answered(&world->rounds, 1);
    run_until_asked(world, 3);
}

static void
a_poke_while_it_asks_makes_it_ask_again_at_once(void **state)
{
    struct world *world = *state;
    rounds_start(&world->rounds);
    run_until_asked(world, 1);
    rounds_poke(&world->rounds);
    rounds_poke(&world->rounds);
    assert_int_equal(world->asked, 1);
    assert_true(rounds_take(&world->rounds));
    rounds_answered(&world->rounds, ROUNDS_NEVER);
    run_until_asked(world, 2);
    assert_true(rounds_take(&world->rounds));
    rounds_answered(&world->rounds, ROUNDS_NEVER);
    assert_int_equal(world->rounds.state, ROUNDS_SLEEPING);
}

static void
a_poke_before_a_lost_answer_is_not_lost(void **state)
{
    struct world *world = *state;
    rounds_start(&world->rounds);
    run_until_asked(world, 1);
    rounds_poke_now(&world->rounds); /* the connection is back ... */
    assert_true(rounds_take(&world->rounds));
    rounds_sleep(&world->rounds,
                 ROUNDS_NEVER); /* ... and what was asked before is lost */
    run_until_asked(world, 2);
    assert_true(rounds_take(&world->rounds));
    rounds_sleep(&world->rounds, ROUNDS_NEVER);
    assert_false(uv_is_active((uv_handle_t *)&world->rounds.timer));
}

static void
the_pause_after_refusals_doubles_up_to_its_most(void **state)
{
    struct world *world = *state;
    const int64_t expected[] = {5, 10, 15, 15};
    rounds_start(&world->rounds);
    for (int i = 0; i < 4; i++) {
        run_until_asked(world, i + 1);
        assert_true(rounds_take(&world->rounds));
        assert_int_equal(rounds_refused(&world->rounds), expected[i]);
    }
    rounds_poke(&world->rounds);
    assert_int_equal(world->asked, 4); /* it waits */
    rounds_poke_now(&world->rounds);
    assert_int_equal(world->asked, 5);
    assert_true(rounds_take(&world->rounds));
    rounds_answered(&world->rounds, ROUNDS_NEVER);
    rounds_poke(&world->rounds);
    assert_int_equal(world->asked, 6);
    assert_true(rounds_take(&world->rounds));
    assert_int_equal(rounds_refused(&world->rounds), 5);
}

static void
who_stops_while_it_asks_stays_off(void **state)
{
    struct world *world = *state;
    world->stops = true;
    rounds_start(&world->rounds);
    run_until_asked(world, 1);
    assert_int_equal(world->rounds.state, ROUNDS_OFF);
    assert_false(uv_is_active((uv_handle_t *)&world->rounds.timer));
    world->stops = false;
    rounds_start(&world->rounds);
    run_until_asked(world, 2);
    assert_true(rounds_take(&world->rounds));
}

static void
where_nothing_was_sent_it_tries_again(void **state)
{
    struct world *world = *state;
    world->refuses = true;
    rounds_start(&world->rounds);
    run_until_asked(world, 3);
    assert_int_equal(world->rounds.state, ROUNDS_SLEEPING);
}

static void
an_answer_after_the_stop_does_not_count(void **state)
{
    struct world *world = *state;
    rounds_start(&world->rounds);
    run_until_asked(world, 1);
    rounds_stop(&world->rounds);
    rounds_poke(&world->rounds);
    assert_false(rounds_take(&world->rounds));
    assert_int_equal(world->rounds.state, ROUNDS_OFF);
    rounds_poke(&world->rounds);
    assert_int_equal(world->asked, 1);
    rounds_start(&world->rounds);
    run_until_asked(world, 2);
}

static void
started_again_before_the_answer_it_goes_on(void **state)
{
    struct world *world = *state;
    rounds_start(&world->rounds);
    run_until_asked(world, 1);
    rounds_stop(&world->rounds);
    rounds_start(&world->rounds);
    assert_true(rounds_take(&world->rounds));
    rounds_answered(&world->rounds, 0);
    run_until_asked(world, 2);
    rounds_stop(&world->rounds);
    rounds_stop(&world->rounds);
    assert_false(rounds_take(&world->rounds));
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(asks_once_it_is_started),
        TEST(sleeps_for_as_long_as_the_answer_says),
        TEST(a_poke_while_it_asks_makes_it_ask_again_at_once),
        TEST(a_poke_before_a_lost_answer_is_not_lost),
        TEST(the_pause_after_refusals_doubles_up_to_its_most),
        TEST(where_nothing_was_sent_it_tries_again),
        TEST(who_stops_while_it_asks_stays_off),
        TEST(an_answer_after_the_stop_does_not_count),
        TEST(started_again_before_the_answer_it_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
