/* worker.c: see worker.h. What happens to the process (a line, a deadline, its exit) and
 * what is wanted of it each move it by one state; nothing here waits, and a move that
 * is_legal does not list is a bug. */
#include "jobqd/service/worker.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/service/launch.h"
#include "libjobq/error.h"
#include "libjobq/wire.h"

/* BACKLOG_BYTES: frames beyond it wait as jobs, not as copies, until the worker has read
 * some. */
enum { BACKLOG_BYTES = 256 * 1024 };

static void on_timer(uv_timer_t *timer);
static void on_exit_seen(uv_poll_t *poll, int status, int events);
static void on_handle_closed(uv_handle_t *handle);

/* ---- frames to the worker ---- */

/* A frame was put behind the first `before` bytes. Whole or not at all: returns false,
 * with the buffer as it was, when memory ran out within it. */
static bool
is_whole(struct worker *worker, size_t before)
{
    struct jobq__buf *out = &worker->channel.out;
    if (!out->failed)
        return true;
    out->failed = false;
    out->len = before;
    return false;
}

/* A cancel or stop message that finds no memory is not missed: signals follow it. */
static void
put_cancel(struct worker *worker, int64_t id)
{
    size_t before = worker->channel.out.len;
    jobq__frame_put_cancel(&worker->channel.out, id);
    is_whole(worker, before);
}

static void
put_stop(struct worker *worker)
{
    size_t before = worker->channel.out.len;
    jobq__frame_put_stop(&worker->channel.out);
    is_whole(worker, before);
}

/* ---- states ---- */

const char *
worker_state_meaning(enum worker_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        WORKER_STATES(X)
#undef X
    };
    return meanings[state];
}

#define BIT(state) (1u << (state))
/* What every living process may come to at any moment. */
#define WHENEVER (BIT(WORKER_TERMINATING) | BIT(WORKER_KILLING) | BIT(WORKER_ENDED))

static bool
is_legal(enum worker_state from, enum worker_state to)
{
    static const unsigned moves[] = {
        [WORKER_BOOTING] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_LEAVING),
        [WORKER_IDLE] =
            WHENEVER | BIT(WORKER_BUSY) | BIT(WORKER_STOPPING) | BIT(WORKER_LEAVING),
        [WORKER_BUSY] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_STOPPING) |
                        BIT(WORKER_CANCELLING) | BIT(WORKER_LEAVING),
        [WORKER_STOPPING] = WHENEVER | BIT(WORKER_CANCELLING) | BIT(WORKER_LEAVING),
        [WORKER_CANCELLING] = WHENEVER | BIT(WORKER_IDLE) | BIT(WORKER_BUSY) |
                              BIT(WORKER_STOPPING) | BIT(WORKER_LEAVING),
        [WORKER_LEAVING] = WHENEVER,
        [WORKER_TERMINATING] = BIT(WORKER_KILLING) | BIT(WORKER_ENDED),
        [WORKER_KILLING] = BIT(WORKER_ENDED),
        [WORKER_ENDED] = 0,
    };
    return moves[from] & BIT(to);
}

static bool
is_exec(const struct worker *worker)
{
    return worker->program->queue->mode == QUEUE_EXEC;
}

bool
worker_takes_jobs(const struct worker *worker)
{
    return !is_exec(worker) &&
           (worker->state == WORKER_IDLE || worker->state == WORKER_BUSY);
}

static void
set_state(struct worker *worker, enum worker_state state, uint64_t now_ns)
{
    bool legal = is_legal(worker->state, state);
    assert(legal);
    (void)legal;
    bool took_jobs = worker_takes_jobs(worker);
    worker->state = state;
    worker->entered_ns = now_ns;
    /* A worker changes between these two with every burst of jobs: that would be all that
     * the log says. */
    if (state != WORKER_IDLE && state != WORKER_BUSY && log_wants(LOG_LEVEL_DEBUG))
        log_debug(worker->subject, "waits for %s", worker_state_meaning(state));
    if (took_jobs && !worker_takes_jobs(worker))
        worker->events->on_withdrawn(worker->owner, worker);
}

