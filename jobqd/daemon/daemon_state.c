/* daemon_state.c: what the daemon waits for. */
#include "jobqd/daemon/daemon_private.h"

#include <assert.h>

#include "jobqd/base/log.h"

const char *
daemon_state_meaning(enum daemon_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        DAEMON_STATES(X)
#undef X
    };
    return meanings[state];
}

bool
daemon_is_ending(const struct daemon *d)
{
    return d->state >= DAEMON_DRAINING;
}

void
daemon_set_state(struct daemon *d, enum daemon_state state)
{
    assert(state > d->state || d->state == DAEMON_DATABASE);
    d->state = state;
    log_debug("jobqd", "waits for %s", daemon_state_meaning(state));
    if (daemon_is_ending(d))
        systemd_stopping(d->systemd);
    systemd_update(d->systemd);
}

void
daemon_describe(void *owner, struct jobq__buf *out)
{
    struct daemon *d = owner;
    queues_describe(&d->queues, out);
    queues_tell_slow(&d->queues, d->booted->lease_ms / 3);
}
