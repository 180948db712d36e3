/* channel.c: see channel.h. */
#include "jobqd/io/channel.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jobq/error.h>

/* What a dead peer can have left in the socket is far less than DRAIN_READS chunks.
 * KEEP_BYTES: larger buffers are given back when they are empty, so that one huge frame
 * is not paid for ever after. */
enum { DRAIN_READS = 64, KEEP_BYTES = 64 * 1024 };

static void on_poll(uv_poll_t *poll, int status, int events);

/* Waits for the events that matter in the present state. */
static void
watch(struct channel *channel)
{
    int events = 0;
    if (channel->state == CHANNEL_OPEN && !channel->frozen)
        events |= UV_READABLE;
    if (channel->state != CHANNEL_CLOSED && !channel->frozen &&
        channel_backlog(channel) > 0)
        events |= UV_WRITABLE;
    if (events == channel->watching)
        return;
    channel->watching = events;
    /* Neither can fail: the descriptor passed uv_poll_init and is open. */
    if (events)
        uv_poll_start(&channel->poll, events, on_poll);
    else
        uv_poll_stop(&channel->poll);
}

int
channel_open(struct channel *channel, uv_loop_t *loop, int fd, size_t max_line,
             char *chunk, const struct channel_events *events, void *owner)
{
    memset(channel, 0, sizeof *channel);
    channel->fd = fd;
    channel->state = CHANNEL_OPEN;
    channel->max_line = max_line;
    channel->chunk = chunk;
    channel->events = events;
    channel->owner = owner;
    int rc =
        fd < 0 ? 0 : uv_poll_init(loop, &channel->poll, fd); /* makes it non-blocking */
    if (rc < 0)
        close(fd);
    if (rc < 0 || fd < 0) {
        channel->fd = -1;
        channel->state = CHANNEL_CLOSED;
        return rc;
    }
    channel->poll.data = channel;
    watch(channel);
    return 0;
}

/* ---- standing still ---- */

void
channel_freeze(struct channel *channel)
{
    channel->frozen = true;
    watch(channel);
}

void
channel_go_on(struct channel *channel)
{
    channel->frozen = false;
    watch(channel);
}

int
channel_restore(struct channel *channel, const struct channel_past *past)
{
    assert(channel->frozen && channel->state == CHANNEL_OPEN);
    channel->state = past->state;
    channel->total = past->total;
    channel->unread = past->unread;
    jobq__buf_add(&channel->rest, past->rest, past->rest_len);
    jobq__buf_add(&channel->out, past->out, past->out_len);
    return channel->rest.failed || channel->out.failed ? JOBQ_ENOMEM : 0;
}

/* ---- reading ---- */

static void
end(struct channel *channel, enum channel_state state)
{
    assert(channel->state == CHANNEL_OPEN && state != CHANNEL_OPEN);
    channel->state = state;
    jobq__buf_clear(&channel->rest);
    watch(channel);
    channel->events->on_end(channel->owner);
}

/* Returns false when the channel is not open any more. */
static bool
hand_over(struct channel *channel, char *line, size_t len)
{
    if (len > channel->max_line) {
        end(channel, CHANNEL_TOO_LONG);
        return false;
    }
    bool more = channel->events->on_line(channel->owner, line, len);
    if (channel->state != CHANNEL_OPEN)
        return false;
    if (!more)
        end(channel, CHANNEL_REFUSED);
    return more;
}

/* Keeps the beginning of a line until the rest of it has come. */
static bool
keep(struct channel *channel, const char *bytes, size_t len)
{
    if (channel->rest.len + len > channel->max_line) {
        end(channel, CHANNEL_TOO_LONG);
        return false;
    }
    jobq__buf_add(&channel->rest, bytes, len);
    if (channel->rest.failed) {
        end(channel, CHANNEL_FAILED);
        return false;
    }
    return true;
}

/* Completes the kept line with the bytes up to its newline. */
static bool
hand_over_kept(struct channel *channel, const char *bytes, size_t len)
{
    if (!keep(channel, bytes, len))
        return false;
    bool open = hand_over(channel, channel->rest.data, channel->rest.len);
    if (channel->rest.cap > KEEP_BYTES)
        jobq__buf_clear(&channel->rest);
    else
        jobq__buf_reset(&channel->rest);
    return open;
}