static struct job *
head(const struct worker *worker)
{
    if (list_empty(&worker->jobs))
        return NULL;
    return list_entry(worker->jobs.next, struct job, link);
}

static int64_t
timeout_of(const struct worker *worker, const struct job *job)
{
    return launch_timeout_ms(worker->program->queue, job);
}

/* ---- deadlines ----
 *
 * One timer a worker, set lazily: while it is set for a moment that is not later than
 * needed, a new deadline costs nothing; when it goes off too early, it is set again. */

static uint64_t
after_ms(uint64_t from_ns, int64_t ms)
{
    return from_ns + (uint64_t)ms * 1000000u;
}

static uint64_t
head_due_ns(const struct worker *worker)
{
    const struct job *job = head(worker);
    int64_t timeout_ms = job ? timeout_of(worker, job) : 0;
    return timeout_ms > 0 ? after_ms(job->started_ns, timeout_ms) : 0;
}

/* When the present state's patience ends; 0: never. */
static uint64_t
due_ns(const struct worker *worker)
{
    const struct queue_config *queue = worker->program->queue;
    switch (worker->state) {
    case WORKER_BOOTING:
        return after_ms(worker->entered_ns, queue->boot_timeout_ms);
    case WORKER_BUSY:
        return head_due_ns(worker);
    case WORKER_STOPPING:
        if (head(worker))
            return head_due_ns(worker);
        return after_ms(worker->quiet_ns > worker->entered_ns ? worker->quiet_ns
                                                              : worker->entered_ns,
                        queue->stop_grace_ms);
    case WORKER_CANCELLING:
    case WORKER_LEAVING:
    case WORKER_TERMINATING:
        return after_ms(worker->entered_ns, queue->stop_grace_ms);
    case WORKER_IDLE:
    case WORKER_KILLING:
    case WORKER_ENDED:
        return 0;
    }
    return 0;
}

static void
arm(struct worker *worker, uint64_t now_ns)
{
    uint64_t due = due_ns(worker);
    if (due == 0 || (worker->armed_ns != 0 && worker->armed_ns <= due))
        return;
    worker->armed_ns = due;
    uint64_t left_ns = due > now_ns ? due - now_ns : 0;
    uv_timer_start(&worker->timer, on_timer, (left_ns + 999999u) / 1000000u, 0);
}

/* ---- ending a process ---- */

static void
raise_intent(struct worker *worker, enum intent intent)
{
    if (intent > worker->intent)
        worker->intent = intent;
}

static void
send_signal(struct worker *worker, int signal)
{
    worker->sent_signal = signal;
    child_signal(&worker->child, signal);
}

static void
terminate(struct worker *worker, enum intent intent, uint64_t now_ns)
{
    raise_intent(worker, intent);
    set_state(worker, WORKER_TERMINATING, now_ns);
    send_signal(worker, SIGTERM);
    arm(worker, now_ns);
}

static void
kill_now(struct worker *worker, enum intent intent, uint64_t now_ns)
{
    raise_intent(worker, intent);
    if (worker->state == WORKER_KILLING || worker->state == WORKER_ENDED)
        return;
    set_state(worker, WORKER_KILLING, now_ns);
    send_signal(worker, SIGKILL);
}

/* The head's deadline has passed. */
static void
head_is_late(struct worker *worker, uint64_t now_ns)
{
    const struct job *job = head(worker);
    worker->late_id = job->id;
    worker->late_ms = timeout_of(worker, job);
    log_warning(worker->subject,
                "job %" PRId64 " has run for its timeout of %" PRId64 " ms", job->id,
                worker->late_ms);
    if (is_exec(worker)) {
        terminate(worker, INTENT_TIMEOUT, now_ns);
        return;
    }
    raise_intent(worker, INTENT_TIMEOUT);
    set_state(worker, WORKER_CANCELLING, now_ns);
    put_cancel(worker, job->id);
    channel_flush(&worker->channel);
    arm(worker, now_ns);
}

