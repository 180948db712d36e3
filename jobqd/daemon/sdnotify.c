/* sdnotify.c: see sdnotify.h. */
#include "jobqd/daemon/sdnotify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/log.h"

#define SUBJECT "systemd"

void
sdnotify_open(struct sdnotify *notify, const char *name)
{
    *notify = (struct sdnotify){.fd = -1, .address = {.sun_family = AF_UNIX}};
    size_t len = name ? strlen(name) : 0;
    if (len == 0)
        return;
    if ((*name != '/' && *name != '@') || len < 2 ||
        len >= sizeof notify->address.sun_path) {
        log_warning(SUBJECT,
                    "NOTIFY_SOCKET=%s is neither a path nor @ with an abstract name, of "
                    "at most %zu bytes: jobqd cannot notify the service manager",
                    name, sizeof notify->address.sun_path - 1);
        return;
    }
    memcpy(notify->address.sun_path, name, len);
    if (*name == '@')
        notify->address.sun_path[0] = '\0';
    /* An abstract name has no end of its own: its length says where it stops. */
    notify->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (notify->fd < 0)
        log_warning(SUBJECT, "cannot open a socket to the service manager: %s",
                    strerror(errno));
}

void
sdnotify_close(struct sdnotify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}

bool
sdnotify_listened(const struct sdnotify *notify)
{
    return notify->fd >= 0;
}

bool
sdnotify_send(struct sdnotify *notify, const char *assignments)
{
    if (notify->fd < 0)
        return true;
    /* Not connected: the manager may make its socket anew. */
    ssize_t n;
    do
        n = sendto(notify->fd, assignments, strlen(assignments), MSG_NOSIGNAL,
                   (const struct sockaddr *)&notify->address, notify->address_len);
    while (n < 0 && errno == EINTR);
    if (n < 0 && !notify->failing)
        log_warning(SUBJECT, "cannot notify the service manager: %s", strerror(errno));
    if (n >= 0 && notify->failing)
        log_info(SUBJECT, "the service manager can be notified again");
    notify->failing = n < 0;
    return n >= 0;
}

/* The value of a variable that the manager wrote; 0: it is not a number above 0. */
static int64_t
number(const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && value > 0 ? value : 0;
}

int64_t
sdnotify_watchdog_ms(const char *usec, const char *pid)
{
    if (!usec || !*usec || (pid && *pid && number(pid) != (int64_t)getpid()))
        return 0;
    int64_t interval_us = number(usec);
    if (interval_us == 0) {
        log_warning(
            SUBJECT,
            "WATCHDOG_USEC=%s is not a number of microseconds: not feeding the watchdog",
            usec);
        return 0;
    }
    return interval_us < 1000 ? 1 : interval_us / 1000;
}