static bool
split(struct channel *channel, char *bytes, size_t len)
{
    char *at = bytes;
    char *stop = bytes + len;
    while (at < stop) {
        char *newline = memchr(at, '\n', (size_t)(stop - at));
        if (!newline)
            return keep(channel, at, (size_t)(stop - at));
        size_t line = (size_t)(newline - at);
        bool open = channel->rest.len > 0 ? hand_over_kept(channel, at, line)
                                          : hand_over(channel, at, line);
        if (!open)
            return false;
        at = newline + 1;
    }
    return true;
}

/* One read. Returns false when there is nothing more to read for now, or for ever. */
static bool
read_once(struct channel *channel)
{
    ssize_t n = recv(channel->fd, channel->chunk, IO_CHUNK, MSG_DONTWAIT);
    if (n > 0) {
        bool open = split(channel, channel->chunk, (size_t)n);
        channel->events->on_lines_end(channel->owner);
        return open && channel->state == CHANNEL_OPEN;
    }
    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    channel->unread = n < 0 && errno == ECONNRESET;
    /* A peer that died with unread lines from us resets the connection. That is its end,
     * no fault. */
    if (n < 0 && errno != ECONNRESET)
        end(channel, CHANNEL_FAILED);
    else
        end(channel, channel->rest.len > 0 ? CHANNEL_CUT : CHANNEL_ENDED);
    return false;
}

void
channel_drain(struct channel *channel)
{
    for (int i = 0; i < DRAIN_READS && channel->state == CHANNEL_OPEN; i++) {
        if (!read_once(channel))
            break;
    }
    if (channel->state == CHANNEL_OPEN)
        end(channel, channel->rest.len > 0 ? CHANNEL_CUT : CHANNEL_ENDED);
}

/* ---- writing ---- */

size_t
channel_backlog(const struct channel *channel)
{
    return channel->out.len - channel->written;
}

static void
forget_out(struct channel *channel)
{
    channel->written = 0;
    if (channel->out.cap > KEEP_BYTES)
        jobq__buf_clear(&channel->out);
    else
        jobq__buf_reset(&channel->out);
}

/* So that a buffer which is never quite empty does not grow for ever. */
static void
drop_written(struct channel *channel)
{
    if (channel->written < channel->out.len / 2)
        return;
    channel->out.len -= channel->written;
    memmove(channel->out.data, channel->out.data + channel->written, channel->out.len);
    channel->written = 0;
}

void
channel_flush(struct channel *channel)
{
    if (channel->state == CHANNEL_CLOSED || channel->frozen)
        return;
    while (channel_backlog(channel) > 0) {
        ssize_t n = send(channel->fd, channel->out.data + channel->written,
                         channel_backlog(channel), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0) {
            /* EPIPE and its like: the peer is gone, which its exit will tell. */
            forget_out(channel);
            break;
        }
        channel->written += (size_t)n;
        channel->total += (size_t)n;
    }
    if (channel_backlog(channel) == 0)
        forget_out(channel);
    else
        drop_written(channel);
    watch(channel);
}

/* ---- the loop ---- */

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    struct channel *channel = poll->data;
    /* An error on the socket (status < 0) is found out, and told, by the read. */
    if (status < 0)
        events = UV_READABLE | UV_WRITABLE;
    if (events & UV_WRITABLE) {
        channel_flush(channel);
        if (channel_backlog(channel) == 0 && channel->events->on_written)
            channel->events->on_written(channel->owner);
    }
    if ((events & UV_READABLE) && channel->state == CHANNEL_OPEN)
        read_once(channel);
}

static void
on_close(uv_handle_t *handle)
{
    struct channel *channel = handle->data;
    jobq__buf_clear(&channel->rest);
    jobq__buf_clear(&channel->out);
    channel->events->on_closed(channel->owner);
}

void
channel_close(struct channel *channel)
{
    assert(channel->state != CHANNEL_CLOSED);
    channel->state = CHANNEL_CLOSED;
    channel->watching = 0;
    uv_close((uv_handle_t *)&channel->poll, on_close);
    close(channel->fd); /* libuv has let go of it */
    channel->fd = -1;
}
