/* hookrun.c: see hookrun.h. */
#include "jobqd/pool/hookrun.h"

#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "jobqd/proc/output.h"
#include "libjobq/duration.h"
#include "libjobq/error.h"

enum { HOOKRUN_NAME = 132 };

struct hookrun {
    struct hookrun_options options;
    char subject[64];                             /* "hook on_failure pid 4711" */
    char kind[HOOKRUN_NAME], queue[HOOKRUN_NAME]; /* the job's */
    struct child child;
    struct output output;
    struct output_rate rate;
    uv_poll_t exit_poll;
    uv_timer_t timer;
    int n_handles;
    bool late;
};

static void
part_closed(void *owner)
{
    struct hookrun *run = owner;
    if (--run->n_handles > 0)
        return;
    run->options.on_end(run->options.owner, run);
    free(run);
}

static void
on_handle_closed(uv_handle_t *handle)
{
    part_closed(handle->data);
}

static void
say(const struct hookrun *run, enum log_level level, const char *text)
{
    hooklines_tell(run->options.lines, &(struct hook_line){.level = level,
                                                           .hook = run->options.name,
                                                           .job = run->options.job,
                                                           .kind = run->kind,
                                                           .queue = run->queue,
                                                           .pid = (long)run->child.pid,
                                                           .text = text});
}

static void __attribute__((format(printf, 2, 3)))
warn(const struct hookrun *run, const char *format, ...)
{
    char what[PATH_MAX + 256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    say(run, LOG_LEVEL_WARNING, what);
}

static void
on_line(void *owner, const char *line)
{
    say(owner, LOG_LEVEL_INFO, line);
}

static void
on_dropped(void *owner, uint64_t lines)
{
    struct hookrun *run = owner;
    warn(run, "%" PRIu64 " lines of its output were not logged", lines);
}

static const struct output_events output_events = {
    .on_line = on_line,
    .on_dropped = on_dropped,
    .on_closed = part_closed,
};

static void
log_end(struct hookrun *run, const struct child_end *end)
{
    const char *program = run->options.plan->queue->argv[0];
    struct child_failure failure = child_failure(&run->child);
    if (failure.step != LIMITS_DONE && failure.text[0])
        warn(run, "cannot run %s: %s", program, failure.text);
    else if (failure.step != LIMITS_DONE)
        warn(run, "cannot run %s: %s", program, strerror(failure.why));
    else if (run->late)
        warn(run, "%s ran for more than %s and was killed", program,
             jobq__duration_show(run->options.timeout_ms).text);
    else if (end->signal != 0)
        warn(run, "%s was killed by signal %d", program, end->signal);
    else if (end->exit_code != 0)
        warn(run, "%s failed with exit code %d", program, end->exit_code);
}

static void
on_exit_seen(uv_poll_t *poll, int status, int events)
{
    struct hookrun *run = poll->data;
    struct child_end end = {.exit_code = -1};
    jobq_error err;
    (void)status;
    (void)events;
    if (!child_has_ended(&run->child))
        return; /* a moment later it has */
    uv_poll_stop(poll);
    child_signal(&run->child, SIGKILL); /* its group */
    if (run->output.fd >= 0) {
        output_drain(&run->output);
        output_close(&run->output);
    }
    if (child_reap(&run->child, &end, &err) < 0)
        log_error(run->subject, "%s", err.message);
    log_end(run, &end);
    uv_close((uv_handle_t *)&run->timer, on_handle_closed);
    uv_close((uv_handle_t *)&run->exit_poll, on_handle_closed);
    child_close(&run->child);
}

void
hookrun_kill(struct hookrun *run)
{
    if (!uv_is_closing((uv_handle_t *)&run->timer))
        child_signal(&run->child, SIGKILL);
}

static void
on_timer(uv_timer_t *timer)
{
    struct hookrun *run = timer->data;
    run->late = true;
    hookrun_kill(run);
}

/* The pidfd comes first: with it watched, any later failure is the ordinary end of a
 * killed process. */
static int
watch(struct hookrun *run, jobq_error *err)
{
    uv_loop_t *loop = run->options.loop;
    int output_fd = run->child.output_fd;
    int rc = uv_poll_init(loop, &run->exit_poll, run->child.pidfd);
    if (rc < 0)
        return jobq__error(err, JOBQ_EIO, "cannot watch process %ld: %s",
                           (long)run->child.pid, uv_strerror(rc));
    run->exit_poll.data = run;
    uv_poll_start(&run->exit_poll, UV_READABLE, on_exit_seen);
    uv_timer_init(loop, &run->timer);
    run->timer.data = run;
    uv_timer_start(&run->timer, on_timer, (uint64_t)run->options.timeout_ms, 0);
    run->child.output_fd = -1; /* the output's */
    rc = output_open(&run->output, loop, output_fd, run->options.chunk, &run->rate,
                     &output_events, run);
    run->n_handles = 2 + (rc == 0);
    if (rc < 0) {
        log_error(run->subject, "cannot watch its output, killing it: %s",
                  uv_strerror(rc));
        hookrun_kill(run);
    }
    return 0;
}

int
hookrun_start(struct hookrun **out, const struct hookrun_options *options,
              const char *const *variables, const char *story, size_t len,
              jobq_error *err)
{
    struct hookrun *run = calloc(1, sizeof *run);
    if (!run)
        return jobq__error(err, JOBQ_ENOMEM, "no memory");
    run->options = *options;
    snprintf(run->kind, sizeof run->kind, "%s", options->kind);
    snprintf(run->queue, sizeof run->queue, "%s", options->queue);
    run->output.fd = -1;
    int rc = launch_hook(&run->child, options->plan, variables, story, len, err);
    if (rc < 0) {
        free(run);
        return rc;
    }
    snprintf(run->subject, sizeof run->subject, "hook %s pid %ld", options->name,
             (long)run->child.pid);
    rc = watch(run, err);
    if (rc < 0) {
        child_discard(&run->child);
        free(run);
        return rc;
    }
    *out = run;
    return 0;
}
