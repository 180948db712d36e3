/* turns.c: see turns.h. */
#include "jobqd/proc/turns.h"

#include "jobqd/base/clock.h"

#include <assert.h>
#include <stdlib.h>

#include <jobq/error.h>

/* SHARE: how much a new figure counts in the mean of those before it: a quarter. */
enum { SHARE = 4 };
static const int64_t BUDGET_NS = (int64_t)TURNS_BUDGET_MS * 1000000;
/* What a start is taken for to cost before any was made, and after a long pause. */
static const int64_t START_NS = 10000000, FORGET_NS = 2000000000;

struct turns {
    uv_idle_t idle;       /* while somebody waits: makes their steps */
    uv_prepare_t prepare; /* both begin time anew: before the loop waits, … */
    uv_check_t check;     /* … and after its events */
    int n_handles;
    size_t n_joined;
    struct list lines[TURN_KINDS];
    int64_t began_ns; /* when the first one asked since then; 0: nobody has */
    int64_t start_ns; /* from one start to the next, where others wait: a moving mean */
    int64_t last_ns;  /* the end of the last start … */
    bool others;      /* … and whether others waited then */
};

/* A property of the process: it has one loop that matters. */
static struct turns *the_turns;

static int64_t
now_ns(void)
{
    return (int64_t)clock_ns();
}

static bool
has_time(struct turns *turns)
{
    int64_t now = now_ns();
    if (turns->began_ns == 0)
        turns->began_ns = now;
    return now - turns->began_ns < BUDGET_NS;
}

/* ---- the lines ---- */

static void
make_steps(struct turns *turns, struct list *line)
{
    struct list *first;
    turns->began_ns = now_ns();
    do {
        first = list_pop(line);
        if (first)
            list_entry(first, struct turn, link)
                ->step(list_entry(first, struct turn, link));
    } while (first && has_time(turns));
}

static void
on_idle(uv_idle_t *idle)
{
    struct turns *turns = idle->data;
    bool waits = false;
    for (size_t i = 0; i < TURN_KINDS; i++)
        make_steps(turns, &turns->lines[i]);
    for (size_t i = 0; i < TURN_KINDS; i++)
        waits = waits || !list_empty(&turns->lines[i]);
    if (!waits)
        uv_idle_stop(idle);
}

static void
on_prepare(uv_prepare_t *prepare)
{
    struct turns *turns = prepare->data;
    turns->began_ns = 0;
}

static void
on_check(uv_check_t *check)
{
    struct turns *turns = check->data;
    turns->began_ns = 0;
}

void
turn_init(struct turn *turn, enum turn_kind kind, void (*step)(struct turn *turn))
{
    list_init(&turn->link);
    turn->kind = kind;
    turn->step = step;
}

bool
turn_waits(const struct turn *turn)
{
    return turn->link.next && !list_empty(&turn->link); /* zeroed: not yet */
}

void
turn_wait(struct turn *turn)
{
    assert(the_turns);
    if (turn_waits(turn))
        return;
    list_push(&the_turns->lines[turn->kind], &turn->link);
    uv_idle_start(&the_turns->idle, on_idle);
}

bool
turn_now(struct turn *turn)
{
    if (!the_turns)
        return true;
    if (!turn_waits(turn) && list_empty(&the_turns->lines[turn->kind]) &&
        has_time(the_turns))
        return true;
    turn_wait(turn);
    return false;
}

void
turn_leave(struct turn *turn)
{
    if (turn_waits(turn))
        list_remove(&turn->link);
}

/* ---- how long starts take ---- */

void
turns_started(uint64_t from_ns)
{
    struct turns *turns = the_turns;
    if (!turns)
        return;
    int64_t now = now_ns();
    int64_t from = (int64_t)from_ns;
    /* While others wait, what the loop does in between keeps them waiting as well. */
    if (turns->others)
        from = turns->last_ns;
    if (now - turns->last_ns > FORGET_NS && !turns->others)
        turns->start_ns = START_NS;
    turns->start_ns += (now - from - turns->start_ns) / SHARE;
    turns->last_ns = now;
    turns->others = !list_empty(&turns->lines[TURN_START]);
}

int64_t
turns_start_ms(void)
{
    return the_turns ? the_turns->start_ns / 1000000 : 0;
}

size_t
turns_starts_within(int64_t ms)
{
    int64_t start_ns = the_turns ? the_turns->start_ns : START_NS;
    int64_t n = ms * 1000000 / (start_ns > 0 ? start_ns : 1);
    return n > 1 ? (size_t)n : 1;
}

/* ---- its own life ---- */

int
turns_join(uv_loop_t *loop)
{
    struct turns *turns = the_turns;
    if (!turns) {
        turns = calloc(1, sizeof *turns);
        if (!turns)
            return JOBQ_ENOMEM;
        for (size_t i = 0; i < TURN_KINDS; i++)
            list_init(&turns->lines[i]);
        turns->start_ns = START_NS;
        uv_idle_init(loop, &turns->idle); /* none of these can fail */
        uv_prepare_init(loop, &turns->prepare);
        uv_check_init(loop, &turns->check);
        turns->idle.data = turns->prepare.data = turns->check.data = turns;
        uv_prepare_start(&turns->prepare, on_prepare);
        uv_check_start(&turns->check, on_check);
        /* They alone are no reason to go on. */
        uv_unref((uv_handle_t *)&turns->prepare);
        uv_unref((uv_handle_t *)&turns->check);
        turns->n_handles = 3;
        the_turns = turns;
    }
    assert(turns->idle.loop == loop);
    turns->n_joined++;
    return 0;
}

static void
on_closed(uv_handle_t *handle)
{
    struct turns *turns = handle->data;
    if (--turns->n_handles == 0)
        free(turns);
}

void
turns_leave(void)
{
    struct turns *turns = the_turns;
    assert(turns);
    if (--turns->n_joined > 0)
        return;
    for (size_t i = 0; i < TURN_KINDS; i++)
        assert(list_empty(&turns->lines[i]));
    the_turns = NULL;
    uv_close((uv_handle_t *)&turns->idle, on_closed);
    uv_close((uv_handle_t *)&turns->prepare, on_closed);
    uv_close((uv_handle_t *)&turns->check, on_closed);
}
