/* row.c: see row.h. The struct and all its strings are one allocation. */
#include "libjobq/row.h"

#include <stdlib.h>
#include <string.h>

#include "libjobq/array.h"
#include "libjobq/error.h"
#include "libjobq/state.h"

/* The columns of JOBQ__SQL_GET, in its order. */
enum column {
    COLUMN_ID,
    COLUMN_STATE,
    COLUMN_QUEUE,
    COLUMN_KIND,
    COLUMN_ARGS,
    COLUMN_META,
    COLUMN_ERRORS,
    COLUMN_RESULT,
    COLUMN_KEY,
    COLUMN_UNIQUE_KEY,
    COLUMN_PRIORITY,
    COLUMN_ATTEMPT,
    COLUMN_MAX_ATTEMPTS,
    COLUMN_TIMEOUT_MS,
    COLUMN_INSERTED_AT,
    COLUMN_SCHEDULED_AT,
    COLUMN_ATTEMPTED_AT,
    COLUMN_FINISHED_AT,
    COLUMN_EXPIRES_AT,
    COLUMN_PROGRESS, /* in millionths */
    COLUMN_PROGRESS_NOTE
};

struct texts {
    const char *at[COLUMN_PROGRESS_NOTE + 1];
    size_t len[COLUMN_PROGRESS_NOTE + 1];
};

static bool
is_jsonb(int column)
{
    return column >= COLUMN_ARGS && column <= COLUMN_RESULT;
}

/* Finds the text columns; returns the bytes that they need, each with a NUL. */
static size_t
find_texts(const PGresult *result, int row, struct texts *texts)
{
    size_t need = 0;
    memset(texts, 0, sizeof *texts);
    for (int c = COLUMN_QUEUE; c <= COLUMN_PROGRESS_NOTE; c++) {
        if (c > COLUMN_UNIQUE_KEY && c != COLUMN_PROGRESS_NOTE)
            continue;
        bool found =
            is_jsonb(c) ? jobq__field_jsonb(result, row, c, &texts->at[c], &texts->len[c])
                        : jobq__field_text(result, row, c, &texts->at[c], &texts->len[c]);
        if (found)
            need += texts->len[c] + 1;
    }
    return need;
}

static const char *
put(char **at, const struct texts *texts, int column)
{
    if (!texts->at[column])
        return NULL;
    char *text = *at;
    memcpy(text, texts->at[column], texts->len[column]);
    text[texts->len[column]] = '\0';
    *at += texts->len[column] + 1;
    return text;
}

static int64_t
number(const PGresult *result, int row, int column)
{
    int64_t value = 0; /* stays for null */
    jobq__field_int(result, row, column, &value);
    return value;
}

int
jobq__row_read(const PGresult *result, int row, jobq_job_info **out, jobq_error *err)
{
    struct texts texts;
    size_t need = find_texts(result, row, &texts);
    const char *state;
    size_t state_len;
    bool has_state = jobq__field_text(result, row, COLUMN_STATE, &state, &state_len);
    const char *label = has_state ? jobq__state_find(state, state_len) : NULL;
    if (!label)
        return jobq__error(err, JOBQ_ESCHEMA,
                           "the job has a state that this library does not know: is the "
                           "library older than the schema?");
    jobq_job_info *info = calloc(1, sizeof *info + need);
    if (!info)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a job of %zu bytes", need);
    char *at = (char *)(info + 1);
    info->id = number(result, row, COLUMN_ID);
    info->state = label;
    info->queue = put(&at, &texts, COLUMN_QUEUE);
    info->kind = put(&at, &texts, COLUMN_KIND);
    info->args = put(&at, &texts, COLUMN_ARGS);
    info->meta = put(&at, &texts, COLUMN_META);
    info->errors = put(&at, &texts, COLUMN_ERRORS);
    info->result = put(&at, &texts, COLUMN_RESULT);
    info->key = put(&at, &texts, COLUMN_KEY);
    info->unique_key = put(&at, &texts, COLUMN_UNIQUE_KEY);
    info->priority = (int)number(result, row, COLUMN_PRIORITY);
    info->attempt = (int)number(result, row, COLUMN_ATTEMPT);
    info->max_attempts = (int)number(result, row, COLUMN_MAX_ATTEMPTS);
    info->timeout_ms = (int)number(result, row, COLUMN_TIMEOUT_MS);
    info->inserted_at_us = number(result, row, COLUMN_INSERTED_AT);
    info->scheduled_at_us = number(result, row, COLUMN_SCHEDULED_AT);
    info->attempted_at_us = number(result, row, COLUMN_ATTEMPTED_AT);
    info->finished_at_us = number(result, row, COLUMN_FINISHED_AT);
    info->expires_at_us = number(result, row, COLUMN_EXPIRES_AT);
    info->progress = PQgetisnull(result, row, COLUMN_PROGRESS)
                         ? -1
                         : (double)number(result, row, COLUMN_PROGRESS) / 1e6;
    info->progress_note = put(&at, &texts, COLUMN_PROGRESS_NOTE);
    *out = info;
    return 0;
}
