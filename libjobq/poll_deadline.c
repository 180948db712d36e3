/* poll_deadline.c: see poll_deadline.h. */
#include "libjobq/poll_deadline.h"

#include <poll.h>
#include <time.h>

enum { LONGEST_MS = 100 };

int64_t
jobq__now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

enum jobq__poll
jobq__poll_until(int fd, short events, int64_t until_us)
{
    struct pollfd socket = {.fd = fd, .events = events};
    int64_t left_ms = (until_us - jobq__now_us() + 999) / 1000;
    if (left_ms <= 0)
        return JOBQ__POLL_LATE;
    int n = poll(&socket, 1, left_ms < LONGEST_MS ? (int)left_ms : LONGEST_MS);
    return n > 0 ? JOBQ__POLL_READY : JOBQ__POLL_QUIET;
}
