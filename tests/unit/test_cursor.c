/* test_cursor.c: the claim cursor never leaves a job behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "jobqd/pure/cursor.h"

static const int64_t nothing[CURSOR_PRIORITIES];

static void
starts_at_the_front(void **state)
{
    (void)state;
    struct cursor c;
    cursor_init(&c, false);
    for (size_t p = 0; p < CURSOR_PRIORITIES; p++) {
        assert_int_equal(c.after[p], 0);
        assert_int_equal(c.base[p], 0);
    }
}

static void
follows_what_was_claimed(void **state)
{
    (void)state;
    struct cursor c;
    int64_t sent[CURSOR_PRIORITIES] = {0};
    cursor_init(&c, false);
    cursor_claimed(&c, sent, 0, 7);
    cursor_claimed(&c, sent, 0, 5);
    cursor_claimed(&c, sent, 3, 9);
    assert_int_equal(c.after[0], 7);
    assert_int_equal(c.after[3], 9);
    assert_int_equal(c.after[1], 0);
    assert_int_equal(c.base[0], 0);
}

static void
base_waits_for_older_transactions(void **state)
{
    (void)state;
    struct cursor c;
    cursor_init(&c, false);
    cursor_noted(&c, 100, 50,
                 40); /* transaction 40 still runs, it may hold position 99 */
    cursor_looked(&c, nothing);
    assert_int_equal(c.base[0], 0);
    cursor_noted(&c, 100, 0, 49);
    cursor_looked(&c, nothing);
    assert_int_equal(c.base[0], 0);
    cursor_noted(&c, 100, 0, 50); /* all below 50 have ended */
    cursor_looked(&c, nothing);
    assert_int_equal(c.base[0], 100);
    assert_int_equal(c.base[9], 100);
}

static void
base_stops_before_an_available_job(void **state)
{
    (void)state;
    struct cursor c;
    int64_t first[CURSOR_PRIORITIES] = {0};
    cursor_init(&c, false);
    cursor_noted(&c, 100, 50, 40);
    cursor_noted(&c, 100, 0, 60);
    first[2] = 30;
    assert_true(cursor_looked(&c, first));
    assert_int_equal(c.base[2], 29);
    assert_int_equal(c.base[0], 100);
    assert_int_equal(c.after[2], 29);
}

static void
a_late_commit_moves_the_cursor_back(void **state)
{
    (void)state;
    struct cursor c;
    int64_t sent[CURSOR_PRIORITIES], first[CURSOR_PRIORITIES] = {0};
    cursor_init(&c, false);
    memset(sent, 0, sizeof sent);
    cursor_claimed(&c, sent, 0, 500);
    memcpy(sent, c.after, sizeof sent);
    first[0] = 123; /* behind the cursor */
    assert_true(cursor_looked(&c, first));
    cursor_claimed(&c, sent, 0,
                   510); /* the claim of the same round trip went on from 500 */
    assert_int_equal(c.after[0], 122);
}

static void
unsafe_base_forgets_late_commits(void **state)
{
    (void)state;
    struct cursor c;
    cursor_init(&c, true);
    cursor_noted(&c, 100, 50, 40);
    cursor_looked(&c, nothing);
    assert_int_equal(c.base[0], 100);
}

static void
a_full_ring_of_notes_lags_but_stays_right(void **state)
{
    (void)state;
    struct cursor c;
    cursor_init(&c, false);
    for (int64_t i = 1; i <= 3 * CURSOR_NOTES; i++)
        cursor_noted(&c, i * 10, 1000 + i, 1); /* transaction 1 never ends */
    assert_int_equal(c.safe, 0);
    assert_int_equal(c.notes[c.n_notes - 1].position, 3 * CURSOR_NOTES * 10);
    cursor_noted(&c, 3 * CURSOR_NOTES * 10, 0, 5000);
    assert_int_equal(c.safe, 3 * CURSOR_NOTES * 10);
}

/* A small world: transactions take ids and positions, commit late, roll back, lock and
 * give back. Every job must be claimed in the end. Seeds are fixed, so that a failure can
 * be repeated. */
enum { WORLD_JOBS = 400 };

struct world_job {
    int64_t xid, position;
    int priority;
    enum { RUNNING, AVAILABLE, TAKEN, ROLLED_BACK } state;
    int locked; /* skipped by claims for so many more steps */
};

static unsigned seed;

static unsigned
roll(unsigned n)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 16) % n;
}

