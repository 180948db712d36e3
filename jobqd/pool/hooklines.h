/* hooklines.h: what hooks print, and how they end where that is no good end, as lines of
 * the log. Lines that are alike (repeats.h) are shown a few times and counted then: a
 * hook that is broken says the same for each of a thousand failures.
 */
#ifndef JOBQD_HOOKLINES_H
#define JOBQD_HOOKLINES_H

#include <stdint.h>
#include <uv.h>

#include "jobqd/base/log.h"
#include "jobqd/pure/repeats.h"

struct hook_line {
    enum log_level level; /* LOG_LEVEL_INFO: it has printed the text */
    const char *hook;     /* "on_failure" */
    int64_t job;          /* whose end it was told of */
    const char *kind, *queue;
    long pid; /* 0: it was not started */
    const char *text;
};

/* The last one of those that are counted. */
struct hook_sample {
    enum log_level level;
    char hook[16];
    int64_t job;
    char text[256];
};

struct hooklines {
    uv_timer_t timer;
    struct repeats repeats;
    struct hook_sample samples[REPEATS_KEYS];
};

void hooklines_open(struct hooklines *lines, uv_loop_t *loop);

/* All is lent for the call. */
void hooklines_tell(struct hooklines *lines, const struct hook_line *line);

/* Tells the counts that are left. on_closed: gets the timer, whose data is the caller's.
 */
void hooklines_close(struct hooklines *lines, uv_close_cb on_closed);

#endif
