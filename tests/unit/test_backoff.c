/* Retry delays and durations: each formula, each bound, each wrong text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "libjobq/backoff.h"

static int64_t
delay(const char *formula, int32_t attempt, int32_t max_attempts, uint32_t random)
{
    struct jobq__backoff backoff;
    jobq_error err;
    if (jobq__backoff_parse(formula, &backoff, &err) != 0)
        fail_msg("%s: %s", formula, err.message);
    return jobq__backoff_ms(&backoff, attempt, max_attempts, random);
}

static void
follows_oban(void **state)
{
    (void)state;
    assert_int_equal(delay("oban", 1, 20, 0), 17000);
    assert_int_equal(delay("oban", 2, 20, 0), 19000);
    assert_int_equal(delay("oban", 10, 20, 0), 1039000);
    assert_int_equal(delay("oban", 20, 20, 0), 1048591000);
    /* up to 10 % on top */
    assert_in_range(delay("oban", 1, 20, UINT32_MAX), 18690, 18700);
    assert_int_equal(delay("oban(jitter=0%)", 1, 20, UINT32_MAX), 17000);
    /* 50 of 100 attempts wait as long as 10 of 20 */
    assert_int_equal(delay("oban", 50, 100, 0), 1039000);
    assert_int_equal(delay("oban", 1, 100, 0), 16000);
    /* a hand-raised attempt beyond 20 does not grow for ever */
    assert_int_equal(delay("oban", 1000, 20, 0), 1048591000);
}

static void
follows_formulas(void **state)
{
    (void)state;
    assert_int_equal(delay("exponential(base=15s, cap=24h)", 1, 20, 0), 15000);
    assert_int_equal(delay("exponential(base=15s, cap=24h)", 3, 20, 0), 60000);
    assert_int_equal(delay("exponential(base=15s, cap=24h)", 30, 20, 0), 86400000);
    assert_int_equal(delay(" exponential ", 2, 20, 0), 30000);
    assert_int_equal(delay("exponential(base=1d,cap=36500d)", INT32_MAX, 20, 0),
                     INT64_C(36500) * 86400000);
    assert_int_equal(delay("linear(base=10s, step=5s, cap=1m)", 1, 20, 0), 10000);
    assert_int_equal(delay("linear(base=10s, step=5s, cap=1m)", 3, 20, 0), 20000);
    assert_int_equal(delay("linear(base=10s, step=5s, cap=1m)", INT32_MAX, 20, 0), 60000);
    assert_int_equal(delay("constant(30s)", 9, 20, 0), 30000);
    assert_int_equal(delay("constant(base=30s, jitter=0%)", 9, 20, UINT32_MAX), 30000);
    assert_int_equal(delay("constant(0)", 9, 20, UINT32_MAX), 0);
    assert_in_range(delay("constant(100s, jitter=100%)", 1, 20, UINT32_MAX), 199990,
                    200000);
    assert_in_range(delay("constant(100s, jitter=50%)", 1, 20, UINT32_MAX / 2), 124990,
                    125000);
    assert_in_range(delay("constant(36500d, jitter=100%)", 1, 20, UINT32_MAX), 1,
                    INT64_C(36500) * 2 * 86400000);
}

static void
refuses_wrong_formulas(void **state)
{
    (void)state;
#define ALLOWED                                                                          \
    "allowed are oban, exponential(base=15s, cap=24h), linear(base=15s, step=15s, "      \
    "cap=24h) and constant(30s), each also with jitter=10%"
#define NO_DURATION                                                                      \
    " is not a duration: write whole numbers with ms, s, m, h or d, such as 500ms, 15s " \
    "or 1h30m, at most 36500d"
    static const struct {
        const char *text;
        const char *message;
    } rows[] = {
        {"", "backoff: unknown formula \"\"; " ALLOWED},
        {"cubic", "backoff: unknown formula \"cubic\"; " ALLOWED},
        {"Oban", "backoff: unknown formula \"Oban\"; " ALLOWED},
        {"oban(base=1s)", "backoff: unexpected \"base=1s\"; " ALLOWED},
        {"exponential(step=1s)", "backoff: unexpected \"step=1s\"; " ALLOWED},
        {"exponential(15s)", "backoff: unexpected \"15s\"; " ALLOWED},
        {"exponential()", "backoff: unexpected \"\"; " ALLOWED},
        {"exponential(base=1s,)", "backoff: unexpected \"\"; " ALLOWED},
        {"exponential(base=15)", "\"15\"" NO_DURATION},
        {"exponential(base=)", "\"\"" NO_DURATION},
        {"exponential(base=15s",
         "backoff: \"exponential(base=15s\" is missing its closing )"},
        {"linear(base=15s) x",
         "backoff: \"linear(base=15s) x\" is missing its closing )"},
        {"constant", "backoff: constant needs a delay, such as constant(30s)"},
        {"constant(jitter=1%)", "backoff: constant needs a delay, such as constant(30s)"},
        {"constant(cap=1s)", "backoff: unexpected \"cap=1s\"; " ALLOWED},
        {"constant(-1s)", "\"-1s\"" NO_DURATION},
        {"oban(jitter=101%)", "backoff: jitter must be 0% to 100%, got \"101%\""},
        {"oban(jitter=10)", "backoff: jitter must be 0% to 100%, got \"10\""},
        {"oban(jitter=%)", "backoff: jitter must be 0% to 100%, got \"%\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct jobq__backoff backoff = {.base_ms = 77};
        jobq_error err = {0};
        assert_int_equal(jobq__backoff_parse(rows[i].text, &backoff, &err), JOBQ_EINVAL);
        assert_string_equal(err.message, rows[i].message);
        assert_int_equal(backoff.base_ms, 77);
    }
}

static void
reads_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } right[] = {{"0", 0},           {"0s", 0},
                 {"1ms", 1},         {"15s", 15000},
                 {"1h30m", 5400000}, {"2d", 172800000},
                 {"1s500ms", 1500},  {"36500d", INT64_C(3153600000000)}};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        int64_t ms = -1;
        assert_int_equal(jobq__duration_parse(right[i].text, &ms, NULL), 0);
        assert_int_equal(ms, right[i].ms);
    }
    static const char *const wrong[] = {
        "",          "1",    "-1s",  "1.5s",   "s",
        "1 s",       " 1s",  "1s ",  "1S",     "1w",
        "1sm",       "00",   "1h30", "36501d", "99999999999999999999s",
        "36500d1ms", "0x1s", "1s1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t ms = -1;
        jobq_error err = {0};
        assert_int_equal(jobq__duration_parse(wrong[i], &ms, &err), JOBQ_EINVAL);
        assert_int_equal(ms, -1);
        assert_int_equal(err.message[0], '"');
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_oban),
        cmocka_unit_test(follows_formulas),
        cmocka_unit_test(refuses_wrong_formulas),
        cmocka_unit_test(reads_durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
