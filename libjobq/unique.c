/* unique.c: see unique.h. */
#include "libjobq/unique.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "libjobq/error.h"
#include "libjobq/json.h"
#include "libjobq/text.h"

/* In the order of their bits. */
static const char *const field_words[] = {"kind", "queue", "args", "meta"};
static const char *const state_words[] = {"scheduled", "available", "executing",
                                          "retryable", "suspended", "completed",
                                          "cancelled", "discarded"};
static const char *const conflict_words[] = {"ignore", "replace", "raise"};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static int
check_mask(unsigned mask, size_t bits, const char *prefix, const char *member,
           const char *allowed, jobq_error *err)
{
    if (mask >> bits == 0)
        return 0;
    return jobq__error(err, JOBQ_EINVAL, "%sunique_by.%s must be %s, or 0, got %u",
                       prefix, member, allowed, mask);
}

static int
check_keys(const jobq_unique *unique, const char *prefix, jobq_error *err)
{
    int rc = jobq__texts_check(unique->keys, unique->n_keys, prefix, "unique_by.keys",
                               "n_keys", err);
    if (rc < 0)
        return rc;
    if (unique->n_keys > 0 && unique->fields != 0 &&
        !(unique->fields & (JOBQ_UNIQUE_ARGS | JOBQ_UNIQUE_META)))
        return jobq__error(err, JOBQ_EINVAL,
                           "%sunique_by.keys needs JOBQ_UNIQUE_ARGS or JOBQ_UNIQUE_META "
                           "among unique_by.fields, got %u",
                           prefix, unique->fields);
    return 0;
}

static int
check_unique(const jobq_unique *unique, const char *prefix, jobq_error *err)
{
    if (unique->size != sizeof *unique)
        return jobq__error(err, JOBQ_EINVAL,
                           "%sunique_by.size must be sizeof(jobq_unique), %zu, got %zu: "
                           "start from JOBQ_UNIQUE_INIT",
                           prefix, sizeof *unique, unique->size);
    int rc = check_mask(unique->fields, COUNT(field_words), prefix, "fields",
                        "one or more of enum jobq_unique_field", err);
    if (rc == 0)
        rc = check_mask(unique->states, COUNT(state_words), prefix, "states",
                        "one or more of enum jobq_unique_state", err);
    if (rc == 0 && (unique->period_s < 0 || unique->period_s > INT32_MAX))
        rc = jobq__error(err, JOBQ_EINVAL,
                         "%sunique_by.period_s must be 1 to 2147483647, or JOBQ_FOREVER, "
                         "got %" PRId64,
                         prefix, unique->period_s);
    return rc == 0 ? check_keys(unique, prefix, err) : rc;
}

int
jobq__unique_check(const jobq_job *job, const char *prefix, jobq_error *err)
{
    int rc = job->unique_by ? check_unique(job->unique_by, prefix, err) : 0;
    if (rc < 0)
        return rc;
    if (job->unique_by && job->unique_key)
        return jobq__error(err, JOBQ_EINVAL,
                           "%sunique_by and unique_key cannot both be set", prefix);
    if (job->on_conflict < 0 || (size_t)job->on_conflict >= COUNT(conflict_words))
        return jobq__error(err, JOBQ_EINVAL,
                           "%son_conflict must be one of enum jobq_on_conflict, 0 to 2, "
                           "got %d",
                           prefix, job->on_conflict);
    if ((job->on_conflict == JOBQ_ON_CONFLICT_REPLACE) != (job->replace != NULL))
        return jobq__error(err, JOBQ_EINVAL,
                           "%sreplace and JOBQ_ON_CONFLICT_REPLACE must be used together",
                           prefix);
    if (!job->replace)
        return 0;
    char what[64];
    snprintf(what, sizeof what, "%sreplace", prefix);
    return jobq__json_check(job->replace, strlen(job->replace), what, err);
}

static void
put_member(struct jobq__buf *json, const char *name)
{
    if (json->len > 0 && json->data[json->len - 1] != '{')
        jobq__buf_addc(json, ',');
    jobq__buf_addc(json, '"');
    jobq__buf_adds(json, name);
    jobq__buf_adds(json, "\":");
}

static void
put_words(struct jobq__buf *json, const char *name, unsigned mask,
          const char *const *words, size_t n)
{
    const char *before = "[";
    if (mask == 0)
        return;
    put_member(json, name);
    for (size_t i = 0; i < n; i++) {
        if (!(mask >> i & 1U))
            continue;
        jobq__buf_adds(json, before);
        jobq__buf_add_json_string(json, words[i], strlen(words[i]));
        before = ",";
    }
    jobq__buf_addc(json, ']');
}

void
jobq__unique_put(struct jobq__buf *json, const jobq_unique *unique)
{
    jobq__buf_addc(json, '{');
    put_words(json, "fields", unique->fields, field_words, COUNT(field_words));
    put_words(json, "states", unique->states, state_words, COUNT(state_words));
    if (unique->period_s != JOBQ_FOREVER) {
        put_member(json, "period");
        jobq__buf_add_i64(json, unique->period_s);
    }
    if (unique->n_keys > 0) {
        put_member(json, "keys");
        for (size_t k = 0; k < unique->n_keys; k++) {
            jobq__buf_addc(json, k == 0 ? '[' : ',');
            jobq__buf_add_json_string(json, unique->keys[k], strlen(unique->keys[k]));
        }
        jobq__buf_addc(json, ']');
    }
    jobq__buf_addc(json, '}');
}

const char *
jobq__conflict_word(int on_conflict)
{
    return conflict_words[on_conflict];
}

int
jobq__conflict_read(const char *at, size_t len)
{
    if (!at)
        return JOBQ_INSERTED;
    return len == strlen("replaced") && memcmp(at, "replaced", len) == 0 ? JOBQ_REPLACED
                                                                         : JOBQ_IGNORED;
}
