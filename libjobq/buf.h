/* buf.h (internal): a growable byte buffer. Allocation failure is remembered, not
 * returned at each step: check `failed` once before using the bytes. */
#ifndef JOBQ__BUF_H
#define JOBQ__BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jobq__buf {
    char *data; /* NULL until the first byte; not NUL-terminated unless jobq__buf_cstr was
                   called */
    size_t len;
    size_t cap;
    bool failed; /* an allocation failed; later appends do nothing */
};

void jobq__buf_clear(struct jobq__buf *buf); /* frees the memory, back to all zero */
void
jobq__buf_reset(struct jobq__buf *buf); /* len = 0, failed = false; keeps the memory */
void jobq__buf_reserve(struct jobq__buf *buf, size_t more);
void jobq__buf_add(struct jobq__buf *buf, const void *data, size_t len);
void jobq__buf_adds(struct jobq__buf *buf, const char *text);
void jobq__buf_addc(struct jobq__buf *buf, char c);
void jobq__buf_add_i64(struct jobq__buf *buf, int64_t value); /* decimal */
/* text as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD, NUL
 * bytes \u0000 → U+FFFD (jsonb cannot hold \u0000). */
void jobq__buf_add_json_string(struct jobq__buf *buf, const char *text, size_t len);
const char *
jobq__buf_cstr(struct jobq__buf *buf); /* NUL-terminates (not counted); NULL if failed */

#endif
