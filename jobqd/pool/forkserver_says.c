/* forkserver_says.c: requests to fork a worker, and what the forkserver says. One request at a
 * time: what is not answered in time is not waited for. */
#include "jobqd/pool/forkserver_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/reaper.h"
#include "libjobq/duration.h"
#include "libjobq/error.h"

/* The loop comes back here soon: nobody may be called from inside forkserver_ask. */
static void
ask_for_step(struct forkserver *forkserver)
{
    if (forkserver->state == FORKSERVER_READY)
        uv_timer_start(&forkserver->timer, forkserver->on_timer, 0, 0);
}

/* The request under way ends; NULL: nobody cares any more. */
static struct forkserver_request *
end_asking(struct forkserver *forkserver)
{
    struct forkserver_request *request = forkserver->asked;
    forkserver->asked = NULL;
    forkserver->asking = false;
    fork_handoff_drop(&forkserver->handoff);
    reaper_release();
    return request;
}

static void
send_request(struct forkserver *forkserver, struct forkserver_request *request)
{
    struct jobq__buf line = {0};
    jobq_error err;
    jobq__frame_put_fork(&line, ++forkserver->serial, (int32_t)getpid());
    int rc = line.failed ? jobq__error(&err, JOBQ_ENOMEM, "out of memory")
                         : fork_handoff_ask(&forkserver->handoff, forkserver->channel.fd,
                                            line.data, line.len, &err);
    jobq__buf_clear(&line);
    if (rc == 0) {
        reaper_hold(); /* its child may come, and end, before its answer */
        forkserver->asking = true;
        forkserver->asked = request;
        forkserver_set_state(forkserver, FORKSERVER_FORKING);
    } else if (rc == JOBQ_ESTATE) {
        list_push_front(&forkserver->waiting, &request->link); /* its end is told to it */
        forkserver_complain(forkserver, "%s", err.message);
    } else {
        request->on_done(request, NULL, err.message, true);
    }
}

void
forkserver_step(struct forkserver *forkserver)
{
    while (forkserver->state == FORKSERVER_READY && !list_empty(&forkserver->waiting)) {
        struct list *link = list_pop(&forkserver->waiting);
        send_request(forkserver, list_entry(link, struct forkserver_request, link));
    }
}

void
forkserver_ask(struct forkserver *forkserver, struct forkserver_request *request)
{
    assert(forkserver->wanted == WANTED_OPEN);
    list_push(&forkserver->waiting, &request->link);
    ask_for_step(forkserver);
}

bool
forkserver_is_awaited(const struct forkserver *forkserver)
{
    return !list_empty(&forkserver->waiting);
}

void
forkserver_forget(struct forkserver *forkserver, struct forkserver_request *request)
{
    list_remove(&request->link);
    if (forkserver->asked == request)
        forkserver->asked = NULL;
}

/* Nobody is to come from this process any more. The first one carries the blame, so that
 * one end of a forkserver counts once. */
void
forkserver_disappoint(struct forkserver *forkserver, const char *why, bool bad)
{
    struct list waiting;
    struct list *link;
    struct forkserver_request *first = forkserver->asking ? end_asking(forkserver) : NULL;
    list_init(&waiting);
    while ((link = list_pop(&forkserver->waiting)) != NULL)
        list_push(&waiting, link);
    if (bad && !first && list_empty(&waiting))
        forkserver->events->on_bad_end(forkserver->owner, forkserver);
    if (first) {
        first->on_done(first, NULL, why, bad);
        bad = false;
    }
    while ((link = list_pop(&waiting)) != NULL) {
        struct forkserver_request *request =
            list_entry(link, struct forkserver_request, link);
        request->on_done(request, NULL, why, bad);
        bad = false;
    }
}

static bool
take_hello(struct forkserver *forkserver, const struct jobq__frame *frame)
{
    if (forkserver->said_hello)
        return forkserver_complain(forkserver, "said hello twice");
    if (frame->protocol != JOBQ__PROTOCOL_VERSION)
        return forkserver_complain(forkserver, "speaks protocol %d, this jobqd speaks %d",
                                   (int)frame->protocol, JOBQ__PROTOCOL_VERSION);
    if (!frame->forkserver)
        return forkserver_complain(forkserver,
                                   "said hello as a worker, not as a forkserver: %s does "
                                   "not support preload; set preload = off",
                                   forkserver->program->queue->argv[0]);
    forkserver->said_hello = true;
    child_started(&forkserver->child);
    if (forkserver->state != FORKSERVER_BOOTING)
        return true; /* it is on its way out already */
    log_info(forkserver->subject, "ready after %s",
             jobq__duration_show_ns(clock_ns() - forkserver->entered_ns).text);
    watch_set_busy(forkserver->program->watch, &forkserver->watched, false);
    forkserver_set_state(forkserver, FORKSERVER_READY);
    ask_for_step(forkserver);
    return true;
}

