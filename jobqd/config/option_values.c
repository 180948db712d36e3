/* option_values.c: see option_values.h. A section for each kind of field. */
#include "jobqd/config/option_values.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/folder.h"
#include "jobqd/config/conninfo.h"
#include "jobqd/config/environment.h"
#include "jobqd/config/secrets.h"
#include "jobqd/config/units.h"
#include "jobqd/config/words.h"
#include "jobqd/pure/cron.h"
#include "libjobq/backoff.h"
#include "libjobq/error.h"
#include "libjobq/json.h"

/* ---- texts: char * ---- */

static void
clear_text(void *field)
{
    free(*(char **)field);
    *(char **)field = NULL;
}

static bool
has_text(const struct option_row *row, const void *field)
{
    (void)row;
    return *(char *const *)field != NULL;
}

static bool
same_text(const void *a, const void *b)
{
    const char *text_a = *(char *const *)a, *text_b = *(char *const *)b;
    return text_a && text_b ? strcmp(text_a, text_b) == 0 : text_a == text_b;
}

const struct field_type text_field = {clear_text, has_text, same_text};

static int
take_text(char **field, char *text, jobq_error *err)
{
    if (!text)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    free(*field);
    *field = text; /* the field's */
    return 0;
}

int
value_set_text(const struct option_row *row, void *field, const char *value,
               const struct option_origin *origin, jobq_error *err)
{
    (void)row, (void)origin;
    return take_text(field, strdup(value), err);
}

void
value_put_text(const struct option_row *row, const void *field, bool secrets,
               struct jobq__buf *buf)
{
    (void)row, (void)secrets;
    jobq__buf_adds(buf, *(char *const *)field);
}

bool
value_is_name(const char *value)
{
    size_t len = strlen(value);
    return len >= 1 && len <= 128 &&
           strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                         "._-:@") == len;
}

bool
value_is_text(const char *value)
{
    size_t len = strlen(value);
    for (size_t i = 0; i < len; i++) {
        if (iscntrl((unsigned char)value[i]))
            return false;
    }
    return len >= 1 && len <= 128;
}

int
value_set_dir(const struct option_row *row, void *field, const char *value,
              const struct option_origin *origin, jobq_error *err)
{
    struct jobq__buf path = {0};
    (void)row;
    if (value[0] != '/' && origin->folder == NULL)
        return jobq__error(err, JOBQ_EINVAL,
                           "\"%s\" is relative, and the folder that jobqd was started "
                           "in, %s, is gone: give an absolute path",
                           value, folder_name());
    if (value[0] != '/') {
        jobq__buf_adds(&path, origin->folder);
        jobq__buf_addc(&path, '/');
        while (value[0] == '.' && value[1] == '/')
            value += 2;
    }
    jobq__buf_adds(&path, value);
    /* A slash after a blank stays: without it the blank would be last, and be trimmed. */
    while (path.len > 1 && path.data[path.len - 1] == '/' &&
           !isspace((unsigned char)path.data[path.len - 2]))
        path.len--;
    if (jobq__buf_cstr(&path) == NULL)
        jobq__buf_clear(&path);
    return take_text(field, path.data, err);
}

/* The error of the JSON parser says what is wrong, and so more than what is allowed. */
int
value_set_json(const struct option_row *row, void *field, const char *value,
               const struct option_origin *origin, jobq_error *err)
{
    jobq_error why = {0};
    int rc = jobq__json_check_object(value, strlen(value), "the value", &why);
    if (rc == JOBQ_EINVAL)
        return jobq__error(err, rc, "%s; it must be a JSON object", why.message);
    return rc == 0 ? value_set_text(row, field, value, origin, err) : rc;
}

/* cron_parse says what is allowed, too. */
int
value_set_schedule(const struct option_row *row, void *field, const char *value,
                   const struct option_origin *origin, jobq_error *err)
{
    struct cron cron;
    int rc = cron_parse(value, &cron, err);
    return rc == 0 ? value_set_text(row, field, value, origin, err) : rc;
}

/* So that no blank stands before a ;, which would begin a comment in a file: both of
 * libpq's forms have another way to write it. */
