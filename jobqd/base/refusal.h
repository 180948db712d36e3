/* refusal.h: why the server refuses a session, and what mends that. */
#ifndef JOBQD_REFUSAL_H
#define JOBQD_REFUSAL_H

#include <jobq/error.h>

/* Reads libpq's account of a connection that failed, as it is with PQERRORS_VERBOSE:
 * "FATAL:  28P01: password …\nLOCATION:  auth.c:326". libpq tells the SQLSTATE there
 * alone: it is taken out of the text, and is in the server's language no less. Where
 * several hosts refuse, the last one's counts. *why becomes JOBQ_ECONN, its sqlstate
 * empty when no server has answered. */
void refusal_read(const char *message, jobq_error *why);

/* What mends a refusal that no other try mends. Others (starting, full, read-only) may
 * pass by themselves. */
struct remedy {
    const char *sqlstate;
    int exit_code; /* sysexits' */
    const char *text;
};

/* NULL: none is known. */
const struct remedy *refusal_remedy(const char *sqlstate);

#endif
