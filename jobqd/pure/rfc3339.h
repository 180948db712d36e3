/* rfc3339.h: moments as text, 2026-03-29T03:00:00+02:00. */
#ifndef JOBQD_RFC3339_H
#define JOBQD_RFC3339_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RFC3339_SIZE = 48 };

/* 9999-12-31T23:59:59.999Z: a later one has no such text. */
#define RFC3339_LAST_MS INT64_C(253402300799999)

/* Milliseconds since 1970 of a time with its offset (Z, +02:00), of the years 1 to 9999;
 * the seconds and their fraction may be missing, what is finer than a millisecond does
 * not count, a blank may stand for the T. False: it is no such time. */
bool rfc3339_parse(const char *text, int64_t *out_ms);

/* A moment as a clock shows it that is offset_s before UTC. In UTC (Z) if the offset is
 * none, or not of whole minutes. Milliseconds only where there are any. */
void rfc3339_print(char out[RFC3339_SIZE], int64_t at_ms, int64_t offset_s);

#endif
