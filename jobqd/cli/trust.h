/* trust.h: who else may change what jobqd reads and runs, or read its password. Nothing
 * of it keeps jobqd from working, so it is said and not refused: at the start, at a
 * reload, by `config check` and by doctor.
 */
#ifndef JOBQD_TRUST_H
#define JOBQD_TRUST_H

#include "jobqd/config/config.h"

/* what: a sentence for the operator; remedy: what to do about it. */
typedef void (*trust_say)(void *data, const char *what, const char *remedy);

/* Says each finding:
 *   - a configuration file, or a program that runs as root, which another user may change
 * or replace: its mode and owner, and those of each folder above it;
 *   - a configuration file with a password in it that everybody may read;
 *   - queues whose programs run as root;
 *   - an embedded database's folder that another user owns or may write;
 *   - what doubts.h finds. */
void trust_look(const struct config *config, trust_say say, void *data);

/* trust_say for the log. */
void trust_log(void *data, const char *what, const char *remedy);

#endif