void
value_put_conninfo(const struct option_row *row, const void *field, bool secrets,
                   struct jobq__buf *buf)
{
    const char *conninfo = *(char *const *)field;
    struct jobq__buf redacted = {0};
    bool uri = conninfo_is_uri(conninfo);
    (void)row;
    if (secrets)
        jobq__buf_adds(&redacted, conninfo);
    else
        conninfo_redact(&redacted, conninfo);
    const char *text = jobq__buf_cstr(&redacted);
    buf->failed = buf->failed || !text;
    for (; text != NULL && *text != '\0'; text++) {
        bool comment = isspace((unsigned char)text[0]) && text[1] == ';';
        char coded[8];
        snprintf(coded, sizeof coded, "%%%02X", (unsigned char)*text);
        if (comment && uri)
            jobq__buf_adds(buf, coded);
        else
            jobq__buf_addc(buf, *text);
        if (comment && !uri)
            jobq__buf_addc(buf, '\\');
    }
    jobq__buf_clear(&redacted);
}

/* ---- words: char ** ---- */

static void
clear_words(void *field)
{
    words_free(*(char ***)field);
    *(char ***)field = NULL;
}

static bool
has_words(const struct option_row *row, const void *field)
{
    (void)row;
    return *(char **const *)field != NULL;
}

static bool
same_words(const void *a, const void *b)
{
    char *const *words_a = *(char **const *)a, *const *words_b = *(char **const *)b;
    size_t i = 0;
    if (!words_a || !words_b)
        return words_a == words_b;
    while (words_a[i] != NULL && words_b[i] != NULL &&
           strcmp(words_a[i], words_b[i]) == 0)
        i++;
    return words_a[i] == words_b[i];
}

const struct field_type words_field = {clear_words, has_words, same_words};

/* rc: what came of the words; if it is not 0 they are freed. */
static int
take_words(char ***field, char **words, int rc)
{
    if (rc != 0) {
        words_free(words);
        return rc;
    }
    words_free(*field);
    *field = words; /* the field's */
    return 0;
}

int
value_set_program(const struct option_row *row, void *field, const char *value,
                  const struct option_origin *origin, jobq_error *err)
{
    char **words = NULL;
    (void)row;
    int rc = words_split(value, &words, err);
    if (rc == 0)
        rc = words_place_program(words, origin->folder, origin->path, err);
    return take_words(field, words, rc);
}

int
value_set_env(const struct option_row *row, void *field, const char *value,
              const struct option_origin *origin, jobq_error *err)
{
    char **words = NULL;
    (void)row, (void)origin;
    int rc = words_split(value, &words, err);
    if (rc == 0)
        rc = environment_check(words, err);
    return take_words(field, words, rc);
}

/* put appends one word without its secret. */
static void
put_words(struct jobq__buf *buf, char *const *words, bool secrets,
          void (*put)(struct jobq__buf *buf, const char *before, const char *word))
{
    struct jobq__buf shown = {0};
    if (secrets) {
        words_join(buf, words);
        return;
    }
    for (char *const *at = words; *at != NULL; at++) {
        jobq__buf_reset(&shown);
        put(&shown, at > words ? at[-1] : "", *at);
        char *word[] = {jobq__buf_cstr(&shown) != NULL ? shown.data : NULL, NULL};
        buf->failed = buf->failed || !word[0];
        words_join(buf, word);
        if (at[1] != NULL)
            jobq__buf_addc(buf, ' ');
    }
    jobq__buf_clear(&shown);
}

void
value_put_program(const struct option_row *row, const void *field, bool secrets,
                  struct jobq__buf *buf)
{
    (void)row;
    put_words(buf, *(char **const *)field, secrets, secrets_put_argument);
}

void
value_put_env(const struct option_row *row, const void *field, bool secrets,
              struct jobq__buf *buf)
{
    (void)row;
    put_words(buf, *(char **const *)field, secrets, secrets_put_variable);
}

bool
value_has_secret_variable(const void *field)
{
    bool found = false;
    for (char *const *word = *(char **const *)field; *word; word++)
        found = found || secrets_is_variable(*word);
    return found;
}

/* ---- durations: int64_t, ms ---- */

static bool
has_duration(const struct option_row *row, const void *field)
{
    (void)row;
    return *(const int64_t *)field >= 0;
}

