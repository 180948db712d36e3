/* template.c: see template.h. One process at a time, one request at a time: what is not
 * answered in time is not waited for. */
#include "jobqd/pool/template.h"

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

enum template_wanted { WANTED_OPEN, WANTED_CLOSED, WANTED_KILLED };

struct template
{
    enum template_state state; /* changed by set_state alone */
    enum template_wanted wanted;
    char subject[192]; /* for the log: "template QUEUE pid P" */
    struct worker_program *program;
    const struct template_events *events;
    void *owner;

    struct list waiting;            /* requests, oldest first */
    bool asking;                    /* a request was sent and has no answer yet */
    struct template_request *asked; /* whose; NULL: it was forgotten */
    struct birth birth;             /* its descriptors */
    int64_t serial;                 /* its id */

    struct child child; /* the process, in the states from BOOTING to KILLING */
    struct watched watched;
    enum intent intent;
    int sent_signal;
    bool said_hello;
    char complaint[256]; /* how it broke the protocol, or "" */
    uint64_t entered_ns; /* when the state was entered */

    struct output_rate rate;
    struct output output;
    struct channel channel;
    uv_poll_t exit_poll;
    int n_process_handles; /* of the three above, not yet closed */

    uv_timer_t timer; /* a state's patience; READY: the next step */
};

static void on_timer(uv_timer_t *timer);

/* ---- states ---- */

#define BIT(state) (1u << (state))
/* What every living process may come to at any moment. */
#define WHENEVER                                                                         \
    (BIT(TEMPLATE_LEAVING) | BIT(TEMPLATE_STOPPING) | BIT(TEMPLATE_KILLING) |            \
     BIT(TEMPLATE_ENDED))

static bool
is_legal(enum template_state from, enum template_state to)
{
    static const unsigned moves[] = {
        [TEMPLATE_AWAY] =
            BIT(TEMPLATE_BOOTING) | BIT(TEMPLATE_FAILED) | BIT(TEMPLATE_CLOSED),
        [TEMPLATE_BOOTING] = WHENEVER | BIT(TEMPLATE_READY) | BIT(TEMPLATE_FAILED),
        [TEMPLATE_READY] = WHENEVER | BIT(TEMPLATE_FORKING),
        [TEMPLATE_FORKING] = WHENEVER | BIT(TEMPLATE_READY),
        [TEMPLATE_LEAVING] = BIT(TEMPLATE_KILLING) | BIT(TEMPLATE_ENDED),
        [TEMPLATE_STOPPING] = BIT(TEMPLATE_KILLING) | BIT(TEMPLATE_ENDED),
        [TEMPLATE_KILLING] = BIT(TEMPLATE_ENDED),
        [TEMPLATE_ENDED] = BIT(TEMPLATE_AWAY),
        [TEMPLATE_FAILED] = BIT(TEMPLATE_AWAY),
        [TEMPLATE_CLOSED] = 0,
    };
    return moves[from] & BIT(to);
}

/* How long the state may last; -1: for ever. */
static int64_t
patience_ms(const struct template *template)
{
    const struct queue_config *queue = template->program->queue;
    switch (template->state) {
    case TEMPLATE_BOOTING:
    case TEMPLATE_FORKING:
        return queue->boot_timeout_ms;
    case TEMPLATE_LEAVING:
    case TEMPLATE_STOPPING:
        return queue->stop_grace_ms;
    case TEMPLATE_AWAY:
    case TEMPLATE_READY:
    case TEMPLATE_KILLING:
    case TEMPLATE_ENDED:
    case TEMPLATE_FAILED:
    case TEMPLATE_CLOSED:
        return -1;
    }
    return -1;
}

static void
set_state(struct template *template, enum template_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        TEMPLATE_STATES(X)
#undef X
    };
    bool legal = is_legal(template->state, state);
    assert(legal);
    (void)legal;
    template->state = state;
    template->entered_ns = uv_hrtime();
    if (log_wants(LOG_LEVEL_DEBUG))
        log_debug(template->subject, "waits for %s", meanings[state]);
    int64_t patience = patience_ms(template);
    if (patience >= 0)
        uv_timer_start(&template->timer, on_timer, (uint64_t)patience, 0);
    else
        uv_timer_stop(&template->timer);
}

