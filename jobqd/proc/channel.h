/* channel.h: lines over a worker's socket, both ways. Knows no protocol: a line is bytes
 * up to a newline.
 *
 * Made for many short lines: one read takes what is there (up to IO_CHUNK bytes), the
 * lines are handed over where they lie, and lines to the worker gather in one buffer that
 * is written once a loop turn, by channel_flush. A worker that does not read makes that
 * buffer wait, not the loop; what is put into it is the caller's to bound
 * (channel_backlog).
 *
 * The memory of an idle channel is this struct: reading goes through a buffer that all
 * channels share, and only the rest of an unfinished line is kept. What all of them keep
 * has a bound: longlines.h.
 */
#ifndef JOBQD_CHANNEL_H
#define JOBQD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/proc/longlines.h"
#include "jobqd/proc/turns.h"
#include "libjobq/buf.h"

/* The bytes read at once, by channels and outputs: the size of the buffer that they
 * share. */
enum { IO_CHUNK = 64 * 1024 };

/* X(enumerator, what it means) */
#define CHANNEL_STATES(X)                                                                \
    X(CHANNEL_OPEN, "lines may come")                                                    \
    X(CHANNEL_ENDED, "the peer has closed, at the end of a line")                        \
    X(CHANNEL_CUT, "the peer has closed within a line")                                  \
    X(CHANNEL_TOO_LONG, "a line was longer than max_line")                               \
    X(CHANNEL_REFUSED, "the owner wants no more lines")                                  \
    X(CHANNEL_FAILED, "out of memory, or a read failed")                                 \
    X(CHANNEL_CLOSED, "nothing more is read or written")

enum channel_state {
#define X(name, meaning) name,
    CHANNEL_STATES(X)
#undef X
};

struct channel_events {
    /* One line, without its newline; lent, and the owner's to write in. Returns false to
     * get no more. */
    bool (*on_line)(void *owner, char *line, size_t len);
    /* The lines that one read brought have been handed over. */
    void (*on_lines_end)(void *owner);
    /* There will be no more lines; channel->state says why. Writing may still work. */
    void (*on_end)(void *owner);
    /* After channel_close; the struct's memory is the owner's again. */
    void (*on_closed)(void *owner);
    /* The peer has taken all that channel_flush had left. NULL: nobody cares. */
    void (*on_written)(void *owner);
};

struct channel {
    uv_poll_t poll;
    int fd;
    enum channel_state state;
    bool frozen;          /* nothing is watched: see channel_freeze */
    bool held;            /* nothing is read: see channel_hold */
    uint64_t released_ns; /* when it could last read again (clock_ns); 0: always could */
    struct longline longline;
    struct turn turn; /* to read: see turns.h */
    int watching;     /* the events that the poll waits for */
    size_t max_line;
    char *chunk;           /* IO_CHUNK bytes, shared */
    struct jobq__buf rest; /* the beginning of an unfinished line */
    struct jobq__buf out;  /* append whole lines to it, then channel_flush */
    size_t written;        /* of out */
    uint64_t total;        /* bytes written in its life */
    bool unread;           /* the peer has closed without reading all of them */
    const struct channel_events *events;
    void *owner;
};

/* Begins to watch fd (the channel's from now on, also on failure). Returns 0, or libuv's
 * error: then the channel is CHANNEL_CLOSED, with no handle to close. So it is, without
 * an error, for fd -1. */
int channel_open(struct channel *channel, uv_loop_t *loop, int fd, size_t max_line,
                 char *chunk, const struct channel_events *events, void *owner);

/* Writes what has gathered in out, as much as the socket takes now; the rest follows by
 * itself. A peer that is gone is no error here: its end is seen elsewhere. */
void channel_flush(struct channel *channel);

/* Bytes that wait to be written. */
size_t channel_backlog(const struct channel *channel);

/* Reads, without blocking, all that a dead peer has left behind, and hands it over.
 * Bounded: a process that inherited the socket cannot keep us here. on_end has been
 * called when it returns, if it was not before. */
void channel_drain(struct channel *channel);

/* Reads nothing until it is let go: what the peer says waits in the socket, and so does
 * the peer once that is full. Writing goes on. channel_drain reads all the same. */
void channel_hold(struct channel *channel, bool hold);

/* Whether it is held, or waits for room for its line or for its turn. */
bool channel_is_held_up(const struct channel *channel);

/* Whether bytes wait in the socket. One system call. */
bool channel_has_unread(const struct channel *channel);

/* Whether the peer has said something that was not handed over yet: bytes wait in the
 * socket, or a line is unfinished. */
bool channel_is_behind(const struct channel *channel);

/* Reads what waits in the socket of a held channel, once, if that is not more than one
 * read takes. */
void channel_hear(struct channel *channel);

/* Neither reads nor writes any more, until it goes on: what the peer says stays in the
 * socket. While frozen, `rest`, `out` from `written` on, `total`, `unread` and `state`
 * are the channel, for whoever takes the socket over. */
void channel_freeze(struct channel *channel);
void channel_go_on(struct channel *channel);

/* What another program's frozen channel was, put into one that has just been opened on
 * its socket and is frozen. Returns 0 or JOBQ_ENOMEM. */
struct channel_past {
    enum channel_state state; /* not CHANNEL_CLOSED */
    const char *rest;
    size_t rest_len;
    const char *out;
    size_t out_len;
    uint64_t total;
    bool unread;
};
int channel_restore(struct channel *channel, const struct channel_past *past);

/* Closes the socket; on_closed follows from the loop. */
void channel_close(struct channel *channel);

#endif
