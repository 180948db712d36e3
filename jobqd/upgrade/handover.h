/* handover.h: the document in which one jobqd leaves its workers to the program that
 * takes its place in the same process (jobqd/upgrade/upgrade.h).
 *
 * It lies in a memory file that survives an exec. The two programs may be of different
 * releases, so it is records of named fields: a reader skips the fields that it does not
 * know and says which one it misses. Descriptors are fields too: the writer remembers
 * them, since they must be inheritable while the new program is executed, and at no other
 * moment. Knows nothing of workers.
 *
 *     jobqd-handover 1 LENGTH        of all that follows
 *     [worker]                       a record
 *     pid 4 1234                     name, length of the value, value; a value may hold
 *     rest 9 {"t":"ok"               any bytes
 */
#ifndef JOBQD_HANDOVER_H
#define JOBQD_HANDOVER_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/buf.h"

/* ---- writing ---- */

/* Starts zeroed; any failure is remembered until handover_seal. */
struct handover {
    struct jobq__buf text;
    struct jobq__buf fds; /* the descriptors, as ints */
};

void handover_record(struct handover *handover, const char *name);
/* name: letters, digits and _. */
void handover_put_int(struct handover *handover, const char *name, int64_t value);
void handover_put_bytes(struct handover *handover, const char *name, const void *bytes,
                        size_t len);
void handover_put_text(struct handover *handover, const char *name, const char *text);
/* fd stays the caller's; -1 is a value like any other. */
void handover_put_fd(struct handover *handover, const char *name, int fd);

/* Writes the document into a new memory file, close-on-exec. Returns 0 and its descriptor
 * (the caller's), or JOBQ_ENOMEM or JOBQ_EIO. */
int handover_seal(const struct handover *handover, int *fd, jobq_error *err);

/* Makes the descriptors of the document inheritable, or close-on-exec again. */
int handover_inherit(const struct handover *handover, bool inherit, jobq_error *err);

void handover_clear(struct handover *handover);

/* ---- reading ---- */

struct handover_reader; /* private to handover.c */
struct handover_entry;  /* one record */

/* Reads the document in fd (lent; any position). JOBQ_EINVAL: it is none, of another
 * format, or cut off. Ownership: free with handover_close; entries and what their fields
 * point to live as long. */
int handover_open(struct handover_reader **out, int fd, jobq_error *err);
void handover_close(struct handover_reader *reader);

/* The record after `after` (NULL: the first one); NULL: there is none. */
const struct handover_entry *handover_next(const struct handover_reader *reader,
                                           const struct handover_entry *after);
bool handover_is(const struct handover_entry *entry, const char *name);

/* Whether there is such a field: one that an older release does not write may be missing,
 * and then has a default. */
bool handover_has(const struct handover_entry *entry, const char *name);
/* JOBQ_EINVAL: the field is missing, or no number of that range; names it. */
int handover_get_int(const struct handover_entry *entry, const char *name, int64_t min,
                     int64_t max, int64_t *out, jobq_error *err);
/* *out is NUL-terminated behind its len bytes. len: may be NULL where no NUL is expected
 * within: then one is refused. */
int handover_get_bytes(const struct handover_entry *entry, const char *name,
                       const char **out, size_t *len, jobq_error *err);

#endif