static void
patience_ends(struct worker *worker, uint64_t now_ns)
{
    switch (worker->state) {
    case WORKER_BOOTING:
        kill_now(worker, INTENT_BOOT_TIMEOUT, now_ns);
        return;
    case WORKER_BUSY:
        head_is_late(worker, now_ns);
        return;
    case WORKER_STOPPING:
        if (head(worker))
            head_is_late(worker, now_ns);
        else
            terminate(worker, INTENT_STOP, now_ns);
        return;
    case WORKER_CANCELLING:
        terminate(worker, INTENT_TIMEOUT, now_ns);
        return;
    case WORKER_LEAVING:
        if (worker->wanted == WANTED_UP && worker->complaint[0] == '\0')
            snprintf(worker->complaint, sizeof worker->complaint,
                     "closed its socket but did not exit");
        terminate(worker, INTENT_NONE, now_ns);
        return;
    case WORKER_TERMINATING:
        log_warning(worker->subject, "did not go after SIGTERM: killing it");
        kill_now(worker, INTENT_NONE, now_ns);
        return;
    case WORKER_IDLE:
    case WORKER_KILLING:
    case WORKER_ENDED:
        return;
    }
}

static void
on_timer(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    uint64_t now_ns = uv_hrtime();
    worker->armed_ns = 0;
    uint64_t due = due_ns(worker);
    if (due != 0 && now_ns >= due)
        patience_ends(worker, now_ns);
    else
        arm(worker, now_ns);
}

/* ---- answers ---- */

static const struct verdict no_verdict = {
    .delay_ms = -1, .exit_code = -1, .run_us = -1, .cpu_us = -1, .max_rss_kb = -1};

static int64_t
run_us(const struct job *job, uint64_t now_ns)
{
    return job->started_ns ? (int64_t)((now_ns - job->started_ns) / 1000u) : -1;
}

/* Takes the job off and hands it back. The worker may look different afterwards: the
 * owner may have told it to stop. */
static void
settle(struct worker *worker, struct job *job, const struct verdict *verdict,
       uint64_t now_ns)
{
    bool was_head = job == head(worker);
    list_remove(&job->link);
    worker->n_jobs--;
    struct job *next = head(worker);
    if (was_head && next && next->started_ns == 0)
        next->started_ns = now_ns;
    if (worker->n_jobs == 0)
        worker->quiet_ns = now_ns;
    worker->events->on_verdict(worker->owner, worker, job, verdict);
}

/* The head comes first: that is where almost every answer belongs. */
static struct job *
find_job(const struct worker *worker, int64_t id)
{
    for (struct list *at = worker->jobs.next; at != &worker->jobs; at = at->next) {
        struct job *job = list_entry(at, struct job, link);
        if (job->id == id)
            return job;
    }
    return NULL;
}

/* The protocol is broken: nothing that it says is believed any more. Returns false, for
 * on_line to return. */
static bool __attribute__((format(printf, 2, 3)))
complain(struct worker *worker, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(worker->complaint, sizeof worker->complaint, format, args);
    va_end(args);
    kill_now(worker, INTENT_PROTOCOL, uv_hrtime());
    return false;
}

/* Puts the handler's words into a C string; NULL for an absent member. The byte after a
 * decoded span inside a frame is a quote or what was decoded from, so it may be
 * overwritten. */
static const char *
text_of(struct jobq__span span)
{
    if (!span.at)
        return NULL;
    char *text = (char *)(uintptr_t)span.at;
    text[span.len] = '\0';
    return text;
}

static void
fill_verdict(const struct worker *worker, const struct jobq__frame *frame,
             const struct job *job, struct verdict *verdict)
{
    switch (frame->type) {
    case JOBQ__FRAME_OK:
        verdict->kind = VERDICT_OK;
        verdict->result = frame->result.at;
        verdict->result_len = frame->result.len;
        break;
    case JOBQ__FRAME_ERROR:
        verdict->kind = VERDICT_ERROR;
        verdict->error = text_of(frame->error);
        verdict->detail = text_of(frame->detail);
        verdict->delay_ms = frame->delay_ms;
        break;
    case JOBQ__FRAME_SNOOZE:
        verdict->kind = VERDICT_SNOOZE;
        verdict->delay_ms = frame->delay_ms;
        break;
    case JOBQ__FRAME_DISCARD:
        verdict->kind = VERDICT_DISCARD;
        verdict->error = text_of(frame->reason);
        break;
    case JOBQ__FRAME_CANCEL:
        /* What was asked back when the worker was told to stop was given back, not
         * cancelled. */
        verdict->kind = worker->wanted != WANTED_UP && job->id != worker->kept_id
                            ? VERDICT_RELEASED
                            : VERDICT_CANCELLED;
        verdict->error = text_of(frame->reason);
        break;
    case JOBQ__FRAME_JOB:
    case JOBQ__FRAME_STOP:
    case JOBQ__FRAME_HELLO:
    case JOBQ__FRAME_PROGRESS:
        assert(!"not an answer");
        break;
    }
}

