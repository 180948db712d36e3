/* utf8.h (internal): one well-formed UTF-8 sequence. Pure. */
#ifndef JOBQ__UTF8_H
#define JOBQ__UTF8_H

#include <stddef.h>
#include <string.h>

/* The length (1 … 4) of the well-formed sequence at text, 0 if there is none within len
 * bytes. Overlong forms, surrogates and values above U+10FFFF are not well-formed
 * (Unicode 15, table 3-7). */
static inline size_t
jobq__utf8_len(const unsigned char *text, size_t len)
{
    if (len == 0)
        return 0;
    unsigned char c = text[0];
    if (c < 0x80)
        return 1;
    if (c < 0xC2 || len < 2)
        return 0;
    unsigned char low = 0x80, high = 0xBF;
    size_t n = 2;
    if (c >= 0xE0) {
        n = 3;
        if (c == 0xE0)
            low = 0xA0;
        else if (c == 0xED)
            high = 0x9F;
        else if (c == 0xF0)
            low = 0x90;
        else if (c == 0xF4)
            high = 0x8F;
        if (c >= 0xF0)
            n = 4;
        if (c > 0xF4)
            return 0;
    }
    if (len < n || text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

/* The first byte of a string that belongs to no well-formed sequence; NULL: all do. */
static inline const unsigned char *
jobq__utf8_fault(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    const unsigned char *end = at + strlen(text);
    while (at < end) {
        size_t n = jobq__utf8_len(at, (size_t)(end - at));
        if (n == 0)
            return at;
        at += n;
    }
    return NULL;
}

#endif
