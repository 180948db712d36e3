/* params.h (internal): the parameters of one statement, gathered one by one, as libpq
 * takes them. Integers and arrays go in binary, text and JSON as text. Knows no
 * connection. */
#ifndef JOBQ__PARAMS_H
#define JOBQ__PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/array.h"

#define JOBQ__PARAMS_MAX 20

/* All zero is valid and empty. What was added is lent until the statement is sent. */
struct jobq__params {
    int n;
    Oid types[JOBQ__PARAMS_MAX];
    const char *values[JOBQ__PARAMS_MAX];
    int lengths[JOBQ__PARAMS_MAX];
    int formats[JOBQ__PARAMS_MAX];
    char ints[JOBQ__PARAMS_MAX][8];
    bool failed;      /* an array could not be built: no memory */
    int64_t until_us; /* the answer must be there by this moment (poll_deadline.h), or the
                         connection is broken off; 0: whenever it comes */
};

void jobq__params_int8(struct jobq__params *params, int64_t value);
void jobq__params_int4(struct jobq__params *params, int32_t value);
void jobq__params_bool(struct jobq__params *params, bool value);
/* text and json: NULL for null. */
void jobq__params_text(struct jobq__params *params, const char *text);
void jobq__params_json(struct jobq__params *params, const char *json);
void jobq__params_null(struct jobq__params *params, enum jobq__type type);
/* Completes the builder. type: that of the array. */
void jobq__params_array(struct jobq__params *params, enum jobq__type type,
                        struct jobq__array *array);
void jobq__params_int8_array(struct jobq__params *params, struct jobq__array *array,
                             const int64_t *values, size_t n);

#endif
