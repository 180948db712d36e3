/* forkserver.c: see forkserver.h. One process at a time: its beginning and its end. */
#include "jobqd/pool/forkserver_private.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "jobqd/base/log.h"
#include "jobqd/proc/fork_handoff.h"
#include "jobqd/proc/channel.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/output.h"
#include "jobqd/pure/outcome.h"
#include "jobqd/pool/launch.h"
#include "jobqd/pool/worker.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"
#include "libjobq/duration.h"

/* ---- its end ---- */

static void
on_timer_closed(uv_handle_t *handle)
{
    struct forkserver *forkserver = handle->data;
    forkserver->events->on_closed(forkserver->owner, forkserver);
}

static void
close_for_ever(struct forkserver *forkserver)
{
    forkserver_set_state(forkserver, FORKSERVER_CLOSED);
    reaper_leave();
    uv_close((uv_handle_t *)&forkserver->timer, on_timer_closed);
}

static void
step_from_away(struct forkserver *forkserver)
{
    if (forkserver->wanted != WANTED_OPEN)
        close_for_ever(forkserver);
    else
        forkserver->events->on_away(forkserver->owner, forkserver);
}

static void
on_process_part_closed(void *owner)
{
    struct forkserver *forkserver = owner;
    if (--forkserver->n_process_handles > 0)
        return;
    forkserver_set_state(forkserver, FORKSERVER_AWAY);
    step_from_away(forkserver);
}

static void
on_poll_closed(uv_handle_t *handle)
{
    on_process_part_closed(handle->data);
}

static const struct channel_events channel_events = {.on_line = forkserver_on_line,
                                                     .on_lines_end =
                                                         forkserver_on_lines_end,
                                                     .on_end = forkserver_on_channel_end,
                                                     .on_closed = on_process_part_closed};
static const struct output_events output_events = {.on_line = forkserver_on_output_line,
                                                   .on_dropped =
                                                       forkserver_on_output_dropped,
                                                   .on_closed = on_process_part_closed};

static void
judge(struct forkserver *forkserver, const struct child_end *end, struct outcome *outcome)
{
    const struct queue_config *queue = forkserver->program->queue;
    char forkserver_step[512], last[OUTCOME_LINE + 1];
    struct child_failure failure = child_failure(&forkserver->child);
    limits_describe(&forkserver->program->plan.limits, failure.step, forkserver_step,
                    sizeof forkserver_step);
    struct ending ending = {
        .program = PROGRAM_WORKER,
        .intent = forkserver->intent,
        .said_hello = forkserver->said_hello,
        .half_line = forkserver->channel.state == CHANNEL_CUT,
        .exec_errno = failure.step == LIMITS_DONE ? 0 : failure.why,
        .exec_step = failure.step == LIMITS_EXEC ? NULL : forkserver_step,
        .exec_fault = failure.text[0] ? failure.text : NULL,
        .exit_code = end->exit_code,
        .signal = end->signal,
        .sent_signal = forkserver->sent_signal,
        .limit_ms = queue->boot_timeout_ms,
        .memory_kb = forkserver->watched.memory_kb,
        .memory_limit_kb = forkserver_memory_limit_kb(forkserver),
        .complaint = forkserver->complaint[0] ? forkserver->complaint : NULL,
        .path = queue->argv[0],
        .last_line = output_last_line(&forkserver->output, last, sizeof last),
    };
    outcome_judge(&ending, outcome);
}

static void
end_life(struct forkserver *forkserver)
{
    struct child_end end = {.exit_code = -1};
    struct outcome outcome;
    char why[OUTCOME_TEXT + 32];
    jobq_error err;
    forkserver_set_state(forkserver, FORKSERVER_ENDED);
    /* Its group, and in it a worker that it has not told us of. */
    child_signal(&forkserver->child, SIGKILL);
    if (forkserver->channel.state == CHANNEL_OPEN)
        channel_drain(&forkserver->channel);
    output_drain(&forkserver->output);
    watch_remove(forkserver->program->watch, &forkserver->watched);
    if (child_reap(&forkserver->child, &end, &err) < 0)
        log_error(forkserver->subject, "%s", err.message);
    if (end.by_guard)
        forkserver->intent = INTENT_GUARD;
    judge(forkserver, &end, &outcome);
    /* It ended unasked: that counts as a failure, even with exit code 0. */
    bool missed = forkserver->wanted == WANTED_OPEN && forkserver->intent < INTENT_KILL;
    if (missed)
        log_warning(forkserver->subject, "%s: %s", outcome_name(outcome.kind),
                    outcome.text);
    else
        log_debug(forkserver->subject, "%s", outcome.text);
    snprintf(why, sizeof why, "its forkserver ended: %s", outcome.text);
    forkserver_disappoint(forkserver, why, missed);
    if (forkserver->channel.fd >= 0)
        channel_close(&forkserver->channel);
    if (forkserver->output.fd >= 0)
        output_close(&forkserver->output);
    uv_close((uv_handle_t *)&forkserver->exit_poll, on_poll_closed);
    child_close(&forkserver->child);
}

