/* words.h: a command line in a configuration value, split into words as a shell does,
 * without a shell: blanks separate; '…' takes everything as it is; "…" takes \" and \\;
 * outside quotes \x is x. No variables, no globs, no redirections. */
#ifndef JOBQD_WORDS_H
#define JOBQD_WORDS_H

#include <jobq/error.h>

#include "libjobq/buf.h"

/* A NULL-terminated array with at least one word, to be freed by words_free. JOBQ_EINVAL:
 * no word, an open quote, a backslash at the end. */
int words_split(const char *text, char ***out, jobq_error *err);
void words_free(char **words);

/* Appends words so that words_split gives them back, and so that no ` ;` (an INI comment)
 * occurs. */
void words_join(struct jobq__buf *buf, char *const *words);

/* Replaces words[0] by an absolute path: a bare name is looked up in path (as in $PATH),
 * a relative one counts from folder. A bare name that is not there stays as it is: who
 * only reads the configuration has no use for the program. JOBQ_ENOMEM. */
int words_place_program(char **words, const char *folder, const char *path,
                        jobq_error *err);

#endif
