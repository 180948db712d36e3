/* secrets.h: which words of a command line, and which variables, hold a secret by their
 * looks, and how they are shown without it. Connection strings are conninfo.h's business.
 */
#ifndef JOBQD_SECRETS_H
#define JOBQD_SECRETS_H

#include <stdbool.h>

#include "libjobq/buf.h"

/* Appends a word of a command line as it may be shown: **** stands for the value of
 * `--token=…`, for what follows `--token`, and for the password of a URI or a keyword
 * string. before: the word before it, or "". */
void secrets_put_argument(struct jobq__buf *buf, const char *before, const char *word);

/* Appends NAME=**** for NAME=VALUE, whatever the value is, and NAME for NAME. before is
 * not used: both functions have one type. */
void secrets_put_variable(struct jobq__buf *buf, const char *before, const char *word);

/* Whether NAME=VALUE looks like a secret: by its name, or as a URI with a password. */
bool secrets_is_variable(const char *word);

#endif
