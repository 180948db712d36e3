/* template_state.c: a template's states, what it uses, and how it breaks the protocol. */
#include "jobqd/pool/template_private.h"

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
    (BIT(TEMPLATE_LEAVING) | BIT(TEMPLATE_STOPPING) | BIT(TEMPLATE_KILLING) |            \
     BIT(TEMPLATE_ENDED))

static bool
is_legal(enum template_state from, enum template_state to)
{
    static const unsigned moves[] = {
        [TEMPLATE_AWAY] =
            BIT(TEMPLATE_BOOTING) | BIT(TEMPLATE_FAILED) | BIT(TEMPLATE_CLOSED),
        [TEMPLATE_BOOTING] = WHENEVER | BIT(TEMPLATE_READY) | BIT(TEMPLATE_FAILED),
        [TEMPLATE_READY] = WHENEVER | BIT(TEMPLATE_FORKING),
        [TEMPLATE_FORKING] = WHENEVER | BIT(TEMPLATE_READY),
        [TEMPLATE_LEAVING] = BIT(TEMPLATE_KILLING) | BIT(TEMPLATE_ENDED),
        [TEMPLATE_STOPPING] = BIT(TEMPLATE_KILLING) | BIT(TEMPLATE_ENDED),
        [TEMPLATE_KILLING] = BIT(TEMPLATE_ENDED),
        [TEMPLATE_ENDED] = BIT(TEMPLATE_AWAY),
        [TEMPLATE_FAILED] = BIT(TEMPLATE_AWAY),
        [TEMPLATE_CLOSED] = 0,
    };
    return moves[from] & BIT(to);
}

/* How long the state may last; -1: for ever. */
static int64_t
patience_ms(const struct template *template)
{
    const struct queue_config *queue = template->program->queue;
    switch (template->state) {
    case TEMPLATE_BOOTING:
    case TEMPLATE_FORKING:
        return queue->boot_timeout_ms;
    case TEMPLATE_LEAVING:
    case TEMPLATE_STOPPING:
        return queue->stop_grace_ms;
    case TEMPLATE_AWAY:
    case TEMPLATE_READY:
    case TEMPLATE_KILLING:
    case TEMPLATE_ENDED:
    case TEMPLATE_FAILED:
    case TEMPLATE_CLOSED:
        return -1;
    }
    return -1;
}

void
template_set_state(struct template *template, enum template_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        TEMPLATE_STATES(X)
#undef X
    };
    bool legal = is_legal(template->state, state);
    assert(legal);
    (void)legal;
    template->state = state;
    template->entered_ns = clock_ns();
    if (log_wants(LOG_LEVEL_DEBUG))
        log_debug(template->subject, "waits for %s", meanings[state]);
    int64_t patience = patience_ms(template);
    if (patience >= 0)
        uv_timer_start(&template->timer, template->on_timer, (uint64_t)patience, 0);
    else
        uv_timer_stop(&template->timer);
}

void
template_kill_process(struct template *template, enum intent intent)
{
    if (intent > template->intent)
        template->intent = intent;
    if (template->state == TEMPLATE_KILLING || template->state == TEMPLATE_ENDED)
        return;
    template_set_state(template, TEMPLATE_KILLING);
    template->sent_signal = SIGKILL;
    child_signal(&template->child, SIGKILL);
}

int64_t
template_memory_limit_kb(const struct template *template)
{
    return (int64_t)(template->program->queue->max_memory_hard / 1024);
}

static void
on_measured(struct watched *watched)
{
    struct template *template = list_entry(watched, struct template, watched);
    if (template->state >= TEMPLATE_KILLING ||
        watched->memory_kb <= template_memory_limit_kb(template))
        return;
    log_warning(template->subject,
                "uses %" PRId64
                " KiB of memory, more than its max_memory_hard of %" PRId64
                " KiB: killing it",
                watched->memory_kb, template_memory_limit_kb(template));
    template_kill_process(template, INTENT_MEMORY);
}

/* It gets no control group: the workers would begin in it, and what they share with it
 * stay charged to it. */
void
template_begin_watch(struct template *template)
{
    struct watched *watched = &template->watched;
    struct watch *watch = template->program->watch;
    if (template_memory_limit_kb(template) == 0)
        return;
    watched->on_measured = on_measured;
    watched->exact_from_kb = template_memory_limit_kb(template);
    watch_add(watch, watched, template->child.pid, false, template->subject);
    watch_set_busy(watch, watched, true);
}

/* It does not do what a template does. Returns false, for template_on_line to return. */
bool __attribute__((format(printf, 2, 3)))
template_complain(struct template *template, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(template->complaint, sizeof template->complaint, format, args);
    va_end(args);
    template_kill_process(template, INTENT_PROTOCOL);
    return false;
}
