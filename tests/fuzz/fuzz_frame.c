/* fuzz_frame.c: one line of the worker protocol (libjobq/wire.h) and the JSON skimmer
 * (libjobq/json.h) below it, as they meet what user code has written.
 *
 * Promised: a look at a line (peek) and the reading of it (parse) agree; what our writers
 * make of a frame reads as the same frame; compacting leaves one line of JSON, and again
 * the same; an error has its words.
 */
#include "tests/fuzz/fuzz.h"

#include "libjobq/json.h"
#include "libjobq/wire.h"

static bool
same(struct jobq__span a, struct jobq__span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

/* A copy as a C string, which the writers take; for free(). NULL: absent. */
static char *
text_of(struct jobq__span span)
{
    return span.at ? fuzz_text(span.at, span.len) : NULL;
}

static void
write_hello(struct jobq__buf *out, const struct jobq__frame *frame)
{
    if (frame->forkserver) {
        jobq__frame_put_forkserver_hello(out);
        return;
    }
    char *names[64];
    size_t n = 0;
    if (frame->kinds.at) {
        struct jobq__span rest = frame->kinds, kind;
        while (n < 64 && jobq__frame_next_kind(&rest, &kind))
            names[n++] = text_of(kind);
        must(n > 0);
    }
    jobq__frame_put_hello(out, n > 0 ? (const char *const *)names : NULL, n,
                          frame->concurrency);
    while (n > 0)
        free(names[--n]);
}

/* Writes the frame anew. Returns false for those that have no writer of that shape. */
static bool
write_again(struct jobq__buf *out, const struct jobq__frame *frame)
{
    char *error = text_of(frame->error), *detail = text_of(frame->detail);
    char *reason = text_of(frame->reason), *note = text_of(frame->note);
    bool written = true;
    switch (frame->type) {
    case JOBQ__FRAME_JOB:
        jobq__frame_put_job(out, frame);
        break;
    case JOBQ__FRAME_CANCEL:
        jobq__frame_put_cancelled(out, frame->id, reason);
        break;
    case JOBQ__FRAME_STOP:
        jobq__frame_put_stop(out);
        break;
    case JOBQ__FRAME_HELLO:
        written = frame->protocol == JOBQ__PROTOCOL_VERSION;
        if (written)
            write_hello(out, frame);
        break;
    case JOBQ__FRAME_OK:
        jobq__frame_put_ok(out, frame->id, frame->result);
        break;
    case JOBQ__FRAME_ERROR:
        jobq__frame_put_error(out, frame->id, error, detail, frame->delay_ms);
        break;
    case JOBQ__FRAME_SNOOZE:
        jobq__frame_put_snooze(out, frame->id, frame->delay_ms);
        break;
    case JOBQ__FRAME_DISCARD:
        jobq__frame_put_discard(out, frame->id, reason);
        break;
    case JOBQ__FRAME_PROGRESS:
        jobq__frame_put_progress(out, frame->id, frame->done, note);
        break;
    case JOBQ__FRAME_FORK:
        jobq__frame_put_fork(out, frame->id, frame->pid);
        break;
    case JOBQ__FRAME_FORKED:
        jobq__frame_put_forked(out, frame->id, frame->pid);
        break;
    case JOBQ__FRAME_START:
        jobq__frame_put_start(out);
        break;
    case JOBQ__N_FRAMES:
        abort(); /* no line is read as that */
    }
    free(note);
    free(reason);
    free(detail);
    free(error);
    return written;
}

static void
check_round_trip(const struct jobq__frame *frame)
{
    struct jobq__buf out = {0};
    struct jobq__frame again;
    jobq_error err;
    if (write_again(&out, frame)) {
        must(!out.failed && out.len > 0 && out.data[out.len - 1] == '\n');
        must(memchr(out.data, '\n', out.len) == out.data + out.len - 1);
        must(jobq__frame_parse(out.data, out.len - 1, &again, &err) == 0);
        must(again.type == frame->type && again.id == frame->id);
        must(again.attempt == frame->attempt && again.timeout_ms == frame->timeout_ms);
        must(same(again.queue, frame->queue) && same(again.kind, frame->kind));
        must(same(again.error, frame->error) && same(again.detail, frame->detail));
        must(same(again.note, frame->note) && again.delay_ms == frame->delay_ms);
    }
    jobq__buf_clear(&out);
}

static void
check_frame(const uint8_t *data, size_t size)
{
    char *seen = fuzz_bytes(data, size), *line = fuzz_bytes(data, size);
    struct jobq__frame frame;
    enum jobq__frame_type type;
    int64_t id = -1;
    jobq_error err = {0};
    int peeked = jobq__frame_peek(seen, size, &type, &id, &err);
    must(memcmp(seen, data, size) == 0);
    int parsed = jobq__frame_parse(line, size, &frame, &err);
    if (parsed == 0) {
        must(peeked == 0 && type == frame.type && id == frame.id);
        if (!memchr(data, '\n', size)) /* one line, as it always is */
            check_round_trip(&frame);
    } else {
        must(parsed < 0 && err.message[0] != '\0');
    }
    free(line);
    free(seen);
}

static void
check_json(const uint8_t *data, size_t size)
{
    char *text = fuzz_bytes(data, size);
    struct jobq__buf once = {0}, twice = {0};
    jobq_error err = {0};
    if (jobq__json_check(text, size, "args", &err) == 0) {
        jobq__json_compact(&once, text, size);
        must(!once.failed && once.len > 0 && !memchr(once.data, '\n', once.len));
        must(jobq__json_check(once.data, once.len, "args", &err) == 0);
        jobq__json_compact(&twice, once.data, once.len);
        must(twice.len == once.len && memcmp(twice.data, once.data, once.len) == 0);
    } else {
        must(err.message[0] != '\0');
        must(jobq__json_check_object(text, size, "args", &err) != 0);
    }
    jobq__buf_clear(&twice);
    jobq__buf_clear(&once);
    free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    check_frame(data, size);
    check_json(data, size);
    return 0;
}
