/* wrap.h: text for a terminal of 80 columns. */
#ifndef JOBQD_WRAP_H
#define JOBQD_WRAP_H

#include <stddef.h>
#include <stdio.h>

#include "libjobq/buf.h"

enum { WRAP_COLUMNS = 80 };

/* Appends the words of text, with line ends so that no line is longer than 80 columns.
 * at: the column that the text begins in; indent: the one that further lines begin in. A
 * line end counts as a blank, an empty line begins a paragraph, and a line that begins
 * with a blank stays as it is. Ends the last line. */
void wrap_put(struct jobq__buf *out, const char *text, size_t at, size_t indent);
/* The same to a stream; what memory does not allow is left out. */
void wrap_print(FILE *out, const char *text, size_t at, size_t indent);

#endif
