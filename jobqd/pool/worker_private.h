/* worker_private.h: what the files of a worker share. Not for anybody else.
 *
 * worker_state.c: its states; worker.c: its deadlines, what it is given and told;
 * worker_start.c: its beginning; worker_says.c: what it says on its socket; worker_end.c: what it prints, and its end;
 * worker_limits.c: what it may use; worker_handover.c: how it is left to another program.
 */
#ifndef JOBQD_WORKER_PRIVATE_H
#define JOBQD_WORKER_PRIVATE_H

#include "jobqd/base/log.h"
#include "jobqd/pool/worker.h"

/* After a hold, what has gathered is read within this time. */
enum { WORKER_HEAR_MS = 5000 };

static inline uint64_t
worker_after_ms(uint64_t from_ns, int64_t ms)
{
    return from_ns + (uint64_t)ms * 1000000u;
}

bool worker_is_exec(const struct worker *worker);
/* The oldest of the jobs that it runs; NULL: none. */
struct job *worker_head(const struct worker *worker);

void worker_set_state(struct worker *worker, enum worker_state state, uint64_t now_ns);
/* Sets the timer for the end of the present state's patience, if it is not set for that
 * or earlier. */
void worker_arm(struct worker *worker, uint64_t now_ns);
/* SIGKILL to the process group, for that reason. Harmless when it was done before, or the
 * process has ended. */
void worker_end_for(struct worker *worker, enum intent intent, uint64_t now_ns);

/* Whether an answer may have been there in time, and it is us who do not read, or have
 * only just begun again to. */
bool worker_may_have_answered(const struct worker *worker, uint64_t now_ns);

/* What a verdict begins as: nothing measured, nothing said. */
extern const struct verdict worker_no_verdict;
int64_t worker_run_us(const struct job *job, uint64_t now_ns);
/* Takes the job off the worker's lists. */
void worker_take_off(struct worker *worker, struct job *job);
/* Takes it off and hands it back; the next one that was sent is begun. The worker may
 * look different afterwards: the owner may have told it to stop. */
void worker_settle(struct worker *worker, struct job *job, const struct verdict *verdict,
                   uint64_t now_ns);

/* SIGTERM (SIGXCPU for INTENT_CPU) to the process group, for that reason; SIGKILL after
 * stop_grace. */
void worker_terminate(struct worker *worker, enum intent intent, uint64_t now_ns);

/* ---- worker_limits.c ---- */

enum worker_usage { USAGE_FINE, USAGE_TOO_MUCH_MEMORY, USAGE_TOO_MUCH_CPU };

/* What to do about what was measured of the worker. A worker that is only to be replaced
 * is fine: the owner hears of it (on_over_memory). */
enum worker_usage worker_check_usage(struct worker *worker);
/* Starts the process, confined as its queue says, and watches what it
 * uses. */
int worker_launch(struct worker *worker, const struct job *job, jobq_error *err);
/* The same for one that a forkserver has forked, confined as that is: it gets what each
 * process has for itself, and is watched. */
void worker_confine(struct worker *worker);
/* The same for one that was taken over: what it uses is watched again. */
void worker_limit_again(struct worker *worker);
/* It is up, or its head may be another one, or none, than before. */
void worker_mark(struct worker *worker);
/* Some of its jobs have ended. */
void worker_after_jobs(struct worker *worker);
/* Puts what the attempt has used and printed into a verdict on a job that was answered.
 */
void worker_measure_answer(struct worker *worker, const struct job *job,
                           struct verdict *verdict);
/* Looks at the most memory that the process has had so far. The kernel's sum at the end
 * tells less where jobqd itself had more when it forked. */
void worker_note_peak(struct worker *worker);
/* The process has ended and is not reaped yet: what can be learned now alone. */
void worker_measure_end(struct worker *worker);
/* As far as that job is concerned; NULL: it ran none. */
void worker_fill_ending(const struct worker *worker, const struct job *job,
                        const struct child_end *end, struct ending *ending);
/* One without a process, or NULL: no memory. */
struct worker *worker_blank(struct worker_program *program, int slot,
                            struct output_rate *rate);
/* Fills in its name and its subject, once slot and process are known. */
void worker_name(struct worker *worker);
/* What a log line about the worker, and that job (NULL: none), is about; lent. */
struct log_facts worker_facts(const struct worker *worker, const struct job *job);
/* Watches the process in worker->child. The pidfd comes first: with it watched, any later
 * failure is the ordinary end of a killed process. */
int worker_watch(struct worker *worker, jobq_error *err);

/* ---- worker.c, for worker_start.c ---- */

void worker_on_kill_turn(struct turn *turn);
void worker_on_measured(struct watched *watched);
void worker_run(struct worker *worker, struct job *job, uint64_t now_ns);
/* A frame was put behind the first `before` bytes. Whole or not at all: returns false,
 * with the buffer as it was, when memory ran out within it. */
bool worker_frame_is_whole(struct worker *worker, size_t before);
void worker_on_timer(uv_timer_t *timer);

extern const struct channel_events worker_channel_events;
extern const struct output_events worker_output_events;
void worker_part_closed(void *worker);
/* The end of a worker that never had a process. bad: as in struct outcome. */
void worker_end_unborn(struct worker *worker, const char *why, bool bad);
/* The pidfd is readable. */
void worker_exit_seen(uv_poll_t *poll, int status, int events);
/* Its turn to be ended has come. */
void worker_on_end_turn(struct turn *turn);

#endif
