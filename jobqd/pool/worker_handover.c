/* worker_handover.c: see worker_handover.h. */
#include "jobqd/pool/worker_handover.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/proc/reaper.h"
#include "jobqd/proc/guard_table.h"
#include "jobqd/pool/worker_private.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"

/* ---- standing still ---- */

/* One that a forkserver is still to fork has none yet. It is forgotten: the process, if it
 * comes to be one, ends with its socket. */
static bool
has_process(const struct worker *worker)
{
    return worker->state != WORKER_UNFORKED && worker->state != WORKER_ENDED;
}

void
worker_freeze(struct worker *worker)
{
    if (!has_process(worker))
        return;
    uv_poll_stop(&worker->exit_poll);
    turn_leave(&worker->end_turn); /* it is seen again */
    if (turn_waits(&worker->kill_turn)) {
        turn_leave(&worker->kill_turn);
        worker->kill_turn.step(&worker->kill_turn); /* nobody else would */
    }
    uv_timer_stop(&worker->timer);
    worker->armed_ns = 0;
    if (worker->channel.fd >= 0)
        channel_freeze(&worker->channel);
    if (worker->output.fd >= 0)
        output_freeze(&worker->output);
}

void
worker_thaw(struct worker *worker)
{
    if (!has_process(worker))
        return;
    /* One that was taken over is not known to the new program's guard. */
    if (worker->child.guarded == GUARD_NOWHERE)
        worker->child.guarded = guard_add(worker->child.pid);
    uv_poll_start(&worker->exit_poll, UV_READABLE, worker_exit_seen);
    if (worker->channel.fd >= 0)
        channel_go_on(&worker->channel);
    if (worker->output.fd >= 0)
        output_go_on(&worker->output);
    worker_arm(worker, clock_ns());
}

/* ---- the numbers that are carried as they are ----
 *
 * X(name, where, least, most): written and read by the same rows. The clock of the ns
 * fields goes on through an exec. */
#define WORKER_NUMBERS(X)                                                                \
    X("slot", slot, 0, INT32_MAX - 1)                                                    \
    X("state", state, WORKER_BOOTING, WORKER_KILLING)                                    \
    X("wanted", wanted, WANTED_UP, WANTED_GONE)                                          \
    X("intent", intent, INTENT_NONE, INTENT_KILL)                                        \
    X("sent_signal", sent_signal, 0, 64)                                                 \
    X("said_hello", said_hello, 0, 1)                                                    \
    X("concurrency", concurrency, 1, JOBQ__CONCURRENCY_MAX)                              \
    X("heard", heard, 0, INT64_MAX)                                                      \
    X("output_total", output.total, 0, INT64_MAX)                                        \
    X("cgroup", watched.cgroup.serial, 0, INT64_MAX)                                     \
    X("is_large", is_large, 0, 1)                                                        \
    X("due", due, DUE_NOT, DUE_CONFIG)                                                   \
    X("over_memory", over_memory, 0, 1)                                                  \
    X("exceeded_ns", exceeded_ns, 0, INT64_MAX)                                          \
    X("exceeded_kb", exceeded_kb, INT64_MIN, INT64_MAX)                                  \
    X("cpu_from_ns", cpu_from_ns, 0, INT64_MAX)                                          \
    X("cpu_from_us", cpu_from_us, INT64_MIN, INT64_MAX)                                  \
    X("seen_peak_kb", seen_peak_kb, -1, INT64_MAX)                                       \
    X("executes", child.executes, 0, 1)                                                  \
    X("marked_ns", marked_ns, 0, INT64_MAX)                                              \
    X("marked_cpu_us", marked_cpu_us, INT64_MIN, INT64_MAX)                              \
    X("answered", answered, 0, INT64_MAX)                                                \
    X("batch_from_ns", batch_from_ns, 0, INT64_MAX)                                      \
    X("begun_ns", begun_ns, 0, INT64_MAX)                                                \
    X("entered_ns", entered_ns, 0, INT64_MAX)                                            \
    X("quiet_ns", quiet_ns, 0, INT64_MAX)                                                \
    X("pid", child.pid, 1, INT32_MAX)                                                    \
    X("before_exec_kb", child.before_exec_kb, -1, INT64_MAX)                             \
    X("n_kinds", n_kinds, 0, 1 << 20)                                                    \
    X("channel_state", channel.state, CHANNEL_OPEN, CHANNEL_CLOSED)                      \
    X("channel_total", channel.total, 0, INT64_MAX)                                      \
    X("channel_unread", channel.unread, 0, 1)

#define WORKER_DESCRIPTORS(X)                                                            \
    X("pidfd", child.pidfd)                                                              \
    X("exec_error_fd", child.exec_error_fd)

