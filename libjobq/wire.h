/* wire.h (internal): the frames of the worker protocol, version 1. One JSON object a
 * line, both ways.
 *
 * Both ends use this file: the daemon writes job/cancel/stop and reads the rest, the
 * worker library the other way round. With a forkserver (preload, see README.md) the daemon
 * also writes fork, to it, and start, to the worker that it has forked. A job's args,
 * meta and result are carried as the bytes that they are, never parsed into numbers and
 * printed again: they are spans into the line. Knows no sockets and allocates nothing
 * while parsing.
 */
#ifndef JOBQ__WIRE_H
#define JOBQ__WIRE_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libjobq/buf.h"

#define JOBQ__PROTOCOL_VERSION 1
#define JOBQ__MAX_FRAME_DEFAULT ((size_t)4 * 1024 * 1024)
enum { JOBQ__CONCURRENCY_MAX = 1000 }; /* jobs that one worker may run at a time */

/* Bytes inside a line, lent until the line's buffer changes. at is NULL when the member
 * was absent. */
struct jobq__span {
    const char *at;
    size_t len;
};

/* Who sends a message, and what it is. */
enum {
    JOBQ__BY_JOBQD = 1,
    JOBQ__BY_WORKER = 2,
    JOBQ__BY_FORKSERVER = 4,
    JOBQ__HAS_ID = 8,    /* a job's, or a request's: required, > 0 */
    JOBQ__IS_ANSWER = 16 /* from a worker, to a job */
};

/* X(enumerator, wire name, what it is). A message is a row here, its reader in wire.c and
 * its writer in wire_put.c; who receives it has a row of its own in a table of handlers. */
#define JOBQ__FRAMES(X)                                                                  \
    X(FRAME_JOB, "job", JOBQ__BY_JOBQD | JOBQ__HAS_ID)                                   \
    X(FRAME_CANCEL, "cancel",                                                            \
      JOBQ__BY_JOBQD | JOBQ__BY_WORKER | JOBQ__HAS_ID | JOBQ__IS_ANSWER)                 \
    X(FRAME_STOP, "stop", JOBQ__BY_JOBQD)                                                \
    X(FRAME_HELLO, "hello", JOBQ__BY_WORKER | JOBQ__BY_FORKSERVER)                       \
    X(FRAME_OK, "ok", JOBQ__BY_WORKER | JOBQ__HAS_ID | JOBQ__IS_ANSWER)                  \
    X(FRAME_ERROR, "error",                                                              \
      JOBQ__BY_WORKER | JOBQ__BY_FORKSERVER | JOBQ__HAS_ID | JOBQ__IS_ANSWER)            \
    X(FRAME_SNOOZE, "snooze", JOBQ__BY_WORKER | JOBQ__HAS_ID | JOBQ__IS_ANSWER)          \
    X(FRAME_DISCARD, "discard", JOBQ__BY_WORKER | JOBQ__HAS_ID | JOBQ__IS_ANSWER)        \
    X(FRAME_PROGRESS, "progress", JOBQ__BY_WORKER | JOBQ__HAS_ID)                        \
    X(FRAME_FORK, "fork", JOBQ__BY_JOBQD | JOBQ__HAS_ID)                                 \
    X(FRAME_FORKED, "forked", JOBQ__BY_FORKSERVER | JOBQ__HAS_ID)                        \
    X(FRAME_START, "start", JOBQ__BY_JOBQD)

enum jobq__frame_type {
#define X(name, wire, what) JOBQ__##name,
    JOBQ__FRAMES(X)
#undef X
        JOBQ__N_FRAMES
};

/* Of a type: its name, and whether it is all that (JOBQ__BY_WORKER …). */
const char *jobq__frame_name(enum jobq__frame_type type);
bool jobq__frame_is(enum jobq__frame_type type, unsigned what);

/* One parsed line. Which members count depends on the type; a member that the type needs
 * and the line lacks is a parse error, an unknown member is ignored (so that version 1
 * can grow). Text spans (queue, kind, error, detail, reason, note) are decoded in place,
 * UTF-8, without quotes; raw spans (args, meta, result, kinds) are JSON text as received.
 */
