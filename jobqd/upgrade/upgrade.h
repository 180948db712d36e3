/* upgrade.h: the upgrade in place (SIGUSR2): the daemon executes the newest version of
 * its program and keeps its process, its workers, their sockets and their running jobs.
 *
 * First the new program rehearses in a child: it reads the configuration, looks whether
 * it could serve what we serve, and asks the database for its schema. Only when it says
 * that it could, the queues stand still: nothing is claimed or read from a worker, what
 * is in our hands is released or confirmed. Then everything is written down and the
 * program executed (exec_handoff.h). Whatever fails before leaves us as we were, and so does
 * a new program that does not come up.
 */
#ifndef JOBQD_UPGRADE_H
#define JOBQD_UPGRADE_H

#include <jobq/error.h>
#include <stdbool.h>
#include <uv.h>

#include "jobqd/config/config.h"
#include "jobqd/upgrade/handover.h"

/* X(enumerator, what we are waiting for) */
#define UPGRADE_STATES(X)                                                                \
    X(UPGRADE_IDLE, "a request")                                                         \
    X(UPGRADE_REHEARSING, "the new program to confirm that it can take over")            \
    X(UPGRADE_FREEZING, "the last answers to be confirmed")

enum upgrade_state {
#define X(name, meaning) name,
    UPGRADE_STATES(X)
#undef X
};

struct upgrade_events {
    /* Writes what we serve (rehearsal), and everything that is left to the new program.
     */
    int (*write)(void *owner, struct handover *handover, bool rehearsal, jobq_error *err);
    /* Let the queues stand still; then call upgrade_frozen. */
    void (*freeze)(void *owner);
    /* Back to work: it came to nothing. */
    void (*thaw)(void *owner);
    /* It came to nothing, and why. After thaw. */
    void (*on_failed)(void *owner, const char *why);
};

struct upgrade; /* private to upgrade.c */

int upgrade_new(struct upgrade **out, uv_loop_t *loop,
                const struct upgrade_events *events, void *owner);
enum upgrade_state upgrade_state(const struct upgrade *upgrade);

/* Asked for. While one is under way it is that one. */
void upgrade_begin(struct upgrade *upgrade);
/* Nothing moves any more. Does not return if the new program is executed. */
void upgrade_frozen(struct upgrade *upgrade);
/* Something came between. Harmless while none is under way. */
void upgrade_abort(struct upgrade *upgrade, const char *why);

/* Ends whatever is under way. Its memory goes with its last handle. */
void upgrade_close(struct upgrade *upgrade);

/* Whether this process is such a rehearsal, and the rehearsal: returns the exit code. */
bool upgrade_is_rehearsal(void);
int upgrade_rehearse(const struct config *config);

#endif
