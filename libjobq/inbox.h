/* inbox.h (internal): what the daemon has sent and the worker has not yet handled. A byte
 * buffer on a socket, cut into lines.
 *
 * A line that is being handled is lent: its bytes stay where they are, even when more is
 * read meanwhile (a handler that asks whether it should stop reads the socket), until the
 * next line is asked for. Knows lines, not frames.
 */
#ifndef JOBQ__INBOX_H
#define JOBQ__INBOX_H

#include <jobq/error.h>
#include <stdbool.h>
#include <stddef.h>

struct jobq__inbox {
    int fd;
    size_t max_line; /* bytes, without the newline */
    char *data;
    size_t cap;
    size_t start;   /* the first byte that no line was made of */
    size_t peeked;  /* up to here jobq__inbox_peek has gone */
    size_t scanned; /* no newline between start and here */
    size_t tail;    /* where the last line begins, of which there is no newline yet */
    size_t end;     /* behind the last byte read */
    char *lent;     /* an earlier buffer, kept while a line in it is lent */
    bool lending;   /* a line in data is lent */
    bool closed;    /* the daemon has closed its end */
};

void jobq__inbox_init(struct jobq__inbox *inbox, int fd, size_t max_line);
void jobq__inbox_clear(struct jobq__inbox *inbox);

/* Reads what is there, without waiting. JOBQ_OK also when nothing was there (*got = 0)
 * and when the daemon has closed its end (closed is set). JOBQ_EPROTO: a line is longer
 * than max_line. JOBQ_EIO, JOBQ_ENOMEM. */
int jobq__inbox_read(struct jobq__inbox *inbox, size_t *got, jobq_error *err);

/* The next whole line, NUL in place of its newline, lent until the next call; it may be
 * changed. False: there is none yet. */
bool jobq__inbox_line(struct jobq__inbox *inbox, char **line, size_t *len);

/* Walks the whole lines that have come since the last call, without taking them; they may
 * not be changed. False: there are no more. */
bool jobq__inbox_peek(struct jobq__inbox *inbox, const char **line, size_t *len);

#endif
