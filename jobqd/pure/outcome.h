/* outcome.h: what a process's end means. One pure function, so that each way to end is a
 * row of a test.
 *
 * The worker gathers what it knows into a `struct ending`; outcome_judge says what to
 * call it, whether the pool should count it against the program, and what becomes of the
 * job that the process ran. A process that ran several is judged for each of them.
 */
#ifndef JOBQD_OUTCOME_H
#define JOBQD_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobqd/pure/job.h"

/* X(enumerator, what the log calls it) */
#define OUTCOMES(X)                                                                      \
    X(OUTCOME_FINISHED, "finished")                                                      \
    X(OUTCOME_STOPPED, "stopped as asked")                                               \
    X(OUTCOME_CRASHED, "crashed")                                                        \
    X(OUTCOME_TIMED_OUT, "timed out")                                                    \
    X(OUTCOME_MEMORY, "out of memory")                                                   \
    X(OUTCOME_CANCELLED, "ended to cancel a job")                                        \
    X(OUTCOME_BAD_PROTOCOL, "broke the protocol")                                        \
    X(OUTCOME_BOOT_FAILED, "did not start")                                              \
    X(OUTCOME_ORPHANED, "was killed by the guard")

enum outcome_kind {
#define X(name, label) name,
    OUTCOMES(X)
#undef X
};

/* How the program is used. */
enum program {
    PROGRAM_WORKER, /* long-lived, speaks the protocol */
    PROGRAM_EXEC    /* one process a job, the exit code is the answer */
};

/* Why we ended the process ourselves, if we did. The gravest, where there are several. */
enum intent {
    INTENT_NONE, /* we did not */
    INTENT_STOP, /* told to finish what it holds and go (it may have got TERM and KILL for
                    not going) */
    INTENT_BOOT_TIMEOUT, /* no hello in time */
    INTENT_TIMEOUT,      /* a job's deadline has passed */
    INTENT_CPU,          /* a job has used up its cpu_limit */
    INTENT_CANCEL,       /* a job was cancelled while it ran */
    INTENT_PROTOCOL,     /* it broke the protocol; ending.complaint says how */
    INTENT_MEMORY,       /* it used more than max_memory_hard */
    INTENT_GIVE_UP,      /* memory or a descriptor failed us: we cannot serve it */
    INTENT_KILL,         /* the pool is killed: its jobs go back */
    INTENT_GUARD         /* the guard did, since the lease was about to end */
};

/* What is known about a SIGKILL that was not ours. */
enum oom {
    OOM_NONE,
    OOM_LIMIT, /* the kernel ended the control group at its max_memory_hard */
    OOM_SYSTEM /* the kernel has just killed for want of memory, presumably this one */
};

struct ending {
    enum program program;
    enum intent intent;
    bool said_hello; /* always true for PROGRAM_EXEC */
    bool holds_job;  /* it ran a job that has no answer, after everything written was read
                      */
    size_t beside;   /* with holds_job: how many others it ran at the same time */
    bool is_late; /* it is that job's deadline that has passed, or that was cancelled */
    int unread_deaths; /* with holds_job: so many workers in a row, this one the last,
                          died with the job first in line and unread; 0: it was read */
    bool exceeded;     /* for INTENT_CPU and INTENT_MEMORY: it may be that job's doing */
    enum oom oom;
    bool cpu_exhausted; /* as much processor time is used as the kernel lets it have */
    int64_t cpu_limit_ms;
    int64_t memory_kb;       /* INTENT_MEMORY: what it used */
    int64_t memory_limit_kb; /* max_memory_hard */
    bool half_line;          /* the socket ended within a line */
    uint64_t answered;       /* jobs in its life */
    int exec_errno;          /* why the program could not be executed; 0: it was */
    const char *exec_step;   /* what failed before it could be; NULL: that itself */
    const char *exec_fault;  /* what the program lacks; NULL: exec_errno says it */
    int exit_code;           /* -1: a signal ended it */
    int signal;              /* 0: it exited */
    int sent_signal;         /* the last one that we sent; 0: none */
    int64_t limit_ms;        /* the timeout that has passed: the job's, or boot_timeout */
    const char *complaint;   /* what broke the protocol, or NULL */
    const char *path;        /* the program, for messages */
    const char *last_line;   /* what it printed last, fit to be shown; NULL: nothing */
};

/* OUTCOME_LINE: bytes of a last line. */
enum { OUTCOME_TEXT = 512, OUTCOME_LINE = 200, OUTCOME_SNOOZE_MS = 60000 };

struct outcome {
    enum outcome_kind kind;
    bool bad;                  /* counts against the pool's restart intensity */
    bool charged;              /* the job gets `verdict`; otherwise it was not held */
    enum verdict_kind verdict; /* RELEASED where the job is not to blame */
    int64_t delay_ms;          /* the verdict's: -1, or exec's snooze */
    char text[OUTCOME_TEXT];   /* one line for the log and the job's error */
};

const char *outcome_name(enum outcome_kind kind);

/* Exit codes by which an exec program answers, from sysexits.h where it has them. */
enum { EXEC_EXIT_OK = 0, EXEC_EXIT_DISCARD = 65, EXEC_EXIT_SNOOZE = 75 };

void outcome_judge(const struct ending *ending, struct outcome *out);

/* How many bytes of a failure's text are the same whatever the program printed last: by
 * these, failures are alike. */
size_t outcome_common_bytes(const char *error);

#endif
