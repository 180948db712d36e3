/* jobq/error.h: error codes and the error object that every fallible function fills in.
 *
 * Functions return 0 or a negative JOBQ_E… code. They return results through out
 * parameters, which they leave untouched on failure. The last parameter is a
 * jobq_error *, or NULL if you only want the code. There is no thread-local last error.
 */
#ifndef JOBQ_ERROR_H
#define JOBQ_ERROR_H

#include <jobq/export.h>

#ifdef __cplusplus
extern "C" {
#endif

enum jobq_code {
    JOBQ_OK = 0,
    JOBQ_EINVAL = -1, /* an argument is wrong; the message names it and what is allowed */
    JOBQ_ENOMEM = -2, /* memory ran out; nothing was done */
    JOBQ_ECONN = -3,  /* the database is away or the connection broke; a call in flight
                         may or may not have taken effect */
    JOBQ_EDB = -4,    /* the database reported an error; see sqlstate */
    JOBQ_ENOTFOUND = -5, /* no job has that id */
    /* the job or the transaction is in a state that does not allow it */
    JOBQ_ESTATE = -6,
    JOBQ_EPROTO = -7, /* the peer on the worker socket broke the protocol */
    JOBQ_EIO = -8,    /* a read, write or system call failed */
    /* the jobq schema is missing, older or newer than this library knows */
    JOBQ_ESCHEMA = -9,
    JOBQ_ECONFLICT = -10, /* a conflicting job exists, and on_conflict is RAISE */
    JOBQ_ETIMEOUT = -11   /* timed out */
};

/* What went wrong. The caller owns it, usually on the stack. It holds no pointers and
 * needs no clean-up. */
typedef struct jobq_error {
    int code;          /* the JOBQ_E… code also returned */
    char sqlstate[6];  /* five characters and a NUL; "" if the error is not the
                          database's */
    char message[512]; /* one line, UTF-8, names what was wrong and what is allowed */
} jobq_error;

/* The code's name, such as "JOBQ_EINVAL"; "JOBQ_E?" for an unknown code.
 *
 * Ownership: a static string. Thread: any. */
JOBQ_API const char *jobq_code_name(int code);

#ifdef __cplusplus
}
#endif

#endif
