/* inbox.c: reads the worker's socket into a buffer and cuts it into lines. */
#include "libjobq/inbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "libjobq/error.h"

enum { FIRST_CAP = 64 * 1024, MIN_ROOM = 16 * 1024 };

void
jobq__inbox_init(struct jobq__inbox *inbox, int fd, size_t max_line)
{
    *inbox = (struct jobq__inbox){.fd = fd, .max_line = max_line};
}

void
jobq__inbox_clear(struct jobq__inbox *inbox)
{
    free(inbox->lent);
    free(inbox->data);
    *inbox = (struct jobq__inbox){.fd = -1};
}

/* The unread bytes begin at the buffer's front from now on. */
static void
rebase(struct jobq__inbox *inbox)
{
    inbox->end -= inbox->start;
    inbox->scanned -= inbox->start;
    inbox->tail -= inbox->start;
    inbox->peeked = inbox->peeked > inbox->start ? inbox->peeked - inbox->start : 0;
    inbox->start = 0;
}

/* Moves the unread bytes to a buffer of their own when the present one may not move. */
static int
make_room(struct jobq__inbox *inbox, jobq_error *err)
{
    size_t used = inbox->end - inbox->start;
    if (inbox->cap - inbox->end >= MIN_ROOM)
        return JOBQ_OK;
    if (!inbox->lending && inbox->cap >= used + MIN_ROOM) {
        memmove(inbox->data, inbox->data + inbox->start, used);
        rebase(inbox);
        return JOBQ_OK;
    }
    size_t cap = used * 2 + MIN_ROOM > FIRST_CAP ? used * 2 + MIN_ROOM : FIRST_CAP;
    char *data = malloc(cap);
    if (!data)
        return jobq__error(err, JOBQ_ENOMEM,
                           "worker: out of memory for %zu bytes of input", cap);
    if (used > 0)
        memcpy(data, inbox->data + inbox->start, used);
    if (inbox->lending)
        inbox->lent = inbox->data;
    else
        free(inbox->data);
    inbox->lending = false;
    inbox->data = data;
    inbox->cap = cap;
    rebase(inbox);
    return JOBQ_OK;
}

/* Looks for the end of the first line, from where the last look ended. */
static char *
find_newline(struct jobq__inbox *inbox)
{
    if (inbox->scanned == inbox->end)
        return NULL;
    char *newline =
        memchr(inbox->data + inbox->scanned, '\n', inbox->end - inbox->scanned);
    inbox->scanned = newline ? (size_t)(newline - inbox->data) : inbox->end;
    return newline;
}

/* Measures the lines that the last `got` bytes belong to, however they came in. */
static bool
is_too_long(struct jobq__inbox *inbox, size_t got)
{
    const char *at = inbox->data + inbox->end - got, *end = inbox->data + inbox->end;
    const char *newline;
    while ((newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if ((size_t)(newline - inbox->data) - inbox->tail > inbox->max_line)
            return true;
        at = newline + 1;
        inbox->tail = (size_t)(at - inbox->data);
    }
    return inbox->end - inbox->tail > inbox->max_line;
}

int
jobq__inbox_read(struct jobq__inbox *inbox, size_t *got, jobq_error *err)
{
    *got = 0;
    if (inbox->closed)
        return JOBQ_OK;
    int rc = make_room(inbox, err);
    if (rc)
        return rc;
    ssize_t n;
    do
        n = recv(inbox->fd, inbox->data + inbox->end, inbox->cap - inbox->end,
                 MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return JOBQ_OK;
    if (n == 0 || (n < 0 && errno == ECONNRESET)) {
        inbox->closed = true;
        return JOBQ_OK;
    }
    if (n < 0)
        return jobq__error(err, JOBQ_EIO, "worker: cannot read from the daemon: %s",
                           strerror(errno));
    inbox->end += (size_t)n;
    *got = (size_t)n;
    if (is_too_long(inbox, *got))
        return jobq__error(err, JOBQ_EPROTO,
                           "worker: the daemon sent a line of more than %zu bytes",
                           inbox->max_line);
    return JOBQ_OK;
}

bool
jobq__inbox_line(struct jobq__inbox *inbox, char **line, size_t *len)
{
    free(inbox->lent);
    inbox->lent = NULL;
    inbox->lending = false;
    char *newline = find_newline(inbox);
    if (!newline)
        return false;
    *line = inbox->data + inbox->start;
    *len = (size_t)(newline - *line);
    *newline = '\0';
    inbox->start += *len + 1;
    inbox->scanned = inbox->start;
    inbox->lending = true;
    return true;
}

bool
jobq__inbox_peek(struct jobq__inbox *inbox, const char **line, size_t *len)
{
    if (inbox->peeked < inbox->start)
        inbox->peeked = inbox->start;
    if (inbox->peeked == inbox->end)
        return false;
    const char *at = inbox->data + inbox->peeked;
    const char *newline = memchr(at, '\n', inbox->end - inbox->peeked);
    if (!newline)
        return false;
    *line = at;
    *len = (size_t)(newline - at);
    inbox->peeked += *len + 1;
    return true;
}