#define JOB_NUMBERS(X)                                                                   \
    X("id", id, INT64_MIN, INT64_MAX)                                                    \
    X("attempt", attempt, 0, INT32_MAX)                                                  \
    X("max_attempts", max_attempts, 0, INT32_MAX)                                        \
    X("timeout_ms", timeout_ms, 0, INT64_MAX)                                            \
    X("started_ns", started_ns, 0, INT64_MAX)                                            \
    X("late_ns", late_ns, 0, INT64_MAX)                                                  \
    X("asked_back", asked_back, 0, 1)                                                    \
    X("output_from", output_from, 0, INT64_MAX)                                          \
    X("cancel", cancel, JOB_GOES_ON, JOB_CANCEL_TOLD)                                    \
    X("unread_deaths", unread_deaths, 0, INT32_MAX)                                      \
    X("frame_end", frame_end, 0, INT64_MAX)

/* ---- writing ---- */

static void
put_job(const struct job *job, struct handover *handover)
{
    handover_record(handover, "job");
#define X(name, where, least, most) handover_put_int(handover, name, (int64_t)job->where);
    JOB_NUMBERS(X)
#undef X
    handover_put_text(handover, "kind", job->kind);
    handover_put_bytes(handover, "args", job->args, job->args_len);
    handover_put_bytes(handover, "meta", job->meta, job->meta_len);
}

static void
put_kinds(const struct worker *worker, struct handover *handover)
{
    struct jobq__buf kinds = {0};
    for (size_t i = 0; i < worker->n_kinds; i++)
        jobq__buf_add(&kinds, worker->kinds[i], strlen(worker->kinds[i]) + 1);
    handover_put_int(handover, "has_kinds", worker->kinds != NULL);
    handover_put_bytes(handover, "kinds", kinds.data, kinds.len);
    handover->text.failed = handover->text.failed || kinds.failed;
    jobq__buf_clear(&kinds);
}

void
worker_put(const struct worker *worker, struct handover *handover)
{
    if (!has_process(worker))
        return;
    assert(list_empty(&worker->unsent));
    const struct channel *channel = &worker->channel;
    const struct output *output = &worker->output;
    handover_record(handover, "worker");
    handover_put_text(handover, "queue", worker->program->queue->name);
#define X(name, where, least, most)                                                      \
    handover_put_int(handover, name, (int64_t)worker->where);
    WORKER_NUMBERS(X)
#undef X
#define X(name, where) handover_put_fd(handover, name, worker->where);
    WORKER_DESCRIPTORS(X)
#undef X
    handover_put_fd(handover, "channel_fd", channel->fd);
    handover_put_fd(handover, "output_fd", output->fd);
    put_kinds(worker, handover);
    handover_put_text(handover, "complaint", worker->complaint);
    handover_put_bytes(handover, "rest", channel->rest.data, channel->rest.len);
    handover_put_bytes(handover, "out",
                       channel->out.data ? channel->out.data + channel->written : NULL,
                       channel_backlog(channel));
    handover_put_bytes(handover, "line", output->line, output->line_len);
    handover_put_bytes(handover, "tail", output->tail, output->tail_len);
    for (struct list *at = worker->running.next; at != &worker->running; at = at->next)
        put_job(list_entry(at, struct job, link), handover);
    for (struct list *at = worker->sent.next; at != &worker->sent; at = at->next)
        put_job(list_entry(at, struct job, link), handover);
}

/* ---- reading ---- */

static int
get_job(struct job **out, const struct handover_entry *entry, jobq_error *err)
{
    const char *kind, *args, *meta;
    size_t kind_len, args_len, meta_len;
    int rc = handover_get_bytes(entry, "kind", &kind, &kind_len, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "args", &args, &args_len, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "meta", &meta, &meta_len, err);
    if (rc < 0)
        return rc;
    struct job *job = calloc(1, sizeof *job + kind_len + args_len + meta_len + 3);
    if (!job)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a job");
    list_init(&job->link);
    list_init(&job->held);
    int64_t value;
#define X(name, where, least, most)                                                      \
    if (rc == 0 && (rc = handover_get_int(entry, name, least, most, &value, err)) == 0)  \
        job->where = (__typeof__(job->where))value;
    JOB_NUMBERS(X)
#undef X
    if (rc < 0) {
        free(job);
        return rc;
    }
    char *at = (char *)(job + 1);
    job->kind = memcpy(at, kind, kind_len + 1);
    job->args = memcpy(at + kind_len + 1, args, args_len + 1);
    job->meta = memcpy(at + kind_len + args_len + 2, meta, meta_len + 1);
    job->args_len = args_len;
    job->meta_len = meta_len;
    *out = job;
    return 0;
}

static int
get_jobs(struct worker *worker, const struct handover_reader *reader,
         const struct handover_entry **entry, jobq_error *err)
{
    *entry = handover_next(reader, *entry);
    while (*entry && handover_is(*entry, "job")) {
        struct job *job = NULL;
        int rc = get_job(&job, *entry, err);
        if (rc < 0)
            return rc;
        list_push(job->started_ns != 0 ? &worker->running : &worker->sent, &job->link);
        worker->n_jobs++;
        worker->n_running += job->started_ns != 0;
        worker->n_late += job->late_ns != 0;
        *entry = handover_next(reader, *entry);
    }
    return 0;
}

