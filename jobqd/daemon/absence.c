/* absence.c: the database, or one connection to it, is away: what is said of that in the
 * log, and how often. */
#include "jobqd/daemon/daemon_private.h"

#include <string.h>

#include "jobqd/actors/node.h"
#include "jobqd/base/log.h"
#include "jobqd/base/seams.h"
#include "libjobq/duration.h"

enum { SAME_ABSENCE_MS = 1000 /* between two reasons of it that are told */ };

/* It has never been reached by this process, or the one before it. */
bool
daemon_is_starting(const struct daemon *d)
{
    return !d->lived && !d->past;
}

/* What becomes of jobs meanwhile. */
static const char *
goes_on(const struct daemon *d)
{
    return node_state(d->node) == NODE_LIVE ? "running jobs continue"
                                            : "running no jobs, retrying";
}

/* A connection is lost, or could not be made again. The second reason is often the one to
 * act upon (the session was ended; now there are too many, or the password is wrong), so
 * each new one is said, but not one a try. */
void
absence_tell(struct daemon *d, struct absence *absence, const char *what,
             const jobq_error *why)
{
    uint64_t now = uv_now(&d->loop);
    absence->newest = *why;
    if (!absence->told) {
        log_warning("database", "%s (%s): %s", what, goes_on(d), why->message);
        absence->since_ms = now;
    } else if (now - absence->told_at_ms >= SAME_ABSENCE_MS &&
               strcmp(absence->why.message, why->message) != 0) {
        log_warning("database", "still %s: %s", what, why->message);
    } else {
        return;
    }
    absence->told = true;
    absence->told_at_ms = now;
    absence->why = *why;
}

/* That the database is away is said by the control connection. But another one alone may
 * find no way back, as when there are too many clients. */
void
absence_tell_alone(struct daemon *d, struct absence *absence, const char *what,
                   const jobq_error *why)
{
    if (!d->database_down.told && node_state(d->node) == NODE_LIVE)
        absence_tell(d, absence, what, why);
}

void
absence_end(struct absence *absence, const char *what)
{
    if (absence->told)
        log_info("database", "%s", what);
    absence->told = false;
}

/* After 1, 5 and 15 minutes, then every 15. */
static uint64_t
next_tell_ms(const struct daemon *d)
{
    static const uint64_t minutes[] = {1, 5, 15};
    int64_t given_ms = seam_number(SEAM_AWAY_MS);
    uint64_t minute_ms = given_ms > 0 ? (uint64_t)given_ms : 60 * 1000;
    uint64_t lasted_ms = uv_now(&d->loop) - d->database_down.since_ms;
    for (size_t i = 0; i < sizeof minutes / sizeof minutes[0]; i++) {
        if (lasted_ms < minutes[i] * minute_ms)
            return minutes[i] * minute_ms - lasted_ms;
    }
    return 15 * minute_ms - lasted_ms % (15 * minute_ms);
}

static void
on_still_away(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    if (d->state != DAEMON_RUNNING || !d->database_down.told)
        return;
    uint64_t lasted_ms = uv_now(&d->loop) - d->database_down.since_ms;
    int64_t shown_ms = (int64_t)lasted_ms;
    if (shown_ms > 1000)
        shown_ms -= shown_ms % (shown_ms > 60 * 1000 ? 60 * 1000 : 1000);
    log_error("database", "%s for %s (%s): %s",
              daemon_is_starting(d) ? "not reachable" : "unavailable",
              jobq__duration_show(shown_ms).text, goes_on(d),
              d->database_down.newest.message);
    uv_timer_start(timer, on_still_away, next_tell_ms(d), 0);
}

void
absence_arm(struct daemon *d)
{
    if (!uv_is_active((uv_handle_t *)&d->still_away))
        uv_timer_start(&d->still_away, on_still_away, next_tell_ms(d), 0);
}
