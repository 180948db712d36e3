/* log.h: the daemon's log, one line an event on stderr, for the operator who must act.
 *
 * A line is `2026-11-22T10:11:12.345Z LEVEL subject: text`: the subject comes first
 * ("queue default", "worker default/w3 pid 4711", "database"), then a fact. What a
 * handler's output could forge a line with is escaped (escape.h).
 *
 * With log_format = json each line is an object with the members time, level, node,
 * subject and message, and those of struct log_facts that are known; logfmt has the same
 * members as name=value. In text the message says all of it.
 *
 * Where stderr is the journal's (JOURNAL_STREAM names it, see systemd.exec(5)), a line
 * begins with its priority, <3> for ERROR, <4>, <6> and <7>, and in text the time is left
 * out: the journal has its own.
 */
#ifndef JOBQD_LOG_H
#define JOBQD_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

/* In the order of the option's choices. */
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON, LOG_FORMAT_LOGFMT };

struct log_options {
    enum log_level level; /* lines below it are dropped */
    int format;           /* enum log_format */
};

/* What a line is about, for programs that read it. Zero and NULL: not known, left out. */
struct log_facts {
    int64_t job;
    const char *kind;
    const char *queue;
    int attempt;
    int max_attempts;
    const char *state;      /* the job's, from now on */
    const char *error_kind; /* as in jobs.errors */
    const char *error;
    int64_t retry_at_ms; /* when the job is tried again; milliseconds since 1970 */
    const char *worker;  /* "default/w3" */
    long pid;            /* the worker's */
    uint64_t count;      /* how many times this has happened, where one line says it */
};

void log_setup(const struct log_options *options);
/* The node's name, in every line of json and logfmt from now on; copied. */
void log_set_node(const char *name);
bool log_wants(enum log_level level);

/* Until then each line is written at once, however long that takes: right for a command.
 * From then on none waits: see logwriter.h. Returns 0, or errno: no thread is to be had.
 */
int log_start(void);
/* Waits until all that was logged is written; 2 s at most, should whoever reads it stand
 * still. */
void log_flush(void);
/* Another program is about to be executed in this process. It is told, through the
 * environment, how much is lost by that, and says so. */
void log_leave(void);
void log_stay(void); /* it was not */

void log_debug(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_info(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_warning(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_error(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same about something; facts: lent. */
void log_about(enum log_level level, const char *subject, const struct log_facts *facts,
               const char *format, ...) __attribute__((format(printf, 4, 5)));
/* An error that we cannot go on with: ends the process by SIGABRT, once it is written. */
_Noreturn void log_fatal(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
