/* digits.h: how long the numbers of a JSON text are.
 *
 * jsonb keeps 1e131071 in 8 bytes and writes 131,072 digits whenever it is read. So a
 * number has a bound of its own, whatever its text is like: as _long_number in
 * migrations/schema/values.sql, which looks at args and meta.
 */
#ifndef JOBQD_PURE_DIGITS_H
#define JOBQD_PURE_DIGITS_H

#include <stdbool.h>
#include <stddef.h>

enum { DIGITS_MAX = 4000 }; /* before a number's point, and behind it */

/* Whether a number in the text, which is JSON, is longer than that when it is written
 * without an exponent. */
bool digits_too_many(const char *json, size_t len);

#endif
