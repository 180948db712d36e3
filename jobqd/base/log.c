/* log.c: writes the daemon's log lines. Decides nothing about what is worth a line.
 *
 * Each line leaves in one write(2), so that lines of several processes on one stderr do
 * not mix. A line that cannot be written is lost: there is nobody left to tell.
 */
#include "jobqd/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libjobq/buf.h"

#define MAX_MESSAGE 8192 /* bytes of a line's text; the rest is cut off and marked */

static struct log_options current = {.level = LOG_LEVEL_INFO, .json = false};

static const char *
level_name(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_DEBUG:
        return "DEBUG";
    case LOG_LEVEL_INFO:
        return "INFO";
    case LOG_LEVEL_WARNING:
        return "WARNING";
    case LOG_LEVEL_ERROR:
        return "ERROR";
    }
    return "?";
}

void
log_setup(const struct log_options *options)
{
    current = *options;
}

bool
log_wants(enum log_level level)
{
    return level >= current.level;
}

/* 2026-11-22T10:11:12.345Z */
static void
put_time(struct jobq__buf *line)
{
    struct timespec now;
    struct tm utc;
    char text[64] = "";
    char stamp[96];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(stamp, sizeof stamp, "%s.%03ldZ", text, now.tv_nsec / 1000000);
    jobq__buf_adds(line, stamp);
}

/* A handler's output may hold newlines and terminal escapes: neither may forge a line or
 * paint the screen. */
static void
put_escaped(struct jobq__buf *line, const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if (c >= 0x20 && c != 0x7f) {
            jobq__buf_addc(line, *at);
        } else if (c == '\n') {
            jobq__buf_adds(line, "\\n");
        } else if (c == '\t') {
            jobq__buf_adds(line, "\\t");
        } else {
            char hex[8];
            snprintf(hex, sizeof hex, "\\x%02x", c);
            jobq__buf_adds(line, hex);
        }
    }
}

static void
put_line(struct jobq__buf *line, enum log_level level, const char *subject,
         const char *message)
{
    if (current.json) {
        jobq__buf_adds(line, "{\"time\":\"");
        put_time(line);
        jobq__buf_adds(line, "\",\"level\":\"");
        jobq__buf_adds(line, level_name(level));
        jobq__buf_adds(line, "\",\"subject\":");
        jobq__buf_add_json_string(line, subject, strlen(subject));
        jobq__buf_adds(line, ",\"message\":");
        jobq__buf_add_json_string(line, message, strlen(message));
        jobq__buf_adds(line, "}\n");
        return;
    }
    put_time(line);
    jobq__buf_addc(line, ' ');
    jobq__buf_adds(line, level_name(level));
    jobq__buf_addc(line, ' ');
    put_escaped(line, subject);
    jobq__buf_adds(line, ": ");
    put_escaped(line, message);
    jobq__buf_addc(line, '\n');
}

static void
write_all(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        data += n;
        len -= (size_t)n;
    }
}

static void log_line(enum log_level level, const char *subject, const char *format,
                     va_list args) __attribute__((format(printf, 3, 0)));

static void
log_line(enum log_level level, const char *subject, const char *format, va_list args)
{
    static struct jobq__buf line; /* kept from line to line; jobqd logs from one thread */
    char message[MAX_MESSAGE];
    static const char cut[] = "... (cut)";
    if (!log_wants(level))
        return;
    int saved_errno = errno;
    int len = vsnprintf(message, sizeof message, format, args);
    if (len < 0)
        snprintf(message, sizeof message, "(a message that could not be formatted)");
    else if ((size_t)len >= sizeof message)
        memcpy(message + sizeof message - sizeof cut, cut, sizeof cut);
    jobq__buf_reset(&line);
    put_line(&line, level, subject, message);
    if (line.failed) /* out of memory is when a log line matters most: send it bare */
        write_all(message, strlen(message));
    else
        write_all(line.data, line.len);
    errno = saved_errno;
}

#define DEFINE_LOG(name, level)                                                          \
    void name(const char *subject, const char *format, ...)                              \
    {                                                                                    \
        va_list args;                                                                    \
        va_start(args, format);                                                          \
        log_line(level, subject, format, args);                                          \
        va_end(args);                                                                    \
    }

DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_warning, LOG_LEVEL_WARNING)
DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
