/* doubts.h: what a configuration may say, but is seldom meant so: a line of command or
 * exec that only a shell would understand, or a queue that the file does not have. */
#ifndef JOBQD_DOUBTS_H
#define JOBQD_DOUBTS_H

#include "jobqd/config/config.h"

/* what: a sentence for the operator; remedy: what to do about it. */
typedef void (*doubts_say)(void *data, const char *what, const char *remedy);

/* Says what it finds. It reads the file again, since quotes tell what is meant, and the
 * configuration has no quotes any more. */
void doubts_look(const struct config *config, doubts_say say, void *data);

/* What in the value of command or exec is meant for a shell, by its looks: the operator
 * or expansion, as it is to be quoted. NULL: nothing. */
const char *doubts_find(const char *value);

#endif
