/* environment.h: the variables that a program finds: jobqd's own without what must not
 * reach user code, and what the configuration adds.
 *
 * Withheld are the database's address and password (PG*, DATABASE_URL), jobqd's own
 * settings (JOBQ_*, but for where libjobq and which the schema is), and what a service
 * manager gives to jobqd only. The option `env` hands a withheld variable over by naming
 * it.
 */
#ifndef JOBQD_ENVIRONMENT_H
#define JOBQD_ENVIRONMENT_H

#include <jobq/error.h>
#include <stddef.h>

/* Where a program's variables come from; a later source wins over an earlier one. Each is
 * NULL-terminated, or NULL. */
struct environment_sources {
    char *const *inherited; /* what is not withheld of it */
    char *const *account;   /* NAME=VALUE: of the user that it runs as */
    char *const *words; /* NAME=VALUE, or NAME: with the value that it has in `inherited`,
                           withheld or not; nothing where it has none */
    const char *const *own; /* NAME=VALUE: of jobqd for its programs */
};

/* An array in one allocation, for free(), in which each name occurs once; NULL: out of
 * memory. */
char **environment_make(const struct environment_sources *sources);

/* Whether each word is a legal NAME or NAME=VALUE, and none is a variable by which jobqd
 * itself speaks to its programs. JOBQ_EINVAL names the word. */
int environment_check(char *const *words, jobq_error *err);

#endif
