/* wrap.c: see wrap.h. */
#include "jobqd/base/wrap.h"

#include <stdbool.h>
#include <string.h>

/* A column for each character of UTF-8: our own texts have no wider ones. */
static size_t
width(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

static void
begin_line(struct jobq__buf *out, size_t indent)
{
    jobq__buf_addc(out, '\n');
    for (size_t i = 0; i < indent; i++)
        jobq__buf_addc(out, ' ');
}

void
wrap_put(struct jobq__buf *out, const char *text, size_t at, size_t indent)
{
    bool fresh = true; /* nothing is in this line yet */
    while (*text != '\0') {
        size_t len = strcspn(text, " \n"), columns = width(text, len);
        if (!fresh && at + 1 + columns > WRAP_COLUMNS) {
            begin_line(out, indent);
            at = indent;
            fresh = true;
        }
        if (!fresh)
            jobq__buf_addc(out, ' ');
        jobq__buf_add(out, text, len);
        at += columns + (fresh ? 0 : 1);
        fresh = false;
        text += len;
        size_t ends = 0;
        for (; *text == ' ' && ends == 0; text++)
            ;
        for (; *text == '\n'; text++)
            ends++;
        while (ends > 0 && *text == ' ') { /* a line as it is */
            len = strcspn(text, "\n");
            begin_line(out, indent);
            jobq__buf_add(out, text, len);
            text += len;
            for (ends = 0; *text == '\n'; text++)
                ends++;
            at = WRAP_COLUMNS; /* what follows begins a line */
        }
        if (ends > 1 && *text != '\0') {
            jobq__buf_addc(out, '\n');
            begin_line(out, indent);
            at = indent;
            fresh = true;
        }
    }
    jobq__buf_addc(out, '\n');
}

void
wrap_print(FILE *out, const char *text, size_t at, size_t indent)
{
    struct jobq__buf buf = {0};
    wrap_put(&buf, text, at, indent);
    if (jobq__buf_cstr(&buf))
        fputs(buf.data, out);
    jobq__buf_clear(&buf);
}
