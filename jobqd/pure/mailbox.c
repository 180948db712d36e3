/* mailbox.c: see mailbox.h. */
#include "jobqd/pure/mailbox.h"

/* A slower sample counts for a quarter at once; a faster one for 1/32 a job, at most
 * half. A job that runs STUCK_TIMES longer than a full mailbox was meant to last is no
 * short one. */
enum { SLOWER = 4, FASTER = 32, STUCK_TIMES = 4 };

void
mailbox_init(struct mailbox *mailbox, size_t fixed)
{
    mailbox->fixed = fixed;
    mailbox->depth = fixed ? fixed : 1;
    mailbox->service_ns = 0;
}

static void
set_depth(struct mailbox *mailbox)
{
    uint64_t depth = MAILBOX_BUSY_MS * 1000000u / mailbox->service_ns;
    if (depth < 1)
        depth = 1;
    if (depth > MAILBOX_ADAPTIVE_MAX)
        depth = MAILBOX_ADAPTIVE_MAX;
    mailbox->depth = (size_t)depth;
}

void
mailbox_answered(struct mailbox *mailbox, size_t n, uint64_t elapsed_ns)
{
    if (mailbox->fixed || n == 0)
        return;
    uint64_t sample = elapsed_ns / n;
    uint64_t known = mailbox->service_ns;
    if (known == 0)
        known = sample;
    else if (sample > known)
        known += (sample - known) / SLOWER;
    else
        known -= (known - sample) / FASTER * (n < FASTER / 2 ? n : FASTER / 2);
    mailbox->service_ns = known > 0 ? known : 1;
    set_depth(mailbox);
}

bool
mailbox_is_stuck(struct mailbox *mailbox, uint64_t busy_ns)
{
    if (mailbox->fixed || busy_ns < (uint64_t)STUCK_TIMES * MAILBOX_BUSY_MS * 1000000u)
        return false;
    mailbox_answered(mailbox, 1, busy_ns);
    return true;
}
