/* poll_deadline.h (internal): waiting for a socket, but not beyond a moment. Moments are of
 * CLOCK_MONOTONIC, in microseconds. */
#ifndef JOBQ__POLL_DEADLINE_H
#define JOBQ__POLL_DEADLINE_H

#include <stdint.h>

#define JOBQ__FOR_EVER INT64_MAX

int64_t jobq__now_us(void);

enum jobq__poll {
    JOBQ__POLL_LATE,  /* until_us has passed */
    JOBQ__POLL_READY, /* one of the events, or the socket's end */
    JOBQ__POLL_QUIET  /* neither */
};

/* Waits for poll()'s events, but not beyond until_us, and a tenth of a second at most. */
enum jobq__poll jobq__poll_until(int fd, short events, int64_t until_us);

#endif
