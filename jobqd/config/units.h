/* units.h: numbers with units, as the configuration writes them: 1h30m, 64MiB. Knows no
 * options. Durations are read by jobq__duration_parse, because the library reads them, too.
 */
#ifndef JOBQD_UNITS_H
#define JOBQD_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#include "libjobq/buf.h"

/* In milliseconds. */
#define SECOND ((int64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
/* In bytes. */
#define KIB ((int64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* Reads a decimal integer, optionally with a minus sign; *rest is what follows it. False:
 * text does not begin with a number, or the number does not fit. */
bool units_take_number(const char *text, int64_t *out, const char **rest);

/* Reads a size in bytes, or with one of KiB, MiB and GiB. False: it is none. */
bool units_parse_bytes(const char *text, int64_t *out);

/* Append a value that is not negative, in the largest units that leave no fraction. */
void units_put_duration(struct jobq__buf *buf, int64_t ms);
void units_put_bytes(struct jobq__buf *buf, int64_t bytes);

#endif
