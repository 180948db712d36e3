/* table.h: query results on stdout, for people (aligned columns) and for programs (JSON).
 */
#ifndef JOBQD_TABLE_H
#define JOBQD_TABLE_H

#include <libpq-fe.h>
#include <stdio.h>

/* The first n_columns of result: a line of their names in capitals, then a line a row.
 * Numbers are aligned to the right; values are escaped (base/escape.h): a job's text
 * cannot paint the screen. */
void table_print(FILE *out, const PGresult *result, int n_columns);

/* One column of JSON texts as an array, a value a line: as Postgres gave them, but for
 * what a terminal would obey. No final newline. */
void table_print_json(FILE *out, const PGresult *result, int column);

/* A value, escaped; line ends are kept when indent is not NULL, with indent after each.
 */
void table_print_value(FILE *out, const char *text, const char *indent);

#endif
