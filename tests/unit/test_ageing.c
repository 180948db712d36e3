/* test_ageing.c: where waiting counts, which job is claimed first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "jobqd/pure/ageing.h"

static const int64_t front[CURSOR_PRIORITIES];

/* Which segment a job is in: what has the smaller number goes first. */
static int
place(const struct ageing *a, const int64_t *after, int priority, int64_t position)
{
    struct segment segments[AGEING_SEGMENTS];
    size_t n = ageing_segments(a, after, segments);
    int found = -1;
    for (size_t i = 0; i < n; i++)
        if (segments[i].priority == priority && position > segments[i].after &&
            position <= segments[i].upto) {
            assert_int_equal(found, -1); /* in one alone */
            found = (int)i;
        }
    assert_int_not_equal(found, -1);
    return found;
}

static void
without_a_past_the_priority_counts(void **state)
{
    (void)state;
    struct ageing a;
    struct segment out[AGEING_SEGMENTS];
    ageing_init(&a, 1000);
    assert_int_equal(ageing_segments(&a, front, out), CURSOR_PRIORITIES);
    ageing_note(&a, 5500, 100);
    assert_int_equal(ageing_segments(&a, front, out), CURSOR_PRIORITIES);
    for (int p = 0; p < CURSOR_PRIORITIES; p++) {
        assert_int_equal(out[p].priority, p);
        assert_int_equal(out[p].after, 0);
        assert_true(out[p].upto == INT64_MAX);
    }
}

/* One position a step, so position and step are one. */
static void
notes_for_each_step(struct ageing *a, int64_t steps)
{
    for (int64_t i = 0; i < steps; i++)
        ageing_note(a, i * 1000, i);
}

static void
each_step_of_waiting_is_one_priority(void **state)
{
    (void)state;
    for (int p = 1; p < CURSOR_PRIORITIES; p++)
        for (int64_t waited = 0; waited < 12; waited++) {
            struct ageing a;
            int64_t after[CURSOR_PRIORITIES];
            for (int i = 0; i < CURSOR_PRIORITIES; i++)
                after[i] = 19;
            after[p] -= waited;
            ageing_init(&a, 1000);
            notes_for_each_step(&a, 20);
            /* Position 20 is fresh, of step 19. */
            int old = place(&a, after, p, 20 - waited), fresh = place(&a, after, 0, 20);
            assert_int_equal(old<fresh, waited> p);
        }
}

static void
fresh_ones_go_by_their_priority(void **state)
{
    (void)state;
    struct ageing a;
    ageing_init(&a, 1000);
    notes_for_each_step(&a, 20);
    for (int p = 1; p < CURSOR_PRIORITIES; p++)
        assert_true(place(&a, front, p - 1, 20) < place(&a, front, p, 20));
}

static void
only_what_lies_beyond_the_cursors_is_walked(void **state)
{
    (void)state;
    struct ageing a;
    struct segment out[AGEING_SEGMENTS];
    int64_t after[CURSOR_PRIORITIES];
    for (int p = 0; p < CURSOR_PRIORITIES; p++)
        after[p] = 100;
    ageing_init(&a, 1000);
    notes_for_each_step(&a, 20);
    assert_int_equal(ageing_segments(&a, after, out), CURSOR_PRIORITIES);
    after[9] = 3; /* one line lags behind */
    size_t n = ageing_segments(&a, after, out);
    assert_int_equal(out[0].priority, 9);
    assert_int_equal(out[0].after, 3);
    assert_int_equal(out[0].upto, 10); /* by then fresh ones of 0 are as good */
    assert_true(n <= 2 * CURSOR_PRIORITIES);
}

/* What the cursor relies on: each line in the order of positions, without a gap. */
static void
a_line_is_walked_in_order_and_whole(void **state)
{
    (void)state;
    srand(1);
    for (int round = 0; round < 2000; round++) {
        struct ageing a;
        struct segment out[AGEING_SEGMENTS];
        int64_t after[CURSOR_PRIORITIES], position = 0, now = 0;
        ageing_init(&a, 1 + rand() % 5000);
        for (int i = rand() % 400; i > 0; i--)
            ageing_note(&a, now += rand() % 3000, position += rand() % 4);
        for (int p = 0; p < CURSOR_PRIORITIES; p++)
            after[p] = position > 0 ? rand() % (position + 2) : 0;
        size_t n = ageing_segments(&a, after, out);
        assert_true(n >= CURSOR_PRIORITIES && n <= AGEING_SEGMENTS);
        for (int p = 0; p < CURSOR_PRIORITIES; p++) {
            int64_t at = after[p];
            for (size_t i = 0; i < n; i++)
                if (out[i].priority == p) {
                    assert_true(out[i].after == at && out[i].upto > at);
                    at = out[i].upto;
                }
            assert_true(at == INT64_MAX);
        }
    }
}

/* A queue that gets twice as many jobs of priority 0 as it can do, for ever, and one job
 * of each other priority: each of these runs, whatever the backlog, and none before its
 * time. */
