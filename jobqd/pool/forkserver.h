/* forkserver.h: the process that a queue's workers are forked from (`preload = true`). It
 * loads the program once; a worker is then a fork and a few microseconds away, and shares
 * the forkserver's pages.
 *
 * This is the supervised place for such a process: when one ends that was not told to,
 * whoever waits for a worker of it hears so, and forkserver_start puts another one there.
 * Workers that were forked before go on: they are jobqd's own children. Knows requests,
 * not what becomes of the children that it hands out. libjobq/README.md has the protocol,
 * libjobq/forkserver.h why a worker is forked as it is.
 *
 * No callback is made from inside the functions below.
 */
#ifndef JOBQD_FORKSERVER_H
#define JOBQD_FORKSERVER_H

#include <jobq/error.h>
#include <stdbool.h>

#include "jobqd/proc/spawn.h"
#include "jobqd/pure/list.h"

/* X(enumerator, what we are waiting for) */
#define FORKSERVER_STATES(X)                                                             \
    X(FORKSERVER_AWAY, "forkserver_start")                                               \
    X(FORKSERVER_BOOTING, "its hello")                                                   \
    X(FORKSERVER_READY, "a request for a worker")                                        \
    X(FORKSERVER_FORKING, "its answer to a request")                                     \
    X(FORKSERVER_LEAVING, "its exit: it closed its socket")                              \
    X(FORKSERVER_STOPPING, "its exit: it was asked to stop")                             \
    X(FORKSERVER_KILLING, "its exit after SIGKILL")                                      \
    X(FORKSERVER_ENDED, "its handles to close")                                          \
    X(FORKSERVER_FAILED, "the next turn of the loop, to report that it could not start") \
    X(FORKSERVER_CLOSED, "forkserver_free")

enum forkserver_state {
#define X(name, meaning) name,
    FORKSERVER_STATES(X)
#undef X
};

struct forkserver; /* private to forkserver.c */
struct worker_program;

/* A worker that is to be forked. */
struct forkserver_request {
    struct list link; /* list_init'ed */
    /* Either child: forked, now the callee's, and waiting for the start message. Or NULL,
     * and why there is none; bad: the program is to blame, and nobody else was told so.
     */
    void (*on_done)(struct forkserver_request *request, const struct child *child,
                    const char *why, bool bad);
};

struct forkserver_events {
    /* The process has ended by itself while nobody waited for a worker. */
    void (*on_bad_end)(void *owner, struct forkserver *forkserver);
    /* There is no process any more; forkserver_start may be called. */
    void (*on_away)(void *owner, struct forkserver *forkserver);
    /* forkserver_close is complete: forkserver_free. */
    void (*on_closed)(void *owner, struct forkserver *forkserver);
};

/* No process yet. program and events outlive it. Returns 0 or a negative JOBQ_E…. */
int forkserver_new(struct forkserver **out, struct worker_program *program,
                   const struct forkserver_events *events, void *owner, jobq_error *err);
void forkserver_free(struct forkserver *forkserver);

/* Starts the process if there is none. That it cannot be started counts as its end. */
void forkserver_start(struct forkserver *forkserver);

/* In the order of asking, one at a time, as soon as there is a process. */
void forkserver_ask(struct forkserver *forkserver, struct forkserver_request *request);
bool forkserver_is_awaited(const struct forkserver *forkserver);
/* on_done will not be called. */
void forkserver_forget(struct forkserver *forkserver, struct forkserver_request *request);

/* Kills the process, without blame: who waits is told that it came to nothing, nothing is
 * born of it any more. forkserver_start brings another. */
void forkserver_put_away(struct forkserver *forkserver);
bool forkserver_is_away(const struct forkserver *forkserver);

/* For ever: the process is told to go (and killed stop_grace later), or killed at once;
 * who waits is told that it came to nothing, without blame. Again, to kill after all. */
void forkserver_close(struct forkserver *forkserver, bool kill);

#endif
