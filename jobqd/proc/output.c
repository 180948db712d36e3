/* output.c: see output.h. */
#include "jobqd/proc/output.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/escape.h"
#include "jobqd/proc/channel.h"
#include "jobqd/base/loopwatch.h"

/* A pipe holds 64 KiB, or up to 1 MiB where the worker has enlarged it. */
enum { DRAIN_READS = 16, CATCH_UP_CHUNK = 16 * 1024 };

static void on_poll(uv_poll_t *poll, int status, int events);
static void on_turn(struct turn *turn);

int
output_open(struct output *output, uv_loop_t *loop, int fd, char *chunk,
            struct output_rate *rate, const struct output_events *events, void *owner)
{
    memset(output, 0, sizeof *output);
    output->fd = fd;
    output->chunk = chunk;
    output->rate = rate;
    output->events = events;
    output->owner = owner;
    turn_init(&output->turn, TURN_HEAR, on_turn);
    int rc = uv_poll_init(loop, &output->poll, fd);
    if (rc < 0) {
        close(fd);
        output->fd = -1;
        output->ended = true;
        return rc;
    }
    output->poll.data = output;
    uv_poll_start(&output->poll, UV_READABLE, on_poll);
    return 0;
}

/* ---- the log ---- */

static void
tell_dropped(struct output *output)
{
    uint64_t dropped = output->rate->dropped;
    output->rate->dropped = 0;
    if (dropped > 0)
        output->events->on_dropped(output->owner, dropped);
}

static bool
is_allowed(struct output *output, size_t bytes)
{
    struct output_rate *rate = output->rate;
    uint64_t second = uv_now(output->poll.loop) / 1000;
    if (second != rate->second) {
        rate->second = second;
        rate->lines = rate->bytes = 0;
        tell_dropped(output);
    }
    if (rate->lines >= OUTPUT_LINES_A_SECOND || rate->bytes >= OUTPUT_BYTES_A_SECOND)
        return false;
    rate->lines++;
    rate->bytes += bytes;
    return true;
}

static void
end_line(struct output *output)
{
    if (output->line_len > 0 && is_allowed(output, output->line_len)) {
        output->line[output->line_len] = '\0';
        output->events->on_line(output->owner, output->line);
    } else if (output->line_len > 0) {
        output->rate->dropped++;
    }
    output->line_len = 0;
}

/* NUL bytes would end the line for whoever reads it as a string. */
static void
add_without_nul(char *to, const char *from, size_t len)
{
    memcpy(to, from, len);
    for (char *nul = to; (nul = memchr(nul, '\0', len - (size_t)(nul - to))) != NULL;)
        *nul = '?';
}

static void
split(struct output *output, const char *bytes, size_t len)
{
    while (len > 0) {
        const char *newline = memchr(bytes, '\n', len);
        size_t line = newline ? (size_t)(newline - bytes) : len;
        size_t room = OUTPUT_LINE - output->line_len;
        size_t n = line < room ? line : room;
        add_without_nul(output->line + output->line_len, bytes, n);
        output->line_len += n;
        bytes += n;
        len -= n;
        if (n < line) {
            end_line(output); /* a piece of a long line */
        } else if (newline) {
            end_line(output);
            bytes++;
            len--;
        }
    }
}

/* ---- the tail ---- */

static void
keep_tail(struct output *output, const char *bytes, size_t len)
{
    if (len >= OUTPUT_TAIL) {
        bytes += len - OUTPUT_TAIL;
        len = OUTPUT_TAIL;
        output->tail_len = 0;
    }
    size_t keep = OUTPUT_TAIL - len;
    if (output->tail_len > keep) {
        memmove(output->tail, output->tail + output->tail_len - keep, keep);
        output->tail_len = keep;
    }
    add_without_nul(output->tail + output->tail_len, bytes, len);
    output->tail_len += len;
}

const char *
output_tail(struct output *output, uint64_t from)
{
    if (output->tail_len == 0 || output->total <= from)
        return NULL;
    output->tail[output->tail_len] = '\0';
    if (output->total - from < output->tail_len)
        return output->tail + output->tail_len - (output->total - from);
    const char *tail = output->tail;
    /* A full buffer may begin within a character: its continuation bytes are 10xxxxxx. */
    if (output->tail_len == OUTPUT_TAIL) {
        while (((unsigned char)*tail & 0xC0) == 0x80)
            tail++;
    }
    return tail;
}

