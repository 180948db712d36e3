/* daemon_rollout.c: how a reload goes, once its configuration is in force: whether the
 * new workers come up. Said in the log, and to `jobqd reload --wait` through the node's
 * row.
 *
 * Processes from before that run a job are not waited for: that may take hours, and says
 * nothing of the new ones. */
#include "jobqd/daemon/daemon_private.h"

#include <stdio.h>

#include "jobqd/actors/node.h"
#include "jobqd/base/log.h"

enum { LOOK_EVERY_MS = 100 };

static const char *const state_names[] = {[ROLLOUT_BEGUN] = "begun",
                                          [ROLLOUT_FAILED] = "failed",
                                          [ROLLOUT_DONE] = "done",
                                          [ROLLOUT_REFUSED] = "refused"};

static void
on_told(void *data, const struct store_answer *answer)
{
    struct rollout *rollout = data;
    /* Then on_control_ready comes again; and what has changed meanwhile is told by then.
     */
    rollout->untold = rollout->untold || answer->code == JOBQ_ECONN;
}

void
daemon_tell_rollout(struct daemon *d)
{
    struct rollout *rollout = &d->rollout;
    if (!rollout->untold || !d->node || node_state(d->node) != NODE_LIVE)
        return;
    const char *error = rollout->error[0] ? rollout->error : NULL;
    rollout->untold =
        store_reloaded(d->store, node_id(d->node), state_names[rollout->state],
                       (int64_t)rollout->leaving, error, on_told, rollout) < 0;
}

static void
set_state(struct daemon *d, enum rollout_state state)
{
    d->rollout.state = state;
    d->rollout.untold = true;
    daemon_tell_rollout(d);
}

static void
on_look(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    struct rollout *rollout = &d->rollout;
    struct queues_rollout now;
    if (d->queues.state != QUEUES_SERVING)
        return;
    queues_rollout(&d->queues, &now);
    if (now.coming == 0 && !now.failed) {
        uv_timer_stop(timer);
        rollout->leaving = now.leaving;
        rollout->error[0] = '\0';
        log_info("jobqd",
                 "the new workers are up; %zu process%s from before still run%s a job",
                 now.leaving, now.leaving == 1 ? "" : "es", now.leaving == 1 ? "s" : "");
        set_state(d, ROLLOUT_DONE);
    } else if (now.failed && rollout->state != ROLLOUT_FAILED) {
        snprintf(rollout->error, sizeof rollout->error,
                 "the workers of queue %s do not come up: %s", now.failed, now.trouble);
        log_error("jobqd", "the reload fails: %s", rollout->error);
        set_state(d, ROLLOUT_FAILED);
    }
}

void
daemon_rollout_begin(struct daemon *d)
{
    d->rollout.error[0] = '\0';
    d->rollout.leaving = 0;
    set_state(d, ROLLOUT_BEGUN);
    uv_timer_start(&d->rollout.timer, on_look, LOOK_EVERY_MS, LOOK_EVERY_MS);
}

void
daemon_rollout_refused(struct daemon *d, const char *why)
{
    snprintf(d->rollout.error, sizeof d->rollout.error, "%s", why);
    uv_timer_stop(&d->rollout.timer);
    set_state(d, ROLLOUT_REFUSED);
}