static void
on_exit_seen(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    end_life(poll->data);
}

static void
on_timer(uv_timer_t *timer)
{
    struct forkserver *forkserver = timer->data;
    switch (forkserver->state) {
    case FORKSERVER_AWAY:
        forkserver_disappoint(forkserver, "its forkserver is no longer needed", false);
        close_for_ever(forkserver);
        return;
    case FORKSERVER_FAILED:
        forkserver_set_state(forkserver, FORKSERVER_AWAY);
        forkserver_disappoint(forkserver, forkserver->complaint, true);
        step_from_away(forkserver);
        return;
    case FORKSERVER_READY:
        forkserver_step(forkserver);
        return;
    case FORKSERVER_BOOTING:
        forkserver_kill_process(forkserver, INTENT_BOOT_TIMEOUT);
        return;
    case FORKSERVER_FORKING:
        forkserver_complain(
            forkserver, "did not answer a request to fork a worker within %s",
            jobq__duration_show(forkserver->program->queue->boot_timeout_ms).text);
        return;
    case FORKSERVER_LEAVING:
        forkserver_complain(forkserver, "closed its socket but did not exit");
        return;
    case FORKSERVER_STOPPING:
        log_warning(forkserver->subject, "did not exit when asked to; killing it");
        forkserver_kill_process(forkserver, INTENT_NONE);
        return;
    case FORKSERVER_KILLING:
    case FORKSERVER_ENDED:
    case FORKSERVER_CLOSED:
        return;
    }
}

/* ---- its beginning ---- */

/* The pidfd comes first: with it watched, any later failure is the ordinary end of a
 * killed process. */
static int
watch_process(struct forkserver *forkserver, jobq_error *err)
{
    uv_loop_t *loop = forkserver->program->loop;
    char *chunk = forkserver->program->chunk;
    int output_fd = forkserver->child.output_fd;
    int channel_fd = forkserver->child.channel_fd;
    int rc = uv_poll_init(loop, &forkserver->exit_poll, forkserver->child.pidfd);
    if (rc < 0)
        return jobq__error(err, JOBQ_EIO, "cannot watch process %ld: %s",
                           (long)forkserver->child.pid, uv_strerror(rc));
    forkserver->exit_poll.data = forkserver;
    uv_poll_start(&forkserver->exit_poll, UV_READABLE, on_exit_seen);
    forkserver->child.output_fd = forkserver->child.channel_fd = -1; /* the parts' */
    rc = output_open(&forkserver->output, loop, output_fd, chunk, &forkserver->rate,
                     &output_events, forkserver);
    int channel_rc =
        channel_open(&forkserver->channel, loop, channel_fd,
                     forkserver->program->max_frame, chunk, &channel_events, forkserver);
    forkserver->n_process_handles = 1 + (rc == 0) + (channel_rc == 0);
    if (rc < 0 || channel_rc < 0) {
        log_error(forkserver->subject, "cannot watch its descriptors, killing it: %s",
                  uv_strerror(rc < 0 ? rc : channel_rc));
        forkserver_kill_process(forkserver, INTENT_GIVE_UP);
    }
    return 0;
}

/* Who asked us to start it is not told from in here. */
static void
start_failed(struct forkserver *forkserver, const jobq_error *err)
{
    snprintf(forkserver->complaint, sizeof forkserver->complaint,
             "its forkserver could not be started: %.200s", err->message);
    log_error(forkserver->subject, "could not be started: %s", err->message);
    forkserver_set_state(forkserver, FORKSERVER_FAILED);
    uv_timer_start(&forkserver->timer, on_timer, 0, 0);
}