static int
get_numbers(struct worker *worker, const struct handover_entry *entry, jobq_error *err)
{
    int rc = 0;
    int64_t value;
#define X(name, where, least, most)                                                      \
    if (rc == 0 && (rc = handover_get_int(entry, name, least, most, &value, err)) == 0)  \
        worker->where = (__typeof__(worker->where))value;
    WORKER_NUMBERS(X)
#undef X
#define X(name, where)                                                                   \
    if (rc == 0 &&                                                                       \
        (rc = handover_get_int(entry, name, -1, INT32_MAX, &value, err)) == 0)           \
        worker->where = (int)value;
    WORKER_DESCRIPTORS(X)
    X("channel_fd", child.channel_fd)
    X("output_fd", child.output_fd)
#undef X
    return rc;
}

static int
get_kinds(struct worker *worker, const struct handover_entry *entry, jobq_error *err)
{
    int64_t has;
    const char *text;
    size_t len;
    int rc = handover_get_int(entry, "has_kinds", 0, 1, &has, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "kinds", &text, &len, err);
    if (rc < 0 || !has) {
        worker->n_kinds = 0;
        return rc;
    }
    worker->kinds = malloc((worker->n_kinds + 1) * sizeof *worker->kinds + len + 1);
    if (!worker->kinds)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a worker");
    char *at = memcpy(worker->kinds + worker->n_kinds + 1, text, len + 1);
    const char *end = at + len;
    for (size_t i = 0; i < worker->n_kinds; i++) {
        if (at >= end)
            return jobq__error(err, JOBQ_EINVAL, "the handover's kinds are cut off");
        worker->kinds[i] = at;
        at += strlen(at) + 1;
    }
    return 0;
}

/* What was on its way, as bytes. */
struct streams {
    struct channel_past channel;
    const char *line, *tail;
    size_t line_len, tail_len;
    uint64_t output_total;
};

static int
get_streams(struct worker *worker, struct streams *out,
            const struct handover_entry *entry, jobq_error *err)
{
    const char *complaint;
    struct channel_past *past = &out->channel;
    int rc = handover_get_bytes(entry, "rest", &past->rest, &past->rest_len, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "out", &past->out, &past->out_len, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "line", &out->line, &out->line_len, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "tail", &out->tail, &out->tail_len, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "complaint", &complaint, NULL, err);
    if (rc < 0)
        return rc;
    snprintf(worker->complaint, sizeof worker->complaint, "%s", complaint);
    out->output_total = worker->output.total;
    past->state = worker->channel.state;
    past->total = worker->channel.total;
    past->unread = worker->channel.unread;
    return 0;
}

/* Watches it as it was: nothing fails any more but memory, and a worker for which there
 * is none is ended like any other. */
static int
take_over(struct worker *worker, const struct streams *streams, jobq_error *err)
{
    uint64_t now_ns = clock_ns();
    int rc = worker_watch(worker, err);
    if (rc < 0)
        return rc;
    reaper_note(worker->child.pid);
    worker->child.guarded = guard_add(worker->child.pid);
    if (worker->child.guarded == GUARD_FULL)
        worker_end_for(worker, INTENT_GIVE_UP, now_ns);
    worker_freeze(worker);
    worker_limit_again(worker);
    output_restore(&worker->output, streams->line, streams->line_len, streams->tail,
                   streams->tail_len, streams->output_total);
    if (worker->channel.fd >= 0 &&
        channel_restore(&worker->channel, &streams->channel) < 0)
        worker_end_for(worker, INTENT_GIVE_UP, now_ns);
    return 0;
}

/* Its descriptors stay open: the program that is returned to needs them. */
static void
free_half(struct worker *worker)
{
    struct list *link;
    while ((link = list_pop(&worker->running)) != NULL ||
           (link = list_pop(&worker->sent)) != NULL)
        free(list_entry(link, struct job, link));
    free(worker->kinds);
    free(worker);
}

int
worker_adopt(struct worker **out, struct worker_program *program,
             struct output_rate *rate, const struct handover_reader *reader,
             const struct handover_entry **entry, const struct worker_events *events,
             void *owner, jobq_error *err)
{
    struct worker *worker = worker_blank(program, 0, rate);
    if (!worker)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a worker");
    const struct handover_entry *own = *entry;
    struct streams streams;
    worker->events = events;
    worker->owner = owner;
    int rc = get_numbers(worker, own, err);
    if (rc == 0)
        rc = get_kinds(worker, own, err);
    if (rc == 0)
        rc = get_streams(worker, &streams, own, err);
    if (rc == 0)
        rc = get_jobs(worker, reader, entry, err);
    if (rc == 0) {
        worker_name(worker);
        rc = take_over(worker, &streams, err);
    }
    if (rc < 0) {
        free_half(worker);
        return rc;
    }
    *out = worker;
    return 0;
}
