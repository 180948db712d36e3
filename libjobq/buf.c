/* buf.c: a growable byte buffer for frames, JSON and binary parameters. Knows nothing of
 * what is put into it, except how text becomes a JSON string. */
#include "libjobq/buf.h"

#include <stdlib.h>
#include <string.h>

#include "libjobq/utf8.h"

void
jobq__buf_clear(struct jobq__buf *buf)
{
    free(buf->data);
    *buf = (struct jobq__buf){0};
}

void
jobq__buf_reset(struct jobq__buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

void
jobq__buf_reserve(struct jobq__buf *buf, size_t more)
{
    if (buf->failed || more <= buf->cap - buf->len)
        return;
    if (more > SIZE_MAX / 2 - buf->len) {
        buf->failed = true;
        return;
    }
    size_t cap = buf->cap < 128 ? 256 : buf->cap * 2;
    if (cap < buf->len + more)
        cap = buf->len + more;
    char *data = realloc(buf->data, cap);
    if (!data) {
        buf->failed = true;
        return;
    }
    buf->data = data;
    buf->cap = cap;
}

void
jobq__buf_add(struct jobq__buf *buf, const void *data, size_t len)
{
    if (len == 0)
        return;
    jobq__buf_reserve(buf, len);
    if (buf->failed)
        return;
    memcpy(buf->data + buf->len, data, len);
    buf->len += len;
}

void
jobq__buf_adds(struct jobq__buf *buf, const char *text)
{
    jobq__buf_add(buf, text, strlen(text));
}

void
jobq__buf_addc(struct jobq__buf *buf, char c)
{
    jobq__buf_add(buf, &c, 1);
}

void
jobq__buf_add_i64(struct jobq__buf *buf, int64_t value)
{
    char digits[24];
    char *at = digits + sizeof digits;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        *--at = '-';
    jobq__buf_add(buf, at, (size_t)(digits + sizeof digits - at));
}

/* A byte that cannot stand in a JSON string as it is. */
static void
add_escaped(struct jobq__buf *buf, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    switch (c) {
    case '"':
        jobq__buf_adds(buf, "\\\"");
        return;
    case '\\':
        jobq__buf_adds(buf, "\\\\");
        return;
    case '\n':
        jobq__buf_adds(buf, "\\n");
        return;
    case '\r':
        jobq__buf_adds(buf, "\\r");
        return;
    case '\t':
        jobq__buf_adds(buf, "\\t");
        return;
    }
    char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    jobq__buf_add(buf, escape, sizeof escape);
}

void
jobq__buf_add_json_string(struct jobq__buf *buf, const char *text, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)text;
    jobq__buf_reserve(buf, len + 2);
    jobq__buf_addc(buf, '"');
    size_t plain = 0; /* start of the bytes that can be copied as they are */
    for (size_t i = 0; i < len;) {
        size_t n = jobq__utf8_len(bytes + i, len - i);
        if (n > 1 ||
            (n == 1 && bytes[i] >= 0x20 && bytes[i] != '"' && bytes[i] != '\\')) {
            i += n;
            continue;
        }
        jobq__buf_add(buf, text + plain, i - plain);
        if (n == 0 || bytes[i] == 0)
            jobq__buf_adds(buf, "\xEF\xBF\xBD");
        else
            add_escaped(buf, bytes[i]);
        plain = ++i;
    }
    jobq__buf_add(buf, text + plain, len - plain);
    jobq__buf_addc(buf, '"');
}

const char *
jobq__buf_cstr(struct jobq__buf *buf)
{
    jobq__buf_reserve(buf, 1);
    if (buf->failed)
        return NULL;
    buf->data[buf->len] = '\0';
    return buf->data;
}
