/* log.h: the daemon's log, one line an event on stderr, for the operator who must act.
 *
 * A line is `2026-11-22T10:11:12.345Z LEVEL subject: text`: the subject comes first
 * ("queue default", "worker default/w3 pid 4711", "database"), then a fact. Control
 * characters in the text are escaped, so that a handler's output cannot forge a line.
 * With log_format = json each line is an object with time, level, subject and message.
 */
#ifndef JOBQD_LOG_H
#define JOBQD_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

struct log_options {
    enum log_level level; /* lines below it are dropped */
    bool json;
};

void log_setup(const struct log_options *options);
bool log_wants(enum log_level level);

void log_debug(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_info(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_warning(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void log_error(const char *subject, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
