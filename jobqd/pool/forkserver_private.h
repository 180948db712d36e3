/* forkserver_private.h: what the files of a forkserver share. Not for anybody else.
 *
 * From the bottom: forkserver_state.c: its states; forkserver_says.c: requests, and what it
 * says; forkserver.c: its beginning and its end.
 */
#ifndef JOBQD_FORKSERVER_PRIVATE_H
#define JOBQD_FORKSERVER_PRIVATE_H

#include "jobqd/pool/launch.h"
#include "jobqd/pool/forkserver.h"
#include "jobqd/pool/worker.h"
#include "jobqd/proc/fork_handoff.h"
#include "jobqd/proc/channel.h"
#include "jobqd/proc/output.h"
#include "jobqd/pure/outcome.h"
#include "libjobq/wire.h"

enum forkserver_wanted { WANTED_OPEN, WANTED_CLOSED, WANTED_KILLED };

struct forkserver {
    enum forkserver_state state; /* changed by set_state alone */
    enum forkserver_wanted wanted;
    char subject[192]; /* for the log: "forkserver QUEUE pid P" */
    struct worker_program *program;
    const struct forkserver_events *events;
    void *owner;

    struct list waiting;              /* requests, oldest first */
    bool asking;                      /* a request was sent and has no answer yet */
    struct forkserver_request *asked; /* whose; NULL: it was forgotten */
    struct fork_handoff handoff;      /* its descriptors */
    int64_t serial;                   /* its id */

    struct child child; /* the process, in the states from BOOTING to KILLING */
    struct watched watched;
    enum intent intent;
    int sent_signal;
    bool said_hello;
    char complaint[256]; /* how it broke the protocol, or "" */
    uint64_t entered_ns; /* when the state was entered */

    struct output_rate rate;
    struct output output;
    struct channel channel;
    uv_poll_t exit_poll;
    int n_process_handles; /* of the three above, not yet closed */

    uv_timer_cb on_timer; /* forkserver.c's */
    uv_timer_t timer;     /* a state's patience; READY: the next step */
};

/* ---- forkserver_state.c ---- */

void forkserver_set_state(struct forkserver *forkserver, enum forkserver_state state);
void forkserver_kill_process(struct forkserver *forkserver, enum intent intent);
int64_t forkserver_memory_limit_kb(const struct forkserver *forkserver);
/* It gets no control group: the workers would begin in it, and what they share with it
 * stay charged to it. */
void forkserver_begin_watch(struct forkserver *forkserver);
/* It does not do what a forkserver does. Returns false, for forkserver_on_line to return. */
bool __attribute__((format(printf, 2, 3)))
forkserver_complain(struct forkserver *forkserver, const char *format, ...);

/* ---- forkserver_says.c ---- */

void forkserver_step(struct forkserver *forkserver);
/* Nobody is to come from this process any more. The first one carries the blame, so that
 * one end of a forkserver counts once. */
void forkserver_disappoint(struct forkserver *forkserver, const char *why, bool bad);
bool forkserver_on_line(void *owner, char *line, size_t len);
void forkserver_on_lines_end(void *owner);
void forkserver_on_channel_end(void *owner);
void forkserver_on_output_line(void *owner, const char *line);
void forkserver_on_output_dropped(void *owner, uint64_t lines);

/* ---- forkserver.c ---- */

#endif
