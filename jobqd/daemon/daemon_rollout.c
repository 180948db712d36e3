/* daemon_rollout.c: how a reload goes, once its configuration is in force: whether the
 * new workers come up. Said in the log, and to `jobqd reload --wait` through the node's
 * row.
 *
 * Processes from before that run a job are not waited for: that may take hours, and says
 * nothing of the new ones. */
#include "jobqd/daemon/daemon_private.h"

#include <stdio.h>
#include <string.h>

#include "jobqd/actors/cron_declarer.h"
#include "jobqd/actors/node.h"
#include "jobqd/base/log.h"
#include "libjobq/buf.h"

/* FAILED_LOOK_MS: once one has failed, which goes on until somebody mends it. */
enum {
    LOOK_EVERY_MS = 100,
    FAILED_LOOK_MS = 1000,
    TELL_AGAIN_MS = 5000,
    CRONS_WITHIN_MS = 30000
};

static const char *const state_names[] = {[ROLLOUT_NONE] = NULL,
                                          [ROLLOUT_BEGUN] = "begun",
                                          [ROLLOUT_FAILED] = "failed",
                                          [ROLLOUT_DONE] = "done",
                                          [ROLLOUT_REFUSED] = "refused"};

static void
on_told(void *data, const struct store_answer *answer)
{
    struct daemon *d = data;
    d->rollout.telling = false;
    if (answer->code == 0)
        return;
    d->rollout.untold = d->rollout.state != ROLLOUT_NONE;
    d->rollout.unnoted = true;
    if (answer->code == JOBQ_ECONN)
        return;
    d->rollout.tell_again_ms = uv_now(&d->loop) + TELL_AGAIN_MS;
    log_warning("jobqd", "could not record how the reload is going; retrying in %d s: %s",
                TELL_AGAIN_MS / 1000, answer->error->message);
}

static const char *
put_text(struct jobq__buf *out, const char *text)
{
    if (!text || *text == '\0')
        return NULL;
    jobq__buf_add_json_string(out, text, strlen(text)); /* it may be cut anywhere */
    return jobq__buf_cstr(out);
}

static void
tell(struct daemon *d)
{
    struct rollout *rollout = &d->rollout;
    struct jobq__buf error = {0}, file = {0}, crons = {0};
    if ((!rollout->untold && !rollout->unnoted) || rollout->telling || !d->node ||
        node_state(d->node) != NODE_LIVE || uv_now(&d->loop) < rollout->tell_again_ms)
        return;
    const struct store_reload reload = {
        .state = rollout->untold ? state_names[rollout->state] : NULL,
        .leaving = (int64_t)rollout->leaving,
        .error = put_text(&error, rollout->error),
        .file = put_text(&file, d->cli->file),
        .crons = put_text(&crons, rollout->crons)};
    rollout->telling =
        store_reloaded(d->store, node_id(d->node), &reload, on_told, d) == 0;
    if (rollout->telling)
        rollout->untold = rollout->unnoted = false;
    jobq__buf_clear(&error);
    jobq__buf_clear(&file);
    jobq__buf_clear(&crons);
}

static void
set_state(struct daemon *d, enum rollout_state state)
{
    d->rollout.state = state;
    d->rollout.untold = true;
    tell(d);
}

/* Whether the database takes its crons is a part of how it goes. Who waits for it does
 * not wait for long where the maintenance connection does not come back. */
static bool
hears_of_crons(const struct daemon *d)
{
    if (cron_declarer_is_settled(d->cron_declarer))
        return true;
    if (uv_now(&d->loop) - d->rollout.begun_ms < CRONS_WITHIN_MS)
        return false;
    log_warning(
        "cron",
        "it is not known yet whether the database accepts the configuration's crons");
    return true;
}

static void
on_look(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    struct rollout *rollout = &d->rollout;
    struct queues_rollout now;
    bool over = rollout->state == ROLLOUT_NONE || rollout->state == ROLLOUT_DONE ||
                rollout->state == ROLLOUT_REFUSED;
    tell(d);
    if (over && !rollout->untold && !rollout->unnoted && !rollout->telling)
        uv_timer_stop(timer);
    if (over || d->queues.state != QUEUES_SERVING)
        return;
    queues_rollout(&d->queues, &now);
    if (now.coming == 0 && !now.failed) {
        if (!hears_of_crons(d))
            return;
        rollout->leaving = now.leaving;
        rollout->error[0] = '\0';
        log_info("jobqd", "the new workers are up; %zu old process%s still run%s a job",
                 now.leaving, now.leaving == 1 ? "" : "es", now.leaving == 1 ? "s" : "");
        set_state(d, ROLLOUT_DONE);
    } else if (now.failed && rollout->state != ROLLOUT_FAILED) {
        snprintf(rollout->error, sizeof rollout->error,
                 "the workers of queue %s fail to start: %s", now.failed, now.trouble);
        log_error("jobqd", "the reload is failing: %s", rollout->error);
        uv_timer_set_repeat(timer, FAILED_LOOK_MS);
        set_state(d, ROLLOUT_FAILED);
    }
}

static void
look_again(struct daemon *d)
{
    uv_timer_start(&d->rollout.timer, on_look, LOOK_EVERY_MS, LOOK_EVERY_MS);
}

void
daemon_rollout_begin(struct daemon *d)
{
    d->rollout.error[0] = '\0';
    d->rollout.leaving = 0;
    d->rollout.begun_ms = uv_now(&d->loop);
    set_state(d, ROLLOUT_BEGUN);
    look_again(d);
}

void
daemon_rollout_refused(struct daemon *d, const char *why)
{
    snprintf(d->rollout.error, sizeof d->rollout.error, "%s", why);
    set_state(d, ROLLOUT_REFUSED);
    look_again(d);
}

void
daemon_rollout_live(struct daemon *d)
{
    d->rollout.unnoted = true;
    tell(d);
    look_again(d);
}

void
daemon_on_crons_told(void *owner, const char *fault)
{
    struct daemon *d = owner;
    char was[sizeof d->rollout.crons];
    memcpy(was, d->rollout.crons, sizeof was);
    snprintf(d->rollout.crons, sizeof d->rollout.crons, "%s", fault ? fault : "");
    if (strcmp(was, d->rollout.crons) == 0)
        return;
    d->rollout.unnoted = true;
    tell(d);
    look_again(d);
}
