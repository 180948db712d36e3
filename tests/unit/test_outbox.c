/* test_outbox.c: nothing that an attempt left is lost or said twice before the database
 * has confirmed it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "jobqd/actors/outbox.h"

static const struct queue_config queue = {
    .backoff = {.formula = JOBQ__BACKOFF_CONSTANT, .base_ms = 1234},
};

static struct verdict
verdict_of(enum verdict_kind kind)
{
    return (struct verdict){.kind = kind,
                            .delay_ms = -1,
                            .exit_code = -1,
                            .run_us = -1,
                            .cpu_us = -1,
                            .max_rss_kb = -1};
}

static void
add(struct outbox *outbox, int64_t id, const struct verdict *verdict)
{
    struct job job = {.id = id, .attempt = 2, .max_attempts = 20};
    assert_int_equal(outbox_add(outbox, &queue, &job, verdict, 0), 0);
}

static int told;
static enum fate last_told;
static bool deaf; /* too much was told already */

static bool
tell(void *owner, const struct settled *what, const struct store_fate *fate, bool first)
{
    (void)owner;
    (void)what;
    (void)first;
    if (deaf)
        return false;
    told++;
    last_told = fate->fate;
    return true;
}

static uint64_t now_ms;

static struct outbox_tally
confirm(struct outbox *outbox, const struct store_fate *fates, size_t n)
{
    return outbox_confirmed(outbox, fates, n, now_ms, tell, NULL);
}

static void
plain_answers_are_acks(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict ok = verdict_of(VERDICT_OK);
    outbox_init(&o);
    add(&o, 7, &ok);
    add(&o, 8, &ok);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_int_equal(cycle.n_acks, 2);
    assert_int_equal(cycle.ack_ids[1], 8);
    assert_int_equal(cycle.ack_attempts[0], 2);
    assert_int_equal(cycle.n_settlements, 0);
    confirm(&o, NULL, 0);
    assert_true(outbox_is_empty(&o));
    outbox_clear(&o);
}

static void
a_lost_cycle_is_sent_again_in_order(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict ok = verdict_of(VERDICT_OK), error = verdict_of(VERDICT_ERROR);
    outbox_init(&o);
    for (int64_t id = 1; id <= 300; id++)
        add(&o, id, id % 3 ? &ok : &error);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    for (int64_t id = 301; id <= 900; id++)
        add(&o, id, id % 3 ? &ok : &error);
    outbox_returned(&o);
    assert_int_equal(outbox_count(&o), 900);
    cycle = (struct store_cycle){0};
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_int_equal(cycle.n_acks + cycle.n_settlements, 900);
    assert_int_equal(cycle.ack_ids[0], 1);
    assert_int_equal(cycle.ack_ids[cycle.n_acks - 1], 899);
    assert_int_equal(cycle.settlements[0].id, 3);
    assert_int_equal(cycle.settlements[cycle.n_settlements - 1].id, 900);
    outbox_clear(&o);
}

static void
a_batch_has_its_bound(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict ok = verdict_of(VERDICT_OK);
    outbox_init(&o);
    for (int64_t id = 1; id <= OUTBOX_BATCH + 10; id++)
        add(&o, id, &ok);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_int_equal(cycle.n_acks, OUTBOX_BATCH);
    outbox_returned(&o);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    confirm(&o, NULL, 0);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_int_equal(cycle.n_acks, 10);
    assert_int_equal(cycle.ack_ids[0], OUTBOX_BATCH + 1);
    outbox_clear(&o);
}

