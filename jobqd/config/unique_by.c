/* unique_by.c: see unique_by.h. Of a member that is there twice the last one counts, as
 * in jsonb. */
#include "jobqd/config/unique_by.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "libjobq/error.h"

enum { SHOWN_BYTES = 200 };

static const char *const member_names[] = {"fields", "keys", "period", "states"};
static const char *const field_words[] = {"kind", "queue", "args", "meta"};
static const char *const state_words[] = {"scheduled", "available", "executing",
                                          "retryable", "suspended", "completed",
                                          "cancelled", "discarded"};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool
is_one_of(const char *word, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(word, words[i]) == 0)
            return true;
    }
    return false;
}

/* An array of one or more of these words; words NULL: of any texts. */
static bool
is_list(const cJSON *value, const char *const *words, size_t n)
{
    const cJSON *item;
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) == 0)
        return false;
    cJSON_ArrayForEach(item, value)
    {
        if (!cJSON_IsString(item) ||
            (words != NULL && !is_one_of(item->valuestring, words, n)))
            return false;
    }
    return true;
}

static bool
is_period(const cJSON *value)
{
    if (cJSON_IsString(value))
        return strcmp(value->valuestring, "infinity") == 0;
    double number = cJSON_IsNumber(value) ? value->valuedouble : 0;
    return number >= 1 && number <= INT32_MAX && number == (double)(int64_t)number;
}

static bool
has(const cJSON *list, const char *word)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        if (strcmp(item->valuestring, word) == 0)
            return true;
    }
    return false;
}

static const cJSON *
member(const cJSON *object, const char *name)
{
    const cJSON *item, *last = NULL;
    cJSON_ArrayForEach(item, object)
    {
        if (strcmp(item->string, name) == 0)
            last = item;
    }
    return last;
}

static int
refuse(const char *what, const char *name, const char *allowed, const cJSON *got,
       jobq_error *err)
{
    char *shown = cJSON_PrintUnformatted(got);
    int rc = jobq__error(err, JOBQ_EINVAL, "%s.%s must be %s, got %.*s", what, name,
                         allowed, SHOWN_BYTES, shown ? shown : "?");
    cJSON_free(shown);
    return rc;
}

static int
check(const cJSON *object, const char *what, jobq_error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        if (!is_one_of(item->string, member_names, COUNT(member_names)))
            return jobq__error(err, JOBQ_EINVAL,
                               "%s has an unknown member \"%.*s\": allowed are fields, "
                               "keys, period and states",
                               what, SHOWN_BYTES, item->string);
    }
    const cJSON *fields = member(object, "fields"), *keys = member(object, "keys");
    const cJSON *period = member(object, "period"), *states = member(object, "states");
    if (fields && !is_list(fields, field_words, COUNT(field_words)))
        return refuse(what, "fields",
                      "an array of one or more of kind, queue, args and meta", fields,
                      err);
    if (keys && !is_list(keys, NULL, 0))
        return refuse(what, "keys", "an array of one or more texts", keys, err);
    if (keys && fields && !has(fields, "args") && !has(fields, "meta"))
        return jobq__error(err, JOBQ_EINVAL,
                           "%s.keys needs args or meta among its fields", what);
    if (period && !is_period(period))
        return refuse(what, "period", "whole seconds, 1 to 2147483647, or \"infinity\"",
                      period, err);
    if (states && !is_list(states, state_words, COUNT(state_words)))
        return refuse(what, "states",
                      "an array of one or more of scheduled, available, executing, "
                      "retryable, suspended, completed, cancelled and discarded",
                      states, err);
    return 0;
}

int
unique_by_check(const char *text, const char *what, jobq_error *err)
{
    cJSON *object = cJSON_Parse(text);
    if (!object)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    int rc = check(object, what, err);
    cJSON_Delete(object);
    return rc;
}
