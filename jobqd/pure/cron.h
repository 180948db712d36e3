/* cron.h: the language of schedules, and when one comes next. The same as in SQL
 * (migrations/schema/schedule.sql: _cron_parse, _cron_after), which is what counts at run time; this
 * one is for where there is no database: checking a configuration, `jobqd cron next`.
 *
 * Five fields (minute, hour, day of month, month, day of week) of values, names, *,
 * ranges, steps and lists, L in the fields of days; @hourly and its kin; @every TIME;
 * @reboot. Day of month and day of week: where neither is exactly *, one of them is
 * enough.
 *
 * A slot is the first moment at which a clock on the wall shows its time or a later one.
 * So a time that is skipped comes at the jump, with all others that are; a time that is
 * shown twice comes at its first showing.
 */
#ifndef JOBQD_CRON_H
#define JOBQD_CRON_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stdint.h>

enum cron_kind {
    CRON_FIELDS, /* the masks below; bit n stands for the value n */
    CRON_EVERY,  /* every_ms, whatever clocks show */
    CRON_REBOOT  /* no time: when the first node comes up */
};

struct cron {
    enum cron_kind kind;
    uint64_t minutes;
    uint32_t hours;
    uint32_t days;     /* 1 to 31; bit 0: the month's last one */
    uint32_t months;   /* 1 to 12 */
    uint32_t weekdays; /* 0 (Sunday) to 6; bits 8 to 14: the last one of the month */
    bool either;       /* a day's number or its weekday is enough */
    int64_t every_ms;
};

/* Reads a schedule. JOBQ_EINVAL says which field, what was found and what is allowed, or
 * that it never comes. */
int cron_parse(const char *text, struct cron *out, jobq_error *err);

/* What clocks show: seconds to be added to UTC at a moment, in seconds since 1970. */
typedef int64_t (*cron_offset)(void *data, int64_t at_s);

/* The first slot after a moment, in milliseconds since 1970. offset: NULL for UTC. False:
 * there is none (CRON_REBOOT). */
bool cron_next(const struct cron *cron, int64_t after_ms, cron_offset offset, void *data,
               int64_t *next_ms);

/* Days since 1970-01-01 of a date of our calendar, and back. */
int64_t cron_day_number(int64_t year, int month, int day);
void cron_date(int64_t day_number, int64_t *year, int *month, int *day);

#endif
