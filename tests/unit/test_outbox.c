/* test_outbox.c: nothing that an attempt left is lost or said twice before the database
 * has confirmed it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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
    outbox_confirmed(&o);
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
    outbox_confirmed(&o);
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

/* One settlement that the database does not take must not hold up the others for ever. */
static void
a_refused_settlement_is_found_and_replaced(void **state)
{
    (void)state;
    struct outbox o;
    struct verdict v = verdict_of(VERDICT_OK);
    outbox_init(&o);
    for (int64_t id = 1; id <= 5; id++) {
        v.result = id == 3 ? "\"bad\"" : "\"good\"";
        v.result_len = strlen(v.result);
        add(&o, id, &v);
    }
    size_t cycles = 0, completed = 0, failed = 0;
    while (!outbox_is_empty(&o) && ++cycles < 50) {
        struct store_cycle cycle = {0};
        assert_int_equal(outbox_take(&o, &cycle), 0);
        bool bad = false;
        for (size_t i = 0; i < cycle.n_settlements; i++)
            bad = bad || (cycle.settlements[i].result &&
                          strcmp(cycle.settlements[i].result, "\"bad\"") == 0);
        if (bad) {
            outbox_returned(&o);
            outbox_suspect(&o, "invalid input syntax for type json");
            continue;
        }
        for (size_t i = 0; i < cycle.n_settlements; i++) {
            completed += cycle.settlements[i].kind == SETTLE_COMPLETED;
            failed += cycle.settlements[i].kind == SETTLE_FAILED;
        }
        outbox_confirmed(&o);
    }
    assert_int_equal(completed, 4);
    assert_int_equal(failed, 1);
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
        cmocka_unit_test(a_refused_settlement_is_found_and_replaced),
        cmocka_unit_test(ids_of_everything_that_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
