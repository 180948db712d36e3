/* template.c: see template.h. One process at a time: its beginning and its end. */
#include "jobqd/pool/template_private.h"

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
#include "jobqd/proc/birth.h"
#include "jobqd/proc/channel.h"
#include "jobqd/proc/children.h"
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
    struct template *template = handle->data;
    template->events->on_closed(template->owner, template);
}

static void
close_for_ever(struct template *template)
{
    template_set_state(template, TEMPLATE_CLOSED);
    children_leave();
    uv_close((uv_handle_t *)&template->timer, on_timer_closed);
}

static void
step_from_away(struct template *template)
{
    if (template->wanted != WANTED_OPEN)
        close_for_ever(template);
    else
        template->events->on_away(template->owner, template);
}

static void
on_process_part_closed(void *owner)
{
    struct template *template = owner;
    if (--template->n_process_handles > 0)
        return;
    template_set_state(template, TEMPLATE_AWAY);
    step_from_away(template);
}

static void
on_poll_closed(uv_handle_t *handle)
{
    on_process_part_closed(handle->data);
}

static const struct channel_events channel_events = {.on_line = template_on_line,
                                                     .on_lines_end =
                                                         template_on_lines_end,
                                                     .on_end = template_on_channel_end,
                                                     .on_closed = on_process_part_closed};
static const struct output_events output_events = {.on_line = template_on_output_line,
                                                   .on_dropped =
                                                       template_on_output_dropped,
                                                   .on_closed = on_process_part_closed};

static void
judge(struct template *template, const struct child_end *end, struct outcome *outcome)
{
    const struct queue_config *queue = template->program->queue;
    char template_step[512], last[OUTCOME_LINE + 1];
    struct child_failure failure = child_failure(&template->child);
    limits_describe(&template->program->plan.limits, failure.step, template_step,
                    sizeof template_step);
    struct ending ending = {
        .program = PROGRAM_WORKER,
        .intent = template->intent,
        .said_hello = template->said_hello,
        .half_line = template->channel.state == CHANNEL_CUT,
        .exec_errno = failure.step == LIMITS_DONE ? 0 : failure.why,
        .exec_step = failure.step == LIMITS_EXEC ? NULL : template_step,
        .exec_fault = failure.text[0] ? failure.text : NULL,
        .exit_code = end->exit_code,
        .signal = end->signal,
        .sent_signal = template->sent_signal,
        .limit_ms = queue->boot_timeout_ms,
        .memory_kb = template->watched.memory_kb,
        .memory_limit_kb = template_memory_limit_kb(template),
        .complaint = template->complaint[0] ? template->complaint : NULL,
        .path = queue->argv[0],
        .last_line = output_last_line(&template->output, last, sizeof last),
    };
    outcome_judge(&ending, outcome);
}

static void
end_life(struct template *template)
{
    struct child_end end = {.exit_code = -1};
    struct outcome outcome;
    char why[OUTCOME_TEXT + 32];
    jobq_error err;
    template_set_state(template, TEMPLATE_ENDED);
    /* Its group, and in it a worker that it has not told us of. */
    child_signal(&template->child, SIGKILL);
    if (template->channel.state == CHANNEL_OPEN)
        channel_drain(&template->channel);
    output_drain(&template->output);
    watch_remove(template->program->watch, &template->watched);
    if (child_reap(&template->child, &end, &err) < 0)
        log_error(template->subject, "%s", err.message);
    if (end.by_guard)
        template->intent = INTENT_GUARD;
    judge(template, &end, &outcome);
    /* Nobody told it to go: it is missed, however clean its exit was. */
    bool missed = template->wanted == WANTED_OPEN && template->intent < INTENT_KILL;
    if (missed)
        log_warning(template->subject, "%s: %s", outcome_name(outcome.kind),
                    outcome.text);
    else
        log_debug(template->subject, "%s", outcome.text);
    snprintf(why, sizeof why, "its template has ended: %s", outcome.text);
    template_disappoint(template, why, missed);
    if (template->channel.fd >= 0)
        channel_close(&template->channel);
    if (template->output.fd >= 0)
        output_close(&template->output);
    uv_close((uv_handle_t *)&template->exit_poll, on_poll_closed);
    child_close(&template->child);
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
    struct template *template = timer->data;
    switch (template->state) {
    case TEMPLATE_AWAY:
        template_disappoint(template, "its template is not needed any more", false);
        close_for_ever(template);
        return;
    case TEMPLATE_FAILED:
        template_set_state(template, TEMPLATE_AWAY);
        template_disappoint(template, template->complaint, true);
        step_from_away(template);
        return;
    case TEMPLATE_READY:
        template_step(template);
        return;
    case TEMPLATE_BOOTING:
        template_kill_process(template, INTENT_BOOT_TIMEOUT);
        return;
    case TEMPLATE_FORKING:
        template_complain(
            template, "did not answer a request to fork a worker within %s",
            jobq__duration_show(template->program->queue->boot_timeout_ms).text);
        return;
    case TEMPLATE_LEAVING:
        template_complain(template, "closed its socket but did not exit");
        return;
    case TEMPLATE_STOPPING:
        log_warning(template->subject, "did not go when told to: killing it");
        template_kill_process(template, INTENT_NONE);
        return;
    case TEMPLATE_KILLING:
    case TEMPLATE_ENDED:
    case TEMPLATE_CLOSED:
        return;
    }
}

/* ---- its beginning ---- */

