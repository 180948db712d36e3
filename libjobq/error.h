/* error.h (internal): fills in a jobq_error. The lowest level that understands a failure
 * calls this, once. */
#ifndef JOBQ__ERROR_H
#define JOBQ__ERROR_H

#include <jobq/error.h>

/* Sets err (if not NULL) to code and the formatted one-line message, with no SQLSTATE;
 * newlines in the text become spaces and over-long text is cut at a UTF-8 boundary.
 * Returns code, so that `return jobq__error(…)` reads well. */
int jobq__error(jobq_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
