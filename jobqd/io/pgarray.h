/* pgarray.h: Postgres' binary formats, as far as jobqd uses them: arrays as statement
 * parameters, single integers as parameters, and the fields of a binary result. Pure;
 * knows no connection and no statement.
 *
 * A builder is begun anew for each use and keeps its memory, so that a steady stream of
 * arrays allocates nothing. Allocation failure is remembered, not returned at each step:
 * pgarray_end tells.
 */
#ifndef JOBQD_PGARRAY_H
#define JOBQD_PGARRAY_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/buf.h"

/* Type oids of statement parameters (fixed by Postgres: pg_type.dat). */
enum pg_type {
    PG_BOOL = 16,
    PG_INT8 = 20,
    PG_INT4 = 23,
    PG_TEXT = 25,
    PG_INT4_ARRAY = 1007,
    PG_TEXT_ARRAY = 1009,
    PG_INT8_ARRAY = 1016,
    PG_JSONB = 3802,
    PG_JSONB_ARRAY = 3807
};

/* One array parameter being built. All zero is a valid, empty builder. */
struct pgarray {
    struct jobq__buf buf;
    size_t n; /* elements so far */
    bool has_null;
};

/* Empties the builder and begins an array. element: PG_INT8, PG_INT4, PG_TEXT or
 * PG_JSONB; everything added until pgarray_end is of that type. */
void pgarray_begin(struct pgarray *array, enum pg_type element);
void pgarray_add_int8(struct pgarray *array, int64_t value);
void pgarray_add_int4(struct pgarray *array, int32_t value);
void pgarray_add_text(struct pgarray *array, const char *text, size_t len);
/* json: JSON text, whose bytes are sent as they are. */
void pgarray_add_jsonb(struct pgarray *array, const char *json, size_t len);
void pgarray_add_null(struct pgarray *array);
/* Completes the array. *value and *length are what a statement's values and lengths take
 * (format 1), lent until the builder is begun anew or cleared. Returns false, with
 * nothing set, when memory ran out or the array is larger than Postgres takes (1 GB). */
bool pgarray_end(struct pgarray *array, const char **value, int *length);
void pgarray_clear(struct pgarray *array); /* frees the memory, back to all zero */

/* A single integer as a binary parameter: 8 (4) bytes to out. */
void pgvalue_int8(char out[8], int64_t value);
void pgvalue_int4(char out[4], int32_t value);

/* Readers of a field of a binary result. Each returns false, and leaves its out
 * parameters, when the field is null, the row or column does not exist, or the bytes are
 * not such a value; pgfield_null tells null from the rest. Text is lent by the result.
 * pgfield_int reads int2, int4 and int8. pgfield_jsonb gives the JSON text. */
bool pgfield_null(const PGresult *result, int row, int column);
bool pgfield_int(const PGresult *result, int row, int column, int64_t *out);
bool pgfield_bool(const PGresult *result, int row, int column, bool *out);
bool pgfield_text(const PGresult *result, int row, int column, const char **text,
                  size_t *len);
bool pgfield_jsonb(const PGresult *result, int row, int column, const char **json,
                   size_t *len);

/* The row count of an INSERT, UPDATE or DELETE; 0 for other statements. */
size_t pgresult_affected(PGresult *result);

#endif
