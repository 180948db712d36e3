/* signals.h: the signals that jobqd understands, as events of its loop. What one means is
 * the daemon's business. */
#ifndef JOBQD_SIGNALS_H
#define JOBQD_SIGNALS_H

#include <uv.h>

enum { SIGNALS_WATCHED = 9 };

struct signals {
    uv_signal_t handles[SIGNALS_WATCHED];
    void (*on_signal)(void *owner, int number);
    void *owner;
};

/* TERM, INT, TSTP, CONT, USR1, USR2, HUP, TTIN and TTOU come to on_signal from now on;
 * PIPE is ignored. Returns 0 or libuv's error. */
int signals_open(struct signals *signals, uv_loop_t *loop,
                 void (*on_signal)(void *owner, int number), void *owner);

/* Our end is decided: nothing of the sort changes it any more. */
void signals_close(struct signals *signals);

#endif
