/* jsontree.h: JSON documents of our own, built as trees of cJSON and printed once.
 *
 * No step is checked. When memory runs out, the object or list that should have got a
 * member becomes a value of no type, which cJSON refuses to print: the document fails as a
 * whole, in tree_put or tree_print.
 *
 * Numbers are written as text: cJSON's own are doubles, which hold no int64_t, and depend
 * on the locale. What users wrote as JSON (args, meta, results) never becomes a tree;
 * tree_add_raw puts such a text into a document as it is.
 */
#ifndef JOBQD_JSONTREE_H
#define JOBQD_JSONTREE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "libjobq/buf.h"

/* A document begins with cJSON_CreateObject or cJSON_CreateArray. In all of these the
 * parent may be NULL (out of memory); a name of NULL adds to a list. */

cJSON *tree_add_object(cJSON *parent, const char *name);
cJSON *tree_add_list(cJSON *parent, const char *name);
void tree_add_text(cJSON *parent, const char *name, const char *text); /* NULL: null */
void tree_add_buf(cJSON *parent, const char *name, struct jobq__buf *text);
void tree_add_int(cJSON *parent, const char *name, int64_t value);
void tree_add_real(cJSON *parent, const char *name, double value, int decimals);
void tree_add_bool(cJSON *parent, const char *name, bool value);
void tree_add_raw(cJSON *parent, const char *name, const char *json); /* NULL: nothing */

/* For a program or the database: appends the document and deletes it. Bytes that are not
 * UTF-8 become U+FFFD. Out of memory: out->failed. */
void tree_put(struct jobq__buf *out, cJSON *document);

/* The answer of a command: prints the document on one line of stdout, escaped for a
 * terminal (escape.h), and deletes it. Out of memory: stderr says so, and the exit code
 * has to. */
void tree_print(cJSON *document);
bool tree_print_failed(void);

#endif
