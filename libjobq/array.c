/* array.c: builds binary array parameters and reads binary result fields; see
 * array.h. Everything in these formats is big-endian. */
#include "libjobq/array.h"

#include <assert.h>
#include <endian.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ndim, has null, element type, and for the one dimension its size and lower bound */
enum { HEADER = 5 * 4, EMPTY_HEADER = 3 * 4 };

enum { JSONB_VERSION = 1 };

static const size_t largest = 0x3fffffff; /* Postgres' own limit for one value */

static void
put32(char *at, uint32_t value)
{
    uint32_t wire = htobe32(value);
    memcpy(at, &wire, sizeof wire);
}

static void
put64(char *at, uint64_t value)
{
    uint64_t wire = htobe64(value);
    memcpy(at, &wire, sizeof wire);
}

void
jobq__array_begin(struct jobq__array *array, enum jobq__type element)
{
    jobq__buf_reset(&array->buf);
    array->n = 0;
    array->has_null = false;
    jobq__buf_reserve(&array->buf, HEADER);
    if (array->buf.failed)
        return;
    array->buf.len = HEADER;
    put32(array->buf.data + 8, (uint32_t)element);
}

/* Makes room for one element of len bytes behind its length word. Returns where its bytes
 * go, or NULL. */
static char *
add_element(struct jobq__array *array, size_t len)
{
    struct jobq__buf *buf = &array->buf;
    if (len > largest)
        buf->failed = true;
    else
        jobq__buf_reserve(buf, 4 + len);
    if (buf->failed)
        return NULL;
    char *at = buf->data + buf->len;
    put32(at, (uint32_t)len);
    buf->len += 4 + len;
    array->n++;
    return at + 4;
}

void
jobq__array_add_int8(struct jobq__array *array, int64_t value)
{
    char *at = add_element(array, 8);
    if (at)
        put64(at, (uint64_t)value);
}

void
jobq__array_add_int4(struct jobq__array *array, int32_t value)
{
    char *at = add_element(array, 4);
    if (at)
        put32(at, (uint32_t)value);
}

void
jobq__array_add_text(struct jobq__array *array, const char *text, size_t len)
{
    char *at = add_element(array, len);
    if (at && len > 0)
        memcpy(at, text, len);
}

void
jobq__array_add_jsonb(struct jobq__array *array, const char *json, size_t len)
{
    char *at = add_element(array, len < largest ? len + 1 : len);
    if (!at)
        return;
    *at = JSONB_VERSION;
    if (len > 0)
        memcpy(at + 1, json, len);
}

void
jobq__array_add_null(struct jobq__array *array)
{
    jobq__buf_reserve(&array->buf, 4);
    if (array->buf.failed)
        return;
    put32(array->buf.data + array->buf.len, UINT32_MAX); /* length -1: null, no bytes */
    array->buf.len += 4;
    array->n++;
    array->has_null = true;
}

bool
jobq__array_end(struct jobq__array *array, const char **value, int *length)
{
    struct jobq__buf *buf = &array->buf;
    if (buf->failed || buf->len > largest)
        return false;
    assert(buf->len >= HEADER);
    put32(buf->data, array->n > 0 ? 1 : 0);
    put32(buf->data + 4, array->has_null ? 1 : 0);
    put32(buf->data + 12, (uint32_t)array->n);
    put32(buf->data + 16, 1);
    *value = buf->data;
    /* an array of no elements has no dimensions at all */
    *length = array->n > 0 ? (int)buf->len : EMPTY_HEADER;
    return true;
}

void
jobq__array_clear(struct jobq__array *array)
{
    jobq__buf_clear(&array->buf);
    *array = (struct jobq__array){0};
}

void
jobq__value_int8(char out[8], int64_t value)
{
    put64(out, (uint64_t)value);
}

void
jobq__value_int4(char out[4], int32_t value)
{
    put32(out, (uint32_t)value);
}

/* The bytes of a field that is there and not null, and their number; else NULL. Asking
 * libpq for a field that does not exist would print a warning on stderr. */
static const char *
field(const PGresult *result, int row, int column, size_t *len)
{
    if (row < 0 || column < 0 || row >= PQntuples(result) || column >= PQnfields(result))
        return NULL;
    if (PQgetisnull(result, row, column))
        return NULL;
    *len = (size_t)PQgetlength(result, row, column);
    return PQgetvalue(result, row, column);
}

bool
jobq__field_null(const PGresult *result, int row, int column)
{
    return row >= 0 && column >= 0 && row < PQntuples(result) &&
           column < PQnfields(result) && PQgetisnull(result, row, column);
}

bool
jobq__field_int(const PGresult *result, int row, int column, int64_t *out)
{
    size_t len;
    const char *at = field(result, row, column, &len);
    if (!at || PQfformat(result, column) != 1)
        return false;
    if (len == 8) {
        uint64_t wire;
        memcpy(&wire, at, sizeof wire);
        *out = (int64_t)be64toh(wire);
    } else if (len == 4) {
        uint32_t wire;
        memcpy(&wire, at, sizeof wire);
        *out = (int32_t)be32toh(wire);
    } else if (len == 2) {
        uint16_t wire;
        memcpy(&wire, at, sizeof wire);
        *out = (int16_t)be16toh(wire);
    } else {
        return false;
    }
    return true;
}

bool
jobq__field_bool(const PGresult *result, int row, int column, bool *out)
{
    size_t len;
    const char *at = field(result, row, column, &len);
    if (!at || len != 1 || PQfformat(result, column) != 1)
        return false;
    *out = *at != 0;
    return true;
}

bool
jobq__field_text(const PGresult *result, int row, int column, const char **text,
                 size_t *len)
{
    size_t n;
    const char *at = field(result, row, column, &n);
    if (!at)
        return false;
    *text = at;
    *len = n;
    return true;
}

bool
jobq__field_jsonb(const PGresult *result, int row, int column, const char **json,
                  size_t *len)
{
    size_t n;
    const char *at = field(result, row, column, &n);
    if (!at || PQfformat(result, column) != 1 || n < 2 || *at != JSONB_VERSION)
        return false;
    *json = at + 1;
    *len = n - 1;
    return true;
}

size_t
jobq__affected(PGresult *result)
{
    const char *digits = PQcmdTuples(result);
    return (size_t)strtoull(digits, NULL, 10);
}