static bool
same_duration(const void *a, const void *b)
{
    return *(const int64_t *)a == *(const int64_t *)b;
}

const struct field_type duration_field = {NULL, has_duration, same_duration};

int
value_set_duration(const struct option_row *row, void *field, const char *value,
                   const struct option_origin *origin, jobq_error *err)
{
    int64_t ms = 0;
    (void)origin;
    int rc = jobq__duration_parse(value, &ms, err);
    if (rc == JOBQ_ENOMEM)
        return rc;
    if (rc != 0 || ms < row->min || ms > row->max)
        return JOBQ_EINVAL;
    *(int64_t *)field = ms;
    return 0;
}

int
value_set_days(const struct option_row *row, void *field, const char *value,
               const struct option_origin *origin, jobq_error *err)
{
    int64_t ms = 0;
    int rc = value_set_duration(row, &ms, value, origin, err);
    if (rc == 0)
        *(int64_t *)field = (ms + DAY - 1) / DAY * DAY;
    return rc;
}

void
value_put_duration(const struct option_row *row, const void *field, bool secrets,
                   struct jobq__buf *buf)
{
    (void)row, (void)secrets;
    units_put_duration(buf, *(const int64_t *)field);
}

static void
put_range(struct jobq__buf *buf, const struct option_row *row,
          void (*put)(struct jobq__buf *, int64_t))
{
    put(buf, row->min);
    jobq__buf_adds(buf, " to ");
    put(buf, row->max);
}

void
value_put_durations(const struct option_row *row, struct jobq__buf *buf)
{
    put_range(buf, row, units_put_duration);
}

/* ---- numbers: int ---- */

static bool
has_int(const struct option_row *row, const void *field)
{
    return row->fallback != NULL || *(const int *)field != 0;
}

static bool
same_int(const void *a, const void *b)
{
    return *(const int *)a == *(const int *)b;
}

const struct field_type int_field = {NULL, has_int, same_int};

int
value_set_int(const struct option_row *row, void *field, const char *value,
              const struct option_origin *origin, jobq_error *err)
{
    int64_t number = 0;
    const char *rest = "";
    (void)origin, (void)err;
    if (!units_take_number(value, &number, &rest) || *rest != '\0' || number < row->min ||
        number > row->max)
        return JOBQ_EINVAL;
    *(int *)field = (int)number;
    return 0;
}

void
value_put_int(const struct option_row *row, const void *field, bool secrets,
              struct jobq__buf *buf)
{
    (void)row, (void)secrets;
    jobq__buf_add_i64(buf, *(const int *)field);
}

void
value_put_ints(const struct option_row *row, struct jobq__buf *buf)
{
    put_range(buf, row, jobq__buf_add_i64);
}

/* ---- choices: int, an enum or bool ---- */

/* Which of the row's choices value is; -1: none of them. true is on, false is off. */
static int
find_choice(const struct option_row *row, const char *value)
{
    int nth = 0;
    if (strcmp(row->choices, "off|on") == 0)
        value = strcmp(value, "true") == 0    ? "on"
                : strcmp(value, "false") == 0 ? "off"
                                              : value;
    size_t len = strlen(value);
    for (const char *at = row->choices; *at != '\0'; nth++) {
        size_t choice = strcspn(at, "|");
        if (choice == len && strncmp(at, value, len) == 0)
            return nth;
        at += choice + (at[choice] == '|' ? 1 : 0);
    }
    return -1;
}

int
value_set_choice(const struct option_row *row, void *field, const char *value,
                 const struct option_origin *origin, jobq_error *err)
{
    int nth = find_choice(row, value);
    (void)origin, (void)err;
    if (nth < 0)
        return JOBQ_EINVAL;
    *(int *)field = nth;
    return 0;
}

static void
put_nth(struct jobq__buf *buf, const char *choices, int nth)
{
    for (; nth > 0; nth--)
        choices += strcspn(choices, "|") + 1;
    jobq__buf_add(buf, choices, strcspn(choices, "|"));
}

void
value_put_choice(const struct option_row *row, const void *field, bool secrets,
                 struct jobq__buf *buf)
{
    (void)secrets;
    put_nth(buf, row->choices, *(const int *)field);
}

