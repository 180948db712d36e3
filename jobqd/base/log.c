/* log.c: writes the daemon's log lines. Decides nothing about what is worth a line.
 *
 * Each line leaves in one write(2), so that lines of several processes on one stderr do
 * not mix. Who writes it is logwriter.h's business in the daemon and its guard; in a
 * command a line that cannot be written is lost: there is nobody left to tell.
 */
#include "jobqd/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/base/escape.h"
#include "jobqd/base/logwriter.h"
#include "libjobq/buf.h"

#define MAX_MESSAGE 8192 /* bytes of a line's text; the rest is cut off and marked */

/* "LINES SINCE WHY", as in struct logwriter_loss: what an upgrade has lost. */
#define LOST "JOBQ_HANDOVER_LOST"

/* FLUSH_MS: before the end. LEAVE_MS: before an upgrade, while the queues stand still. */
enum { FLUSH_MS = 2000, LEAVE_MS = 300 };

static struct log_options current = {.level = LOG_LEVEL_INFO};
static char node[256];
static bool to_journal;

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

/* sd-daemon.h's, by which the journal knows what is urgent. */
static char
priority(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_DEBUG:
        return '7';
    case LOG_LEVEL_INFO:
        return '6';
    case LOG_LEVEL_WARNING:
        return '4';
    case LOG_LEVEL_ERROR:
        return '3';
    }
    return '6';
}

/* Whether stderr is the journal's: the variable is inherited by processes whose stderr
 * has been redirected since, so it names the device and the inode. */
static bool
stderr_is_journal(void)
{
    uint64_t device, inode;
    struct stat now;
    const char *stream = getenv("JOURNAL_STREAM");
    return stream && sscanf(stream, "%" SCNu64 ":%" SCNu64, &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &now) == 0 && now.st_dev == device && now.st_ino == inode;
}

void
log_setup(const struct log_options *options)
{
    current = *options;
    to_journal = stderr_is_journal();
}

void
log_set_node(const char *name)
{
    snprintf(node, sizeof node, "%s", name);
}

bool
log_wants(enum log_level level)
{
    return level >= current.level;
}

/* 2026-11-22T10:11:12.345Z */
static void
format_time(int64_t ms, char *out, size_t size)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    char text[64] = "";
    gmtime_r(&seconds, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out, size, "%s.%03dZ", text, (int)(ms % 1000));
}

static int64_t
now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
put_time(struct jobq__buf *line, int64_t ms)
{
    char stamp[96];
    format_time(ms, stamp, sizeof stamp);
    jobq__buf_adds(line, stamp);
}

/* ---- members: json and logfmt have the same ---- */

static void
put_name(struct jobq__buf *line, const char *name)
{
    if (current.format == LOG_FORMAT_LOGFMT) {
        jobq__buf_addc(line, ' ');
        jobq__buf_adds(line, name);
        jobq__buf_addc(line, '=');
        return;
    }
    jobq__buf_adds(line, ",\"");
    jobq__buf_adds(line, name);
    jobq__buf_adds(line, "\":");
}

/* Whether logfmt needs no quotes around it. */
static bool
is_bare(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789-_.:/+@%");
    return len > 0 && text[len] == '\0';
}

static void
put_member(struct jobq__buf *line, const char *name, const char *text)
{
    if (!text)
        return;
    put_name(line, name);
    if (current.format == LOG_FORMAT_LOGFMT && is_bare(text))
        jobq__buf_adds(line, text);
    else
        escape_put_json_string(line, text, strlen(text));
}

static void
put_count(struct jobq__buf *line, const char *name, int64_t value)
{
    if (value == 0)
        return;
    put_name(line, name);
    jobq__buf_add_i64(line, value);
}

static void
put_facts(struct jobq__buf *line, const struct log_facts *facts)
{
    char stamp[96];
    put_count(line, "job", facts->job);
    put_member(line, "kind", facts->kind);
    put_member(line, "queue", facts->queue);
    put_count(line, "attempt", facts->attempt);
    put_count(line, "max_attempts", facts->max_attempts);
    put_member(line, "state", facts->state);
    put_member(line, "error_kind", facts->error_kind);
    put_member(line, "error", facts->error);
    if (facts->retry_at_ms != 0) {
        format_time(facts->retry_at_ms, stamp, sizeof stamp);
        put_member(line, "retry_at", stamp);
    }
    put_member(line, "worker", facts->worker);
    put_count(line, "pid", facts->pid);
    put_count(line, "count", (int64_t)facts->count);
}

