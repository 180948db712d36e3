/* template.h: the process that a queue's workers are forked from (`preload = true`). It
 * loads the program once; a worker is then a fork and a few microseconds away, and shares
 * the template's pages.
 *
 * This is the supervised place for such a process: when one ends that was not told to,
 * whoever waits for a worker of it hears so, and template_start puts another one there.
 * Workers that were forked before go on: they are jobqd's own children. Knows requests,
 * not what becomes of the children that it hands out. libjobq/README.md has the protocol,
 * libjobq/template.h why a worker is forked as it is.
 *
 * No callback is made from inside the functions below.
 */
#ifndef JOBQD_TEMPLATE_H
#define JOBQD_TEMPLATE_H

#include <jobq/error.h>
#include <stdbool.h>

#include "jobqd/proc/spawn.h"
#include "jobqd/pure/list.h"

/* X(enumerator, what we are waiting for) */
#define TEMPLATE_STATES(X)                                                               \
    X(TEMPLATE_AWAY, "template_start")                                                   \
    X(TEMPLATE_BOOTING, "its hello")                                                     \
    X(TEMPLATE_READY, "a worker to be wanted")                                           \
    X(TEMPLATE_FORKING, "its answer")                                                    \
    X(TEMPLATE_LEAVING, "its exit, since it has closed its socket")                      \
    X(TEMPLATE_STOPPING, "its exit, as asked")                                           \
    X(TEMPLATE_KILLING, "its exit after SIGKILL")                                        \
    X(TEMPLATE_ENDED, "its handles to close")                                            \
    X(TEMPLATE_FAILED, "the loop, to tell that it could not be started")                 \
    X(TEMPLATE_CLOSED, "template_free")

enum template_state {
#define X(name, meaning) name,
    TEMPLATE_STATES(X)
#undef X
};

struct template; /* private to template.c */
struct worker_program;

/* Somebody who wants to be forked. */
struct template_request {
    struct list link; /* list_init'ed */
    /* Either child: forked, now the callee's, and waiting for the start message. Or NULL,
     * and why there is none; bad: the program is to blame, and nobody else was told so.
     */
    void (*on_done)(struct template_request *request, const struct child *child,
                    const char *why, bool bad);
};

struct template_events {
    /* The process has ended by itself while nobody waited for a worker. */
    void (*on_bad_end)(void *owner, struct template *template);
    /* There is no process any more; template_start may be called. */
    void (*on_away)(void *owner, struct template *template);
    /* template_close is complete: template_free. */
    void (*on_closed)(void *owner, struct template *template);
};

/* No process yet. program and events outlive it. Returns 0 or a negative JOBQ_E…. */
int template_new(struct template **out, struct worker_program *program,
                 const struct template_events *events, void *owner, jobq_error *err);
void template_free(struct template *template);

/* Starts the process if there is none. That it cannot be started counts as its end. */
void template_start(struct template *template);

/* In the order of asking, one at a time, as soon as there is a process. */
void template_ask(struct template *template, struct template_request *request);
bool template_is_awaited(const struct template *template);
/* on_done will not be called. */
void template_forget(struct template *template, struct template_request *request);

/* Kills the process, without blame: who waits is told that it came to nothing, nothing is
 * born of it any more. template_start brings another. */
void template_put_away(struct template *template);
bool template_is_away(const struct template *template);

/* For ever: the process is told to go (and killed stop_grace later), or killed at once;
 * who waits is told that it came to nothing, without blame. Again, to kill after all. */
void template_close(struct template *template, bool kill);

#endif