void
value_put_choices(const struct option_row *row, struct jobq__buf *buf)
{
    for (const char *at = row->choices; *at != '\0'; at++) {
        if (*at != '|')
            jobq__buf_addc(buf, *at);
        else
            jobq__buf_adds(buf, strchr(at + 1, '|') != NULL ? ", " : " or ");
    }
}

static bool
same_switch(const void *a, const void *b)
{
    return *(const bool *)a == *(const bool *)b;
}

const struct field_type switch_field = {NULL, NULL, same_switch};

int
value_set_switch(const struct option_row *row, void *field, const char *value,
                 const struct option_origin *origin, jobq_error *err)
{
    int nth = 0;
    int rc = value_set_choice(row, &nth, value, origin, err);
    if (rc == 0)
        *(bool *)field = nth == 1;
    return rc;
}

void
value_put_switch(const struct option_row *row, const void *field, bool secrets,
                 struct jobq__buf *buf)
{
    (void)secrets;
    put_nth(buf, row->choices, *(const bool *)field ? 1 : 0);
}

/* ---- sizes: size_t, bytes ---- */

static bool
same_bytes(const void *a, const void *b)
{
    return *(const size_t *)a == *(const size_t *)b;
}

const struct field_type bytes_field = {NULL, NULL, same_bytes};

int
value_set_bytes(const struct option_row *row, void *field, const char *value,
                const struct option_origin *origin, jobq_error *err)
{
    int64_t bytes = 0;
    (void)origin, (void)err;
    if (!units_parse_bytes(value, &bytes) || bytes < row->min || bytes > row->max)
        return JOBQ_EINVAL;
    *(size_t *)field = (size_t)bytes;
    return 0;
}

void
value_put_bytes(const struct option_row *row, const void *field, bool secrets,
                struct jobq__buf *buf)
{
    (void)row, (void)secrets;
    units_put_bytes(buf, (int64_t) * (const size_t *)field);
}

void
value_put_sizes(const struct option_row *row, struct jobq__buf *buf)
{
    put_range(buf, row, units_put_bytes);
}

/* ---- back-off: struct jobq__backoff ---- */

static bool
same_backoff(const void *a, const void *b)
{
    const struct jobq__backoff *one = a, *other = b;
    return one->formula == other->formula && one->base_ms == other->base_ms &&
           one->step_ms == other->step_ms && one->cap_ms == other->cap_ms &&
           one->jitter_percent == other->jitter_percent;
}

const struct field_type backoff_field = {NULL, NULL, same_backoff};

int
value_set_backoff(const struct option_row *row, void *field, const char *value,
                  const struct option_origin *origin, jobq_error *err)
{
    (void)row, (void)origin;
    return jobq__backoff_parse(value, field, err);
}

void
value_put_backoff(const struct option_row *row, const void *field, bool secrets,
                  struct jobq__buf *buf)
{
    const struct jobq__backoff *backoff = field;
    (void)row, (void)secrets;
    switch (backoff->formula) {
    case JOBQ__BACKOFF_OBAN:
        jobq__buf_adds(buf, "oban(");
        break;
    case JOBQ__BACKOFF_EXPONENTIAL:
        jobq__buf_adds(buf, "exponential(base=");
        break;
    case JOBQ__BACKOFF_LINEAR:
        jobq__buf_adds(buf, "linear(base=");
        break;
    case JOBQ__BACKOFF_CONSTANT:
        jobq__buf_adds(buf, "constant(");
        break;
    }
    if (backoff->formula != JOBQ__BACKOFF_OBAN)
        units_put_duration(buf, backoff->base_ms);
    if (backoff->formula == JOBQ__BACKOFF_LINEAR) {
        jobq__buf_adds(buf, ", step=");
        units_put_duration(buf, backoff->step_ms);
    }
    if (backoff->formula == JOBQ__BACKOFF_EXPONENTIAL ||
        backoff->formula == JOBQ__BACKOFF_LINEAR) {
        jobq__buf_adds(buf, ", cap=");
        units_put_duration(buf, backoff->cap_ms);
    }
    jobq__buf_adds(buf, backoff->formula == JOBQ__BACKOFF_OBAN ? "jitter=" : ", jitter=");
    jobq__buf_add_i64(buf, backoff->jitter_percent);
    jobq__buf_adds(buf, "%)");
}
