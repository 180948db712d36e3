/* output.h: what a worker prints. Splits it into lines for the log, and keeps its end for
 * the error record.
 *
 * A worker may print without end: reading is a bounded step at a time, lines above a rate
 * are counted instead of handed over, and memory is this struct. It never makes the
 * worker wait for the log.
 */
#ifndef JOBQD_OUTPUT_H
#define JOBQD_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/proc/turns.h"

enum {
    OUTPUT_TAIL = 2048, /* bytes kept of the end */
    OUTPUT_LINE = 4096, /* a longer line is handed over in pieces */
    /* Lines and bytes that are handed over in a second; the rest is only counted. */
    OUTPUT_LINES_A_SECOND = 500,
    OUTPUT_BYTES_A_SECOND = 128 * 1024
};

/* How much of a second's allowance is used up. It outlives a process, so that one process
 * a job gets no new allowance with each. Starts zeroed. */
struct output_rate {
    uint64_t second; /* of the loop's clock */
    size_t lines;
    size_t bytes;
    uint64_t dropped; /* lines since the last notice */
};

struct output_events {
    /* A line (or a piece of a long one), NUL-terminated, without its newline; lent. */
    void (*on_line)(void *owner, const char *line);
    /* So many lines were not handed over, since there were too many of them. */
    void (*on_dropped)(void *owner, uint64_t lines);
    void (*on_closed)(void *owner);
};

struct output {
    uv_poll_t poll;
    struct turn turn; /* to read: see turns.h */
    int fd;           /* -1: closed */
    bool ended;
    char *chunk; /* IO_CHUNK bytes, shared (channel.h) */
    struct output_rate *rate;
    const struct output_events *events;
    void *owner;
    size_t line_len;
    char line[OUTPUT_LINE + 1];
    uint64_t total; /* bytes read so far */
    size_t tail_len;
    char tail[OUTPUT_TAIL + 1];
};

/* Begins to watch fd (the output's from now on, also on failure). Returns 0, or libuv's
 * error: then there is no handle to close, fd is -1 and nothing is read. */
int output_open(struct output *output, uv_loop_t *loop, int fd, char *chunk,
                struct output_rate *rate, const struct output_events *events,
                void *owner);

/* Reads, without blocking, what a dead process has left in the pipe; hands over the
 * unfinished last line, and the count of dropped lines. Bounded, as channel_drain is. */
void output_drain(struct output *output);

/* Reads, without blocking, what has been printed so far. Bounded, as output_drain is; not
 * through the shared chunk, which may be somebody else's just then. */
void output_catch_up(struct output *output);

/* The end of what was printed after the first `from` bytes: at most OUTPUT_TAIL bytes,
 * NUL-terminated, not cut within a UTF-8 character. NULL when nothing was. Lent until
 * more is read. */
const char *output_tail(struct output *output, uint64_t from);

/* Its last line that is not blank, fit to be shown: at most size - 1 bytes, cut with an
 * ellipsis. Returns out; NULL: there is none. */
const char *output_last_line(struct output *output, char *out, size_t size);

/* Reads nothing more until it goes on: what is printed stays in the pipe. */
void output_freeze(struct output *output);
void output_go_on(struct output *output);

/* What another program's frozen output had kept, put into one that has just been opened
 * on its pipe: the unfinished line, the tail, and how much had been read. Longer ones
 * than fit are cut. */
void output_restore(struct output *output, const char *line, size_t line_len,
                    const char *tail, size_t tail_len, uint64_t total);

void output_close(struct output *output);

#endif
