/* longlines.c: see longlines.h. */
#include "jobqd/proc/longlines.h"

#include <stdlib.h>

enum { LOOK_MS = 1000 };

/* A property of the process: there is one memory. */
static size_t counted;
static struct list waiting = {&waiting, &waiting};
static struct list growing = {&growing, &growing};
static uv_timer_t *look; /* while some line waits */

static void
on_look_closed(uv_handle_t *handle)
{
    free(handle);
}

static void
admit(struct longline *line)
{
    line->state = LONGLINE_GROWS;
    line->moved = true;
    list_push(&growing, &line->link);
    counted += line->most;
}

static bool
has_room(size_t more)
{
    return counted == 0 || counted + more <= LONG_LINES_MAX;
}

static void
admit_waiting(void)
{
    while (!list_empty(&waiting)) {
        struct longline *line = list_entry(waiting.next, struct longline, link);
        if (!has_room(line->most))
            return;
        list_remove(&line->link);
        admit(line);
        line->on_turn(line);
    }
    if (look)
        uv_close((uv_handle_t *)look, on_look_closed);
    look = NULL;
}

static void
on_look(uv_timer_t *timer)
{
    struct list *next;
    (void)timer;
    for (struct list *at = growing.next; at != &growing; at = next) {
        struct longline *line = list_entry(at, struct longline, link);
        next = at->next;
        if (!line->moved) {
            list_remove(at);
            line->state = LONGLINE_STALLED;
            counted -= line->most;
        }
        line->moved = false;
    }
    admit_waiting();
}

/* Without memory for it nothing waits: one line more is the smaller evil. */
static bool
begin_looking(uv_loop_t *loop)
{
    if (look)
        return true;
    look = malloc(sizeof *look);
    if (!look)
        return false;
    uv_timer_init(loop, look);
    uv_timer_start(look, on_look, LOOK_MS, LOOK_MS);
    return true;
}

bool
longline_may_grow(struct longline *line, uv_loop_t *loop, size_t most)
{
    switch (line->state) {
    case LONGLINE_GROWS:
        line->moved = true;
        return true;
    case LONGLINE_WAITS:
        return false;
    case LONGLINE_STALLED: /* it goes on: counted again, and has not to wait again */
        admit(line);
        return true;
    case LONGLINE_NONE:
        break;
    }
    line->most = most;
    if ((list_empty(&waiting) && has_room(most)) || !begin_looking(loop)) {
        admit(line);
        return true;
    }
    line->state = LONGLINE_WAITS;
    list_push(&waiting, &line->link);
    return false;
}

void
longline_end(struct longline *line)
{
    if (line->state == LONGLINE_NONE)
        return;
    if (line->state == LONGLINE_GROWS)
        counted -= line->most;
    list_remove(&line->link);
    line->state = LONGLINE_NONE;
    admit_waiting();
}

bool
longlines_wait(void)
{
    return !list_empty(&waiting);
}
