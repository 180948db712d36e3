/* signals.c: see signals.h. */
#include "jobqd/proc/signals.h"

#include <signal.h>
#include <stddef.h>

static const int watched[SIGNALS_WATCHED] = {SIGTERM, SIGINT, SIGTSTP, SIGCONT, SIGUSR1,
                                             SIGUSR2, SIGHUP, SIGTTIN, SIGTTOU, SIGQUIT};

static void
mask(int how)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < SIGNALS_WATCHED; i++)
        sigaddset(&set, watched[i]);
    pthread_sigmask(how, &set, NULL);
}

void
signals_hold(void)
{
    signal(SIGPIPE, SIG_IGN);
    mask(SIG_BLOCK);
}

void
signals_release(void)
{
    mask(SIG_UNBLOCK);
}

static void
on_handle(uv_signal_t *handle, int number)
{
    struct signals *signals = handle->data;
    signals->on_signal(signals->owner, number);
}

int
signals_open(struct signals *signals, uv_loop_t *loop,
             void (*on_signal)(void *owner, int number), void *owner)
{
    signals->on_signal = on_signal;
    signals->owner = owner;
    for (size_t i = 0; i < SIGNALS_WATCHED; i++) {
        int rc = uv_signal_init(loop, &signals->handles[i]);
        signals->handles[i].data = signals;
        if (rc == 0)
            rc = uv_signal_start(&signals->handles[i], on_handle, watched[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* With its handle a signal's handler goes, and what is left would kill us: but our end is
 * decided, and an impatient operator's next SIGTERM must not turn it into a crash. They
 * are blocked meanwhile, so that none comes in between. */
void
signals_close(struct signals *signals)
{
    signals_hold();
    for (size_t i = 0; i < SIGNALS_WATCHED; i++) {
        uv_close((uv_handle_t *)&signals->handles[i], NULL);
        signal(watched[i], SIG_IGN);
    }
}