static void
kill_process(struct template *template, enum intent intent)
{
    if (intent > template->intent)
        template->intent = intent;
    if (template->state == TEMPLATE_KILLING || template->state == TEMPLATE_ENDED)
        return;
    set_state(template, TEMPLATE_KILLING);
    template->sent_signal = SIGKILL;
    child_signal(&template->child, SIGKILL);
}

/* ---- what it uses ---- */

static int64_t
memory_limit_kb(const struct template *template)
{
    return (int64_t)(template->program->queue->max_memory_hard / 1024);
}

static void
on_measured(struct watched *watched)
{
    struct template *template = list_entry(watched, struct template, watched);
    if (template->state >= TEMPLATE_KILLING ||
        watched->memory_kb <= memory_limit_kb(template))
        return;
    log_warning(template->subject,
                "uses %" PRId64
                " KiB of memory, more than its max_memory_hard of %" PRId64
                " KiB: killing it",
                watched->memory_kb, memory_limit_kb(template));
    kill_process(template, INTENT_MEMORY);
}

/* It gets no control group: the workers would begin in it, and what they share with it
 * stay charged to it. */
static void
begin_watch(struct template *template)
{
    struct watched *watched = &template->watched;
    struct watch *watch = template->program->watch;
    if (memory_limit_kb(template) == 0)
        return;
    watched->on_measured = on_measured;
    watched->exact_from_kb = memory_limit_kb(template);
    watch_add(watch, watched, template->child.pid, false, template->subject);
    watch_set_busy(watch, watched, true);
}

/* ---- complaints ---- */

/* It does not do what a template does. Returns false, for on_line to return. */
static bool __attribute__((format(printf, 2, 3)))
complain(struct template *template, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(template->complaint, sizeof template->complaint, format, args);
    va_end(args);
    kill_process(template, INTENT_PROTOCOL);
    return false;
}

/* ---- requests ---- */

/* The loop comes back here soon: nobody may be called from inside template_ask. */
static void
ask_for_step(struct template *template)
{
    if (template->state == TEMPLATE_READY)
        uv_timer_start(&template->timer, on_timer, 0, 0);
}

/* The request under way ends; NULL: nobody cares any more. */
static struct template_request *
end_asking(struct template *template)
{
    struct template_request *request = template->asked;
    template->asked = NULL;
    template->asking = false;
    birth_drop(&template->birth);
    children_release();
    return request;
}

static void
send_request(struct template *template, struct template_request *request)
{
    struct jobq__buf line = {0};
    jobq_error err;
    jobq__frame_put_fork(&line, ++template->serial, (int32_t)getpid());
    int rc = line.failed ? jobq__error(&err, JOBQ_ENOMEM, "out of memory")
                         : birth_ask(&template->birth, template->channel.fd, line.data,
                                     line.len, &err);
    jobq__buf_clear(&line);
    if (rc == 0) {
        children_hold(); /* its child may come, and end, before its answer */
        template->asking = true;
        template->asked = request;
        set_state(template, TEMPLATE_FORKING);
    } else if (rc == JOBQ_ESTATE) {
        list_push_front(&template->waiting, &request->link); /* its end is told to it */
        complain(template, "%s", err.message);
    } else {
        request->on_done(request, NULL, err.message, true);
    }
}

static void
step(struct template *template)
{
    while (template->state == TEMPLATE_READY && !list_empty(&template->waiting)) {
        struct list *link = list_pop(&template->waiting);
        send_request(template, list_entry(link, struct template_request, link));
    }
}

void
template_ask(struct template *template, struct template_request *request)
{
    assert(template->wanted == WANTED_OPEN);
    list_push(&template->waiting, &request->link);
    ask_for_step(template);
}

bool
template_is_awaited(const struct template *template)
{
    return !list_empty(&template->waiting);
}

void
template_forget(struct template *template, struct template_request *request)
{
    list_remove(&request->link);
    if (template->asked == request)
        template->asked = NULL;
}

/* Nobody is to come from this process any more. The first one carries the blame, so that
 * one end of a template counts once. */
static void
disappoint(struct template *template, const char *why, bool bad)
{
    struct list waiting;
    struct list *link;
    struct template_request *first = template->asking ? end_asking(template) : NULL;
    list_init(&waiting);
    while ((link = list_pop(&template->waiting)) != NULL)
        list_push(&waiting, link);
    if (bad && !first && list_empty(&waiting))
        template->events->on_bad_end(template->owner, template);
    if (first) {
        first->on_done(first, NULL, why, bad);
        bad = false;
    }
    while ((link = list_pop(&waiting)) != NULL) {
        struct template_request *request =
            list_entry(link, struct template_request, link);
        request->on_done(request, NULL, why, bad);
        bad = false;
    }
}

