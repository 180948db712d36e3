/* text.h (internal): checks the texts that a caller gives, so that the error names the
 * argument and not the database's encoding. Knows no connection. */
#ifndef JOBQ__TEXT_H
#define JOBQ__TEXT_H

#include <jobq/error.h>
#include <stddef.h>

/* JOBQ_EINVAL: the message begins with prefix ("", "match." or "jobs[3].") and the
 * member's name. A text that is NULL is well. */
int jobq__text_check(const char *text, const char *prefix, const char *member,
                     jobq_error *err);

/* The same for n texts, none of which may be NULL: tags, keys. `size` is what the caller
 * knows n as. */
int jobq__texts_check(const char *const *texts, size_t n, const char *prefix,
                      const char *member, const char *size, jobq_error *err);

#endif
