/* nursery.c: the templates of a pool: which of its programs has one, and when that one is
 * started or let go. How a template lives is template.c's business, which workers are
 * wanted of it roster.c's.
 *
 * Each program has its own: a reload brings a new program, whose template is started when
 * the first replacement is wanted, beside the old one. The old one goes when a worker of
 * the new program has said hello. Until then it gives birth to what falls out, as the
 * roster chooses.
 */
#include "jobqd/pool/pool_private.h"

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/pool/template.h"

static struct worker_program *
program_of(struct pool *pool, const struct template *template)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next) {
        struct worker_program *program = list_entry(at, struct worker_program, nursed);
        if (program->template == template)
            return program;
    }
    return NULL;
}

/* Nobody waited for a worker of it, so nobody else counts this. That the template of a
 * program that never worked ends is the replacement's misfortune alone. */
static void
on_bad_end(void *owner, struct template *template)
{
    struct pool *pool = owner;
    if (pool->state == POOL_OPEN && !pool_is_exec(pool) &&
        program_of(pool, template) == pool->proven)
        pool_note_bad_end(pool);
}

static void
on_away(void *owner, struct template *template)
{
    struct pool *pool = owner;
    (void)template;
    pool->uneven = true;
    pool_ask_for_turn(pool);
}

static void
on_closed(void *owner, struct template *template)
{
    struct pool *pool = owner;
    struct worker_program *program = program_of(pool, template);
    template_free(template);
    program->template = NULL;
    list_remove(&program->nursed);
    worker_program_unref(program);
    pool_ask_for_turn(pool);
}

static const struct template_events events = {
    .on_bad_end = on_bad_end, .on_away = on_away, .on_closed = on_closed};

/* Out of memory: it is tried again, and until then no worker is started. */
static void
add(struct pool *pool, struct worker_program *program)
{
    jobq_error err;
    if (template_new(&program->template, program, &events, pool, &err) < 0) {
        log_error(pool->subject, "cannot have a template: %s", err.message);
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
    return program == pool->proven || template_is_awaited(program->template);
}

/* While nothing has said hello yet, whichever does first will be what falls out is
 * replaced by: its template must not have gone by then. */
static bool
is_kept(const struct pool *pool, const struct worker_program *program)
{
    return program == pool->program || program == pool->proven ||
           (!pool->proven && !pool_is_exec(pool));
}

static void
start(struct pool *pool, struct template *template)
{
    if (!template_is_away(template))
        return;
    if (!pool_may_start(pool)) {
        pool->uneven = true;
        return;
    }
    uint64_t from_ns = clock_ns();
    loop_is_at("starting a template", pool->program->queue->name);
    template_start(template);
    turns_started(from_ns);
}

void
nursery_step(struct pool *pool)
{
    struct worker_program *newest = pool->program;
    if (newest->queue->preload && !newest->template)
        add(pool, newest);
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next) {
        struct worker_program *program = list_entry(at, struct worker_program, nursed);
        if (!is_kept(pool, program))
            template_close(program->template, false);
        else if (is_to_start(pool, program))
            start(pool, program->template);
    }
}

void
nursery_close(struct pool *pool, bool kill)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next)
        template_close(list_entry(at, struct worker_program, nursed)->template, kill);
}

void
nursery_put_away(struct pool *pool)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next)
        template_put_away(list_entry(at, struct worker_program, nursed)->template);
}

bool
nursery_is_away(const struct pool *pool)
{
    for (struct list *at = pool->nursed.next; at != &pool->nursed; at = at->next) {
        if (!template_is_away(list_entry(at, struct worker_program, nursed)->template))
            return false;
    }
    return true;
}
