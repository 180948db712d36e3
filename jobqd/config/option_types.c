/* option_types.c: the table of the types that an option can have, and the answers that it
 * gives. Knows no option by name. The functions in its columns are in option_values.c.
 */
#include "jobqd/config/option_types.h"

#include <string.h>

#include "jobqd/base/escape.h"
#include "jobqd/base/sqltext.h"
#include "jobqd/config/option_values.h"
#include "jobqd/config/timezone.h"
#include "libjobq/error.h"
#include "libjobq/utf8.h"

struct option_kind {
    const char *placeholder;        /* in --help */
    const struct field_type *field; /* clear, is_set, equal: of the field's C type */
    /* Whether the value is one of this type; NULL: `set` finds out. */
    bool (*fits)(const char *value);
    value_setter *set;
    bool says_why; /* `set` says itself why it refuses a value */
    bool may_join; /* the value may hold characters that join letters */
    value_printer *put;
    /* NULL: there is one if the value is shown differently without secrets. */
    bool (*has_secret)(const void *field);
    /* The allowed values: what depends on the row, then a text; either may be NULL. */
    void (*put_allowed)(const struct option_row *row, struct jobq__buf *buf);
    const char *allowed;
};

static const struct option_kind kinds[] = {
    [OPTION_CONNINFO] = {.placeholder = "URI",
                         .field = &text_field,
                         .set = value_set_text,
                         .put = value_put_conninfo,
                         .allowed = "a libpq URI or keyword string, such as "
                                    "postgresql:///app"},
    [OPTION_DIR] = {.placeholder = "DIR",
                    .field = &text_field,
                    .set = value_set_dir,
                    .says_why = true,
                    .put = value_put_text,
                    .allowed = "the path of a folder"},
    [OPTION_NAME] = {.placeholder = "NAME",
                     .field = &text_field,
                     .fits = value_is_name,
                     .set = value_set_text,
                     .put = value_put_text,
                     .allowed = "1 to 128 letters, digits and . _ - : @"},
    [OPTION_SCHEMA] = {.placeholder = "NAME",
                       .field = &text_field,
                       .fits = sqltext_is_schema,
                       .set = value_set_text,
                       .put = value_put_text,
                       .allowed = "1 to 63 lower-case letters, digits and _, not "
                                  "beginning with a digit or pg_"},
    [OPTION_TEXT] = {.placeholder = "TEXT",
                     .field = &text_field,
                     .fits = value_is_text,
                     .set = value_set_text,
                     .put = value_put_text,
                     .allowed = "1 to 128 bytes"},
    [OPTION_JSON] = {.placeholder = "JSON",
                     .field = &text_field,
                     .set = value_set_json,
                     .says_why = true,
                     .may_join = true,
                     .put = value_put_text,
                     .allowed = "a JSON object"},
    [OPTION_SCHEDULE] = {.placeholder = "SCHEDULE",
                         .field = &text_field,
                         .set = value_set_schedule,
                         .says_why = true,
                         .put = value_put_text,
                         .allowed = "five fields (minute, hour, day of month, month, day "
                                    "of week), @yearly, @annually, @monthly, @weekly, "
                                    "@daily, @midnight, @hourly, @reboot or @every TIME"},
    [OPTION_ZONE] = {.placeholder = "ZONE",
                     .field = &text_field,
                     .fits = timezone_is_name,
                     .set = value_set_text,
                     .put = value_put_text,
                     .allowed = "the name of a time zone, such as Europe/Stockholm"},
    [OPTION_COMMAND] = {.placeholder = "PROGRAM…",
                        .field = &words_field,
                        .set = value_set_program,
                        .says_why = true,
                        .put = value_put_program,
                        .allowed = "a program and its arguments"},
    [OPTION_EXEC] = {.placeholder = "PROGRAM…",
                     .field = &words_field,
                     .set = value_set_program,
                     .says_why = true,
                     .put = value_put_program,
                     .allowed = "a program and its arguments"},
    [OPTION_HOOK] = {.placeholder = "PROGRAM…",
                     .field = &words_field,
                     .set = value_set_program,
                     .says_why = true,
                     .put = value_put_program,
                     .allowed = "a program and its arguments"},
    [OPTION_ENV] = {.placeholder = "NAME[=VALUE]…",
                    .field = &words_field,
                    .set = value_set_env,
                    .says_why = true,
                    .put = value_put_env,
                    .has_secret = value_has_secret_variable,
                    .allowed = "words of the form NAME or NAME=VALUE"},
    [OPTION_DURATION] = {.placeholder = "TIME",
                         .field = &duration_field,
                         .set = value_set_duration,
                         .put = value_put_duration,
                         .put_allowed = value_put_durations,
                         .allowed = ", with a unit (ms, s, m, h, d)"},
    [OPTION_DAYS] = {.placeholder = "TIME",
                     .field = &duration_field,
                     .set = value_set_days,
                     .put = value_put_duration,
                     .put_allowed = value_put_durations,
                     .allowed = ", with a unit (h, d)"},
    [OPTION_INT] = {.placeholder = "N",
                    .field = &int_field,
                    .set = value_set_int,
                    .put = value_put_int,
                    .put_allowed = value_put_ints},
    [OPTION_CHOICE] = {.placeholder = "WORD",
                       .field = &int_field,
                       .set = value_set_choice,
                       .put = value_put_choice,
                       .put_allowed = value_put_choices},
    [OPTION_SWITCH] = {.placeholder = "WORD",
                       .field = &switch_field,
                       .set = value_set_switch,
                       .put = value_put_switch,
                       .put_allowed = value_put_choices},
    [OPTION_BYTES] = {.placeholder = "SIZE",
                      .field = &bytes_field,
                      .set = value_set_bytes,
                      .put = value_put_bytes,
                      .put_allowed = value_put_sizes,
                      .allowed = ", with a unit (KiB, MiB, GiB) or in bytes"},
    [OPTION_BACKOFF] = {.placeholder = "FORMULA",
                        .field = &backoff_field,
                        .set = value_set_backoff,
                        .put = value_put_backoff,
                        .allowed = "oban, exponential(base=15s, cap=24h), "
                                   "linear(base=15s, step=15s, cap=1h) or constant(30s), "
                                   "each also with jitter=N%"},
};
_Static_assert(sizeof kinds / sizeof kinds[0] == OPTION_TYPES,
               "the last type has no row");