static size_t
play(bool unsafe)
{
    static struct world_job jobs[WORLD_JOBS];
    struct cursor c;
    int64_t next_xid = 1, next_position = 1;
    size_t made = 0, left = 0;
    cursor_init(&c, unsafe);
    memset(jobs, 0, sizeof jobs);
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < made; i++) {
            if (jobs[i].state == RUNNING && roll(40) == 0)
                jobs[i].state = roll(10) ? AVAILABLE : ROLLED_BACK;
            if (jobs[i].locked > 0)
                jobs[i].locked--;
        }
        if (made < WORLD_JOBS && roll(2)) {
            jobs[made] = (struct world_job){.xid = next_xid++,
                                            .position = next_position++,
                                            .priority = (int)roll(3),
                                            .locked = (int)roll(30)};
            made++;
        }
        int64_t oldest = next_xid, first[CURSOR_PRIORITIES] = {0},
                sent[CURSOR_PRIORITIES];
        for (size_t i = 0; i < made; i++)
            if (jobs[i].state == RUNNING && jobs[i].xid < oldest)
                oldest = jobs[i].xid;
        cursor_noted(&c, next_position - 1, next_position - 1 > c.noted ? next_xid++ : 0,
                     oldest);
        memcpy(sent, c.after, sizeof sent);
        if (roll(5) == 0) {
            for (size_t i = made; i-- > 0;)
                if (jobs[i].state == AVAILABLE &&
                    jobs[i].position > c.base[jobs[i].priority])
                    first[jobs[i].priority] = jobs[i].position;
            cursor_looked(&c, first);
        }
        for (size_t i = 0; i < made; i++)
            if (jobs[i].state == AVAILABLE && !jobs[i].locked &&
                jobs[i].position > sent[jobs[i].priority]) {
                jobs[i].state = TAKEN;
                cursor_claimed(&c, sent, jobs[i].priority, jobs[i].position);
            }
    }
    for (size_t i = 0; i < made; i++)
        left += jobs[i].state == AVAILABLE;
    return left;
}

static void
no_job_is_left_behind(void **state)
{
    (void)state;
    for (unsigned s = 1; s <= 20; s++) {
        seed = s;
        assert_int_equal(play(false), 0);
    }
}

static void
without_the_safe_base_jobs_are_lost(void **state)
{
    (void)state;
    size_t lost = 0;
    for (unsigned s = 1; s <= 20; s++) {
        seed = s;
        lost += play(true);
    }
    assert_true(lost > 0);
}

static void
positions_that_begin_again_are_found(void **state)
{
    (void)state;
    struct cursor c;
    int64_t sent[CURSOR_PRIORITIES] = {0};
    int64_t first[CURSOR_PRIORITIES] = {0};
    cursor_init(&c, false);
    cursor_noted(&c, 100, 50, 49);
    cursor_claimed(&c, sent, 0, 100);
    cursor_noted(&c, 100, 0, 51);
    cursor_looked(&c, nothing);
    assert_int_equal(c.base[0], 100);
    cursor_noted(&c, 1, 0, 60); /* less than was noted */
    assert_int_equal(c.base[0], 0);
    assert_int_equal(c.after[0], 0);
    cursor_noted(&c, 1, 61, 60);
    first[0] = 1;
    assert_true(cursor_looked(&c, first));
    assert_int_equal(c.after[0], 0);
}

static void
a_look_over_the_whole_line_moves_the_base_back(void **state)
{
    (void)state;
    struct cursor c;
    int64_t sent[CURSOR_PRIORITIES] = {0};
    int64_t first[CURSOR_PRIORITIES] = {0};
    cursor_init(&c, false);
    cursor_noted(&c, 100, 50, 49);
    cursor_noted(&c, 100, 0, 50);
    cursor_looked(&c, nothing);
    memcpy(sent, c.after, sizeof sent);
    assert_false(cursor_is_behind(&c, sent));
    first[2] = 7; /* set by hand */
    assert_true(cursor_looked(&c, first));
    assert_true(cursor_is_behind(&c, sent));
    assert_int_equal(c.after[2], 6);
    assert_int_equal(c.base[2], 6);
    assert_int_equal(c.base[0], 100);
    first[2] = 0;
    first[3] = -1; /* below all that are given out */
    first[4] = INT64_MIN;
    memcpy(sent, c.after, sizeof sent);
    assert_true(cursor_looked(&c, first));
    assert_true(cursor_is_behind(&c, sent));
    assert_int_equal(c.after[3], -2);
    assert_int_equal(c.after[4], INT64_MIN);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_at_the_front),
        cmocka_unit_test(follows_what_was_claimed),
        cmocka_unit_test(base_waits_for_older_transactions),
        cmocka_unit_test(base_stops_before_an_available_job),
        cmocka_unit_test(a_late_commit_moves_the_cursor_back),
        cmocka_unit_test(unsafe_base_forgets_late_commits),
        cmocka_unit_test(a_full_ring_of_notes_lags_but_stays_right),
        cmocka_unit_test(no_job_is_left_behind),
        cmocka_unit_test(without_the_safe_base_jobs_are_lost),
        cmocka_unit_test(positions_that_begin_again_are_found),
        cmocka_unit_test(a_look_over_the_whole_line_moves_the_base_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
