/* producer_holders.c: finds out, for the log, which session holds the lock that a cycle
 * waits for or has failed on.
 *
 * It does not use the work connection, which may itself be waiting for that lock. */
#include "jobqd/actors/producer_private.h"

#include <stdio.h>
#include <string.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"

enum {
    HOLDERS_EVERY_MS = 1000,    /* between two requests */
    HOLDERS_TELL_MS = 30 * 1000 /* between two log lines that say the same */
};

static void
on_holders(void *data, const struct store_answer *answer)
{
    struct producer *p = data;
    p->holders.asked = false;
    const char *text = answer->code == 0 && answer->holders ? answer->holders : "";
    uint64_t now = clock_ns();
    bool same = strncmp(text, p->holders.text, sizeof p->holders.text - 1) == 0 &&
                now - p->holders.told_ns < HOLDERS_TELL_MS * UINT64_C(1000000);
    if (*text && !same) {
        log_warning(p->subject, "waiting for a lock: %s", text);
        snprintf(p->holders.text, sizeof p->holders.text, "%s", text);
        p->holders.told_ns = now;
    }
    p->step(p);
}

void
producer_ask_holders(struct producer *p, uint64_t now)
{
    if (p->holders.asked || now < p->holders.ask_ns)
        return;
    p->holders.ask_ns = now + HOLDERS_EVERY_MS * UINT64_C(1000000);
    p->holders.asked = store_lock_holders(p->options.store, p->node, on_holders, p) == 0;
}
