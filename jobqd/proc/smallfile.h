/* smallfile.h: files of the kernel's (/proc, cgroups) that are read at one go: no disk is
 * behind them, so that reading does not block. */
#ifndef JOBQD_SMALLFILE_H
#define JOBQD_SMALLFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads at most size - 1 bytes, NUL-terminated; false with errno. */
bool smallfile_read(const char *path, char *out, size_t size);

/* The number behind a label at the start of a line; -1: there is no such line. */
int64_t smallfile_number(const char *text, const char *label);

#endif