/* The pidfd comes first: with it watched, any later failure is the ordinary end of a
 * killed process. */
static int
watch_process(struct template *template, jobq_error *err)
{
    uv_loop_t *loop = template->program->loop;
    char *chunk = template->program->chunk;
    int output_fd = template->child.output_fd;
    int channel_fd = template->child.channel_fd;
    int rc = uv_poll_init(loop, &template->exit_poll, template->child.pidfd);
    if (rc < 0)
        return jobq__error(err, JOBQ_EIO, "cannot watch process %ld: %s",
                           (long)template->child.pid, uv_strerror(rc));
    template->exit_poll.data = template;
    uv_poll_start(&template->exit_poll, UV_READABLE, on_exit_seen);
    template->child.output_fd = template->child.channel_fd = -1; /* the parts' */
    rc = output_open(&template->output, loop, output_fd, chunk, &template->rate,
                     &output_events, template);
    int channel_rc =
        channel_open(&template->channel, loop, channel_fd, template->program->max_frame,
                     chunk, &channel_events, template);
    template->n_process_handles = 1 + (rc == 0) + (channel_rc == 0);
    if (rc < 0 || channel_rc < 0) {
        log_error(template->subject, "cannot watch its descriptors, killing it: %s",
                  uv_strerror(rc < 0 ? rc : channel_rc));
        template_kill_process(template, INTENT_GIVE_UP);
    }
    return 0;
}

/* Who asked us to start it is not told from in here. */
static void
start_failed(struct template *template, const jobq_error *err)
{
    snprintf(template->complaint, sizeof template->complaint,
             "its template cannot be started: %.200s", err->message);
    log_error(template->subject, "cannot be started: %s", err->message);
    template_set_state(template, TEMPLATE_FAILED);
    uv_timer_start(&template->timer, on_timer, 0, 0);
}

void
template_start(struct template *template)
{
    const struct worker_program *program = template->program;
    jobq_error err;
    if (template->state != TEMPLATE_AWAY || template->wanted != WANTED_OPEN)
        return;
    template->intent = INTENT_NONE;
    template->sent_signal = 0;
    template->said_hello = false;
    template->complaint[0] = '\0';
    if (launch(&template->child, &program->plan, -1, NULL, &err) < 0) {
        start_failed(template, &err);
        return;
    }
    snprintf(template->subject, sizeof template->subject, "template %s pid %ld",
             program->queue->name, (long)template->child.pid);
    template_set_state(template, TEMPLATE_BOOTING);
    if (watch_process(template, &err) < 0) {
        child_discard(&template->child);
        start_failed(template, &err);
        return;
    }
    template_begin_watch(template);
}

int
template_new(struct template **out, struct worker_program *program,
             const struct template_events *events, void *owner, jobq_error *err)
{
    struct template *template = calloc(1, sizeof *template);
    if (!template)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a template");
    template->program = program;
    template->events = events;
    template->owner = owner;
    template->on_timer = on_timer;
    template->birth = BIRTH_NONE;
    list_init(&template->waiting);
    snprintf(template->subject, sizeof template->subject, "template %s",
             program->queue->name);
    uv_timer_init(program->loop, &template->timer);
    template->timer.data = template;
    children_adopt();
    *out = template;
    return 0;
}

void
template_free(struct template *template)
{
    if (!template)
        return;
    assert(template->state == TEMPLATE_CLOSED);
    free(template);
}

/* ---- closing ---- */

bool
template_is_away(const struct template *template)
{
    return template->state == TEMPLATE_AWAY;
}

void
template_put_away(struct template *template)
{
    if (template->asked) /* what comes of it will be discarded */
        list_push_front(&template->waiting, &template->asked->link);
    template->asked = NULL;
    switch (template->state) {
    case TEMPLATE_BOOTING:
    case TEMPLATE_READY:
    case TEMPLATE_FORKING:
    case TEMPLATE_LEAVING:
    case TEMPLATE_STOPPING:
        template_kill_process(template, INTENT_KILL);
        return;
    case TEMPLATE_AWAY:
    case TEMPLATE_FAILED:
    case TEMPLATE_KILLING:
    case TEMPLATE_ENDED:
    case TEMPLATE_CLOSED:
        return;
    }
}

static void
tell_to_stop(struct template *template)
{
    template->intent = INTENT_STOP;
    jobq__frame_put_stop(&template->channel.out);
    channel_flush(&template->channel);
    template_set_state(template, TEMPLATE_STOPPING);
}

void
template_close(struct template *template, bool kill)
{
    enum template_wanted wanted = kill ? WANTED_KILLED : WANTED_CLOSED;
    if (wanted <= template->wanted)
        return;
    template->wanted = wanted;
    switch (template->state) {
    case TEMPLATE_AWAY:
        uv_timer_start(&template->timer, on_timer, 0, 0);
        return;
    case TEMPLATE_READY:
    case TEMPLATE_FORKING:
        if (kill)
            template_kill_process(template, INTENT_KILL);
        else
            tell_to_stop(template);
        return;
    case TEMPLATE_BOOTING: /* it holds nothing yet that it had to put away */
        template_kill_process(template, INTENT_KILL);
        return;
    case TEMPLATE_LEAVING:
    case TEMPLATE_STOPPING:
        if (kill)
            template_kill_process(template, INTENT_KILL);
        return;
    case TEMPLATE_FAILED:
    case TEMPLATE_KILLING:
    case TEMPLATE_ENDED:
    case TEMPLATE_CLOSED:
        return;
    }
}