void
forkserver_start(struct forkserver *forkserver)
{
    const struct worker_program *program = forkserver->program;
    jobq_error err;
    if (forkserver->state != FORKSERVER_AWAY || forkserver->wanted != WANTED_OPEN)
        return;
    forkserver->intent = INTENT_NONE;
    forkserver->sent_signal = 0;
    forkserver->said_hello = false;
    forkserver->complaint[0] = '\0';
    if (launch(&forkserver->child, &program->plan, -1, NULL, &err) < 0) {
        start_failed(forkserver, &err);
        return;
    }
    snprintf(forkserver->subject, sizeof forkserver->subject, "forkserver %s pid %ld",
             program->queue->name, (long)forkserver->child.pid);
    forkserver_set_state(forkserver, FORKSERVER_BOOTING);
    if (watch_process(forkserver, &err) < 0) {
        child_discard(&forkserver->child);
        start_failed(forkserver, &err);
        return;
    }
    forkserver_begin_watch(forkserver);
}

int
forkserver_new(struct forkserver **out, struct worker_program *program,
               const struct forkserver_events *events, void *owner, jobq_error *err)
{
    struct forkserver *forkserver = calloc(1, sizeof *forkserver);
    if (!forkserver)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a forkserver");
    forkserver->program = program;
    forkserver->events = events;
    forkserver->owner = owner;
    forkserver->on_timer = on_timer;
    forkserver->handoff = FORK_HANDOFF_NONE;
    list_init(&forkserver->waiting);
    snprintf(forkserver->subject, sizeof forkserver->subject, "forkserver %s",
             program->queue->name);
    uv_timer_init(program->loop, &forkserver->timer);
    forkserver->timer.data = forkserver;
    reaper_adopt();
    *out = forkserver;
    return 0;
}

void
forkserver_free(struct forkserver *forkserver)
{
    if (!forkserver)
        return;
    assert(forkserver->state == FORKSERVER_CLOSED);
    free(forkserver);
}

/* ---- closing ---- */

bool
forkserver_is_away(const struct forkserver *forkserver)
{
    return forkserver->state == FORKSERVER_AWAY;
}

void
forkserver_put_away(struct forkserver *forkserver)
{
    if (forkserver->asked) /* what comes of it will be discarded */
        list_push_front(&forkserver->waiting, &forkserver->asked->link);
    forkserver->asked = NULL;
    switch (forkserver->state) {
    case FORKSERVER_BOOTING:
    case FORKSERVER_READY:
    case FORKSERVER_FORKING:
    case FORKSERVER_LEAVING:
    case FORKSERVER_STOPPING:
        forkserver_kill_process(forkserver, INTENT_KILL);
        return;
    case FORKSERVER_AWAY:
    case FORKSERVER_FAILED:
    case FORKSERVER_KILLING:
    case FORKSERVER_ENDED:
    case FORKSERVER_CLOSED:
        return;
    }
}

static void
tell_to_stop(struct forkserver *forkserver)
{
    forkserver->intent = INTENT_STOP;
    jobq__frame_put_stop(&forkserver->channel.out);
    channel_flush(&forkserver->channel);
    forkserver_set_state(forkserver, FORKSERVER_STOPPING);
}

void
forkserver_close(struct forkserver *forkserver, bool kill)
{
    enum forkserver_wanted wanted = kill ? WANTED_KILLED : WANTED_CLOSED;
    if (wanted <= forkserver->wanted)
        return;
    forkserver->wanted = wanted;
    switch (forkserver->state) {
    case FORKSERVER_AWAY:
        uv_timer_start(&forkserver->timer, on_timer, 0, 0);
        return;
    case FORKSERVER_READY:
    case FORKSERVER_FORKING:
        if (kill)
            forkserver_kill_process(forkserver, INTENT_KILL);
        else
            tell_to_stop(forkserver);
        return;
    case FORKSERVER_BOOTING: /* it holds nothing yet that it had to put away */
        forkserver_kill_process(forkserver, INTENT_KILL);
        return;
    case FORKSERVER_LEAVING:
    case FORKSERVER_STOPPING:
        if (kill)
            forkserver_kill_process(forkserver, INTENT_KILL);
        return;
    case FORKSERVER_FAILED:
    case FORKSERVER_KILLING:
    case FORKSERVER_ENDED:
    case FORKSERVER_CLOSED:
        return;
    }
}