/* U+200C and U+200D, which are no more than the spelling of some words: Persian and Hindi
 * have them, and emoji of several parts. */
static bool
is_joiner(const char *at)
{
    return strncmp(at, "\xe2\x80\x8c", 3) == 0 || strncmp(at, "\xe2\x80\x8d", 3) == 0;
}

/* Refuses characters that a terminal would obey or not show: whoever reads the file does
 * not see them, either. A job's own texts may join letters. */
static int
refuse_hidden(const char *value, bool may_join, jobq_error *err)
{
    struct jobq__buf shown = {0};
    const char *at = escape_find(value);
    while (at != NULL && (*at == '\t' || (may_join && is_joiner(at))))
        at = escape_find(at + (*at == '\t' ? 1 : 3));
    if (!at)
        return 0;
    escape_put(&shown, at, jobq__utf8_len((const unsigned char *)at, strlen(at)));
    int rc = jobq__error(err, JOBQ_EINVAL,
                         "byte %td of the value is %s: control characters and invisible "
                         "characters are not allowed",
                         at - value + 1, jobq__buf_cstr(&shown) ? shown.data : "");
    jobq__buf_clear(&shown);
    return rc;
}

/* `"WHAT" is not allowed: ALLOWED` */
static int
refuse(const struct option_row *row, const char *value, jobq_error *err)
{
    struct jobq__buf allowed = {0};
    option_put_allowed(row, &allowed);
    const char *text = jobq__buf_cstr(&allowed);
    int rc =
        !text ? jobq__error(err, JOBQ_ENOMEM, "out of memory")
              : jobq__error(err, JOBQ_EINVAL, "\"%s\" is not allowed: %s", value, text);
    jobq__buf_clear(&allowed);
    return rc;
}

int
option_set(const struct option_row *row, void *base, const char *value,
           const struct option_origin *origin, jobq_error *err)
{
    const struct option_kind *kind = &kinds[row->type];
    const unsigned char *fault = jobq__utf8_fault(value);
    if (fault)
        return jobq__error(err, JOBQ_EINVAL,
                           "byte %td of the value, 0x%02X, is not UTF-8",
                           (const char *)fault - value + 1, *fault);
    if (*value == '\0')
        return refuse(row, value, err);
    int rc = refuse_hidden(value, kind->may_join, err);
    if (rc != 0)
        return rc;
    if (kind->fits != NULL && !kind->fits(value))
        return refuse(row, value, err);
    rc = kind->set(row, (char *)base + row->offset, value, origin, err);
    return rc == JOBQ_EINVAL && !kind->says_why ? refuse(row, value, err) : rc;
}

void
option_clear(const struct option_row *row, void *base)
{
    const struct field_type *field = kinds[row->type].field;
    if (field->clear != NULL)
        field->clear((char *)base + row->offset);
}

bool
option_is_set(const struct option_row *row, const void *base)
{
    const struct field_type *field = kinds[row->type].field;
    return field->is_set == NULL || field->is_set(row, (const char *)base + row->offset);
}

bool
option_equal(const struct option_row *row, const void *base_a, const void *base_b)
{
    return kinds[row->type].field->equal((const char *)base_a + row->offset,
                                         (const char *)base_b + row->offset);
}

void
option_put(const struct option_row *row, const void *base, bool secrets,
           struct jobq__buf *buf)
{
    kinds[row->type].put(row, (const char *)base + row->offset, secrets, buf);
}

bool
option_has_secret(const struct option_row *row, const void *base)
{
    const struct option_kind *kind = &kinds[row->type];
    struct jobq__buf open = {0}, closed = {0};
    if (!option_is_set(row, base))
        return false;
    if (kind->has_secret != NULL)
        return kind->has_secret((const char *)base + row->offset);
    option_put(row, base, true, &open);
    option_put(row, base, false, &closed);
    bool found = jobq__buf_cstr(&open) && jobq__buf_cstr(&closed) &&
                 strcmp(open.data, closed.data) != 0;
    jobq__buf_clear(&open);
    jobq__buf_clear(&closed);
    return found;
}

const char *
option_placeholder(enum option_type type)
{
    return kinds[type].placeholder;
}

void
option_put_allowed(const struct option_row *row, struct jobq__buf *buf)
{
    const struct option_kind *kind = &kinds[row->type];
    if (kind->put_allowed != NULL)
        kind->put_allowed(row, buf);
    if (kind->allowed != NULL)
        jobq__buf_adds(buf, kind->allowed);
}
