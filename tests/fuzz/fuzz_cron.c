/* fuzz_cron.c: schedules and times.
 *
 * The input is a schedule, or with a line break SCHEDULE\nTIME. Promised: an error has
 * its words and changes nothing; what is read comes, after the time, in full minutes, and
 * never twice, with clocks that are set twice a year, too; a time is written as it is
 * read.
 */
#include "tests/fuzz/fuzz.h"

#include "jobqd/pure/cron.h"
#include "jobqd/pure/rfc3339.h"

/* Clocks that are set by an hour and a half every half a year, or leave out a day. */
static int64_t
restless(void *data, int64_t at_s)
{
    const int64_t half_year_s = INT64_C(182) * 24 * 3600;
    /* Rounded down before 1970, too: clocks are set at full minutes. */
    int64_t half_years =
        (at_s - (at_s % half_year_s + half_year_s) % half_year_s) / half_year_s;
    (void)data;
    if (half_years % 7 == 0)
        return 12 * 3600;
    return half_years % 2 == 0 ? -5400 : 0;
}

static int64_t
no_offset(void *data, int64_t at_s)
{
    (void)data;
    (void)at_s;
    return 0;
}

static void
check_times(const struct cron *cron, int64_t at_ms, cron_offset offset)
{
    for (int i = 0; i < 4; i++) {
        int64_t next_ms = at_ms;
        if (!cron_next(cron, at_ms, offset, NULL, &next_ms)) {
            must(cron->kind == CRON_REBOOT && next_ms == at_ms);
            return;
        }
        must(next_ms > at_ms);
        must(cron->kind == CRON_EVERY || next_ms % 60000 == 0);
        at_ms = next_ms;
    }
}

static void
check_text(int64_t at_ms)
{
    char text[RFC3339_SIZE];
    int64_t again_ms = 0;
    /* Years of four digits, in either zone. */
    if (at_ms < -62135000000000 || at_ms > 253402000000000)
        return;
    rfc3339_print(text, at_ms, 0);
    must(rfc3339_parse(text, &again_ms) && again_ms == at_ms);
    rfc3339_print(text, at_ms, -12600);
    must(rfc3339_parse(text, &again_ms) && again_ms == at_ms);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct cron cron = {.kind = CRON_EVERY, .every_ms = -7};
    jobq_error err = {0};
    int64_t at_ms = 1774746000000;
    char *time = strchr(text, '\n');
    if (time) {
        *time++ = '\0';
        rfc3339_parse(time, &at_ms);
    }
    check_text(at_ms);
    if (cron_parse(text, &cron, &err) == 0) {
        int64_t plain_ms, same_ms;
        check_times(&cron, at_ms, NULL);
        check_times(&cron, at_ms, restless);
        if (cron_next(&cron, at_ms, NULL, NULL, &plain_ms)) {
            must(cron_next(&cron, at_ms, no_offset, NULL, &same_ms));
            must(plain_ms == same_ms);
        }
    } else {
        must(err.message[0] != '\0');
        must(cron.kind == CRON_EVERY && cron.every_ms == -7);
    }
    free(text);
    return 0;
}
