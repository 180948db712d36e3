/* wire_put.c: writes the protocol's lines. See wire.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "libjobq/json.h"
#include "libjobq/wire.h"

#define PUT(buf, literal) jobq__buf_add(buf, literal, sizeof(literal) - 1)

static void
put_text(struct jobq__buf *buf, const char *text)
{
    jobq__buf_add_json_string(buf, text, strlen(text));
}

void
jobq__frame_put_job(struct jobq__buf *buf, const struct jobq__frame *job)
{
    jobq__buf_reserve(buf, job->args.len + job->meta.len + job->kind.len +
                               job->queue.len + 192);
    PUT(buf, "{\"t\":\"job\",\"id\":");
    jobq__buf_add_i64(buf, job->id);
    PUT(buf, ",\"attempt\":");
    jobq__buf_add_i64(buf, job->attempt);
    PUT(buf, ",\"max_attempts\":");
    jobq__buf_add_i64(buf, job->max_attempts);
    PUT(buf, ",\"queue\":");
    jobq__buf_add_json_string(buf, job->queue.at, job->queue.len);
    PUT(buf, ",\"kind\":");
    jobq__buf_add_json_string(buf, job->kind.at, job->kind.len);
    PUT(buf, ",\"args\":");
    jobq__buf_add(buf, job->args.at, job->args.len);
    if (job->meta.at) {
        PUT(buf, ",\"meta\":");
        jobq__buf_add(buf, job->meta.at, job->meta.len);
    }
    if (job->timeout_ms > 0) {
        PUT(buf, ",\"timeout_ms\":");
        jobq__buf_add_i64(buf, job->timeout_ms);
    }
    PUT(buf, "}\n");
}

static void
put_head(struct jobq__buf *buf, const char *type, int64_t id)
{
    PUT(buf, "{\"t\":\"");
    jobq__buf_adds(buf, type);
    PUT(buf, "\",\"id\":");
    jobq__buf_add_i64(buf, id);
}

static void
put_with_reason(struct jobq__buf *buf, const char *type, int64_t id, const char *reason)
{
    put_head(buf, type, id);
    if (reason) {
        PUT(buf, ",\"reason\":");
        put_text(buf, reason);
    }
    PUT(buf, "}\n");
}

void
jobq__frame_put_cancel(struct jobq__buf *buf, int64_t id)
{
    put_with_reason(buf, "cancel", id, NULL);
}

void
jobq__frame_put_stop(struct jobq__buf *buf)
{
    PUT(buf, "{\"t\":\"stop\"}\n");
}

void
jobq__frame_put_fork(struct jobq__buf *buf, int64_t id, int32_t parent)
{
    put_head(buf, "fork", id);
    PUT(buf, ",\"parent\":");
    jobq__buf_add_i64(buf, parent);
    PUT(buf, "}\n");
}

void
jobq__frame_put_forked(struct jobq__buf *buf, int64_t id, int32_t pid)
{
    put_head(buf, "forked", id);
    PUT(buf, ",\"pid\":");
    jobq__buf_add_i64(buf, pid);
    PUT(buf, "}\n");
}

void
jobq__frame_put_start(struct jobq__buf *buf)
{
    PUT(buf, "{\"t\":\"start\"}\n");
}

void
jobq__frame_put_forkserver_hello(struct jobq__buf *buf)
{
    PUT(buf, "{\"t\":\"hello\",\"protocol\":");
    jobq__buf_add_i64(buf, JOBQ__PROTOCOL_VERSION);
    PUT(buf, ",\"forkserver\":true}\n");
}

void
jobq__frame_put_hello(struct jobq__buf *buf, const char *const *kinds, size_t n,
                      int32_t concurrency)
{
    PUT(buf, "{\"t\":\"hello\",\"protocol\":");
    jobq__buf_add_i64(buf, JOBQ__PROTOCOL_VERSION);
    if (concurrency > 1) {
        PUT(buf, ",\"concurrency\":");
        jobq__buf_add_i64(buf, concurrency);
    }
    if (kinds) {
        PUT(buf, ",\"kinds\":[");
        for (size_t i = 0; i < n; i++) {
            if (i > 0)
                PUT(buf, ",");
            put_text(buf, kinds[i]);
        }
        PUT(buf, "]");
    }
    PUT(buf, "}\n");
}

void
jobq__frame_put_ok(struct jobq__buf *buf, int64_t id, struct jobq__span result)
{
    put_head(buf, "ok", id);
    if (result.at) {
        PUT(buf, ",\"result\":");
        jobq__buf_add(buf, result.at, result.len);
    }
    PUT(buf, "}\n");
}

void
jobq__frame_put_ok_without_result(struct jobq__buf *buf, int64_t id, const char *why)
{
    put_head(buf, "ok", id);
    PUT(buf, ",\"error\":");
    jobq__buf_add_json_string(buf, why, strlen(why));
    PUT(buf, "}\n");
}

void
jobq__frame_put_error(struct jobq__buf *buf, int64_t id, const char *error,
                      const char *detail, int64_t retry_in_ms)
{
    put_head(buf, "error", id);
    PUT(buf, ",\"error\":");
    put_text(buf, error);
    if (detail) {
        PUT(buf, ",\"detail\":");
        put_text(buf, detail);
    }
    if (retry_in_ms >= 0) {
        PUT(buf, ",\"retry_in_ms\":");
        jobq__buf_add_i64(buf, retry_in_ms);
    }
    PUT(buf, "}\n");
}

void
jobq__frame_put_snooze(struct jobq__buf *buf, int64_t id, int64_t in_ms)
{
    put_head(buf, "snooze", id);
    PUT(buf, ",\"in_ms\":");
    jobq__buf_add_i64(buf, in_ms);
    PUT(buf, "}\n");
}

void
jobq__frame_put_discard(struct jobq__buf *buf, int64_t id, const char *reason)
{
    put_with_reason(buf, "discard", id, reason);
}

void
jobq__frame_put_cancelled(struct jobq__buf *buf, int64_t id, const char *reason)
{
    put_with_reason(buf, "cancel", id, reason);
}

/* In millionths, printed as whole numbers: printf's decimal point follows the locale of
 * the program that the library lives in. */
void
jobq__frame_put_progress(struct jobq__buf *buf, int64_t id, double done, const char *note)
{
    int64_t millionths = done >= 1 ? 1000000 : done > 0 ? (int64_t)(done * 1e6 + 0.5) : 0;
    put_head(buf, "progress", id);
    PUT(buf, ",\"done\":");
    jobq__buf_add_i64(buf, millionths / 1000000);
    if (millionths % 1000000) {
        char digits[7] = "."; /* . and six digits, filled from the right */
        int64_t rest = millionths % 1000000;
        for (int i = 6; i > 0; i--, rest /= 10)
            digits[i] = (char)('0' + rest % 10);
        size_t len = sizeof digits;
        while (digits[len - 1] == '0')
            len--;
        jobq__buf_add(buf, digits, len);
    }
    if (note) {
        PUT(buf, ",\"note\":");
        put_text(buf, note);
    }
    PUT(buf, "}\n");
}