static bool
is_answer(const struct forkserver *forkserver, const struct jobq__frame *frame)
{
    return forkserver->asking && frame->id == forkserver->serial;
}

static bool
take_forked(struct forkserver *forkserver, const struct jobq__frame *frame)
{
    struct child child;
    jobq_error err;
    if (!is_answer(forkserver, frame))
        return forkserver_complain(
            forkserver, "answered request %" PRId64 ", which jobqd did not make",
            frame->id);
    if (fork_handoff_take(&forkserver->handoff, frame->pid, &child, &err) < 0)
        return forkserver_complain(forkserver, "%s", err.message);
    struct forkserver_request *request = end_asking(forkserver);
    if (forkserver->state == FORKSERVER_FORKING)
        forkserver_set_state(forkserver, FORKSERVER_READY);
    if (request)
        request->on_done(request, &child, NULL, false);
    else
        child_discard(&child);
    return true;
}

static bool
take_refusal(struct forkserver *forkserver, const struct jobq__frame *frame)
{
    char why[512];
    if (!is_answer(forkserver, frame))
        return forkserver_complain(
            forkserver, "refused request %" PRId64 ", which jobqd did not make",
            frame->id);
    snprintf(why, sizeof why, "its forkserver could not fork it: %.*s",
             frame->error.len > 400 ? 400 : (int)frame->error.len, frame->error.at);
    struct forkserver_request *request = end_asking(forkserver);
    if (forkserver->state == FORKSERVER_FORKING)
        forkserver_set_state(forkserver, FORKSERVER_READY);
    if (request)
        request->on_done(request, NULL, why, true);
    return true;
}

bool
forkserver_on_line(void *owner, char *line, size_t len)
{
    struct forkserver *forkserver = owner;
    struct jobq__frame frame;
    jobq_error err;
    if (jobq__frame_parse(line, len, &frame, &err) < 0)
        return forkserver_complain(forkserver, "%s", err.message);
    if (!forkserver->said_hello && frame.type != JOBQ__FRAME_HELLO)
        return forkserver_complain(forkserver, "sent another message before its hello");
    if (frame.type == JOBQ__FRAME_HELLO)
        return take_hello(forkserver, &frame);
    if (frame.type == JOBQ__FRAME_FORKED)
        return take_forked(forkserver, &frame);
    if (frame.type == JOBQ__FRAME_ERROR)
        return take_refusal(forkserver, &frame);
    return forkserver_complain(forkserver, "sent a message that forkservers do not send");
}

void
forkserver_on_lines_end(void *owner)
{
    forkserver_step(owner);
}

void
forkserver_on_channel_end(void *owner)
{
    struct forkserver *forkserver = owner;
    switch (forkserver->channel.state) {
    case CHANNEL_ENDED:
    case CHANNEL_CUT:
        /* Nearly always it has ended, and its exit is what we see next. */
        if (forkserver->state < FORKSERVER_LEAVING)
            forkserver_set_state(forkserver, FORKSERVER_LEAVING);
        return;
    case CHANNEL_TOO_LONG:
        forkserver_complain(forkserver, "sent a line longer than %zu bytes (max_frame)",
                            forkserver->program->max_frame);
        return;
    case CHANNEL_FAILED:
        log_error(forkserver->subject, "cannot read from its socket: killing it");
        forkserver_kill_process(forkserver, INTENT_GIVE_UP);
        return;
    case CHANNEL_OPEN:
    case CHANNEL_REFUSED:
    case CHANNEL_CLOSED:
        return;
    }
}

void
forkserver_on_output_line(void *owner, const char *line)
{
    const struct forkserver *forkserver = owner;
    log_info(forkserver->subject, "says: %s", line);
}

void
forkserver_on_output_dropped(void *owner, uint64_t lines)
{
    const struct forkserver *forkserver = owner;
    log_warning(
        forkserver->subject,
        "%" PRIu64
        " lines of its output were not logged: more than %d lines or %d KiB per second",
        lines, OUTPUT_LINES_A_SECOND, OUTPUT_BYTES_A_SECOND / 1024);
}
