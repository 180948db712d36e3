/* inifile.c: see inifile.h. inih asks for its lines through take_line, so that we know
 * which line a value is from. */
#include "jobqd/config/inifile.h"

#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libjobq/error.h"
#include "libjobq/utf8.h"

#define BLANKS " \t\v\f" /* what inih takes for one, within a line */
#define MAX_LINE_BYTES ((size_t)64 * 1024)

struct reading {
    FILE *stream;
    const char *file;
    const struct inifile_events *events;
    void *data;
    jobq_error *err;
    char *line; /* the current line, without its end and its leading blanks moved away */
    size_t cap;
    const char *text; /* the line's first byte that is no blank */
    int number;       /* 1 … */
    bool cut;         /* inih was given only the beginning of the line */
    int code;         /* 0, or the JOBQ_E… that ended the reading */
    int code_line;
};

static int
refuse_line(struct reading *r, int code, const char *why)
{
    return jobq__error(r->err, code, "%s:%d: %s", r->file, r->number, why);
}

/* Names and texts go into the database, which takes nothing else. */
static int
check_encoding(struct reading *r)
{
    const unsigned char *fault = jobq__utf8_fault(r->text);
    char why[80];
    if (!fault || *r->text == ';' || *r->text == '#')
        return 0;
    snprintf(why, sizeof why, "byte %td of the line, 0x%02X, is not UTF-8",
             (const char *)fault - r->line + 1, *fault);
    return refuse_line(r, JOBQ_EINVAL, why);
}

/* Cuts the section's name out of `[name]` in place and tells of it. */
static int
take_section(struct reading *r)
{
    char *name = r->line + (r->text - r->line) + 1;
    char *end = strchr(name, ']');
    if (!end)
        return refuse_line(r, JOBQ_EINVAL, "a section needs a closing ]");
    const char *rest = end + 1 + strspn(end + 1, " \t");
    if (*rest != '\0' && *rest != ';' && *rest != '#')
        return refuse_line(r, JOBQ_EINVAL, "nothing may follow a section's ]");
    name += strspn(name, " \t");
    while (end > name && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *end = '\0';
    return r->events->on_section(r->data, name, r->number, r->err);
}

/* The next line into r->text. Returns 1, 0 at the end of the file, or a negative code. */
static int
next_line(struct reading *r)
{
    ssize_t len = getline(&r->line, &r->cap, r->stream);
    if (len < 0) {
        if (ferror(r->stream))
            return jobq__error(r->err, JOBQ_EIO, "%s: %s", r->file, strerror(errno));
        return feof(r->stream) ? 0 : jobq__error(r->err, JOBQ_ENOMEM, "out of memory");
    }
    r->number++;
    if (strlen(r->line) != (size_t)len)
        return refuse_line(r, JOBQ_EINVAL, "a NUL byte: this is not a text file");
    if ((size_t)len > MAX_LINE_BYTES)
        return refuse_line(r, JOBQ_EINVAL, "the line is longer than 64 KiB");
    r->line[strcspn(r->line, "\r\n")] = '\0';
    r->text = r->line;
    if (r->number == 1 && strncmp(r->text, "\xef\xbb\xbf", 3) == 0)
        r->text += 3; /* the byte order mark that some editors write */
    /* None may be left: inih takes a line that begins with one for more of the value
     * before it. */
    r->text += strspn(r->text, BLANKS);
    int rc = check_encoding(r);
    return rc == 0 ? 1 : rc;
}

/* inih's reader, in the manner of fgets. */
static char *
take_line(char *str, int num, void *stream)
{
    struct reading *r = stream;
    if (r->code != 0)
        return NULL;
    int rc = next_line(r);
    const char *text = r->text;
    if (rc > 0 && *text == '[') {
        rc = take_section(r);
        if (rc == 0)
            rc = 1;
        text =
            "[section]"; /* ours has told of it; inih only need not see it as a value */
    }
    if (rc < 0) {
        r->code = rc;
        r->code_line = r->number;
    }
    if (rc <= 0)
        return NULL;
    r->cut = strlen(text) >= (size_t)num;
    snprintf(str, (size_t)num, "%s", text);
    return str;
}

/* The value of a line that was too long for inih, by inih's rules, cut out of the line in
 * place. */
static const char *
long_value(struct reading *r)
{
    char *value = r->line + (r->text - r->line);
    value += strcspn(value, "=:") + 1;
    value += strspn(value, BLANKS);
    char *end = value;
    while (*end != '\0' && !(*end == ';' && strchr(BLANKS, end[-1]) != NULL))
        end++;
    while (end > value && strchr(BLANKS, end[-1]) != NULL)
        end--;
    *end = '\0';
    return value;
}

static int
on_ini_value(void *data, const char *section, const char *key, const char *value)
{
    struct reading *r = data;
    (void)section;
    if (r->code != 0)
        return 0;
    /* Of `database postgresql:///app` inih takes the : for the =. The rest of the line is
     * not shown: it may hold a password. */
    size_t name_len = strcspn(key, BLANKS);
    if (key[name_len] != '\0') {
        char why[200];
        snprintf(why, sizeof why, "no \"=\" after %.*s: write `key = value`",
                 name_len < 100 ? (int)name_len : 100, key);
        r->code = refuse_line(r, JOBQ_EINVAL, why);
        r->code_line = r->number;
        return 0;
    }
    if (r->cut)
        value = long_value(r);
    r->code = r->events->on_value(r->data, key, value, r->number, r->err);
    r->code_line = r->number;
    return r->code == 0;
}

int
inifile_read(const char *file, const struct inifile_events *events, void *data,
             jobq_error *err)
{
    jobq_error found = {0};
    struct reading r = {.file = file, .events = events, .data = data, .err = &found};
    r.stream = fopen(file, "re");
    if (!r.stream)
        return jobq__error(err, JOBQ_EIO, "%s: %s", file, strerror(errno));
    int bad_line = ini_parse_stream(take_line, &r, on_ini_value, &r);
    int rc = r.code;
    if (bad_line > 0 && (rc == 0 || bad_line < r.code_line)) {
        r.number = bad_line;
        rc = refuse_line(&r, JOBQ_EINVAL, "neither `[section]` nor `key = value`");
    } else if (bad_line < 0 && rc == 0) {
        rc = jobq__error(&found, JOBQ_ENOMEM, "out of memory");
    }
    if (rc != 0 && err != NULL)
        *err = found;
    free(r.line);
    fclose(r.stream);
    return rc;
}
