/* fuzz_lines.c: a stream of bytes cut into lines, at the daemon's end
 * (jobqd/proc/channel.h) and at the worker's (libjobq/inbox.h), in whatever pieces the
 * socket hands it over.
 *
 * The input: a byte for the longest line allowed, a byte for the number of pieces, the
 * size of each piece, and then the stream. Promised: the same lines come out, whatever
 * the pieces, up to the first that is too long, and the end says why.
 */
#include "tests/fuzz/fuzz.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "jobqd/proc/channel.h"
#include "libjobq/inbox.h"
#include "libjobq/wire.h"

struct stream {
    const uint8_t *pieces;
    size_t n_pieces;
    const uint8_t *bytes;
    size_t len;
    size_t max_line;
    size_t read;  /* bytes of lines that have come out, with their newlines */
    size_t lines; /* how many */
};

/* ---- what should come out ---- */

static const uint8_t *
newline_from(const struct stream *stream, size_t at)
{
    return at < stream->len ? memchr(stream->bytes + at, '\n', stream->len - at) : NULL;
}

static void
check_line(struct stream *stream, const char *line, size_t len)
{
    const uint8_t *newline = newline_from(stream, stream->read);
    must(newline && len <= stream->max_line);
    must((size_t)(newline - stream->bytes) == stream->read + len);
    must(len == 0 || memcmp(line, stream->bytes + stream->read, len) == 0);
    stream->read += len + 1;
    stream->lines++;
}

static enum channel_state
expected_end(const struct stream *stream)
{
    size_t at = 0;
    const uint8_t *newline;
    while ((newline = newline_from(stream, at)) != NULL) {
        if ((size_t)(newline - stream->bytes) - at > stream->max_line)
            return CHANNEL_TOO_LONG;
        at = (size_t)(newline - stream->bytes) + 1;
    }
    if (stream->len - at > stream->max_line)
        return CHANNEL_TOO_LONG;
    return stream->len > at ? CHANNEL_CUT : CHANNEL_ENDED;
}

/* The next piece, written; false: all have been. */
static bool
write_piece(const struct stream *stream, int fd, size_t nth, size_t *at)
{
    size_t left = stream->len - *at;
    size_t size = nth < stream->n_pieces ? stream->pieces[nth] + 1u : left;
    if (left == 0)
        return false;
    if (size > left)
        size = left;
    ssize_t n = send(fd, stream->bytes + *at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) /* nobody reads any more */
        return false;
    *at += (size_t)n;
    return true;
}

/* ---- the daemon's end ---- */

static uv_loop_t loop;
static char chunk[IO_CHUNK];
static bool is_over, is_closed;

static bool
on_line(void *owner, char *line, size_t len)
{
    struct jobq__frame frame;
    check_line(owner, line, len);
    jobq__frame_parse(line, len, &frame, NULL); /* it is ours to write in */
    return true;
}

static void
on_lines_end(void *owner)
{
    (void)owner;
}

static void
on_end(void *owner)
{
    (void)owner;
    is_over = true;
}

static void
on_closed(void *owner)
{
    (void)owner;
    is_closed = true;
}

static const struct channel_events events = {on_line, on_lines_end, on_end, on_closed,
                                             NULL};

static void
check_channel(struct stream *stream)
{
    struct channel channel;
    int ends[2];
    size_t at = 0;
    is_over = is_closed = false;
    stream->read = stream->lines = 0;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    must(channel_open(&channel, &loop, ends[0], stream->max_line, chunk, &events,
                      stream) == 0);
    for (size_t nth = 0; write_piece(stream, ends[1], nth, &at); nth++)
        uv_run(&loop, UV_RUN_NOWAIT);
    close(ends[1]);
    while (!is_over)
        uv_run(&loop, UV_RUN_ONCE);
    must(channel.state == expected_end(stream));
    channel_close(&channel);
    while (!is_closed)
        uv_run(&loop, UV_RUN_ONCE);
}

/* ---- the worker's end ---- */

/* Returns false when no more is to be read. */
static bool
read_inbox(struct jobq__inbox *inbox, struct stream *stream, size_t *peeked)
{
    size_t got = 0, len;
    jobq_error err = {0};
    int rc = jobq__inbox_read(inbox, &got, &err);
    must(rc == JOBQ_OK || (rc == JOBQ_EPROTO && err.message[0] != '\0'));
    if (rc != JOBQ_OK)
        must(expected_end(stream) == CHANNEL_TOO_LONG);
    const char *ahead;
    while (jobq__inbox_peek(inbox, &ahead, &len))
        ++*peeked;
    char *line;
    while (rc == JOBQ_OK && jobq__inbox_line(inbox, &line, &len)) {
        must(line[len] == '\0');
        check_line(stream, line, len);
        must(*peeked >= stream->lines);
        memset(line, 'x', len);
    }
    return rc == JOBQ_OK && !inbox->closed;
}

static void
check_inbox(struct stream *stream)
{
    struct jobq__inbox inbox;
    int ends[2];
    size_t at = 0, peeked = 0;
    bool more = true;
    stream->read = stream->lines = 0;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    jobq__inbox_init(&inbox, ends[0], stream->max_line);
    for (size_t nth = 0; more && write_piece(stream, ends[1], nth, &at); nth++)
        more = read_inbox(&inbox, stream, &peeked);
    close(ends[1]);
    while (more)
        more = read_inbox(&inbox, stream, &peeked);
    if (expected_end(stream) == CHANNEL_TOO_LONG)
        must(!inbox.closed);
    else
        must(inbox.closed && !newline_from(stream, stream->read));
    jobq__inbox_clear(&inbox);
    close(ends[0]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_set_up;
    if (!is_set_up)
        must(uv_loop_init(&loop) == 0);
    is_set_up = true;
    if (size < 2 || size - 2 < data[1] % 32u)
        return 0;
    struct stream stream = {
        .pieces = data + 2, .n_pieces = data[1] % 32u, .max_line = data[0] + 1u};
    stream.bytes = stream.pieces + stream.n_pieces;
    stream.len = size - 2 - stream.n_pieces;
    check_channel(&stream);
    check_inbox(&stream);
    return 0;
}
