/* systemd.h: what the service manager hears of us, and the watchdog that it keeps.
 *
 * The watchdog is fed by progress, not by a timer alone: a feed says that the loop turns
 * and that its owner knows of nothing that is stuck. Without NOTIFY_SOCKET in the
 * environment all of this does nothing, and runs no timer.
 *
 * What must arrive (READY=1, STOPPING=1) is said again until it could be sent.
 */
#ifndef JOBQD_SYSTEMD_H
#define JOBQD_SYSTEMD_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "libjobq/buf.h"

/* X(enumerator, what we are waiting for) */
#define SYSTEMD_STATES(X)                                                                \
    X(SYSTEMD_STARTING, "the daemon to be ready")                                        \
    X(SYSTEMD_READY, "events")                                                           \
    X(SYSTEMD_RELOADING, "the new configuration to be applied or refused")               \
    X(SYSTEMD_STOPPING, "the daemon to exit")

enum systemd_state {
#define X(name, meaning) name,
    SYSTEMD_STATES(X)
#undef X
};

struct systemd_options {
    uv_loop_t *loop;
    /* Appends the line that `systemctl status` shows. */
    void (*describe)(void *owner, struct jobq__buf *out);
    /* Something that should make progress does not: true, and which it is. A database
     * that is away is no such thing. */
    bool (*stuck)(void *owner, char *why, size_t size);
    void *owner;
};

struct systemd; /* private to systemd.c */

/* Returns 0 or JOBQ_ENOMEM. By NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which stay
 * in our environment: an upgrade in place needs them; no child is given them. */
int systemd_new(struct systemd **out, const struct systemd_options *options);

/* It serves: READY=1, and MAINPID: the guard may have started us. */
void systemd_ready(struct systemd *systemd);
/* RELOADING=1 with the time, as the manager wants it. Answered by systemd_ready. Nothing
 * before the first systemd_ready. */
void systemd_reloading(struct systemd *systemd);
/* Its end has begun. Repeated calls do nothing. Until the close the manager is told to be
 * patient: however long a drain takes, it has a bound of its own. */
void systemd_stopping(struct systemd *systemd);
/* What describe says may have changed. */
void systemd_update(struct systemd *systemd);

/* NULL is harmless. Its memory goes with its timer. */
void systemd_close(struct systemd *systemd);

#endif
