/* pgwatch.h: watches one libpq socket on the event loop. Owns one uv_poll_t; knows no
 * libpq.
 *
 * libpq may close its socket and open another at any PQconnectPoll, often under the same
 * number. So: pgwatch_stop before each call that may do that, pgwatch_arm with a freshly
 * read PQsocket after it, pgwatch_stop before PQfinish.
 */
#ifndef JOBQD_PGWATCH_H
#define JOBQD_PGWATCH_H

#include <uv.h>

struct pgwatch_handle;

/* events: UV_READABLE, UV_WRITABLE or both; both when the socket reports an error, so
 * that libpq finds out which. */
typedef void (*pgwatch_event)(void *owner, int events);

struct pgwatch {
    uv_loop_t *loop;
    struct pgwatch_handle *handle; /* NULL while nothing is watched; frees itself when
                                      closed */
    int fd;
    int armed; /* what the loop watches for now */
    pgwatch_event on_event;
    void *owner;
};

void pgwatch_init(struct pgwatch *watch, uv_loop_t *loop, pgwatch_event on_event,
                  void *owner);

/* Watches fd for events from now on; does nothing when that is so already. Returns 0 or a
 * libuv error. */
int pgwatch_arm(struct pgwatch *watch, int fd, int events);

/* Watches nothing, and lets go of the descriptor at once. No event is reported any more.
 */
void pgwatch_stop(struct pgwatch *watch);

#endif
