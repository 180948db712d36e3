/* boots.c: see boots.h. */
#include "jobqd/pool/boots.h"

#include <stdlib.h>
#include <unistd.h>

#include "jobqd/base/clock.h"
#include "jobqd/proc/turns.h"

enum {
    A_PROCESSOR = 8,       /* boot at a time */
    A_PROCESSOR_SHORT = 2, /* likewise, when processor time is short */
    COUNTED_MS = 1000,
    COUNTED_SHORT_MS = 5000,
    SHORT_MS = 20, /* a start takes longer only where processor time is short */
    LOOK_MS = 100
};

/* A property of the process: it has one machine. */
static struct list booting = {&booting, &booting}; /* oldest first */
static size_t n_booting;
static struct list waiting = {&waiting, &waiting};
static uv_timer_t *look; /* while somebody waits */

static bool
time_is_short(void)
{
    return turns_start_ms() > SHORT_MS;
}

static size_t
most(void)
{
    static size_t processors;
    if (processors == 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        processors = n > 0 ? (size_t)n : 1;
    }
    return processors * (time_is_short() ? A_PROCESSOR_SHORT : A_PROCESSOR);
}

void
boot_begin(struct boot *boot)
{
    boot->since_ns = clock_ns();
    list_push(&booting, &boot->link);
    n_booting++;
}

/* They take their time. */
static void
count_out(void)
{
    uint64_t now_ns = clock_ns();
    uint64_t counted_ms = time_is_short() ? COUNTED_SHORT_MS : COUNTED_MS;
    while (!list_empty(&booting)) {
        struct boot *oldest = list_entry(booting.next, struct boot, link);
        if (now_ns - oldest->since_ns < counted_ms * 1000000u)
            return;
        boot_end(oldest);
    }
}

/* As many as there is room for, though none of them has begun yet: each asks again. */
static void
call_waiting(void)
{
    for (size_t n = n_booting; n < most() && !list_empty(&waiting); n++) {
        struct boots_asker *asker =
            list_entry(list_pop(&waiting), struct boots_asker, link);
        asker->on_room(asker);
    }
}

void
boot_end(struct boot *boot)
{
    if (boot->since_ns == 0)
        return;
    boot->since_ns = 0;
    list_remove(&boot->link);
    n_booting--;
    call_waiting();
}

static void
on_look_closed(uv_handle_t *handle)
{
    free(handle);
}

static void
on_look(uv_timer_t *timer)
{
    count_out();
    call_waiting();
    if (!list_empty(&waiting))
        return;
    look = NULL;
    uv_close((uv_handle_t *)timer, on_look_closed);
}

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
boots_have_room(struct boots_asker *asker, uv_loop_t *loop)
{
    if (n_booting < most() || !begin_looking(loop))
        return true;
    if (list_empty(&asker->link))
        list_push(&waiting, &asker->link);
    return false;
}

void
boots_leave(struct boots_asker *asker)
{
    list_remove(&asker->link);
}
