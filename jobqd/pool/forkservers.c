/* forkservers.c: the forkservers of a pool: which of its programs has one, and when that one is
 * started or let go. How a forkserver lives is forkserver.c's business, which workers are
 * wanted of it workerset.c's.
 *
 * Each program has its own: a reload brings a new program, whose forkserver is started when
 * the first replacement is wanted, beside the old one. The old one goes when a worker of
 * the new program has said hello. Until then the old one forks the replacements of workers that end, as the
 * workerset chooses.
 */
#include "jobqd/pool/pool_private.h"

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/pool/forkserver.h"

static struct worker_program *
program_of(struct pool *pool, const struct forkserver *forkserver)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next) {
        struct worker_program *program = list_entry(at, struct worker_program, nursed);
        if (program->forkserver == forkserver)
            return program;
    }
    return NULL;
}

/* Nobody waited for a worker of it, so nobody else counts this. That the forkserver of a
 * program that never worked ends is the replacement's misfortune alone. */
static void
on_bad_end(void *owner, struct forkserver *forkserver)
{
    struct pool *pool = owner;
    if (pool->state == POOL_OPEN && !pool_is_exec(pool) &&
        program_of(pool, forkserver) == pool->last_good)
        pool_note_bad_end(pool);
}

static void
on_away(void *owner, struct forkserver *forkserver)
{
    struct pool *pool = owner;
    (void)forkserver;
    pool->needs_reconcile = true;
    pool_ask_for_turn(pool);
}

static void
on_closed(void *owner, struct forkserver *forkserver)
{
    struct pool *pool = owner;
    struct worker_program *program = program_of(pool, forkserver);
    forkserver_free(forkserver);
    program->forkserver = NULL;
    list_remove(&program->nursed);
    worker_program_unref(program);
    pool_ask_for_turn(pool);
}

static const struct forkserver_events events = {
    .on_bad_end = on_bad_end, .on_away = on_away, .on_closed = on_closed};

/* Out of memory: it is tried again, and until then no worker is started. */
static void
add(struct pool *pool, struct worker_program *program)
{
    jobq_error err;
    if (forkserver_new(&program->forkserver, program, &events, pool, &err) < 0) {
        log_error(pool->subject, "cannot create a forkserver: %s", err.message);
        return;
    }
    list_push(&pool->nursed, &program->nursed);
    program->users++; /* until on_closed */
}

/* One that has worked is kept ready for the next crash; any other is started for
 * somebody who waits. */
static bool
is_to_start(const struct pool *pool, const struct worker_program *program)
{
    if (pool_pause_left_ms(pool) > 0 || pool_is_exec(pool))
        return false;
    return program == pool->last_good || forkserver_is_awaited(program->forkserver);
}

/* While nothing has said hello yet, whichever does first will be what falls out is
 * replaced by: its forkserver must not have gone by then. */
static bool
is_kept(const struct pool *pool, const struct worker_program *program)
{
    return program == pool->program || program == pool->last_good ||
           (!pool->last_good && !pool_is_exec(pool));
}

static void
start(struct pool *pool, struct forkserver *forkserver)
{
    if (!forkserver_is_away(forkserver))
        return;
    if (!pool_may_start(pool)) {
        pool->needs_reconcile = true;
        return;
    }
    uint64_t from_ns = clock_ns();
    loop_is_at("starting a forkserver", pool->program->queue->name);
    forkserver_start(forkserver);
    turns_started(from_ns);
}

void
forkservers_step(struct pool *pool)
{
    struct worker_program *newest = pool->program;
    if (newest->queue->preload && !newest->forkserver)
        add(pool, newest);
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next) {
        struct worker_program *program = list_entry(at, struct worker_program, nursed);
        if (!is_kept(pool, program))
            forkserver_close(program->forkserver, false);
        else if (is_to_start(pool, program))
            start(pool, program->forkserver);
    }
}

void
forkservers_close(struct pool *pool, bool kill)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next)
        forkserver_close(list_entry(at, struct worker_program, nursed)->forkserver, kill);
}

void
forkservers_put_away(struct pool *pool)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next)
        forkserver_put_away(list_entry(at, struct worker_program, nursed)->forkserver);
}

bool
forkservers_is_away(const struct pool *pool)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next) {
        if (!forkserver_is_away(
                list_entry(at, struct worker_program, nursed)->forkserver))
            return false;
    }
    return true;
}
