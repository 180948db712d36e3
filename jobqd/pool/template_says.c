/* template_says.c: requests to fork a worker, and what the template says. One request at a
 * time: what is not answered in time is not waited for. */
#include "jobqd/pool/template_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/children.h"
#include "libjobq/duration.h"
#include "libjobq/error.h"

/* The loop comes back here soon: nobody may be called from inside template_ask. */
static void
ask_for_step(struct template *template)
{
    if (template->state == TEMPLATE_READY)
        uv_timer_start(&template->timer, template->on_timer, 0, 0);
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
        template_set_state(template, TEMPLATE_FORKING);
    } else if (rc == JOBQ_ESTATE) {
        list_push_front(&template->waiting, &request->link); /* its end is told to it */
        template_complain(template, "%s", err.message);
    } else {
        request->on_done(request, NULL, err.message, true);
    }
}

void
template_step(struct template *template)
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
void
template_disappoint(struct template *template, const char *why, bool bad)
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

static bool
take_hello(struct template *template, const struct jobq__frame *frame)
{
    if (template->said_hello)
        return template_complain(template, "said hello twice");
    if (frame->protocol != JOBQ__PROTOCOL_VERSION)
        return template_complain(template, "speaks protocol %d, this jobqd speaks %d",
                                 (int)frame->protocol, JOBQ__PROTOCOL_VERSION);
    if (!frame->template)
        return template_complain(
            template,
            "said hello as a worker, not as a template: %s does not know "
            "how to preload; set preload = off",
            template->program->queue->argv[0]);
    template->said_hello = true;
    child_started(&template->child);
    if (template->state != TEMPLATE_BOOTING)
        return true; /* it is on its way out already */
    log_info(template->subject, "is up after %.1f ms",
             (double)(clock_ns() - template->entered_ns) / 1e6);
    watch_set_busy(template->program->watch, &template->watched, false);
    template_set_state(template, TEMPLATE_READY);
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
        return template_complain(
            template, "answered request %" PRId64 ", which was not made", frame->id);
    if (birth_take(&template->birth, frame->pid, &child, &err) < 0)
        return template_complain(template, "%s", err.message);
    struct template_request *request = end_asking(template);
    if (template->state == TEMPLATE_FORKING)
        template_set_state(template, TEMPLATE_READY);
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
        return template_complain(
            template, "refused request %" PRId64 ", which was not made", frame->id);
    snprintf(why, sizeof why, "its template could not fork it: %.*s",
             frame->error.len > 400 ? 400 : (int)frame->error.len, frame->error.at);
    struct template_request *request = end_asking(template);
    if (template->state == TEMPLATE_FORKING)
        template_set_state(template, TEMPLATE_READY);
    if (request)
        request->on_done(request, NULL, why, true);
    return true;
}

bool
template_on_line(void *owner, char *line, size_t len)
{
    struct template *template = owner;
    struct jobq__frame frame;
    jobq_error err;
    if (jobq__frame_parse(line, len, &frame, &err) < 0)
        return template_complain(template, "%s", err.message);
    if (!template->said_hello && frame.type != JOBQ__FRAME_HELLO)
        return template_complain(template, "said something else before its hello");
    if (frame.type == JOBQ__FRAME_HELLO)
        return take_hello(template, &frame);
    if (frame.type == JOBQ__FRAME_FORKED)
        return take_forked(template, &frame);
    if (frame.type == JOBQ__FRAME_ERROR)
        return take_refusal(template, &frame);
    return template_complain(template, "sent a message that templates do not send");
}

void
template_on_lines_end(void *owner)
{
    template_step(owner);
}

void
template_on_channel_end(void *owner)
{
    struct template *template = owner;
    switch (template->channel.state) {
    case CHANNEL_ENDED:
    case CHANNEL_CUT:
        /* Nearly always it has ended, and its exit is what we see next. */
        if (template->state < TEMPLATE_LEAVING)
            template_set_state(template, TEMPLATE_LEAVING);
        return;
    case CHANNEL_TOO_LONG:
        template_complain(template, "sent a line of more than %zu bytes (max_frame)",
                          template->program->max_frame);
        return;
    case CHANNEL_FAILED:
        log_error(template->subject, "cannot read from its socket: killing it");
        template_kill_process(template, INTENT_GIVE_UP);
        return;
    case CHANNEL_OPEN:
    case CHANNEL_REFUSED:
    case CHANNEL_CLOSED:
        return;
    }
}

void
template_on_output_line(void *owner, const char *line)
{
    const struct template *template = owner;
    log_info(template->subject, "says: %s", line);
}

void
template_on_output_dropped(void *owner, uint64_t lines)
{
    const struct template *template = owner;
    log_warning(template->subject,
                "%" PRIu64 " lines of its output are not shown: more than %d lines or %d "
                "KiB a second",
                lines, OUTPUT_LINES_A_SECOND, OUTPUT_BYTES_A_SECOND / 1024);
}
