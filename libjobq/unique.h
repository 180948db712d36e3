/* unique.h (internal): what a job says about being unique, and about a conflict: checked,
 * and written as the SQL functions take it. Knows no connection. */
#ifndef JOBQ__UNIQUE_H
#define JOBQ__UNIQUE_H

#include <jobq/job.h>

#include "libjobq/buf.h"

/* JOBQ_EINVAL: the message begins with prefix and the member's name. */
int jobq__unique_check(const jobq_job *job, const char *prefix, jobq_error *err);

/* unique_by as a JSON object. */
void jobq__unique_put(struct jobq__buf *json, const jobq_unique *unique);

/* The word for on_conflict. */
const char *jobq__conflict_word(int on_conflict);

/* What came of it, from the database's word for it, which is `len` bytes (at NULL: it was
 * added). */
int jobq__conflict_read(const char *at, size_t len);

#endif