/* Cut where a character ends. */
static void
copy_shown(const char *text, size_t len, char *out, size_t size)
{
    static const char dots[] = "\xe2\x80\xa6";
    size_t most = size - 1;
    if (len > most) {
        len = most - (sizeof dots - 1);
        while (len > 0 && ((unsigned char)text[len] & 0xC0) == 0x80)
            len--;
        snprintf(out, size, "%.*s%s", (int)len, text, dots);
    } else {
        snprintf(out, size, "%.*s", (int)len, text);
    }
}

const char *
output_last_line(struct output *output, char *out, size_t size)
{
    struct jobq__buf shown = {0};
    const char *tail = output_tail(output, 0), *found = NULL;
    size_t len = tail ? strlen(tail) : 0;
    while (len > 0 && isspace((unsigned char)tail[len - 1]))
        len--;
    size_t from = len;
    while (from > 0 && tail[from - 1] != '\n')
        from--;
    while (from < len && isspace((unsigned char)tail[from]))
        from++;
    if (from < len) {
        escape_put(&shown, tail + from, len - from);
        const char *text = jobq__buf_cstr(&shown);
        if (text) {
            copy_shown(text, shown.len, out, size);
            found = out;
        }
    }
    jobq__buf_clear(&shown);
    return found;
}

/* ---- reading ---- */

static void
stop_reading(struct output *output)
{
    output->ended = true;
    turn_leave(&output->turn);
    uv_poll_stop(&output->poll);
}

/* One read. Returns false when there is nothing more for now, or for ever. */
static bool
read_once(struct output *output, char *chunk, size_t size)
{
    ssize_t n = read(output->fd, chunk, size);
    if (n > 0) {
        output->total += (uint64_t)n;
        keep_tail(output, chunk, (size_t)n);
        split(output, chunk, (size_t)n);
        return true;
    }
    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    stop_reading(output);
    return false;
}

void
output_catch_up(struct output *output)
{
    char chunk[CATCH_UP_CHUNK];
    for (int i = 0; i < DRAIN_READS && !output->ended; i++) {
        if (!read_once(output, chunk, sizeof chunk))
            break;
    }
}

void
output_drain(struct output *output)
{
    for (int i = 0; i < DRAIN_READS && !output->ended; i++) {
        if (!read_once(output, output->chunk, IO_CHUNK))
            break;
    }
    end_line(output);
    tell_dropped(output);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    struct output *output = poll->data;
    (void)status; /* an error is found out by the read */
    (void)events;
    loop_is_at("reading a worker's output", NULL);
    if (turn_now(&output->turn))
        read_once(output, output->chunk, IO_CHUNK);
    else
        uv_poll_stop(poll); /* until its turn */
}

static void
on_turn(struct turn *turn)
{
    struct output *output = list_entry(turn, struct output, turn);
    loop_is_at("reading a worker's output", NULL);
    if (read_once(output, output->chunk, IO_CHUNK) || !output->ended)
        uv_poll_start(&output->poll, UV_READABLE, on_poll);
}

void
output_freeze(struct output *output)
{
    turn_leave(&output->turn);
    uv_poll_stop(&output->poll);
}

void
output_go_on(struct output *output)
{
    if (!output->ended)
        uv_poll_start(&output->poll, UV_READABLE, on_poll);
}

void
output_restore(struct output *output, const char *line, size_t line_len, const char *tail,
               size_t tail_len, uint64_t total)
{
    output->total = total;
    output->line_len = line_len < OUTPUT_LINE ? line_len : OUTPUT_LINE;
    memcpy(output->line, line, output->line_len);
    keep_tail(output, tail, tail_len);
}

static void
on_close(uv_handle_t *handle)
{
    struct output *output = handle->data;
    output->events->on_closed(output->owner);
}

void
output_close(struct output *output)
{
    assert(output->fd >= 0);
    turn_leave(&output->turn);
    uv_close((uv_handle_t *)&output->poll, on_close);
    close(output->fd);
    output->fd = -1;
}