/* An answer after the deadline counts as it is if the job was done after all; anything
 * else is a timeout. */
static void
make_late(const struct worker *worker, struct verdict *verdict, char *text, size_t size)
{
    if (verdict->kind == VERDICT_OK)
        return;
    snprintf(text, size, "ran longer than its timeout of %" PRId64 " ms%s%s",
             worker->late_ms, verdict->error ? " and then said: " : "",
             verdict->error ? verdict->error : "");
    verdict->kind = VERDICT_TIMEOUT;
    verdict->error = text;
    verdict->delay_ms = -1;
}

/* The worker obeyed the cancel message: it may go on, or go as it was told. */
static void
late_job_answered(struct worker *worker)
{
    worker->late_id = 0;
    if (worker->sent_signal != 0)
        return; /* too late: it goes */
    bool stopped = worker->wanted == WANTED_STOPPED;
    if (worker->intent == INTENT_TIMEOUT)
        worker->intent = stopped ? INTENT_STOP : INTENT_NONE;
    if (worker->state == WORKER_CANCELLING)
        set_state(worker, stopped ? WORKER_STOPPING : WORKER_BUSY, worker->batch_ns);
}

static bool
take_answer(struct worker *worker, const struct jobq__frame *frame)
{
    struct job *job = find_job(worker, frame->id);
    if (!job)
        return complain(worker, "answered job %" PRId64 ", which it does not hold",
                        frame->id);
    if (worker->batch++ == 0) {
        worker->batch_ns = uv_hrtime();
        worker->batch_from_ns = head(worker)->started_ns;
    }
    char text[OUTCOME_TEXT];
    struct verdict verdict = no_verdict;
    fill_verdict(worker, frame, job, &verdict);
    verdict.run_us = run_us(job, worker->batch_ns);
    worker->answered++;
    if (frame->id == worker->late_id) {
        make_late(worker, &verdict, text, sizeof text);
        late_job_answered(worker);
    }
    settle(worker, job, &verdict, worker->batch_ns);
    if (worker->state == WORKER_BUSY && worker->n_jobs == 0)
        set_state(worker, WORKER_IDLE, worker->batch_ns);
    return true;
}

/* ---- hello ---- */

