/* sqltext.c: see sqltext.h. Two words replaced in a text; knows no SQL. */
#include "jobqd/base/sqltext.h"

#include <string.h>

#include "libjobq/buf.h"
#include "libjobq/error.h"

#define MAX_IDENTIFIER 63 /* Postgres cuts longer names off, silently */

bool
sqltext_is_schema(const char *name)
{
    size_t len = strlen(name);
    if (len < 1 || len > MAX_IDENTIFIER || strncmp(name, "pg_", 3) == 0)
        return false;
    if (name[0] >= '0' && name[0] <= '9')
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

int
sqltext_expand(const char *text, const char *schema, char **out, jobq_error *err)
{
    static const char schema_word[] = "@schema@";
    static const char channel_word[] = "@channel@";
    if (!sqltext_is_schema(schema))
        return jobq__error(err, JOBQ_EINVAL,
                           "schema: \"%s\" is not allowed: 1 to 63 lower-case letters, "
                           "digits and _, not beginning with a digit or pg_",
                           schema);
    struct jobq__buf buf = {0};
    while (*text != '\0') {
        size_t plain = strcspn(text, "@");
        jobq__buf_add(&buf, text, plain);
        text += plain;
        if (strncmp(text, schema_word, sizeof schema_word - 1) == 0) {
            jobq__buf_addc(&buf, '"');
            jobq__buf_adds(&buf, schema);
            jobq__buf_addc(&buf, '"');
            text += sizeof schema_word - 1;
        } else if (strncmp(text, channel_word, sizeof channel_word - 1) == 0) {
            jobq__buf_adds(&buf, schema);
            text += sizeof channel_word - 1;
        } else if (*text == '@') {
            jobq__buf_addc(&buf, *text++);
        }
    }
    if (jobq__buf_cstr(&buf) == NULL) {
        jobq__buf_clear(&buf);
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    }
    *out = buf.data; /* the caller's */
    return 0;
}

char *
sqltext_number(const char *text, const char *mark, int64_t number)
{
    struct jobq__buf out = {0};
    const char *at;
    while ((at = strstr(text, mark)) != NULL) {
        jobq__buf_add(&out, text, (size_t)(at - text));
        jobq__buf_add_i64(&out, number);
        text = at + strlen(mark);
    }
    jobq__buf_adds(&out, text);
    if (jobq__buf_cstr(&out) == NULL) {
        jobq__buf_clear(&out);
        return NULL;
    }
    return out.data; /* the caller's */
}
