/* worker_start.c: a worker's beginning: its process, or the promise of one, and what is
 * watched of it. */
#include "jobqd/pool/worker_private.h"

#include <assert.h>
#include <stdlib.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/proc/guard_table.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"

static const char not_needed[] = "no longer needed";

static void
open_timer(struct worker *worker)
{
    uv_timer_init(worker->program->loop, &worker->timer);
    worker->timer.data = worker;
    worker->n_handles++;
}

int
worker_watch(struct worker *worker, jobq_error *err)
{
    uv_loop_t *loop = worker->program->loop;
    char *chunk = worker->program->chunk;
    int rc = uv_poll_init(loop, &worker->exit_poll, worker->child.pidfd);
    if (rc < 0)
        return jobq__error(err, JOBQ_EIO, "cannot watch process %ld: %s",
                           (long)worker->child.pid, uv_strerror(rc));
    worker->exit_poll.data = worker;
    worker->n_handles++;
    if (!worker->timer.data)
        open_timer(worker);
    uv_poll_start(&worker->exit_poll, UV_READABLE, worker_exit_seen);

    int output_fd = worker->child.output_fd;
    int channel_fd = worker->child.channel_fd;
    worker->child.output_fd = worker->child.channel_fd = -1; /* the parts' from here on */
    rc = output_open(&worker->output, loop, output_fd, chunk, worker->rate,
                     &worker_output_events, worker);
    worker->n_handles += rc == 0;
    int channel_rc =
        channel_open(&worker->channel, loop, channel_fd, worker->program->max_frame,
                     chunk, &worker_channel_events, worker);
    worker->n_handles += channel_rc == 0 && channel_fd >= 0;
    if (rc < 0 || channel_rc < 0) {
        log_error(worker->subject, "cannot watch its descriptors, killing it: %s",
                  uv_strerror(rc < 0 ? rc : channel_rc));
        worker_end_for(worker, INTENT_GIVE_UP, clock_ns());
    }
    return 0;
}

/* The forkserver has answered. From here on it is a worker like any other. */
static void
on_fork_done(struct forkserver_request *request, const struct child *child,
             const char *why, bool bad)
{
    struct worker *worker = list_entry(request, struct worker, fork_handoff);
    jobq_error err;
    if (!child) {
        worker_end_unborn(worker, why, bad);
        return;
    }
    worker->child = *child;
    if (worker->wanted != WANTED_UP) { /* the timer was about to end it */
        child_discard(&worker->child);
        worker_end_unborn(worker, not_needed, false);
        return;
    }
    worker_name(worker);
    worker_confine(worker); /* before it is told to start */
    worker_set_state(worker, WORKER_BOOTING, clock_ns());
    if (worker_watch(worker, &err) < 0) {
        watch_remove(worker->program->watch, &worker->watched);
        child_discard(&worker->child);
        worker_end_unborn(worker, err.message, true);
        return;
    }
    if (worker->state != WORKER_BOOTING)
        return; /* its descriptors could not be watched: it was killed */
    size_t before = worker->channel.out.len;
    jobq__frame_put_start(&worker->channel.out);
    if (!worker_frame_is_whole(worker, before)) {
        log_error(worker->subject, "no memory to start it: killing it");
        worker_end_for(worker, INTENT_GIVE_UP, worker->entered_ns);
        return;
    }
    channel_flush(&worker->channel);
    worker_arm(worker, worker->entered_ns);
}

/* A process at once, or the promise of one. */
static int
begin(struct worker *worker, struct job *job, jobq_error *err)
{
    struct worker_program *program = worker->program;
    if (program->queue->preload && !program->forkserver)
        return jobq__error(err, JOBQ_ENOMEM, "no forkserver to fork it from");
    if (program->forkserver) {
        open_timer(worker);
        worker->fork_handoff.on_done = on_fork_done;
        forkserver_ask(program->forkserver, &worker->fork_handoff);
        return 0;
    }
    int rc = worker_launch(worker, job, err);
    if (rc < 0)
        return rc;
    worker->state = WORKER_BOOTING;
    worker_name(worker);
    rc = worker_watch(worker, err);
    if (rc < 0) {
        watch_remove(program->watch, &worker->watched);
        child_discard(&worker->child);
    }
    return rc;
}

struct worker *
worker_blank(struct worker_program *program, int slot, struct output_rate *rate)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return NULL;
    worker->program = program;
    worker->slot = slot;
    worker->rate = rate;
    worker->placed_at = WORKER_NOWHERE;
    worker->child = (struct child){.pidfd = -1,
                                   .channel_fd = -1,
                                   .output_fd = -1,
                                   .exec_error_fd = -1,
                                   .guarded = GUARD_NOWHERE};
    worker->channel.fd = worker->output.fd = -1;
    worker->channel.state = CHANNEL_CLOSED;
    worker->concurrency = 1;
    list_init(&worker->running);
    list_init(&worker->sent);
    list_init(&worker->unsent);
    list_init(&worker->place);
    list_init(&worker->dirty);
    list_init(&worker->fork_handoff.link);
    turn_init(&worker->end_turn, TURN_HEAR, worker_on_end_turn);
    turn_init(&worker->kill_turn, TURN_HEAR, worker_on_kill_turn);
    worker->watched.on_measured = worker_on_measured;
    worker_name(worker);
    return worker;
}

int
worker_new(struct worker **out, struct worker_program *program, int slot,
           struct output_rate *rate, struct job *job, const struct worker_events *events,
           void *owner, jobq_error *err)
{
    struct worker *worker = worker_blank(program, slot, rate);
    if (!worker)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a worker");
    worker->events = events;
    worker->owner = owner;
    worker->begun_ns = worker->entered_ns = clock_ns();
    int rc = begin(worker, job, err);
    if (rc < 0) {
        free(worker);
        return rc;
    }
    if (job && worker->state == WORKER_BOOTING) {
        worker->said_hello = true; /* its exit code is all that it will say */
        worker->state = WORKER_BUSY;
    }
    if (job) {
        job->late_ns = 0;
        worker_run(worker, job, worker->entered_ns);
        worker->n_jobs = 1;
        worker_mark(worker);
    }
    log_debug(worker->subject, "started, waits for %s",
              worker_state_meaning(worker->state));
    worker_arm(worker, worker->entered_ns);
    *out = worker;
    return 0;
}

void
worker_free(struct worker *worker)
{
    assert(worker->n_handles == 0);
    free(worker->kinds);
    free(worker);
}
