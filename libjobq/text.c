/* text.c: see text.h. */
#include "libjobq/text.h"

#include <stdio.h>

#include "libjobq/error.h"
#include "libjobq/utf8.h"

int
jobq__text_check(const char *text, const char *prefix, const char *member,
                 jobq_error *err)
{
    const unsigned char *fault = text ? jobq__utf8_fault(text) : NULL;
    if (!fault)
        return 0;
    return jobq__error(
        err, JOBQ_EINVAL, "%s%s must be UTF-8, got byte 0x%02X at byte %zu", prefix,
        member, (unsigned)*fault, (size_t)(fault - (const unsigned char *)text) + 1);
}

int
jobq__texts_check(const char *const *texts, size_t n, const char *prefix,
                  const char *member, const char *size, jobq_error *err)
{
    int rc = 0;
    if (n > 0 && !texts)
        return jobq__error(err, JOBQ_EINVAL,
                           "%s%s must be an array of %s strings, got NULL", prefix,
                           member, size);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        char element[48];
        snprintf(element, sizeof element, "%s[%zu]", member, i);
        rc = texts[i] ? jobq__text_check(texts[i], prefix, element, err)
                      : jobq__error(err, JOBQ_EINVAL, "%s%s must be a string, got NULL",
                                    prefix, element);
    }
    return rc;
}
