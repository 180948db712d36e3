/* outcome.c: see outcome.h. The rows are tried in order; the first that fits decides. */
#include "jobqd/pure/outcome.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libjobq/duration.h"

const char *
outcome_name(enum outcome_kind kind)
{
    static const char *const names[] = {
#define X(name, label) [name] = label,
        OUTCOMES(X)
#undef X
    };
    return names[kind];
}

static void __attribute__((format(printf, 2, 3)))
say(struct outcome *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(out->text, sizeof out->text, format, args);
    va_end(args);
}

/* "exited with status 3", "was killed by signal 11 (SIGSEGV)". */
static const char *
describe_end(const struct ending *ending, char *text, size_t size)
{
    if (ending->signal == 0) {
        snprintf(text, size, "exited with status %d", ending->exit_code);
        return text;
    }
    const char *name = sigabbrev_np(ending->signal);
    if (name)
        snprintf(text, size, "was killed by signal %d (SIG%s)", ending->signal, name);
    else
        snprintf(text, size, "was killed by signal %d", ending->signal);
    return text;
}

/* What it printed last, after `before`; "" where it printed nothing. */
static void
put_last_line(const struct ending *ending, const char *before, char *text, size_t size)
{
    const char *line = ending->last_line;
    snprintf(text, size, "%s%s", line ? before : "", line ? line : "");
}

/* A signal that we did not send: whatever else was going on, this is the program's own
 * crash. */
static bool
died_by_itself(const struct ending *ending)
{
    return ending->signal != 0 && ending->signal != ending->sent_signal;
}

/* Nothing answers KILL: an exec program that exited had finished before it came. */
static bool
answered_by_exit(const struct ending *ending)
{
    return ending->program == PROGRAM_EXEC && ending->signal == 0;
}

static void
conclude(const struct ending *ending, struct outcome *out, enum outcome_kind kind,
         bool bad, enum verdict_kind verdict)
{
    out->kind = kind;
    out->bad = bad;
    out->charged = ending->holds_job;
    out->verdict = verdict;
}

static void
judge_boot_failure(const struct ending *ending, struct outcome *out)
{
    static const char one_job_hint[] =
        "; for a program that runs one job and exits, use exec =";
    char how[64], last[OUTCOME_LINE + 32];
    bool ran_to_its_end = ending->signal == 0 && ending->exit_code == 0;
    put_last_line(ending, "; its last line: ", last, sizeof last);
    /* An exec program's job is not to blame for it: it goes back. */
    conclude(ending, out, OUTCOME_BOOT_FAILED, true, VERDICT_RELEASED);
    if (ending->exec_errno && ending->exec_step)
        say(out, "cannot start %s: %s: %s", ending->path, ending->exec_step,
            strerror(ending->exec_errno));
    else if (ending->exec_errno)
        say(out, "cannot execute %s: %s", ending->path,
            ending->exec_fault ? ending->exec_fault : strerror(ending->exec_errno));
    else if (ending->intent == INTENT_BOOT_TIMEOUT)
        say(out, "did not say hello within %s%s",
            jobq__duration_show(ending->limit_ms).text, last);
    else
        say(out, "%s before it said hello%s%s", describe_end(ending, how, sizeof how),
            last, ran_to_its_end ? one_job_hint : "");
}

static void
judge_timeout(const struct ending *ending, struct outcome *out)
{
    char how[64];
    conclude(ending, out, OUTCOME_TIMED_OUT, false, VERDICT_TIMEOUT);
    say(out, "ran longer than its timeout of %s and %s",
        jobq__duration_show(ending->limit_ms).text,
        describe_end(ending, how, sizeof how));
}

/* "210 MiB" */
static void
put_size(int64_t kb, char *text, size_t size)
{
    if (kb >= 10 * 1024)
        snprintf(text, size, "%lld MiB", (long long)((kb + 512) / 1024));
    else
        snprintf(text, size, "%lld KiB", (long long)kb);
}

