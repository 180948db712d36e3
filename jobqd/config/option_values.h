/* option_values.h: the functions in the columns of the table of types (option_types.c):
 * how a field is cleared, compared, set from a value and shown. Knows no types by name, and
 * does not say what is allowed.
 */
#ifndef JOBQD_OPTION_VALUES_H
#define JOBQD_OPTION_VALUES_H

#include "jobqd/config/option_types.h"

/* What a field of one C type is asked. NULL: the answer in brackets. */
struct field_type {
    void (*clear)(void *field); /* [it owns nothing] */
    bool (*is_set)(const struct option_row *row, const void *field); /* [it is] */
    bool (*equal)(const void *a, const void *b);
};

extern const struct field_type text_field;     /* char * */
extern const struct field_type words_field;    /* char ** */
extern const struct field_type duration_field; /* int64_t, ms */
extern const struct field_type int_field;      /* int, or an enum */
extern const struct field_type switch_field;   /* bool */
extern const struct field_type bytes_field;    /* size_t */
extern const struct field_type backoff_field;  /* struct jobq__backoff */

/* Sets the field from value, freeing what was there. Returns 0, JOBQ_ENOMEM, or
 * JOBQ_EINVAL: the field is as it was. Only dir, json, schedule, program and env fill in
 * err on JOBQ_EINVAL; of the others the caller says what is allowed. */
typedef int value_setter(const struct option_row *row, void *field, const char *value,
                         const struct option_origin *origin, jobq_error *err);
value_setter value_set_text;
value_setter value_set_dir;
value_setter value_set_json;
value_setter value_set_schedule;
value_setter value_set_program;
value_setter value_set_env;
value_setter value_set_duration;
value_setter value_set_days;
value_setter value_set_int;
value_setter value_set_choice;
value_setter value_set_switch;
value_setter value_set_bytes;
value_setter value_set_backoff;

bool value_is_name(const char *value);
bool value_is_text(const char *value);

/* Appends the field's value as its setter reads it; without secrets **** stands for them. */
typedef void value_printer(const struct option_row *row, const void *field, bool secrets,
                           struct jobq__buf *buf);
value_printer value_put_text;
value_printer value_put_conninfo;
value_printer value_put_program;
value_printer value_put_env;
value_printer value_put_duration;
value_printer value_put_int;
value_printer value_put_choice;
value_printer value_put_switch;
value_printer value_put_bytes;
value_printer value_put_backoff;

/* Whether a variable of env looks like a secret. All values of env are hidden, but not all
 * of them are secrets. */
bool value_has_secret_variable(const void *field);

/* Append the row's range, or its choices: "1s to 10m", "on or off". */
void value_put_durations(const struct option_row *row, struct jobq__buf *buf);
void value_put_ints(const struct option_row *row, struct jobq__buf *buf);
void value_put_sizes(const struct option_row *row, struct jobq__buf *buf);
void value_put_choices(const struct option_row *row, struct jobq__buf *buf);

#endif