static void
verdicts_become_settlements(void **state)
{
    (void)state;
    static const struct {
        enum verdict_kind verdict;
        enum settlement_kind kind;
        bool entry;
    } rows[] = {
        {VERDICT_ERROR, SETTLE_FAILED, true},
        {VERDICT_SNOOZE, SETTLE_SNOOZED, false},
        {VERDICT_DISCARD, SETTLE_DISCARDED, true},
        {VERDICT_CANCELLED, SETTLE_CANCELLED, false},
        {VERDICT_ABORTED, SETTLE_CANCELLED, true},
        {VERDICT_RELEASED, SETTLE_RELEASED, false},
        {VERDICT_CRASH, SETTLE_CRASHED, true},
        {VERDICT_TIMEOUT, SETTLE_FAILED, true},
        {VERDICT_MEMORY, SETTLE_CRASHED, true},
        {VERDICT_PROTOCOL, SETTLE_FAILED, true},
        {VERDICT_UNHANDLED, SETTLE_FAILED, true},
        {VERDICT_ORPHANED, SETTLE_FAILED, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct outbox o;
        struct store_cycle cycle = {0};
        struct verdict v = verdict_of(rows[i].verdict);
        outbox_init(&o);
        add(&o, 1, &v);
        assert_int_equal(outbox_take(&o, &cycle), 0);
        assert_int_equal(cycle.n_settlements, 1);
        assert_int_equal(cycle.settlements[0].kind, rows[i].kind);
        assert_int_equal(cycle.settlements[0].entry != NULL, rows[i].entry);
        assert_int_equal(cycle.settlements[0].delay_ms,
                         rows[i].verdict == VERDICT_ORPHANED ? 0 : 1234);
        outbox_clear(&o);
    }
}

static void
a_crash_is_told_in_full(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict v = verdict_of(VERDICT_CRASH);
    v.signal = 11;
    v.error = "killed by \"SIGSEGV\"";
    v.output = "last words\n";
    v.run_us = 5000;
    outbox_init(&o);
    add(&o, 1, &v);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_string_equal(
        cycle.settlements[0].entry,
        "{\"kind\":\"crash\",\"error\":\"killed by \\\"SIGSEGV\\\"\","
        "\"signal\":\"SIGSEGV\",\"output\":\"last words\\n\",\"run_ms\":5}");
    outbox_clear(&o);
}

static void
the_handlers_own_delay_counts(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict v = verdict_of(VERDICT_ERROR);
    v.delay_ms = 0;
    outbox_init(&o);
    add(&o, 1, &v);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_int_equal(cycle.settlements[0].delay_ms, 0);
    outbox_clear(&o);
}

/* What the database refused together is asked about one by one, plain completions too;
 * the word on one says nothing of its neighbours. */
static void
a_refused_cycle_is_sent_again_apart(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict ok = verdict_of(VERDICT_OK), error = verdict_of(VERDICT_ERROR);
    outbox_init(&o);
    told = 0;
    for (int64_t id = 1; id <= 4; id++)
        add(&o, id, id % 2 ? &ok : &error);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_false(outbox_apart_due(&o, now_ms));
    outbox_refused(&o);
    assert_int_equal(outbox_pending(&o), 0);
    assert_true(outbox_apart_due(&o, now_ms));
    assert_int_equal(outbox_count(&o), 4);
    cycle = (struct store_cycle){0};
    assert_int_equal(outbox_take_apart(&o, now_ms, &cycle), 0);
    assert_int_equal(cycle.n_acks, 0);
    assert_int_equal(cycle.n_settlements, 4);
    assert_true(cycle.settle_apart);
    assert_int_equal(cycle.settlements[0].id, 1);
    assert_int_equal(cycle.settlements[0].kind, SETTLE_COMPLETED);
    const struct store_fate fates[] = {{.id = 1, .fate = FATE_PARKED, .message = "no"},
                                       {.id = 2, .fate = FATE_ACCEPTED},
                                       {.id = 3, .fate = FATE_ACCEPTED},
                                       {.id = 4, .fate = FATE_REFUSED}};
    struct outbox_tally tally = confirm(&o, fates, 4);
    assert_int_equal(tally.accepted, 3);
    assert_int_equal(tally.refused, 1);
    assert_int_equal(told, 1);
    assert_int_equal(last_told, FATE_PARKED);
    assert_true(outbox_is_empty(&o));
    assert_int_equal(o.bytes, 0);
    outbox_clear(&o);
}

/* A connection that is lost in the middle of that changes nothing of it. */
static void
a_lost_cycle_apart_stays_apart(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict ok = verdict_of(VERDICT_OK);
    outbox_init(&o);
    for (int64_t id = 1; id <= 2 * STORE_MAX_APART; id++)
        add(&o, id, &ok);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    outbox_refused(&o);
    assert_int_equal(outbox_take_apart(&o, now_ms, &cycle), 0);
    assert_int_equal(cycle.n_settlements, STORE_MAX_APART);
    outbox_returned(&o);
    assert_int_equal(outbox_count(&o), 2 * STORE_MAX_APART);
    assert_int_equal(outbox_take_apart(&o, now_ms, &cycle), 0);
    assert_int_equal(cycle.n_settlements, STORE_MAX_APART);
    assert_int_equal(cycle.settlements[0].id, 1);
    outbox_clear(&o);
}

/* A locked row is asked about again soon, one that is stuck ever more rarely; neither is
 * in the way of what comes after it. */
static void
locked_and_stuck_ones_come_again_later(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict error = verdict_of(VERDICT_ERROR);
    uint64_t began_ms = now_ms = 5000;
    outbox_init(&o);
    told = 0;
    add(&o, 7, &error);
    add(&o, 8, &error);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    const struct store_fate both[] = {{.id = 7, .fate = FATE_LOCKED, .message = "pid 5"},
                                      {.id = 8, .fate = FATE_STUCK, .message = "no"}};
    confirm(&o, both, 2);
    assert_int_equal(told, 1); /* of the stuck one; a lock may be gone in a moment */
    assert_int_equal(last_told, FATE_STUCK);
    assert_int_equal(outbox_pending(&o), 0);
    assert_false(outbox_apart_due(&o, now_ms));
    assert_true(outbox_due_in_ms(&o, now_ms) <= 100);
    add(&o, 9, &error);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    assert_int_equal(cycle.n_settlements, 1);
    const struct store_fate nine = {.id = 9, .fate = FATE_ACCEPTED};
    confirm(&o, &nine, 1);
    int tries[2] = {0};
    while (now_ms < began_ms + 20000) {
        now_ms += (uint64_t)outbox_due_in_ms(&o, now_ms);
        assert_int_equal(outbox_take_apart(&o, now_ms, &cycle), 0);
        assert_true(cycle.n_settlements > 0);
        for (size_t i = 0; i < cycle.n_settlements; i++)
            tries[cycle.settlements[i].id == 8]++;
        confirm(&o, both, 2);
    }
    assert_in_range(tries[0], 20, 40); /* each second in the end */
    assert_in_range(tries[1], 3, 6);
    assert_int_equal(told, 2);
    const struct store_fate done[] = {{.id = 7, .fate = FATE_ACCEPTED},
                                      {.id = 8, .fate = FATE_ACCEPTED}};
    while (!outbox_is_empty(&o)) {
        now_ms += (uint64_t)outbox_due_in_ms(&o, now_ms);
        assert_int_equal(outbox_take_apart(&o, now_ms, &cycle), 0);
        confirm(&o, done, 2);
    }
    outbox_clear(&o);
}

/* A log that has told of many others lately is asked again. */
static void
what_was_not_told_is_told_later(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict error = verdict_of(VERDICT_ERROR);
    const struct store_fate fate = {.id = 8, .fate = FATE_STUCK, .message = "no"};
    now_ms = 5000;
    outbox_init(&o);
    told = 0;
    deaf = true;
    add(&o, 8, &error);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    confirm(&o, &fate, 1);
    deaf = false;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(told, i); /* once */
        now_ms += (uint64_t)outbox_due_in_ms(&o, now_ms);
        assert_int_equal(outbox_take_apart(&o, now_ms, &cycle), 0);
        confirm(&o, &fate, 1);
        assert_int_equal(told, 1);
    }
    outbox_clear(&o);
}

