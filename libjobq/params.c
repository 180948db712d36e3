/* params.c: see params.h. */
#include "libjobq/params.h"

static void
add(struct jobq__params *params, enum jobq__type type, const char *value, int length,
    int format)
{
    params->types[params->n] = (Oid)type;
    params->values[params->n] = value;
    params->lengths[params->n] = length;
    params->formats[params->n] = format;
    params->n++;
}

void
jobq__params_int8(struct jobq__params *params, int64_t value)
{
    char *bytes = params->ints[params->n];
    jobq__value_int8(bytes, value);
    add(params, JOBQ__INT8, bytes, 8, 1);
}

void
jobq__params_int4(struct jobq__params *params, int32_t value)
{
    char *bytes = params->ints[params->n];
    jobq__value_int4(bytes, value);
    add(params, JOBQ__INT4, bytes, 4, 1);
}

void
jobq__params_bool(struct jobq__params *params, bool value)
{
    char *byte = params->ints[params->n];
    byte[0] = value;
    add(params, JOBQ__BOOL, byte, 1, 1);
}

void
jobq__params_text(struct jobq__params *params, const char *text)
{
    add(params, JOBQ__TEXT, text, 0, 0);
}

void
jobq__params_json(struct jobq__params *params, const char *json)
{
    add(params, JOBQ__JSONB, json, 0, 0);
}

void
jobq__params_array(struct jobq__params *params, enum jobq__type type,
                   struct jobq__array *array)
{
    const char *value = NULL;
    int length = 0;
    if (!jobq__array_end(array, &value, &length))
        params->failed = true;
    add(params, type, value, length, 1);
}

void
jobq__params_int8_array(struct jobq__params *params, struct jobq__array *array,
                        const int64_t *values, size_t n)
{
    jobq__array_begin(array, JOBQ__INT8);
    for (size_t i = 0; i < n; i++)
        jobq__array_add_int8(array, values[i]);
    jobq__params_array(params, JOBQ__INT8_ARRAY, array);
}

void
jobq__params_null(struct jobq__params *params, enum jobq__type type)
{
    add(params, type, NULL, 0, 1);
}