/* A program that only ever runs out of memory counts as one that only ever crashes. */
static void
judge_memory(const struct ending *ending, struct outcome *out)
{
    char used[32], limit[32];
    conclude(ending, out, OUTCOME_MEMORY, ending->program == PROGRAM_WORKER,
             VERDICT_MEMORY);
    put_size(ending->memory_kb, used, sizeof used);
    put_size(ending->memory_limit_kb, limit, sizeof limit);
    if (ending->intent == INTENT_MEMORY)
        say(out, "used %s of memory, more than its max_memory_hard of %s", used, limit);
    else if (ending->oom == OOM_LIMIT)
        say(out, "was killed by the kernel at its max_memory_hard of %s", limit);
    else
        say(out, "was killed by signal 9 (SIGKILL) when the kernel ran out of memory");
    if (ending->intent == INTENT_MEMORY && !ending->exceeded)
        out->verdict = VERDICT_RELEASED;
}

/* A deadline of another clock. */
static void
judge_cpu(const struct ending *ending, struct outcome *out)
{
    char how[64];
    bool blamed = ending->intent != INTENT_CPU || ending->exceeded;
    conclude(ending, out, OUTCOME_TIMED_OUT, false,
             blamed ? VERDICT_TIMEOUT : VERDICT_RELEASED);
    if (blamed)
        say(out, "used more processor time than its cpu_limit of %s and %s",
            jobq__duration_show(ending->cpu_limit_ms).text,
            describe_end(ending, how, sizeof how));
    else
        say(out, "was stopped because of a job that used up its cpu_limit");
}

/* By the kernel's own hand, at RLIMIT_CPU. */
static bool
ran_out_of_cpu(const struct ending *ending)
{
    return ending->cpu_limit_ms > 0 &&
           (ending->signal == SIGXCPU ||
            (ending->signal == SIGKILL && ending->cpu_exhausted));
}

static void
judge_cancelled(const struct ending *ending, struct outcome *out)
{
    char how[64];
    conclude(ending, out, OUTCOME_CANCELLED, false,
             ending->is_late ? VERDICT_ABORTED : VERDICT_RELEASED);
    say(out, "%s", describe_end(ending, how, sizeof how));
}

static void
judge_bad_protocol(const struct ending *ending, struct outcome *out)
{
    conclude(ending, out, OUTCOME_BAD_PROTOCOL, true, VERDICT_PROTOCOL);
    if (ending->complaint)
        say(out, "%s", ending->complaint);
    else
        say(out, "closed the connection in the middle of a line");
}

static void
judge_crash(const struct ending *ending, struct outcome *out)
{
    char how[64];
    /* An exec program is not restarted, so its crash says nothing about restarts. */
    bool bad = ending->program == PROGRAM_WORKER && ending->intent != INTENT_STOP;
    conclude(ending, out, OUTCOME_CRASHED, bad, VERDICT_CRASH);
    describe_end(ending, how, sizeof how);
    if (ending->unread_deaths > 0)
        say(out, "%s before it had read the job, like the %d before it", how,
            ending->unread_deaths - 1);
    else if (ending->holds_job && ending->beside > 0)
        say(out, "%s while it held the job and %zu %s", how, ending->beside,
            ending->beside == 1 ? "other" : "others");
    else
        say(out, "%s%s", how, ending->holds_job ? " while it held the job" : "");
}

/* An exec program's exit code is its answer. */
static void
judge_exit_code(const struct ending *ending, struct outcome *out)
{
    char how[64], last[OUTCOME_LINE + 32];
    const char *meaning = "";
    conclude(ending, out, OUTCOME_FINISHED, false, VERDICT_ERROR);
    put_last_line(ending, ": ", last, sizeof last);
    switch (ending->exit_code) {
    case EXEC_EXIT_OK:
        out->verdict = VERDICT_OK;
        last[0] = '\0';
        break;
    case EXEC_EXIT_DISCARD:
        out->verdict = VERDICT_DISCARD;
        meaning = " (discard)";
        break;
    case EXEC_EXIT_SNOOZE:
        out->verdict = VERDICT_SNOOZE;
        out->delay_ms = OUTCOME_SNOOZE_MS;
        meaning = " (snooze)";
        break;
    default:
        break;
    }
    say(out, "%s%s%s", describe_end(ending, how, sizeof how), meaning, last);
}

