/* secrets.c: see secrets.h. */
#include "jobqd/config/secrets.h"

#include <string.h>
#include <strings.h>

#include "jobqd/config/conninfo.h"

static bool
names_a_secret(const char *word, size_t len)
{
    static const char *const parts[] = {"PASS", "SECRET", "TOKEN", "KEY",   "CREDENTIAL",
                                        "PWD",  "AUTH",   "DSN",   "COOKIE"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t part = strlen(parts[i]);
        for (size_t at = 0; at + part <= len; at++) {
            if (strncasecmp(word + at, parts[i], part) == 0)
                return true;
        }
    }
    return false;
}

void
secrets_put_argument(struct jobq__buf *buf, const char *before, const char *word)
{
    size_t name = strcspn(word, "=");
    if (*before == '-' && strchr(before, '=') == NULL && *word != '-' &&
        names_a_secret(before, strlen(before)))
        jobq__buf_adds(buf, CONNINFO_HIDDEN);
    else if (word[name] == '=' && names_a_secret(word, name) &&
             strpbrk(word, " :/") == NULL) {
        jobq__buf_add(buf, word, name + 1);
        jobq__buf_adds(buf, CONNINFO_HIDDEN);
    } else if (strstr(word, "://") == NULL && strcasestr(word, "password") != NULL &&
               strchr(word, '=') != NULL)
        conninfo_redact(buf, word);
    else
        conninfo_redact_uri(buf, word);
}

void
secrets_put_variable(struct jobq__buf *buf, const char *before, const char *word)
{
    size_t name = strcspn(word, "=");
    (void)before;
    jobq__buf_add(buf, word, name);
    if (word[name] == '=')
        jobq__buf_adds(buf, "=" CONNINFO_HIDDEN);
}

bool
secrets_is_variable(const char *word)
{
    struct jobq__buf shown = {0};
    size_t name = strcspn(word, "=");
    if (word[name] != '=')
        return false;
    conninfo_redact_uri(&shown, word + name + 1);
    bool differs = jobq__buf_cstr(&shown) && strcmp(shown.data, word + name + 1) != 0;
    jobq__buf_clear(&shown);
    return differs || names_a_secret(word, name);
}
