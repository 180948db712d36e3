/* postgres.h: the embedded database: a private Postgres, run from the installed server
 * binaries as our child.
 *
 * An actor on the loop. It creates the cluster on first use, starts it, tells when it
 * takes writes, starts it again when it crashes (with back-off), and stops it. The
 * postmaster gets SIGINT from the kernel when jobqd dies, whatever jobqd dies of, so none
 * is ever left behind. It knows no schema and no jobs.
 *
 * DIR, the directory that the user names, holds:
 *
 *     jobq.lock         locked by the one jobqd (or command) that runs the cluster;
 *                       marks DIR as ours
 *     data/             PGDATA, owned by the unprivileged user that postgres runs as
 *     postgresql.conf   written at each start: initdb's settings, ours, then those of
 *                       custom.conf
 *     custom.conf       the user's own settings; never written by us
 *     pg_hba.conf, pg_ident.conf
 *                       who may connect: root, the cluster's user and whoever started it
 *     postgres.log      the server's and initdb's output, kept under 64 MiB
 *     uri               the connection URI: psql "$(cat DIR/uri)"
 *     run/              the socket, unless that path is too long for a socket (then under
 *                       /run or /tmp; see uri)
 *
 * A directory that holds anything else, or a cluster of another major version, is refused
 * and left untouched.
 */
#ifndef JOBQD_POSTGRES_H
#define JOBQD_POSTGRES_H

#include <jobq/error.h>
#include <stdbool.h>
#include <uv.h>

#include "jobqd/upgrade/handover.h"

/* X(enumerator, what we are waiting for) */
#define EMBEDDED_STATES(X)                                                               \
    X(EMBEDDED_IDLE, "the order to run")                                                 \
    X(EMBEDDED_OUSTING, "an older postmaster of this directory to exit")                 \
    X(EMBEDDED_INITIALIZING, "initdb to finish")                                         \
    X(EMBEDDED_STARTING, "postmaster.pid to say ready")                                  \
    X(EMBEDDED_PROBING, "the server to finish recovery")                                 \
    X(EMBEDDED_UP, "nothing: it takes writes")                                           \
    X(EMBEDDED_BACKING_OFF, "the pause before the next start to end")                    \
    X(EMBEDDED_STOPPING, "the child to exit")                                            \
    X(EMBEDDED_FAILED, "the order to stop: it cannot recover by itself")                 \
    X(EMBEDDED_STOPPED, "nothing")

enum embedded_state {
#define X(name, meaning) name,
    EMBEDDED_STATES(X)
#undef X
};

struct embedded; /* private to postgres.c */

struct embedded_options {
    /* DIR; created when missing. Relative paths count from the working directory. */
    const char *dir;
    /* "name=value", as after postgres' -c, for this run alone; they override the files.
     * NULL-terminated; NULL: none. */
    const char *const *settings;
    /* The lock is noted as a command's: a jobqd that starts meanwhile waits a little
     * instead of being refused. */
    bool for_command;
    /* What embedded_put wrote, for the program that takes this one's place: the cluster
     * is not started, but taken over with its lock. NULL: none. */
    const struct handover_entry *past;
};

/* All are called from the loop, never from inside a function of this header. */
struct embedded_events {
    /* It takes writes at uri (lent until embedded_free, the same each time). Again after
     * each restart. */
    void (*on_ready)(void *owner, const char *uri);
    /* It was up and went down by itself; it is being started again. why is one line. May
     * be NULL. */
    void (*on_down)(void *owner, const char *why);
    /* It does not come up and will not by itself (initdb failed, an older postmaster does
     * not go, the first starts failed); the message ends with the last lines of its log.
     * Call embedded_stop then. */
    void (*on_failed)(void *owner, const jobq_error *error);
    /* The answer to embedded_stop: nothing of it runs any more. embedded_free may be
     * called from here. */
    void (*on_stopped)(void *owner);
};

/* Takes the directory and begins to bring the cluster up. Refusals that can be known at
 * once come from here, with nothing changed on the disk: JOBQ_EINVAL (a foreign or broken
 * directory, a bad setting), JOBQ_ESTATE (another jobqd runs it; no server binaries or
 * none of its major version), JOBQ_EIO, JOBQ_ENOMEM.
 *
 * Looks at the disk and may run `postgres --version`: call it while starting up, not from
 * a callback. Ownership: options and events are copied, owner is the caller's. */
int embedded_new(struct embedded **out, uv_loop_t *loop,
                 const struct embedded_options *options,
                 const struct embedded_events *events, void *owner, jobq_error *err);

/* A fast shutdown: sessions are ended, a checkpoint is written. Ends in on_stopped, in
 * every state. With at_once (also in a second call) an immediate one: the next start
 * recovers from the log. */
void embedded_stop(struct embedded *embedded, bool at_once);

/* Leaves the running cluster to another program in this process: a record "embedded".
 * JOBQ_ESTATE: it is not up. */
int embedded_put(const struct embedded *embedded, struct handover *handover,
                 jobq_error *err);

/* Only after on_stopped, or NULL. */
void embedded_free(struct embedded *embedded);

enum embedded_state embedded_state(const struct embedded *embedded);
const char *embedded_state_name(enum embedded_state state); /* "UP" */
/* The connection URI, known from the start on; usable once on_ready was called. Lent
 * until embedded_free. */
const char *embedded_connection_uri(const struct embedded *embedded);

/* For commands, which have no loop. Both block. */

/* The URI of the cluster in dir if it runs and is ready. JOBQ_ESTATE: it does not run, or
 * is not ready yet; JOBQ_EINVAL: dir is none of ours. Ownership: *uri is malloc'ed, the
 * caller's. */
int embedded_uri(const char *dir, char **uri, jobq_error *err);

struct embedded_session; /* private to postgres_command.c */

/* The cluster in dir, for the time of a command: the running one, or else one started for
 * it (and created on first use). Waits until it takes writes. Ownership: *uri is lent
 * until embedded_end_for_command. */
int embedded_run_for_command(const char *dir, struct embedded_session **out,
                             const char **uri, jobq_error *err);
/* Stops the cluster if this session started it, and waits for that. NULL is harmless.
 * Close the connections first. */
void embedded_end_for_command(struct embedded_session *session);

#endif
