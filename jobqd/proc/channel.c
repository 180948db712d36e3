/* channel.c: see channel.h. */
#include "jobqd/proc/channel.h"

#include "jobqd/base/clock.h"
#include "jobqd/base/loopwatch.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jobq/error.h>

/* What a dead peer can have left in the socket is far less than DRAIN_READS chunks.
 * KEEP_BYTES: larger buffers are given back when they are empty, so that one huge frame
 * is not paid for ever after. LONG_LINE: an unfinished line beyond it counts among those
 * of all channels. LITTLE: what is read at once while others wait for room, so that short
 * lines go on, and no long ones begin. */
enum {
    DRAIN_READS = 64,
    KEEP_BYTES = 16 * 1024,
    LONG_LINE = 8 * 1024,
    LITTLE = 4 * 1024
};

static void on_poll(uv_poll_t *poll, int status, int events);

/* Waits for the events that matter in the present state. */
static void
watch(struct channel *channel)
{
    int events = 0;
    if (channel->state == CHANNEL_OPEN && !channel->frozen &&
        !channel_is_held_up(channel))
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

static void
on_turn(struct longline *line)
{
    struct channel *channel = list_entry(line, struct channel, longline);
    channel->released_ns = clock_ns();
    watch(channel);
}

static void on_read_turn(struct turn *turn);

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
    channel->longline.on_turn = on_turn;
    list_init(&channel->longline.link);
    turn_init(&channel->turn, TURN_HEAR, on_read_turn);
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

void
channel_hold(struct channel *channel, bool hold)
{
    if (channel->held && !hold)
        channel->released_ns = clock_ns();
    channel->held = hold;
    if (channel->state != CHANNEL_CLOSED)
        watch(channel);
}

bool
channel_is_held_up(const struct channel *channel)
{
    return channel->held || channel->longline.state == LONGLINE_WAITS ||
           turn_waits(&channel->turn);
}

bool
channel_has_unread(const struct channel *channel)
{
    char byte;
    return channel->state == CHANNEL_OPEN &&
           recv(channel->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

bool
channel_is_behind(const struct channel *channel)
{
    return channel->state == CHANNEL_OPEN &&
           (channel->rest.len > 0 || channel_has_unread(channel));
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
    longline_end(&channel->longline);
    turn_leave(&channel->turn);
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

/* What is kept may have to wait for room before it grows. */
static void
count_kept(struct channel *channel)
{
    if (channel->rest.len <= LONG_LINE)
        longline_end(&channel->longline);
    else if (!longline_may_grow(&channel->longline, channel->poll.loop,
                                channel->max_line))
        watch(channel);
}

/* One read. Returns false when there is nothing more to read for now, or for ever. */
static bool
read_once(struct channel *channel, size_t size)
{
    ssize_t n = recv(channel->fd, channel->chunk, size, MSG_DONTWAIT);
    if (n > 0) {
        bool open = split(channel, channel->chunk, (size_t)n);
        if (channel->state == CHANNEL_OPEN)
            count_kept(channel);
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
channel_hear(struct channel *channel)
{
    int n = 0;
    if (channel->state == CHANNEL_OPEN && channel->rest.len == 0 &&
        ioctl(channel->fd, FIONREAD, &n) == 0 && n > 0 && n <= IO_CHUNK)
        read_once(channel, IO_CHUNK);
}

void
channel_drain(struct channel *channel)
{
    for (int i = 0; i < DRAIN_READS && channel->state == CHANNEL_OPEN; i++) {
        if (!read_once(channel, IO_CHUNK))
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

/* What it may read now. */
static void
read_some(struct channel *channel)
{
    bool little = longlines_wait() && channel->rest.len <= LONG_LINE;
    if (channel->state == CHANNEL_OPEN && !channel->frozen &&
        !channel_is_held_up(channel))
        read_once(channel, little ? LITTLE : IO_CHUNK);
}

static void
on_read_turn(struct turn *turn)
{
    struct channel *channel = list_entry(turn, struct channel, turn);
    loop_is_at("reading from a worker", NULL);
    read_some(channel);
    if (channel->state != CHANNEL_CLOSED)
        watch(channel);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    struct channel *channel = poll->data;
    loop_is_at("reading from a worker", NULL);
    /* An error on the socket (status < 0) is found out, and told, by the read. libuv has
     * stopped watching. */
    if (status < 0) {
        channel->watching = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    if (events & UV_WRITABLE) {
        channel_flush(channel);
        if (channel_backlog(channel) == 0 && channel->events->on_written)
            channel->events->on_written(channel->owner);
    }
    if ((events & UV_READABLE) && channel->state == CHANNEL_OPEN &&
        !channel_is_held_up(channel)) {
        if (turn_now(&channel->turn))
            read_some(channel);
        else
            watch(channel); /* until its turn */
    }
    if (status < 0 && channel->state != CHANNEL_CLOSED)
        watch(channel);
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
    longline_end(&channel->longline);
    turn_leave(&channel->turn);
    uv_close((uv_handle_t *)&channel->poll, on_close);
    close(channel->fd); /* libuv has let go of it */
    channel->fd = -1;
}
