/* backoff.h (internal): how long a job waits before its next attempt. Pure. */
#ifndef JOBQ__BACKOFF_H
#define JOBQ__BACKOFF_H

#include <jobq/error.h>
#include <stdint.h>

enum jobq__backoff_formula {
    JOBQ__BACKOFF_OBAN, /* 15 + 2^n seconds, up to 10 % jitter; n scaled to 20 for larger
                           max_attempts */
    JOBQ__BACKOFF_EXPONENTIAL, /* base * 2^(n-1), at most cap */
    JOBQ__BACKOFF_LINEAR,      /* base + (n-1) * step, at most cap */
    JOBQ__BACKOFF_CONSTANT     /* base */
};

struct jobq__backoff {
    enum jobq__backoff_formula formula;
    int64_t base_ms;
    int64_t step_ms;
    int64_t cap_ms;     /* 0: no cap */
    int jitter_percent; /* 0 … 100, added on top */
};

/* Parses `oban`, `exponential(base=15s, cap=24h)`, `linear(base=15s, step=15s, cap=1h)`,
 * `constant(30s)`, each also with jitter=N%. JOBQ_EINVAL names what was wrong and what is
 * allowed. */
int jobq__backoff_parse(const char *text, struct jobq__backoff *out, jobq_error *err);

/* The delay after attempt n (1 …) has failed. random is any 32 random bits (the caller's,
 * so that a test can hold it). Never negative, never overflows. */
int64_t jobq__backoff_ms(const struct jobq__backoff *backoff, int32_t attempt,
                         int32_t max_attempts, uint32_t random);

/* Durations as configuration and commands write them: a number and one of ms, s, m, h, d
 * (several may follow each other: 1h30m). JOBQ_EINVAL on anything else, on overflow and
 * on a missing unit (0 needs none). */
int jobq__duration_parse(const char *text, int64_t *out_ms, jobq_error *err);

#endif
