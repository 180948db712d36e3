/* forkserver_state.c: a forkserver's states, what it uses, and how it breaks the protocol. */
#include "jobqd/pool/forkserver_private.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

#define BIT(state) (1u << (state))
/* What every living process may come to at any moment. */
#define WHENEVER                                                                         \
    (BIT(FORKSERVER_LEAVING) | BIT(FORKSERVER_STOPPING) | BIT(FORKSERVER_KILLING) |      \
     BIT(FORKSERVER_ENDED))

static bool
is_legal(enum forkserver_state from, enum forkserver_state to)
{
    static const unsigned moves[] = {
        [FORKSERVER_AWAY] =
            BIT(FORKSERVER_BOOTING) | BIT(FORKSERVER_FAILED) | BIT(FORKSERVER_CLOSED),
        [FORKSERVER_BOOTING] = WHENEVER | BIT(FORKSERVER_READY) | BIT(FORKSERVER_FAILED),
        [FORKSERVER_READY] = WHENEVER | BIT(FORKSERVER_FORKING),
        [FORKSERVER_FORKING] = WHENEVER | BIT(FORKSERVER_READY),
        [FORKSERVER_LEAVING] = BIT(FORKSERVER_KILLING) | BIT(FORKSERVER_ENDED),
        [FORKSERVER_STOPPING] = BIT(FORKSERVER_KILLING) | BIT(FORKSERVER_ENDED),
        [FORKSERVER_KILLING] = BIT(FORKSERVER_ENDED),
        [FORKSERVER_ENDED] = BIT(FORKSERVER_AWAY),
        [FORKSERVER_FAILED] = BIT(FORKSERVER_AWAY),
        [FORKSERVER_CLOSED] = 0,
    };
    return moves[from] & BIT(to);
}

/* How long the state may last; -1: for ever. */
static int64_t
patience_ms(const struct forkserver *forkserver)
{
    const struct queue_config *queue = forkserver->program->queue;
    switch (forkserver->state) {
    case FORKSERVER_BOOTING:
    case FORKSERVER_FORKING:
        return queue->boot_timeout_ms;
    case FORKSERVER_LEAVING:
    case FORKSERVER_STOPPING:
        return queue->stop_grace_ms;
    case FORKSERVER_AWAY:
    case FORKSERVER_READY:
    case FORKSERVER_KILLING:
    case FORKSERVER_ENDED:
    case FORKSERVER_FAILED:
    case FORKSERVER_CLOSED:
        return -1;
    }
    return -1;
}

void
forkserver_set_state(struct forkserver *forkserver, enum forkserver_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        FORKSERVER_STATES(X)
#undef X
    };
    bool legal = is_legal(forkserver->state, state);
    assert(legal);
    (void)legal;
    forkserver->state = state;
    forkserver->entered_ns = clock_ns();
    if (log_wants(LOG_LEVEL_DEBUG))
        log_debug(forkserver->subject, "waits for %s", meanings[state]);
    int64_t patience = patience_ms(forkserver);
    if (patience >= 0)
        uv_timer_start(&forkserver->timer, forkserver->on_timer, (uint64_t)patience, 0);
    else
        uv_timer_stop(&forkserver->timer);
}

void
forkserver_kill_process(struct forkserver *forkserver, enum intent intent)
{
    if (intent > forkserver->intent)
        forkserver->intent = intent;
    if (forkserver->state == FORKSERVER_KILLING || forkserver->state == FORKSERVER_ENDED)
        return;
    forkserver_set_state(forkserver, FORKSERVER_KILLING);
    forkserver->sent_signal = SIGKILL;
    child_signal(&forkserver->child, SIGKILL);
}

int64_t
forkserver_memory_limit_kb(const struct forkserver *forkserver)
{
    return (int64_t)(forkserver->program->queue->max_memory_hard / 1024);
}

static void
on_measured(struct watched *watched)
{
    struct forkserver *forkserver = list_entry(watched, struct forkserver, watched);
    if (forkserver->state >= FORKSERVER_KILLING ||
        watched->memory_kb <= forkserver_memory_limit_kb(forkserver))
        return;
    log_warning(forkserver->subject,
                "uses %" PRId64
                " KiB of memory, more than its max_memory_hard of %" PRId64
                " KiB: killing it",
                watched->memory_kb, forkserver_memory_limit_kb(forkserver));
    forkserver_kill_process(forkserver, INTENT_MEMORY);
}

/* It gets no control group: the workers would begin in it, and what they share with it
 * stay charged to it. */
void
forkserver_begin_watch(struct forkserver *forkserver)
{
    struct watched *watched = &forkserver->watched;
    struct watch *watch = forkserver->program->watch;
    if (forkserver_memory_limit_kb(forkserver) == 0)
        return;
    watched->on_measured = on_measured;
    watched->exact_from_kb = forkserver_memory_limit_kb(forkserver);
    watch_add(watch, watched, forkserver->child.pid, false, forkserver->subject);
    watch_set_busy(watch, watched, true);
}

/* It does not do what a forkserver does. Returns false, for forkserver_on_line to return. */
bool __attribute__((format(printf, 2, 3)))
forkserver_complain(struct forkserver *forkserver, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(forkserver->complaint, sizeof forkserver->complaint, format, args);
    va_end(args);
    forkserver_kill_process(forkserver, INTENT_PROTOCOL);
    return false;
}
