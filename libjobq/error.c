/* error.c: the names of the error codes, and the one place that fills in a jobq_error.
 * Prints nothing, remembers nothing. */
#include "libjobq/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libjobq/utf8.h"

const char *
jobq_code_name(int code)
{
    switch (code) {
    case JOBQ_OK:
        return "JOBQ_OK";
    case JOBQ_EINVAL:
        return "JOBQ_EINVAL";
    case JOBQ_ENOMEM:
        return "JOBQ_ENOMEM";
    case JOBQ_ECONN:
        return "JOBQ_ECONN";
    case JOBQ_EDB:
        return "JOBQ_EDB";
    case JOBQ_ENOTFOUND:
        return "JOBQ_ENOTFOUND";
    case JOBQ_ESTATE:
        return "JOBQ_ESTATE";
    case JOBQ_EPROTO:
        return "JOBQ_EPROTO";
    case JOBQ_EIO:
        return "JOBQ_EIO";
    case JOBQ_ESCHEMA:
        return "JOBQ_ESCHEMA";
    case JOBQ_ECONFLICT:
        return "JOBQ_ECONFLICT";
    case JOBQ_ETIMEOUT:
        return "JOBQ_ETIMEOUT";
    }
    return "JOBQ_E?";
}

/* One line of UTF-8, whatever came in: the text may hold what a peer or a user sent. */
static void
make_one_line(char *text)
{
    size_t len = strlen(text);
    while (len > 0 && strchr("\r\n \t", text[len - 1]))
        text[--len] = '\0';
    for (size_t i = 0; i < len;) {
        size_t n = jobq__utf8_len((const unsigned char *)text + i, len - i);
        if (n == 0 || (unsigned char)text[i] < 0x20 || text[i] == 0x7F) {
            text[i] = n == 0 ? '?' : ' ';
            n = 1;
        }
        i += n;
    }
}

/* Takes off a sequence that the end of the buffer has cut in two. */
static void
cut_at_boundary(char *text)
{
    size_t len = strlen(text);
    size_t start = len;
    while (start > 0 && len - start < 4 &&
           ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start > 0 && (unsigned char)text[start - 1] >= 0xC0 &&
        jobq__utf8_len((const unsigned char *)text + start - 1, len - start + 1) == 0)
        text[start - 1] = '\0';
}

int
jobq__error(jobq_error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        int n = vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        if (n < 0)
            err->message[0] = '\0';
        else if ((size_t)n >= sizeof err->message)
            cut_at_boundary(err->message);
        make_one_line(err->message);
        err->code = code;
        err->sqlstate[0] = '\0';
    }
    return code;
}
