/* fuzz.h: what the fuzz targets share. Each is one file with LLVMFuzzerTestOneInput, and
 * checks more than that nothing crashes: what it promises is asked with must(). */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A broken promise is a finding like a crash. Always there, unlike assert. */
#define must(condition)                                                                  \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: must be: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                                     \
        }                                                                                \
    } while (0)

/* A copy of exactly these bytes, so that the sanitizer sees a read behind them; for
 * free(). */
static inline char *
fuzz_bytes(const void *data, size_t size)
{
    char *copy = malloc(size > 0 ? size : 1);
    must(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* The same with a NUL behind them. */
static inline char *
fuzz_text(const void *data, size_t size)
{
    char *copy = malloc(size + 1);
    must(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    copy[size] = '\0';
    return copy;
}

#endif