static void
nobody_is_starved_by_a_backlog_that_grows(void **state)
{
    (void)state;
    enum { STEP = 1000, TICK = 100, OTHERS = 500 };
    struct ageing a;
    int64_t after[CURSOR_PRIORITIES] = {0}, position = 0, others = 0, now = 0;
    int64_t others_done = 0;
    static int64_t line_of_0[400000];
    size_t n_0 = 0, at_0 = 0;
    bool waits[CURSOR_PRIORITIES] = {false};
    int64_t where[CURSOR_PRIORITIES] = {0};
    ageing_init(&a, STEP);
    for (int tick = 0; tick < 100000 && others_done < 9; tick++, now += TICK) {
        ageing_note(&a, now, position);
        line_of_0[n_0++] = ++position;
        line_of_0[n_0++] = ++position;
        if (tick == OTHERS)
            for (int p = 1; p < CURSOR_PRIORITIES; p++) {
                waits[p] = true;
                where[p] = ++position;
                others++;
            }
        /* The worker takes the first one of the walk. */
        struct segment out[AGEING_SEGMENTS];
        size_t n = ageing_segments(&a, after, out);
        for (size_t i = 0; i < n; i++) {
            int p = out[i].priority;
            if (p == 0 && line_of_0[at_0] <= out[i].upto) {
                after[0] = line_of_0[at_0++];
                break;
            }
            if (p > 0 && waits[p] && where[p] <= out[i].upto) {
                after[p] = where[p];
                waits[p] = false;
                others_done++;
                break;
            }
        }
    }
    assert_int_equal(others, 9);
    assert_int_equal(others_done, 9);
}

static void
old_times_are_thinned_out_and_keep_their_order(void **state)
{
    (void)state;
    struct ageing a;
    ageing_init(&a, 1000);
    notes_for_each_step(&a, 10000);
    assert_true(a.n <= AGEING_SAMPLES);
    assert_int_equal(a.samples[0].step, 0);
    assert_int_equal(a.samples[a.n - 1].step, 9999);
    for (size_t i = 1; i < a.n; i++) {
        assert_true(a.samples[i - 1].step < a.samples[i].step);
        assert_true(a.samples[i - 1].position < a.samples[i].position);
    }
    assert_int_equal(a.samples[a.n - 20].step, 9980); /* the newest are all there */
    assert_true(place(&a, front, 9, 9000) < place(&a, front, 0, 10000));
}

static void
while_nobody_comes_time_goes_on(void **state)
{
    (void)state;
    struct ageing a;
    ageing_init(&a, 1000);
    ageing_note(&a, 0, 5);
    ageing_note(&a, 400, 5);
    for (int64_t ms = 1000; ms < 50000; ms += 500)
        ageing_note(&a, ms, 5);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.samples[0].step, 49);
    ageing_note(&a, 50000, 6);
    assert_int_equal(a.n, 2);
}

static void
positions_that_begin_again_begin_again(void **state)
{
    (void)state;
    struct ageing a;
    ageing_init(&a, 1000);
    notes_for_each_step(&a, 20);
    ageing_note(&a, 21000, 3);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.samples[0].position, 3);
}

static void
what_waited_before_us_is_as_old_as_it_is(void **state)
{
    (void)state;
    const struct ageing_head heads[] = {
        {.position = 50, .age_ms = 20000},
        {.position = 60, .age_ms = 8000},
        {.position = 70, .age_ms = 9000}, /* it was given back: as its neighbours */
        {.position = 130, .age_ms = 0},   /* came when we knew already */
    };
    struct ageing a;
    ageing_init(&a, 1000);
    ageing_note(&a, 3200, 120);
    ageing_recall(&a, 3400, heads, 4);
    assert_int_equal(a.n, 3);
    assert_int_equal(a.samples[0].step, -17);
    assert_int_equal(a.samples[0].position, 49);
    assert_int_equal(a.samples[1].step, -5);
    assert_int_equal(a.samples[1].position, 59);
    assert_int_equal(a.samples[2].step, 3);
    assert_true(place(&a, front, 9, 50) < place(&a, front, 0, 125));
    assert_true(place(&a, front, 7, 60) < place(&a, front, 0, 125));
    assert_true(place(&a, front, 9, 60) > place(&a, front, 0, 125));
}

static void
off_is_off(void **state)
{
    (void)state;
    const struct ageing_head head = {.position = 5, .age_ms = 1000};
    struct ageing a;
    ageing_init(&a, 0);
    ageing_note(&a, 1000, 10);
    ageing_recall(&a, 1000, &head, 1);
    assert_int_equal(a.n, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_past_the_priority_counts),
        cmocka_unit_test(each_step_of_waiting_is_one_priority),
        cmocka_unit_test(fresh_ones_go_by_their_priority),
        cmocka_unit_test(only_what_lies_beyond_the_cursors_is_walked),
        cmocka_unit_test(a_line_is_walked_in_order_and_whole),
        cmocka_unit_test(nobody_is_starved_by_a_backlog_that_grows),
        cmocka_unit_test(old_times_are_thinned_out_and_keep_their_order),
        cmocka_unit_test(while_nobody_comes_time_goes_on),
        cmocka_unit_test(positions_that_begin_again_begin_again),
        cmocka_unit_test(what_waited_before_us_is_as_old_as_it_is),
        cmocka_unit_test(off_is_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
