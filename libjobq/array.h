/* array.h (internal): Postgres' binary formats, as far as jobqd uses them: arrays as
 * statement parameters, single integers as parameters, and the fields of a binary result.
 * Pure; knows no connection and no statement.
 *
 * A builder is begun anew for each use and keeps its memory, so that a steady stream of
 * arrays allocates nothing. Allocation failure is remembered, not returned at each step:
 * jobq__array_end tells.
 */
#ifndef JOBQ__ARRAY_H
#define JOBQ__ARRAY_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/buf.h"

/* Type oids of statement parameters (fixed by Postgres: pg_type.dat). */
enum jobq__type {
    JOBQ__BOOL = 16,
    JOBQ__INT8 = 20,
    JOBQ__INT4 = 23,
    JOBQ__TEXT = 25,
    JOBQ__INT4_ARRAY = 1007,
    JOBQ__TEXT_ARRAY = 1009,
    JOBQ__INT8_ARRAY = 1016,
    JOBQ__JSONB = 3802,
    JOBQ__JSONB_ARRAY = 3807
};

/* One array parameter being built. All zero is a valid, empty builder. */
struct jobq__array {
    struct jobq__buf buf;
    size_t n; /* elements so far */
    bool has_null;
};

/* Empties the builder and begins an array. element: JOBQ__INT8, JOBQ__INT4, JOBQ__TEXT or
 * JOBQ__JSONB; everything added until jobq__array_end is of that type. */
void jobq__array_begin(struct jobq__array *array, enum jobq__type element);
void jobq__array_add_int8(struct jobq__array *array, int64_t value);
void jobq__array_add_int4(struct jobq__array *array, int32_t value);
void jobq__array_add_text(struct jobq__array *array, const char *text, size_t len);
/* json: JSON text, whose bytes are sent as they are. */
void jobq__array_add_jsonb(struct jobq__array *array, const char *json, size_t len);
void jobq__array_add_null(struct jobq__array *array);
/* Completes the array. *value and *length are what a statement's values and lengths take
 * (format 1), lent until the builder is begun anew or cleared. Returns false, with
 * nothing set, when memory ran out or the array is larger than Postgres takes (1 GB). */
bool jobq__array_end(struct jobq__array *array, const char **value, int *length);
void
jobq__array_clear(struct jobq__array *array); /* frees the memory, back to all zero */

/* A single integer as a binary parameter: 8 (4) bytes to out. */
void jobq__value_int8(char out[8], int64_t value);
void jobq__value_int4(char out[4], int32_t value);

/* Readers of a field of a binary result. Each returns false, and leaves its out
 * parameters, when the field is null, the row or column does not exist, or the bytes are
 * not such a value; jobq__field_null tells null from the rest. Text is lent by the
 * result. jobq__field_int reads int2, int4 and int8. jobq__field_jsonb gives the JSON
 * text. */
bool jobq__field_null(const PGresult *result, int row, int column);
bool jobq__field_int(const PGresult *result, int row, int column, int64_t *out);
bool jobq__field_bool(const PGresult *result, int row, int column, bool *out);
bool jobq__field_text(const PGresult *result, int row, int column, const char **text,
                      size_t *len);
bool jobq__field_jsonb(const PGresult *result, int row, int column, const char **json,
                       size_t *len);

/* The row count of an INSERT, UPDATE or DELETE; 0 for other statements. */
size_t jobq__affected(PGresult *result);

#endif
