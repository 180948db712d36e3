/* signals.h: the signals that jobqd understands, as events of its loop. What one means is
 * the daemon's business. */
#ifndef JOBQD_SIGNALS_H
#define JOBQD_SIGNALS_H

#include <uv.h>

enum { SIGNALS_WATCHED = 10 };

struct signals {
    uv_signal_t handles[SIGNALS_WATCHED];
    void (*on_signal)(void *owner, int number);
    void *owner;
};

/* First thing: those signals wait until they can be handled, since what they do by
 * themselves (end a process, stop it, dump its core) is not what they mean here. PIPE is
 * ignored from here on. */
void signals_hold(void);
/* Those that have waited are delivered. */
void signals_release(void);

/* TERM, INT, QUIT, TSTP, CONT, USR1, USR2, HUP, TTIN and TTOU come to on_signal from now
 * on, once they are released. Returns 0 or libuv's error. */
int signals_open(struct signals *signals, uv_loop_t *loop,
                 void (*on_signal)(void *owner, int number), void *owner);

/* Our end is decided: nothing of the sort changes it any more. */
void signals_close(struct signals *signals);

#endif