static int
compare_kinds(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool
worker_handles(const struct worker *worker, const char *kind)
{
    if (!worker->kinds)
        return true;
    return bsearch(&kind, worker->kinds, worker->n_kinds, sizeof kind, compare_kinds) !=
           NULL;
}

/* The names go into one allocation, behind the array. A kind costs at least three bytes
 * of the list: "" and a comma. */
static int
take_kinds(struct worker *worker, struct jobq__span list)
{
    if (!list.at)
        return 0;
    size_t most = list.len / 3 + 1;
    char **kinds = malloc(most * sizeof kinds[0] + list.len + most);
    if (!kinds)
        return JOBQ_ENOMEM;
    char *text = (char *)(kinds + most);
    size_t n = 0;
    struct jobq__span kind;
    while (n < most && jobq__frame_next_kind(&list, &kind)) {
        kinds[n++] = text;
        memcpy(text, kind.at, kind.len);
        text[kind.len] = '\0';
        text += kind.len + 1;
    }
    qsort(kinds, n, sizeof kinds[0], compare_kinds);
    worker->kinds = kinds;
    worker->n_kinds = n;
    return 0;
}

static bool
take_hello(struct worker *worker, const struct jobq__frame *frame)
{
    if (worker->said_hello)
        return complain(worker, "said hello twice");
    if (frame->protocol != JOBQ__PROTOCOL_VERSION)
        return complain(worker, "speaks protocol %d, this jobqd speaks %d",
                        (int)frame->protocol, JOBQ__PROTOCOL_VERSION);
    uint64_t now_ns = uv_hrtime();
    if (take_kinds(worker, frame->kinds) < 0) {
        log_error(worker->subject, "no memory for its kinds: killing it");
        kill_now(worker, INTENT_KILL, now_ns);
        return false;
    }
    worker->said_hello = true;
    if (worker->state != WORKER_BOOTING)
        return true; /* it is on its way out already */
    log_info(worker->subject, "is up after %" PRIu64 " ms",
             (now_ns - worker->entered_ns) / 1000000u);
    worker->quiet_ns = now_ns;
    set_state(worker, WORKER_IDLE, now_ns);
    worker->events->on_ready(worker->owner, worker);
    return true;
}

/* ---- the channel ---- */

static bool
on_line(void *owner, char *line, size_t len)
{
    struct worker *worker = owner;
    struct jobq__frame frame;
    jobq_error err;
    if (jobq__frame_parse(line, len, &frame, &err) < 0)
        return complain(worker, "%s", err.message);
    if (!worker->said_hello && frame.type != JOBQ__FRAME_HELLO)
        return complain(worker, "said something else before its hello");
    switch (frame.type) {
    case JOBQ__FRAME_HELLO:
        return take_hello(worker, &frame);
    case JOBQ__FRAME_OK:
    case JOBQ__FRAME_ERROR:
    case JOBQ__FRAME_SNOOZE:
    case JOBQ__FRAME_DISCARD:
    case JOBQ__FRAME_CANCEL:
        return take_answer(worker, &frame);
    case JOBQ__FRAME_PROGRESS:
        if (!find_job(worker, frame.id))
            return complain(
                worker, "reported progress of job %" PRId64 ", which it does not hold",
                frame.id);
        return true;
    case JOBQ__FRAME_JOB:
        return complain(worker, "sent a \"job\" message, which only jobqd sends");
    case JOBQ__FRAME_STOP:
        return complain(worker, "sent a \"stop\" message, which only jobqd sends");
    }
    return true;
}

static void
on_lines_end(void *owner)
{
    struct worker *worker = owner;
    size_t n = worker->batch;
    worker->batch = 0;
    if (n == 0)
        return;
    uint64_t elapsed_ns = worker->batch_ns - worker->batch_from_ns;
    worker->events->on_answers(worker->owner, worker, n, elapsed_ns);
    arm(worker, worker->batch_ns);
}

static void
on_channel_end(void *owner)
{
    struct worker *worker = owner;
    enum channel_state why = worker->channel.state;
    uint64_t now_ns = uv_hrtime();
    if (why == CHANNEL_TOO_LONG) {
        complain(worker, "sent a line of more than %zu bytes (max_frame)",
                 worker->program->max_frame);
        return;
    }
    if (why == CHANNEL_FAILED) {
        log_error(worker->subject, "cannot read from its socket: killing it");
        kill_now(worker, INTENT_KILL, now_ns);
        return;
    }
    /* Nearly always the process has ended, and its exit is what we see next. */
    if (why != CHANNEL_REFUSED && worker->state < WORKER_LEAVING) {
        set_state(worker, WORKER_LEAVING, now_ns);
        arm(worker, now_ns);
    }
}

/* ---- giving ---- */

/* Puts one job into the buffer that the next flush writes. Out of memory: no state is
 * worth keeping then, and a killed worker's jobs go to another. */
static void
send_job(struct worker *worker, struct job *job, uint64_t now_ns)
{
    struct jobq__buf *out = &worker->channel.out;
    size_t before = out->len;
    const char *queue = worker->program->queue->name;
    struct jobq__frame frame = {
        .type = JOBQ__FRAME_JOB,
        .id = job->id,
        .attempt = job->attempt,
        .max_attempts = job->max_attempts,
        .timeout_ms = timeout_of(worker, job),
        .queue = {queue, strlen(queue)},
        .kind = {job->kind, strlen(job->kind)},
        .args = {job->args, job->args_len},
        .meta = {job->meta, job->meta_len},
    };
    jobq__frame_put_job(out, &frame);
    bool first = list_empty(&worker->jobs);
    list_push(&worker->jobs, &job->link);
    if (!is_whole(worker, before)) {
        log_error(worker->subject, "no memory for job %" PRId64 ": killing it", job->id);
        kill_now(worker, INTENT_KILL, now_ns);
        return;
    }
    worker->last.id = job->id;
    worker->last.end = worker->channel.total + channel_backlog(&worker->channel);
    if (first) {
        job->started_ns = now_ns;
        worker->first = worker->last;
    }
}

void
worker_give(struct worker *worker, struct job *job, uint64_t now_ns)
{
    assert(worker_takes_jobs(worker) && !is_exec(worker));
    job->started_ns = 0;
    worker->n_jobs++;
    if (worker->state == WORKER_IDLE)
        set_state(worker, WORKER_BUSY, now_ns);
    list_push(&worker->unsent, &job->link);
}

void
worker_flush(struct worker *worker)
{
    if (worker->channel.state == CHANNEL_CLOSED)
        return;
    uint64_t now_ns = uv_hrtime();
    while (!list_empty(&worker->unsent) && worker_takes_jobs(worker) &&
           channel_backlog(&worker->channel) < BACKLOG_BYTES) {
        struct list *link = list_pop(&worker->unsent);
        send_job(worker, list_entry(link, struct job, link), now_ns);
    }
    channel_flush(&worker->channel);
    arm(worker, now_ns);
}

uint64_t
worker_busy_since(const struct worker *worker)
{
    const struct job *job = head(worker);
    return job ? job->started_ns
               : worker->entered_ns; /* nothing sent yet: it has just become busy */
}

/* ---- stopping ---- */

/* What it was sent but has not begun is asked back: it comes as the answer "cancel", or
 * is done after all. */
static void
ask_back(struct worker *worker)
{
    if (!head(worker))
        return;
    worker->kept_id = head(worker)->id;
    for (struct list *at = worker->jobs.next->next; at != &worker->jobs; at = at->next)
        put_cancel(worker, list_entry(at, struct job, link)->id);
}

void
worker_take_unsent(struct worker *worker, struct list *to)
{
    struct list *link;
    while ((link = list_pop(&worker->unsent)) != NULL) {
        worker->n_jobs--;
        list_push(to, link);
    }
}

void
worker_stop(struct worker *worker)
{
    uint64_t now_ns = uv_hrtime();
    if (worker->wanted != WANTED_UP)
        return;
    worker->wanted = WANTED_STOPPED;
    if (is_exec(worker))
        return; /* it ends with its job */
    raise_intent(worker, INTENT_STOP);
    switch (worker->state) {
    case WORKER_BOOTING:
        terminate(worker, INTENT_STOP, now_ns);
        return;
    case WORKER_IDLE:
    case WORKER_BUSY:
        set_state(worker, WORKER_STOPPING, now_ns);
        break;
    case WORKER_CANCELLING:
        break;
    case WORKER_STOPPING:
    case WORKER_LEAVING:
    case WORKER_TERMINATING:
    case WORKER_KILLING:
    case WORKER_ENDED:
        return;
    }
    ask_back(worker);
    put_stop(worker);
    channel_flush(&worker->channel);
    arm(worker, now_ns);
}

void
worker_kill(struct worker *worker)
{
    worker->wanted = WANTED_GONE;
    kill_now(worker, INTENT_KILL, uv_hrtime());
}

/* ---- its end ---- */

/* Whether the process can have begun the job. One that it was sent when it was dying it
 * has not: either its frame was not written whole, or it was the last that was written
 * and the socket was closed with something unread. */
static bool
has_reached(const struct worker *worker, const struct job *job)
{
    const struct channel *channel = &worker->channel;
    if (is_exec(worker))
        return true;
    if (job->id == worker->first.id && channel->total < worker->first.end)
        return false;
    return !(job->id == worker->last.id && channel->total <= worker->last.end &&
             channel->unread);
}

static void
judge(struct worker *worker, const struct child_end *end, struct outcome *outcome)
{
    const struct job *job = head(worker);
    struct ending ending = {
        .program = is_exec(worker) ? PROGRAM_EXEC : PROGRAM_WORKER,
        .intent = worker->intent,
        .said_hello = worker->said_hello,
        .holds_job = job && has_reached(worker, job),
        .head_timed_out = job && job->id == worker->late_id,
        .half_line = worker->channel.state == CHANNEL_CUT,
        .answered = worker->answered,
        .exec_errno = child_exec_error(&worker->child),
        .exit_code = end->exit_code,
        .signal = end->signal,
        .sent_signal = worker->sent_signal,
        .limit_ms =
            worker->late_id ? worker->late_ms : worker->program->queue->boot_timeout_ms,
        .complaint = worker->complaint[0] ? worker->complaint : NULL,
        .path = worker->program->queue->argv[0],
    };
    outcome_judge(&ending, outcome);
}

static void
settle_head(struct worker *worker, const struct child_end *end,
            const struct outcome *outcome, uint64_t now_ns)
{
    struct job *job = head(worker);
    struct verdict verdict = no_verdict;
    verdict.kind = outcome->verdict;
    verdict.delay_ms = outcome->delay_ms;
    verdict.run_us = run_us(job, now_ns);
    verdict.cpu_us = end->cpu_us;
    verdict.max_rss_kb = end->max_rss_kb;
    verdict.exit_code = end->exit_code;
    verdict.signal = end->signal;
    if (verdict.kind != VERDICT_OK && verdict.kind != VERDICT_RELEASED &&
        verdict.kind != VERDICT_SNOOZE) {
        verdict.error = outcome->text;
        verdict.output = output_tail(&worker->output);
    }
    settle(worker, job, &verdict, now_ns);
}

static void
log_end(const struct worker *worker, const struct outcome *outcome)
{
    if (outcome->kind == OUTCOME_FINISHED || outcome->kind == OUTCOME_STOPPED)
        log_debug(worker->subject, "%s", outcome->text);
    else
        log_warning(worker->subject, "%s: %s", outcome_name(outcome->kind),
                    outcome->text);
}

static void
close_all(struct worker *worker)
{
    if (worker->channel.fd >= 0)
        channel_close(&worker->channel);
    if (worker->output.fd >= 0)
        output_close(&worker->output);
    uv_close((uv_handle_t *)&worker->timer, on_handle_closed);
    uv_close((uv_handle_t *)&worker->exit_poll, on_handle_closed);
    child_close(&worker->child);
}

static void
end_life(struct worker *worker)
{
    uint64_t now_ns = uv_hrtime();
    struct child_end end = {.exit_code = -1, .cpu_us = -1, .max_rss_kb = -1};
    struct outcome outcome;
    jobq_error err;

    set_state(worker, WORKER_ENDED, now_ns); /* from here on nothing is sent to it */
    child_signal(&worker->child, SIGKILL);   /* its group; it is dead itself */
    /* What it said before it died counts: the answers first, then the judgement. */
    if (worker->channel.state == CHANNEL_OPEN)
        channel_drain(&worker->channel);
    output_drain(&worker->output);
    if (child_reap(&worker->child, &end, &err) < 0)
        log_error(worker->subject, "%s", err.message);
    judge(worker, &end, &outcome);
    log_end(worker, &outcome);
    if (outcome.charged)
        settle_head(worker, &end, &outcome, now_ns);
    worker->events->on_end(worker->owner, worker, &outcome);
    assert(list_empty(&worker->jobs));
    close_all(worker);
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
handle_closed(struct worker *worker)
{
    if (--worker->n_handles == 0)
        worker->events->on_gone(worker->owner, worker);
}

static void
on_handle_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static void
on_part_closed(void *owner)
{
    handle_closed(owner);
}

/* ---- its output ---- */

static void
on_output_line(void *owner, const char *line)
{
    struct worker *worker = owner;
    const struct job *job = head(worker);
    if (job)
        log_info(worker->subject, "job %" PRId64 " says: %s", job->id, line);
    else
        log_info(worker->subject, "says: %s", line);
}

static void
on_output_dropped(void *owner, uint64_t lines)
{
    struct worker *worker = owner;
    log_warning(
        worker->subject,
        "%" PRIu64
        " lines of its output are not shown: more than %d lines or %d KiB a second",
        lines, OUTPUT_LINES_A_SECOND, OUTPUT_BYTES_A_SECOND / 1024);
}

/* ---- its beginning ---- */

static const struct channel_events channel_events = {
    .on_line = on_line,
    .on_lines_end = on_lines_end,
    .on_end = on_channel_end,
    .on_closed = on_part_closed,
};

static const struct output_events output_events = {
    .on_line = on_output_line,
    .on_dropped = on_output_dropped,
    .on_closed = on_part_closed,
};

/* The pidfd comes first: with it watched, any later failure is the ordinary end of a
 * killed process. */
static int
watch_process(struct worker *worker, struct output_rate *rate, jobq_error *err)
{
    uv_loop_t *loop = worker->program->loop;
    char *chunk = worker->program->chunk;
    int rc = uv_poll_init(loop, &worker->exit_poll, worker->child.pidfd);
    if (rc < 0)
        return jobq__error(err, JOBQ_EIO, "cannot watch process %ld: %s",
                           (long)worker->child.pid, uv_strerror(rc));
    uv_timer_init(loop, &worker->timer);
    worker->exit_poll.data = worker->timer.data = worker;
    worker->n_handles = 2;
    uv_poll_start(&worker->exit_poll, UV_READABLE, on_exit_seen);

    int output_fd = worker->child.output_fd;
    int channel_fd = worker->child.channel_fd;
    worker->child.output_fd = worker->child.channel_fd = -1; /* the parts' from here on */
    rc = output_open(&worker->output, loop, output_fd, chunk, rate, &output_events,
                     worker);
    worker->n_handles += rc == 0;
    int channel_rc =
        channel_open(&worker->channel, loop, channel_fd, worker->program->max_frame,
                     chunk, &channel_events, worker);
    worker->n_handles += channel_rc == 0 && channel_fd >= 0;
    if (rc < 0 || channel_rc < 0) {
        log_error(worker->subject, "cannot watch its descriptors, killing it: %s",
                  uv_strerror(rc < 0 ? rc : channel_rc));
        kill_now(worker, INTENT_KILL, uv_hrtime());
    }
    return 0;
}

int
worker_new(struct worker **out, const struct worker_program *program, int slot,
           struct output_rate *rate, struct job *job, const struct worker_events *events,
           void *owner, jobq_error *err)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return jobq__error(err, JOBQ_ENOMEM, "no memory for a worker");
    worker->program = program;
    worker->events = events;
    worker->owner = owner;
    worker->slot = slot;
    worker->placed_at = WORKER_NOWHERE;
    list_init(&worker->jobs);
    list_init(&worker->unsent);
    list_init(&worker->place);
    list_init(&worker->dirty);
    int rc = launch(&worker->child, program->queue, program->environment, job, err);
    if (rc < 0) {
        free(worker);
        return rc;
    }
    worker->entered_ns = uv_hrtime();
    snprintf(worker->subject, sizeof worker->subject, "worker %s/w%d pid %ld",
             program->queue->name, slot + 1, (long)worker->child.pid);
    rc = watch_process(worker, rate, err);
    if (rc < 0) {
        child_discard(&worker->child);
        free(worker);
        return rc;
    }
    if (job && worker->state == WORKER_BOOTING) {
        worker->said_hello = true; /* its exit code is all that it will say */
        worker->state = WORKER_BUSY;
    }
    if (job) {
        job->started_ns = worker->entered_ns;
        list_push(&worker->jobs, &job->link);
        worker->n_jobs = 1;
    }
    log_debug(worker->subject, "started, waits for %s",
              worker_state_meaning(worker->state));
    arm(worker, worker->entered_ns);
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
