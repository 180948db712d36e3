/* sdnotify.h: a word to the service manager: one datagram to the socket that
 * NOTIFY_SOCKET names, as sd_notify(3) describes it. Our own, since it is ten lines.
 *
 * Nothing here blocks, and a manager that does not listen never harms us: a failure is
 * logged once, and once more when it is over.
 */
#ifndef JOBQD_SDNOTIFY_H
#define JOBQD_SDNOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct sdnotify {
    int fd; /* -1: nobody asked for our words */
    struct sockaddr_un address;
    socklen_t address_len;
    bool failing; /* said so in the log */
};

/* name: NOTIFY_SOCKET's value: a path, or @ and an abstract name; NULL or "": nobody
 * listens. An address that is none of these is logged, and nobody listens. */
void sdnotify_open(struct sdnotify *notify, const char *name);
void sdnotify_close(struct sdnotify *notify);
bool sdnotify_listened(const struct sdnotify *notify);

/* Assignments, a line each ("READY=1\nSTATUS=…"). False: it was not sent (the manager's
 * queue is full, or it is gone): if it matters, say it again later. */
bool sdnotify_send(struct sdnotify *notify, const char *assignments);

/* How often, at the least, the manager wants to hear WATCHDOG=1, by the values of
 * WATCHDOG_USEC and WATCHDOG_PID; 0: not at all, or it is another process that it means.
 */
int64_t sdnotify_watchdog_ms(const char *usec, const char *pid);

#endif
