/* conninfo.c: see conninfo.h. Reads both of libpq's forms just well enough to find the
 * passwords; libpq itself judges whether the string is right. When in doubt it hides
 * more.
 */
#include "jobqd/config/conninfo.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define BLANKS " \t\n\r\v\f" /* what libpq takes for one */

static bool
is_secret(const char *name, size_t len)
{
    return (len == 8 && strncasecmp(name, "password", 8) == 0) ||
           (len == 11 && strncasecmp(name, "sslpassword", 11) == 0);
}

static int
hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = strchr(digits, tolower((unsigned char)c));
    return c != '\0' && at != NULL ? (int)(at - digits) : -1;
}

/* The name in a URI may be written with %XX. libpq refuses a % without two digits. */
static bool
may_be_secret(const char *name, size_t len)
{
    char plain[12]; /* longer than any secret's */
    size_t n = 0;
    for (size_t i = 0; i < len && n < sizeof plain; i++) {
        plain[n] = name[i];
        if (name[i] == '%') {
            if (i + 2 >= len || hex_digit(name[i + 1]) < 0 || hex_digit(name[i + 2]) < 0)
                return true;
            plain[n] = (char)(hex_digit(name[i + 1]) * 16 + hex_digit(name[i + 2]));
            i += 2;
        }
        n++;
    }
    return is_secret(plain, n);
}

/* scheme://user:password@host/db?name=value&…; a password may hold an unescaped @ by
 * mistake, so the last @ before the path's end counts. It may also hold a ?: for libpq,
 * an @ before any / ends it in any case. So an @ that follows a hidden value without a /
 * before both is hidden with all after that value: what is shown would have it end a
 * password. */
static void
redact_uri(struct jobq__buf *buf, const char *uri)
{
    const char *authority = strstr(uri, "://") + 3;
    size_t credentials = strcspn(authority, "@/");
    const char *query =
        strchr(authority + (authority[credentials] == '@' ? credentials : 0), '?');
    const char *end = query != NULL ? query : authority + strlen(authority);
    const char *at = NULL;
    for (const char *p = authority; p < end; p++) {
        if (*p == '@')
            at = p;
    }
    /* libpq takes a ? before the @ for a part of the user's name; whoever wrote it may
     * have meant options. */
    const char *secret = !at ? NULL : authority + strcspn(authority, ":?@");
    if (secret != NULL && secret < at) {
        jobq__buf_add(buf, uri, (size_t)(secret + 1 - uri));
        jobq__buf_adds(buf, CONNINFO_HIDDEN);
        jobq__buf_add(buf, at, (size_t)(end - at));
    } else {
        jobq__buf_add(buf, uri, (size_t)(end - uri));
    }
    while (*end != '\0') { /* at '?' or '&': a ? may have been in an address's brackets */
        jobq__buf_addc(buf, *end++);
        size_t len = strcspn(end, "&?");
        size_t name = strcspn(end, "=&?");
        if (end[name] == '=' && may_be_secret(end, name)) {
            jobq__buf_add(buf, end, name + 1);
            jobq__buf_adds(buf, CONNINFO_HIDDEN);
            size_t shown = (size_t)(end + name - authority);
            bool anonymous = !at && memchr(authority, '/', shown) == NULL;
            if (anonymous && strchr(end + name, '@') != NULL)
                return;
            len = strcspn(end, "&");
        } else {
            jobq__buf_add(buf, end, len);
        }
        end += len;
    }
}

/* The end of the value at text: quoted by '…' with \', or up to a blank. */
static const char *
value_end(const char *text)
{
    bool quoted = *text == '\'';
    if (quoted)
        text++;
    for (; *text != '\0'; text++) {
        if (*text == '\\' && text[1] != '\0')
            text++;
        else if (quoted && *text == '\'')
            return text + 1;
        else if (!quoted && strchr(BLANKS, *text) != NULL)
            break;
    }
    return text;
}

static void
redact_keywords(struct jobq__buf *buf, const char *text)
{
    while (*text != '\0') {
        size_t blank = strspn(text, BLANKS);
        jobq__buf_add(buf, text, blank);
        text += blank;
        size_t name = strcspn(text, "=" BLANKS);
        size_t equals = name + strspn(text + name, BLANKS);
        if (text[equals] != '=') { /* no keyword: libpq will refuse it, and it may be part
                                      of a password */
            if (*text != '\0')
                jobq__buf_adds(buf, CONNINFO_HIDDEN);
            return;
        }
        equals += 1 + strspn(text + equals + 1, BLANKS);
        const char *end = value_end(text + equals);
        if (is_secret(text, name)) {
            jobq__buf_add(buf, text, equals);
            jobq__buf_adds(buf, CONNINFO_HIDDEN);
            if (*end != '\0' && strchr(BLANKS, *end) == NULL)
                jobq__buf_addc(buf, ' '); /* a quote had ended it */
        } else {
            jobq__buf_add(buf, text, (size_t)(end - text));
        }
        text = end;
    }
}

bool
conninfo_is_uri(const char *conninfo)
{
    return strncmp(conninfo, "postgresql://", 13) == 0 ||
           strncmp(conninfo, "postgres://", 11) == 0;
}

void
conninfo_redact(struct jobq__buf *buf, const char *conninfo)
{
    if (conninfo_is_uri(conninfo))
        redact_uri(buf, conninfo);
    else if (strpbrk(conninfo, "=" BLANKS) == NULL && strchr(conninfo, '@') == NULL)
        jobq__buf_adds(buf, conninfo); /* a bare database name */
    else
        redact_keywords(buf, conninfo);
}

void
conninfo_redact_uri(struct jobq__buf *buf, const char *text)
{
    if (strstr(text, "://") != NULL)
        redact_uri(buf, text);
    else
        jobq__buf_adds(buf, text);
}
