/* escape.c: see escape.h. */
#include "jobqd/base/escape.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "libjobq/utf8.h"

/* How what is not shown is written. */
enum form { FORM_TEXT, FORM_JSON_STRING, FORM_JSON };

/* Sorted by their number. */
static const struct {
    uint32_t first, last;
} hidden[] = {
    {0x00, 0x1f},       /* C0 */
    {0x7f, 0x9f},       /* DEL, C1 */
    {0xad, 0xad},       /* a hyphen that is not shown */
    {0x61c, 0x61c},     /* Arabic letter mark */
    {0x180e, 0x180e},   /* a separator without a width */
    {0x200b, 0x200f},   /* without a width; marks of direction */
    {0x2028, 0x202e},   /* line, paragraph; embedding and override of direction */
    {0x2060, 0x206f},   /* without a width; isolates; deprecated formats */
    {0xfeff, 0xfeff},   /* byte order mark */
    {0xfff9, 0xfffb},   /* annotations */
    {0xe0000, 0xe007f}, /* tags */
};

static bool
is_hidden(uint32_t c)
{
    size_t n = sizeof hidden / sizeof hidden[0];
    for (size_t i = 0; i < n && hidden[i].first <= c; i++)
        if (c <= hidden[i].last)
            return true;
    return false;
}

/* Of a well-formed sequence. */
static uint32_t
decode(const unsigned char *at, size_t n)
{
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = at[0] & masks[n];
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (at[i] & 0x3fu);
    return c;
}

/* ---- what is put in a character's place ---- */

static void
put_byte(struct jobq__buf *out, enum form form, unsigned char byte)
{
    char text[8];
    snprintf(text, sizeof text, "%s\\x%02x", form == FORM_TEXT ? "" : "\\", byte);
    jobq__buf_adds(out, text);
}

static void
put_unit(struct jobq__buf *out, uint32_t unit)
{
    char text[16];
    snprintf(text, sizeof text, "\\u%04x", (unsigned)unit);
    jobq__buf_adds(out, text);
}

static void
put_character(struct jobq__buf *out, enum form form, uint32_t c)
{
    static const char *const letters[] = {['\n'] = "\\n", ['\t'] = "\\t", ['\r'] = "\\r"};
    char text[16];
    if (c <= '\r' && letters[c]) {
        jobq__buf_adds(out, letters[c]);
    } else if (form != FORM_TEXT && c > 0xffff) { /* as JSON has it */
        put_unit(out, 0xd800 + ((c - 0x10000) >> 10));
        put_unit(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
    } else if (form != FORM_TEXT || c > 0x7f) {
        snprintf(text, sizeof text, c > 0xffff ? "\\U%08x" : "\\u%04x", (unsigned)c);
        jobq__buf_adds(out, text);
    } else {
        put_byte(out, form, (unsigned char)c);
    }
}

/* Whether the character has to be written otherwise in that form. */
static bool
is_special(enum form form, uint32_t c)
{
    switch (form) {
    case FORM_TEXT:
        return is_hidden(c);
    case FORM_JSON_STRING:
        return is_hidden(c) || c == '"' || c == '\\';
    case FORM_JSON: /* its blanks and line ends are between the values */
        return is_hidden(c) && c >= 0x7f;
    }
    return true;
}

static void
put(struct jobq__buf *out, enum form form, const char *text, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t plain = 0; /* start of the bytes that can be copied as they are */
    for (size_t i = 0; i < len;) {
        size_t n = jobq__utf8_len(bytes + i, len - i);
        uint32_t c = n > 0 ? decode(bytes + i, n) : 0;
        if (n > 0 && !is_special(form, c)) {
            i += n;
            continue;
        }
        jobq__buf_add(out, text + plain, i - plain);
        if (n == 0)
            put_byte(out, form, bytes[i]);
        else if (form == FORM_JSON_STRING && (c == '"' || c == '\\'))
            jobq__buf_add(out, c == '"' ? "\\\"" : "\\\\", 2);
        else
            put_character(out, form, c);
        i += n > 0 ? n : 1;
        plain = i;
    }
    jobq__buf_add(out, text + plain, len - plain);
}

/* ---- escape.h ---- */

void
escape_put(struct jobq__buf *out, const char *text, size_t len)
{
    put(out, FORM_TEXT, text, len);
}

void
escape_put_json_string(struct jobq__buf *out, const char *text, size_t len)
{
    jobq__buf_addc(out, '"');
    put(out, FORM_JSON_STRING, text, len);
    jobq__buf_addc(out, '"');
}

void
escape_put_json(struct jobq__buf *out, const char *json, size_t len)
{
    put(out, FORM_JSON, json, len);
}

const char *
escape_find(const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        const unsigned char *bytes = (const unsigned char *)text + i;
        size_t n = jobq__utf8_len(bytes, len - i);
        if (n == 0 || is_hidden(decode(bytes, n)))
            return text + i;
        i += n;
    }
    return NULL;
}

static void
print(FILE *out, void (*put_it)(struct jobq__buf *, const char *, size_t),
      const char *text)
{
    struct jobq__buf buf = {0};
    put_it(&buf, text, strlen(text));
    if (buf.failed)
        fputs("(out of memory)", out);
    else
        fwrite(buf.data ? buf.data : "", 1, buf.len, out);
    jobq__buf_clear(&buf);
}

void
escape_print(FILE *out, const char *text)
{
    print(out, escape_put, text);
}

void
escape_print_json(FILE *out, const char *json)
{
    print(out, escape_put_json, json);
}