/* Results of 1 MiB go out by the eight, one that is larger than a batch by itself. */
static void
a_batch_is_bounded_in_bytes(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    struct verdict v = verdict_of(VERDICT_OK);
    size_t large = 9 * 1024 * 1024, mib = 1024 * 1024;
    char *text = malloc(large);
    assert_non_null(text);
    memset(text, 'x', large);
    v.result = text;
    outbox_init(&o);
    for (int64_t id = 1; id <= 20; id++) {
        v.result_len = id == 20 ? large : mib;
        add(&o, id, &v);
    }
    free(text);
    const size_t expected[] = {8, 8, 3, 1};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(outbox_take(&o, &cycle), 0);
        assert_int_equal(cycle.n_settlements, expected[i]);
        struct store_fate fates[8];
        for (size_t f = 0; f < cycle.n_settlements; f++)
            fates[f] = (struct store_fate){.id = cycle.settlements[f].id};
        confirm(&o, fates, cycle.n_settlements);
    }
    assert_true(outbox_is_empty(&o));
    assert_int_equal(o.bytes, 0);
    outbox_clear(&o);
}

static void
ids_of_everything_that_is_held(void **state)
{
    (void)state;
    struct outbox o;
    struct store_cycle cycle = {0};
    int64_t ids[8], sum = 0;
    struct verdict ok = verdict_of(VERDICT_OK), error = verdict_of(VERDICT_ERROR);
    outbox_init(&o);
    add(&o, 1, &ok);
    add(&o, 2, &error);
    assert_int_equal(outbox_take(&o, &cycle), 0);
    add(&o, 4, &ok);
    add(&o, 8, &error);
    assert_int_equal(outbox_ids(&o, ids), 4);
    for (size_t i = 0; i < 4; i++)
        sum += ids[i];
    assert_int_equal(sum, 15);
    outbox_clear(&o);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_answers_are_acks),
        cmocka_unit_test(a_lost_cycle_is_sent_again_in_order),
        cmocka_unit_test(a_batch_has_its_bound),
        cmocka_unit_test(verdicts_become_settlements),
        cmocka_unit_test(a_crash_is_told_in_full),
        cmocka_unit_test(the_handlers_own_delay_counts),
        cmocka_unit_test(a_refused_cycle_is_sent_again_apart),
        cmocka_unit_test(a_lost_cycle_apart_stays_apart),
        cmocka_unit_test(locked_and_stuck_ones_come_again_later),
        cmocka_unit_test(what_was_not_told_is_told_later),
        cmocka_unit_test(a_batch_is_bounded_in_bytes),
        cmocka_unit_test(ids_of_everything_that_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
