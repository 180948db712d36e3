/* job.h: a claimed job in jobqd's memory, and what became of its attempt.
 *
 * A job is owned by exactly one part at a time: the producer (claimed, waiting), the pool
 * (given to a worker), the producer again (settled, until the database has confirmed).
 * Whoever holds it links it by `link`.
 */
#ifndef JOBQD_JOB_H
#define JOBQD_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/pure/list.h"

/* How far a request to cancel the job has come. */
enum job_cancel {
    JOB_GOES_ON,      /* nobody has asked */
    JOB_CANCEL_ASKED, /* whoever holds the job has not acted yet */
    JOB_CANCEL_TOLD   /* its worker has been told, or is about to be ended for it */
};

struct job {
    struct list link; /* the holder's list */
    /* the producer's list of all jobs that its node holds, wherever they are */
    struct list held;
    int64_t id;
    int32_t attempt; /* 1 … : the attempt that holds the job; with the id and the node it
                        fences acks */
    int32_t max_attempts;
    int64_t timeout_ms; /* the job's own; 0: the queue's */
    /* clock_ns() when its worker began it, as far as is known; 0: not yet */
    uint64_t started_ns;
    uint64_t late_ns; /* when its worker was told to stop it, since its deadline had
                            passed or it was cancelled; 0: it was not */
    bool asked_back;  /* its worker was to stop before it had begun it */
    enum job_cancel cancel;
    int unread_deaths;    /* workers that died, first in line, before they had read it */
    uint64_t output_from; /* its worker had printed so much when it began it, as far as
                             is known: never more */
    uint64_t frame_end;   /* where its frame ends in the stream of bytes to its worker */
    const char *kind; /* NUL-terminated; the strings lie behind the struct, in the same
                         allocation */
    const char *args; /* JSON text as Postgres gave it; NULL with meta: they are large,
                         and not fetched yet */
    const char *meta;
    size_t args_len;
    size_t meta_len;
};

/* A job with copies of the texts, all else zero and unlinked; args NULL: not fetched yet.
 * NULL: no memory. Freed by free(). */
struct job *job_new(const char *kind, size_t kind_len, const char *args, size_t args_len,
                    const char *meta, size_t meta_len);

/* How an attempt ended, as the pool reports it. X(enumerator, the error entry's kind or
 * NULL) */
#define VERDICTS(X)                                                                      \
    X(VERDICT_OK, NULL)         /* the handler answered ok; result kept if given */      \
    X(VERDICT_ERROR, "error")   /* the handler said so; retried by policy or delay_ms */ \
    X(VERDICT_SNOOZE, NULL)     /* again in delay_ms, not counted as an attempt */       \
    X(VERDICT_DISCARD, "error") /* the handler's word: never again */                    \
    X(VERDICT_CANCELLED, NULL)  /* the handler's word, or told to: ends as cancelled */  \
    X(VERDICT_RELEASED, NULL) /* never started, or drained: not counted as an attempt */ \
    X(VERDICT_ABORTED, "cancelled") /* asked for by jobq.cancel, and did not complete */ \
    X(VERDICT_CRASH, "crash")       /* a signal, or an exit while it held the job */     \
    X(VERDICT_TIMEOUT, "timeout")   /* past its deadline, stopped or killed */           \
    X(VERDICT_MEMORY, "memory")     /* killed for its memory */                          \
    X(VERDICT_PROTOCOL,                                                                  \
      "protocol") /* the worker sent what the protocol does not know */                  \
    X(VERDICT_UNHANDLED, "unhandled") /* no handler for this kind */                     \
    X(VERDICT_ORPHANED, "orphaned")   /* killed by the guard: again at once */

enum verdict_kind {
#define X(name, label) name,
    VERDICTS(X)
#undef X
};

/* Lent to the callback that receives it: text must be copied to be kept. */
struct verdict {
    enum verdict_kind kind;
    const char *result; /* OK: raw JSON, or NULL */
    size_t result_len;
    const char *error;  /* one line, or NULL */
    const char *detail; /* a trace, or NULL */
    int64_t delay_ms;   /* SNOOZE, ERROR with the handler's own delay; -1: by policy */
    int exit_code; /* CRASH and exec's ERROR: what the process exited with; -1: not known
                    */
    int signal;    /* what killed the process; 0: none */
    /* the end of the worker's stderr and stdout, at most 2 KiB, or NULL */
    const char *output;
    int64_t run_us;     /* wall time since the start; -1: never started */
    int64_t cpu_us;     /* of the process, exec workers and crashes; -1: not measured */
    int64_t max_rss_kb; /* peak memory of the process; -1: not measured */
    int slot; /* the worker's number in its queue, from 1; 0: no worker had it */
    long pid; /* the worker's */
};

/* What a verdict on a job becomes that somebody has asked to cancel: completed if it was
 * done after all, else VERDICT_ABORTED, with its reason in text. */
enum { VERDICT_TEXT = 640 };
void verdict_of_cancelled(const struct verdict *said, struct verdict *out,
                          char text[VERDICT_TEXT]);

const char *verdict_name(enum verdict_kind kind); /* "OK", "ERROR", … for logs */
/* The `kind` of the error entry that this verdict leaves in jobs.errors; NULL: it leaves
 * none. */
const char *verdict_error_kind(enum verdict_kind kind);

#endif