size_t
outcome_common_bytes(const char *error)
{
    static const char prefix[] = "exited with status ";
    if (strncmp(error, prefix, sizeof prefix - 1) != 0)
        return strlen(error);
    size_t len = sizeof prefix - 1 + strspn(error + sizeof prefix - 1, "0123456789");
    for (size_t i = 0; i < 2; i++) {
        static const char *const meanings[] = {" (discard)", " (snooze)"};
        if (strncmp(error + len, meanings[i], strlen(meanings[i])) == 0)
            len += strlen(meanings[i]);
    }
    return error[len] == ':' ? len : strlen(error);
}

static void
judge_worker_exit(const struct ending *ending, struct outcome *out)
{
    char how[64];
    bool asked = ending->intent == INTENT_STOP;
    bool clean = ending->exit_code == 0 || ending->sent_signal != 0;
    if (asked && clean) {
        /* What it had not begun when it was told to go comes back untouched. */
        conclude(ending, out, OUTCOME_STOPPED, false, VERDICT_RELEASED);
        say(out, "stopped as asked");
        return;
    }
    if (ending->holds_job || !clean) {
        judge_crash(ending, out);
        return;
    }
    /* It may go by itself when it has done some work; one that only comes and goes must
     * not spin. */
    conclude(ending, out, OUTCOME_FINISHED, ending->answered == 0, VERDICT_RELEASED);
    say(out, "%s on its own", describe_end(ending, how, sizeof how));
}

void
outcome_judge(const struct ending *ending, struct outcome *out)
{
    memset(out, 0, sizeof *out);
    out->delay_ms = -1;
    if (ending->exec_errno) {
        judge_boot_failure(ending, out);
    } else if (ending->intent == INTENT_KILL && !answered_by_exit(ending)) {
        conclude(ending, out, OUTCOME_STOPPED, false, VERDICT_RELEASED);
        say(out, "killed with its pool");
    } else if (ending->intent == INTENT_GUARD && !answered_by_exit(ending)) {
        conclude(ending, out, OUTCOME_ORPHANED, false, VERDICT_ORPHANED);
        say(out, "jobqd did not renew its lease in time");
    } else if (ending->intent == INTENT_GIVE_UP) {
        conclude(ending, out, OUTCOME_STOPPED, true, VERDICT_RELEASED);
        say(out, "killed because jobqd could not serve it");
    } else if (ending->intent == INTENT_MEMORY) {
        judge_memory(ending, out);
    } else if (ending->intent == INTENT_CANCEL) {
        judge_cancelled(ending, out);
    } else if (ending->intent == INTENT_TIMEOUT && ending->is_late) {
        judge_timeout(ending, out);
    } else if (ending->intent == INTENT_TIMEOUT) {
        /* The late job was answered at the last moment; what came behind it is not to
         * blame. */
        conclude(ending, out, OUTCOME_TIMED_OUT, false, VERDICT_RELEASED);
        say(out, "was stopped because of a job that ran past its timeout");
    } else if (ending->intent == INTENT_CPU) {
        judge_cpu(ending, out);
    } else if (died_by_itself(ending) && ending->signal == SIGKILL && ending->oom) {
        judge_memory(ending, out);
    } else if (died_by_itself(ending) && ending->said_hello && ran_out_of_cpu(ending)) {
        judge_cpu(ending, out);
    } else if (ending->intent == INTENT_BOOT_TIMEOUT) {
        judge_boot_failure(ending, out);
    } else if (ending->complaint && !died_by_itself(ending)) {
        judge_bad_protocol(ending, out);
    } else if (died_by_itself(ending)) {
        if (ending->said_hello)
            judge_crash(ending, out);
        else
            judge_boot_failure(ending, out);
    } else if (ending->half_line && ending->signal == 0) {
        judge_bad_protocol(ending, out);
    } else if (!ending->said_hello && ending->intent != INTENT_STOP) {
        judge_boot_failure(ending, out);
    } else if (ending->program == PROGRAM_EXEC && ending->signal == 0) {
        judge_exit_code(ending, out);
    } else {
        judge_worker_exit(ending, out);
    }
}
