/* sqltext.h: fills the schema's name into the SQL texts of migrations/ and jobqd/sql/.
 *
 * @schema@ becomes the schema as a quoted identifier ("jobq"), which is right before a
 * dot, in a SET search_path and inside a '…'::regclass literal alike, and makes a schema
 * called `user` or `order` harmless.
 * @channel@ becomes the bare name: the NOTIFY channel, and wherever a text, not an
 * identifier, is meant (n.nspname = '@channel@'). Values are never filled in: they are
 * bound as parameters.
 */
#ifndef JOBQD_SQLTEXT_H
#define JOBQD_SQLTEXT_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stdint.h>

/* Whether name may be jobq's schema: [a-z_][a-z0-9_]*, 1 to 63 bytes, not beginning with
 * pg_. No other character is possible, so neither quoting nor escaping is ever in doubt.
 */
bool sqltext_is_schema(const char *name);

/* text with both words filled in, in memory that the caller frees. JOBQ_EINVAL for a
 * schema that is none, JOBQ_ENOMEM. Any other @word@ stays as it is (@limit@ of
 * claim.sql). */
int sqltext_expand(const char *text, const char *schema, char **out, jobq_error *err);

/* text with each `mark` replaced by the number, in memory that the caller frees; NULL:
 * out of memory. For what no parameter can say: a LIMIT's literal, a function's body. */
char *sqltext_number(const char *text, const char *mark, int64_t number);

#endif
