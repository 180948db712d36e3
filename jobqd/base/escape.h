/* escape.h: text from elsewhere (a job, a worker's output, a row, a file, an argument) as
 * it may reach a log or a terminal. It can neither end a line, move the cursor, hide what
 * is there nor turn its order round:
 *   - control characters, C0 and C1, and DEL: they steer terminals;
 *   - line and paragraph separators, marks of direction, characters without a width;
 *   - bytes that are not UTF-8, which a terminal may take for C1.
 * They are shown as \n, \t, \r, \x1b (a byte) or \u202e (a character). Everything that is
 * printed for people goes through here, and what is printed for programs through the JSON
 * of it.
 */
#ifndef JOBQD_ESCAPE_H
#define JOBQD_ESCAPE_H

#include <stddef.h>
#include <stdio.h>

#include "libjobq/buf.h"

void escape_put(struct jobq__buf *out, const char *text, size_t len);

/* As a JSON string, its quotes included: the same characters are \u…; a byte that is not
 * UTF-8 is the text \xNN. */
void escape_put_json_string(struct jobq__buf *out, const char *text, size_t len);

/* A JSON text: its bytes, but for those characters, which can only stand in strings. */
void escape_put_json(struct jobq__buf *out, const char *json, size_t len);

/* The first byte of what escape_put would change; NULL: nothing. */
const char *escape_find(const char *text);

/* Text and JSON on a stream. */
void escape_print(FILE *out, const char *text);
void escape_print_json(FILE *out, const char *json);

#endif