struct jobq__frame {
    enum jobq__frame_type type;
    int64_t id;      /* job, cancel, ok, error, snooze, discard, progress, fork, forked:
                        required, > 0 */
    int32_t attempt; /* job */
    int32_t max_attempts;     /* job */
    int64_t timeout_ms;       /* job: 0 when absent or null (no deadline) */
    struct jobq__span queue;  /* job */
    struct jobq__span kind;   /* job */
    struct jobq__span args;   /* job: raw */
    struct jobq__span meta;   /* job: raw */
    struct jobq__span result; /* ok: raw; absent and null are both "no result" */
    struct jobq__span error;  /* error: text, required */
    struct jobq__span detail; /* error: text */
    struct jobq__span reason; /* discard, cancel (from a worker): text */
    struct jobq__span note;   /* progress: text */
    /* error: retry_in_ms, -1 when absent; snooze: in_ms, required, >= 0 */
    int64_t delay_ms;
    double done;             /* progress: 0 … 1 */
    int32_t protocol;        /* hello: required */
    struct jobq__span kinds; /* hello: raw array of strings; at NULL: takes every kind */
    int32_t concurrency; /* hello: how many jobs it runs at a time; 1 when absent or null
                          */
    bool forkserver;     /* hello: it forks workers, and takes no jobs itself */
    int32_t pid;         /* fork: jobqd's own, the parent to be; forked: the worker's */
};

/* Parses one line (without its newline). Decodes strings in place, so line is changed.
 * The whole line is checked: JSON grammar, UTF-8, nesting to 128 levels, exactly one
 * object. On failure returns JOBQ_EPROTO with a message that says what was found and
 * where (byte), and leaves *out undefined but for out->id: the id of a job whose args or
 * meta are more than this file reads (jsonb nests deeper), so that the job can be
 * answered; else 0. */
int jobq__frame_parse(char *line, size_t len, struct jobq__frame *out, jobq_error *err);

/* What a line is, without changing it: its type, and the id where it has one (else 0).
 * The rest of the line is checked only as JSON. For a look at what waits behind a line
 * that is still being worked on. */
int jobq__frame_peek(const char *line, size_t len, enum jobq__frame_type *type,
                     int64_t *id, jobq_error *err);

/* The next string of a raw "kinds" array: *text is set to the decoded string (in place)
 * and *rest advances. Returns true while there was one. The array has been checked by
 * jobq__frame_parse. */
bool jobq__frame_next_kind(struct jobq__span *rest, struct jobq__span *text);

/* Writers: append one line with its newline to buf. Raw spans are copied byte for byte; a
 * newline cannot occur in them outside strings once they come from jsonb or
 * jobq__json_check (which see). */
void jobq__frame_put_job(struct jobq__buf *buf, const struct jobq__frame *job);
void jobq__frame_put_cancel(struct jobq__buf *buf, int64_t id);
void jobq__frame_put_stop(struct jobq__buf *buf);
/* To a forkserver, with the descriptors of the worker's socket and output (in this order)
 * as SCM_RIGHTS beside it. parent: our own pid. */
void jobq__frame_put_fork(struct jobq__buf *buf, int64_t id, int32_t parent);
/* To a worker that a forkserver has forked: it may begin. */
void jobq__frame_put_start(struct jobq__buf *buf);
void jobq__frame_put_forked(struct jobq__buf *buf, int64_t id, int32_t pid);
void jobq__frame_put_forkserver_hello(struct jobq__buf *buf);
/* kinds: n names, or NULL for every kind; concurrency: 1 to JOBQ__CONCURRENCY_MAX */
void jobq__frame_put_hello(struct jobq__buf *buf, const char *const *kinds, size_t n,
                           int32_t concurrency);
void jobq__frame_put_ok(struct jobq__buf *buf, int64_t id, struct jobq__span result);
/* The work is done, and its result cannot be kept: why, for the job's errors. */
void jobq__frame_put_ok_without_result(struct jobq__buf *buf, int64_t id,
                                       const char *why);
void jobq__frame_put_error(struct jobq__buf *buf, int64_t id, const char *error,
                           const char *detail, int64_t retry_in_ms);
void jobq__frame_put_snooze(struct jobq__buf *buf, int64_t id, int64_t in_ms);
void jobq__frame_put_discard(struct jobq__buf *buf, int64_t id, const char *reason);
void jobq__frame_put_cancelled(struct jobq__buf *buf, int64_t id, const char *reason);
void jobq__frame_put_progress(struct jobq__buf *buf, int64_t id, double done,
                              const char *note);

#endif
