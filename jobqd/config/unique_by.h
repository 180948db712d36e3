/* unique_by.h: what unique_by may say, by the rules of the database (conflict_fault in
 * migrations/schema/unique.sql), for who must know before there is one: the configuration and
 * `jobqd cron set`. */
#ifndef JOBQD_UNIQUE_BY_H
#define JOBQD_UNIQUE_BY_H

#include <jobq/error.h>

/* text: a JSON object. JOBQ_EINVAL: the message begins with `what`. */
int unique_by_check(const char *text, const char *what, jobq_error *err);

#endif
