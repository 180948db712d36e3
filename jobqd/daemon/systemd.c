/* systemd.c: see systemd.h. */
#include "jobqd/daemon/systemd.h"

#include <assert.h>
#include <inttypes.h>
#include <jobq/error.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/daemon/sdnotify.h"

enum {
    STATUS_MS = 2000,               /* how often the status is looked at */
    FEEDS_AN_INTERVAL = 4,          /* one may be late, or lost */
    PATIENCE_US = 30 * 1000 * 1000, /* asked for again and again, while it is needed */
};

struct systemd {
    struct systemd_options options;
    struct sdnotify notify;
    enum systemd_state state;
    bool untold;        /* the manager has not heard of the state yet */
    bool watched;       /* it wants to be fed */
    bool starved;       /* something was stuck at the last look; said so in the log */
    uint64_t period_ms; /* of the timer */
    char status[400];   /* as it was sent last */
    uv_timer_t timer;
};

static void
set_state(struct systemd *systemd, enum systemd_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        SYSTEMD_STATES(X)
#undef X
    };
    assert(systemd->state != SYSTEMD_STOPPING);
    systemd->state = state;
    systemd->untold = true;
    log_debug("systemd", "waits for %s", meanings[state]);
}

/* What is said of the state when it is new. */
static void
put_state(const struct systemd *systemd, struct jobq__buf *out)
{
    char text[64];
    switch (systemd->state) {
    case SYSTEMD_STARTING:
        break;
    case SYSTEMD_READY:
        snprintf(text, sizeof text, "READY=1\nMAINPID=%d\n", (int)getpid());
        jobq__buf_adds(out, text);
        break;
    case SYSTEMD_RELOADING:
        snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\n",
                 clock_ns() / 1000);
        jobq__buf_adds(out, text);
        break;
    case SYSTEMD_STOPPING:
        jobq__buf_adds(out, "STOPPING=1\n");
        break;
    }
}

/* The manager's limits for a start and a stop are for those who hang. We wait for the
 * database, its recovery, or jobs that run. */
static bool
needs_patience(const struct systemd *systemd)
{
    return systemd->state == SYSTEMD_STARTING || systemd->state == SYSTEMD_STOPPING;
}

static void
put_status(struct systemd *systemd, const char *trouble, struct jobq__buf *out)
{
    char line[sizeof systemd->status];
    struct jobq__buf text = {0};
    if (!trouble)
        systemd->options.describe(systemd->options.owner, &text);
    const char *said = trouble ? trouble : jobq__buf_cstr(&text);
    snprintf(line, sizeof line, "%s%s", trouble ? "stuck: " : "", said ? said : "");
    jobq__buf_clear(&text);
    for (char *at = line; *at; at++) {
        if (*at == '\n' || *at == '\r')
            *at = ' '; /* the next line would be an assignment */
    }
    if (!systemd->untold && strcmp(line, systemd->status) == 0)
        return;
    memcpy(systemd->status, line, sizeof line);
    jobq__buf_adds(out, "STATUS=");
    jobq__buf_adds(out, line);
    jobq__buf_addc(out, '\n');
}

static bool
look_for_trouble(struct systemd *systemd, char *why, size_t size)
{
    bool stuck = systemd->options.stuck(systemd->options.owner, why, size);
    if (stuck && !systemd->starved)
        log_error("systemd", "not feeding the watchdog: %s", why);
    if (!stuck && systemd->starved)
        log_info("systemd", "feeding the watchdog again");
    systemd->starved = stuck;
    return stuck;
}

/* One datagram with everything that there is to say. feed: this is the timer's turn. */
static void
say(struct systemd *systemd, bool feed)
{
    char trouble[300];
    struct jobq__buf out = {0};
    if (!sdnotify_listened(&systemd->notify))
        return;
    bool stuck =
        feed ? look_for_trouble(systemd, trouble, sizeof trouble) : systemd->starved;
    if (systemd->untold)
        put_state(systemd, &out);
    if (feed && !stuck && systemd->watched)
        jobq__buf_adds(&out, "WATCHDOG=1\n");
    if ((feed || systemd->untold) && !stuck && needs_patience(systemd)) {
        char text[64];
        snprintf(text, sizeof text, "EXTEND_TIMEOUT_USEC=%d\n", (int)PATIENCE_US);
        jobq__buf_adds(&out, text);
    }
    if (feed || !stuck)
        put_status(systemd, stuck ? trouble : NULL, &out);
    const char *text = out.len > 0 ? jobq__buf_cstr(&out) : NULL;
    if (text && sdnotify_send(&systemd->notify, text))
        systemd->untold = false;
    else if (text)
        systemd->status[0] = '\0'; /* nobody has heard it */
    jobq__buf_clear(&out);
}

static void
on_timer(uv_timer_t *timer)
{
    say(timer->data, true);
}

int
systemd_new(struct systemd **out, const struct systemd_options *options)
{
    struct systemd *systemd = calloc(1, sizeof *systemd);
    if (!systemd)
        return JOBQ_ENOMEM;
    systemd->options = *options;
    systemd->state = SYSTEMD_STARTING;
    systemd->untold = true;
    sdnotify_open(&systemd->notify, getenv("NOTIFY_SOCKET"));
    int64_t watchdog_ms =
        sdnotify_watchdog_ms(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"));
    systemd->watched = watchdog_ms > 0;
    systemd->period_ms = STATUS_MS;
    if (watchdog_ms > 0 && (uint64_t)watchdog_ms / FEEDS_AN_INTERVAL < STATUS_MS)
        systemd->period_ms = (uint64_t)watchdog_ms / FEEDS_AN_INTERVAL + 1;
    uv_timer_init(options->loop, &systemd->timer);
    systemd->timer.data = systemd;
    if (sdnotify_listened(&systemd->notify))
        uv_timer_start(&systemd->timer, on_timer, 0, systemd->period_ms);
    *out = systemd;
    return 0;
}

void
systemd_ready(struct systemd *systemd)
{
    if (systemd->state != SYSTEMD_STARTING && systemd->state != SYSTEMD_RELOADING)
        return;
    set_state(systemd, SYSTEMD_READY);
    say(systemd, false);
}

void
systemd_reloading(struct systemd *systemd)
{
    if (systemd->state != SYSTEMD_READY)
        return;
    set_state(systemd, SYSTEMD_RELOADING);
    say(systemd, false);
}

void
systemd_stopping(struct systemd *systemd)
{
    if (systemd->state == SYSTEMD_STOPPING)
        return;
    set_state(systemd, SYSTEMD_STOPPING);
    say(systemd, false);
}

void
systemd_update(struct systemd *systemd)
{
    say(systemd, false);
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
systemd_close(struct systemd *systemd)
{
    if (!systemd)
        return;
    sdnotify_close(&systemd->notify);
    uv_close((uv_handle_t *)&systemd->timer, on_closed);
}