static void
put_members(struct jobq__buf *line, enum log_level level, const char *subject,
            const char *message, const struct log_facts *facts)
{
    bool json = current.format == LOG_FORMAT_JSON;
    jobq__buf_adds(line, json ? "{\"time\":\"" : "time=");
    put_time(line, now_ms());
    if (json)
        jobq__buf_addc(line, '"');
    put_member(line, "level", level_name(level));
    if (*node)
        put_member(line, "node", node);
    put_member(line, "subject", subject);
    put_member(line, "message", message);
    if (facts)
        put_facts(line, facts);
    jobq__buf_adds(line, json ? "}\n" : "\n");
}

static void
put_line(struct jobq__buf *line, enum log_level level, const char *subject,
         const char *message, const struct log_facts *facts)
{
    if (to_journal) {
        jobq__buf_addc(line, '<');
        jobq__buf_addc(line, priority(level));
        jobq__buf_addc(line, '>');
    }
    if (current.format != LOG_FORMAT_TEXT) {
        put_members(line, level, subject, message, facts);
        return;
    }
    if (!to_journal) {
        put_time(line, now_ms());
        jobq__buf_addc(line, ' ');
    }
    jobq__buf_adds(line, level_name(level));
    jobq__buf_addc(line, ' ');
    escape_put(line, subject, strlen(subject));
    jobq__buf_adds(line, ": ");
    escape_put(line, message, strlen(message));
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

static void
send_out(const char *data, size_t len)
{
    if (logwriter_runs())
        logwriter_put(data, len);
    else
        write_all(data, len);
}

static void log_line(enum log_level level, const char *subject,
                     const struct log_facts *facts, const char *format, va_list args)
    __attribute__((format(printf, 4, 0)));

static void
log_line(enum log_level level, const char *subject, const struct log_facts *facts,
         const char *format, va_list args)
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
    put_line(&line, level, subject, message, facts);
    if (line.failed) /* out of memory is when a log line matters most: send it bare */
        send_out(message, strlen(message));
    else
        send_out(line.data, line.len);
    errno = saved_errno;
}

#define DEFINE_LOG(name, level)                                                          \
    void name(const char *subject, const char *format, ...)                              \
    {                                                                                    \
        va_list args;                                                                    \
        va_start(args, format);                                                          \
        log_line(level, subject, NULL, format, args);                                    \
        va_end(args);                                                                    \
    }

DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_warning, LOG_LEVEL_WARNING)
DEFINE_LOG(log_error, LOG_LEVEL_ERROR)

void
log_about(enum log_level level, const char *subject, const struct log_facts *facts,
          const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(level, subject, facts, format, args);
    va_end(args);
}

void
log_fatal(const char *subject, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(LOG_LEVEL_ERROR, subject, NULL, format, args);
    va_end(args);
    log_flush();
    abort();
}

/* ---- the writer ---- */

/* On either thread. */
static void
put_loss(struct jobq__buf *line, const struct logwriter_loss *loss)
{
    char since[96];
    char message[300];
    format_time(loss->since_ms, since, sizeof since);
    snprintf(message, sizeof message, "%" PRIu64 " line%s lost since %s: stderr %s%s",
             loss->lines, loss->lines == 1 ? " was" : "s were", since,
             loss->why == 0 ? "was not read" : "could not be written to: ",
             loss->why == 0 ? "" : strerrordesc_np(loss->why));
    put_line(line, LOG_LEVEL_WARNING, "log", message, NULL);
}

int
log_start(void)
{
    struct logwriter_loss loss = {0};
    const char *lost = getenv(LOST);
    if (lost)
        sscanf(lost, "%" SCNu64 " %" SCNd64 " %d", &loss.lines, &loss.since_ms,
               &loss.why);
    unsetenv(LOST);
    return logwriter_start(put_loss, &loss);
}

void
log_flush(void)
{
    logwriter_flush(FLUSH_MS);
}

void
log_leave(void)
{
    char text[80];
    logwriter_flush(LEAVE_MS);
    struct logwriter_loss loss = logwriter_unwritten();
    if (loss.lines == 0)
        return;
    snprintf(text, sizeof text, "%" PRIu64 " %" PRId64 " %d", loss.lines, loss.since_ms,
             loss.why);
    setenv(LOST, text, 1);
}

void
log_stay(void)
{
    unsetenv(LOST);
}