/* ---- what it says ---- */

static bool
take_hello(struct template *template, const struct jobq__frame *frame)
{
    if (template->said_hello)
        return complain(template, "said hello twice");
    if (frame->protocol != JOBQ__PROTOCOL_VERSION)
        return complain(template, "speaks protocol %d, this jobqd speaks %d",
                        (int)frame->protocol, JOBQ__PROTOCOL_VERSION);
    if (!frame->template)
        return complain(template,
                        "said hello as a worker, not as a template: %s does not know "
                        "how to preload; set preload = off",
                        template->program->queue->argv[0]);
    template->said_hello = true;
    child_started(&template->child);
    if (template->state != TEMPLATE_BOOTING)
        return true; /* it is on its way out already */
    log_info(template->subject, "is up after %.1f ms",
             (double)(uv_hrtime() - template->entered_ns) / 1e6);
    watch_set_busy(template->program->watch, &template->watched, false);
    set_state(template, TEMPLATE_READY);
    ask_for_step(template);
    return true;
}

static bool
is_answer(const struct template *template, const struct jobq__frame *frame)
{
    return template->asking && frame->id == template->serial;
}

static bool
take_forked(struct template *template, const struct jobq__frame *frame)
{
    struct child child;
    jobq_error err;
    if (!is_answer(template, frame))
        return complain(template, "answered request %" PRId64 ", which was not made",
                        frame->id);
    if (birth_take(&template->birth, frame->pid, &child, &err) < 0)
        return complain(template, "%s", err.message);
    struct template_request *request = end_asking(template);
    if (template->state == TEMPLATE_FORKING)
        set_state(template, TEMPLATE_READY);
    if (request)
        request->on_done(request, &child, NULL, false);
    else
        child_discard(&child);
    return true;
}

static bool
take_refusal(struct template *template, const struct jobq__frame *frame)
{
    char why[512];
    if (!is_answer(template, frame))
        return complain(template, "refused request %" PRId64 ", which was not made",
                        frame->id);
    snprintf(why, sizeof why, "its template could not fork it: %.*s",
             frame->error.len > 400 ? 400 : (int)frame->error.len, frame->error.at);
    struct template_request *request = end_asking(template);
    if (template->state == TEMPLATE_FORKING)
        set_state(template, TEMPLATE_READY);
    if (request)
        request->on_done(request, NULL, why, true);
    return true;
}

static bool
on_line(void *owner, char *line, size_t len)
{
    struct template *template = owner;
    struct jobq__frame frame;
    jobq_error err;
    if (jobq__frame_parse(line, len, &frame, &err) < 0)
        return complain(template, "%s", err.message);
    if (!template->said_hello && frame.type != JOBQ__FRAME_HELLO)
        return complain(template, "said something else before its hello");
    switch (frame.type) {
    case JOBQ__FRAME_HELLO:
        return take_hello(template, &frame);
    case JOBQ__FRAME_FORKED:
        return take_forked(template, &frame);
    case JOBQ__FRAME_ERROR:
        return take_refusal(template, &frame);
    case JOBQ__FRAME_JOB:
    case JOBQ__FRAME_CANCEL:
    case JOBQ__FRAME_STOP:
    case JOBQ__FRAME_OK:
    case JOBQ__FRAME_SNOOZE:
    case JOBQ__FRAME_DISCARD:
    case JOBQ__FRAME_PROGRESS:
    case JOBQ__FRAME_FORK:
    case JOBQ__FRAME_START:
        break;
    }
    return complain(template, "sent a message that templates do not send");
}

static void
on_lines_end(void *owner)
{
    step(owner);
}

static void
on_channel_end(void *owner)
{
    struct template *template = owner;
    switch (template->channel.state) {
    case CHANNEL_ENDED:
    case CHANNEL_CUT:
        /* Nearly always it has ended, and its exit is what we see next. */
        if (template->state < TEMPLATE_LEAVING)
            set_state(template, TEMPLATE_LEAVING);
        return;
    case CHANNEL_TOO_LONG:
        complain(template, "sent a line of more than %zu bytes (max_frame)",
                 template->program->max_frame);
        return;
    case CHANNEL_FAILED:
        log_error(template->subject, "cannot read from its socket: killing it");
        kill_process(template, INTENT_GIVE_UP);
        return;
    case CHANNEL_OPEN:
    case CHANNEL_REFUSED:
    case CHANNEL_CLOSED:
        return;
    }
}

static void
on_output_line(void *owner, const char *line)
{
    const struct template *template = owner;
    log_info(template->subject, "says: %s", line);
}

static void
on_output_dropped(void *owner, uint64_t lines)
{
    const struct template *template = owner;
    log_warning(template->subject,
                "%" PRIu64 " lines of its output are not shown: more than %d lines or %d "
                "KiB a second",
                lines, OUTPUT_LINES_A_SECOND, OUTPUT_BYTES_A_SECOND / 1024);
}

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
    set_state(template, TEMPLATE_CLOSED);
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
    set_state(template, TEMPLATE_AWAY);
    step_from_away(template);
}

static void
on_poll_closed(uv_handle_t *handle)
{
    on_process_part_closed(handle->data);
}

static const struct channel_events channel_events = {.on_line = on_line,
                                                     .on_lines_end = on_lines_end,
                                                     .on_end = on_channel_end,
                                                     .on_closed = on_process_part_closed};
static const struct output_events output_events = {.on_line = on_output_line,
                                                   .on_dropped = on_output_dropped,
                                                   .on_closed = on_process_part_closed};

static void
judge(struct template *template, const struct child_end *end, struct outcome *outcome)
{
    const struct queue_config *queue = template->program->queue;
    char step[512], last[OUTCOME_LINE + 1];
    struct child_failure failure = child_failure(&template->child);
    limits_describe(&template->program->plan.limits, failure.step, step, sizeof step);
    struct ending ending = {
        .program = PROGRAM_WORKER,
        .intent = template->intent,
        .said_hello = template->said_hello,
        .half_line = template->channel.state == CHANNEL_CUT,
        .exec_errno = failure.step == LIMITS_DONE ? 0 : failure.why,
        .exec_step = failure.step == LIMITS_EXEC ? NULL : step,
        .exec_fault = failure.text[0] ? failure.text : NULL,
        .exit_code = end->exit_code,
        .signal = end->signal,
        .sent_signal = template->sent_signal,
        .limit_ms = queue->boot_timeout_ms,
        .memory_kb = template->watched.memory_kb,
        .memory_limit_kb = memory_limit_kb(template),
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
    set_state(template, TEMPLATE_ENDED);
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
    disappoint(template, why, missed);
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
        disappoint(template, "its template is not needed any more", false);
        close_for_ever(template);
        return;
    case TEMPLATE_FAILED:
        set_state(template, TEMPLATE_AWAY);
        disappoint(template, template->complaint, true);
        step_from_away(template);
        return;
    case TEMPLATE_READY:
        step(template);
        return;
    case TEMPLATE_BOOTING:
        kill_process(template, INTENT_BOOT_TIMEOUT);
        return;
    case TEMPLATE_FORKING:
        complain(template, "did not answer a request to fork a worker within %s",
                 jobq__duration_show(template->program->queue->boot_timeout_ms).text);
        return;
    case TEMPLATE_LEAVING:
        complain(template, "closed its socket but did not exit");
        return;
    case TEMPLATE_STOPPING:
        log_warning(template->subject, "did not go when told to: killing it");
        kill_process(template, INTENT_NONE);
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
        kill_process(template, INTENT_GIVE_UP);
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
    set_state(template, TEMPLATE_FAILED);
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
    set_state(template, TEMPLATE_BOOTING);
    if (watch_process(template, &err) < 0) {
        child_discard(&template->child);
        start_failed(template, &err);
        return;
    }
    begin_watch(template);
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
        kill_process(template, INTENT_KILL);
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
    set_state(template, TEMPLATE_STOPPING);
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
            kill_process(template, INTENT_KILL);
        else
            tell_to_stop(template);
        return;
    case TEMPLATE_BOOTING: /* it holds nothing yet that it had to put away */
        kill_process(template, INTENT_KILL);
        return;
    case TEMPLATE_LEAVING:
    case TEMPLATE_STOPPING:
        if (kill)
            kill_process(template, INTENT_KILL);
        return;
    case TEMPLATE_FAILED:
    case TEMPLATE_KILLING:
    case TEMPLATE_ENDED:
    case TEMPLATE_CLOSED:
        return;
    }
}
