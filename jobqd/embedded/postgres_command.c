/* postgres_command.c: the embedded database for the time of one command. See postgres.h.
 *
 * A command talks to the cluster that a jobqd runs. When none runs, it starts the cluster
 * on a loop of its own, holding the directory's lock as a command's, and stops it at the
 * end. Two commands take turns: one must not stop the cluster under the other.
 */
#include "jobqd/embedded/postgres.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jobqd/base/clock.h"
#include "jobqd/embedded/postgres_dir.h"
#include "libjobq/error.h"

#define READY_WAIT_MS 60000 /* for the cluster of a jobqd that is starting up */
#define PAUSE_MS 20

struct embedded_session {
    uv_loop_t loop;
    struct embedded *embedded; /* NULL: a jobqd runs the cluster */
    char *uri;                 /* owned */
    enum { SESSION_STARTING, SESSION_READY, SESSION_FAILED, SESSION_STOPPED } state;
    jobq_error error; /* SESSION_FAILED */
};

static int
running_uri(const struct postgres_dir *dir, char **uri, jobq_error *err)
{
    struct postgres_pidfile file;
    struct postgres_processes found;
    int code = postgres_dir_read_pidfile(dir, &file, err);
    if (code == JOBQ_EIO)
        return code;
    postgres_dir_processes(dir, &found);
    if (code != 0 || found.postmaster == 0)
        return jobq__error(err, JOBQ_ESTATE, "the embedded database in %s is not running",
                           dir->path);
    if (!file.ready)
        return jobq__error(
            err, JOBQ_ESTATE,
            "the embedded database in %s is not ready: it is starting or stopping",
            dir->path);
    char *copy = strdup(dir->uri);
    if (!copy)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    *uri = copy;
    return 0;
}

int
embedded_uri(const char *dir, char **uri, jobq_error *err)
{
    struct postgres_dir found;
    int code = postgres_dir_inspect(&found, dir, err);
    if (code == 0)
        code = running_uri(&found, uri, err);
    postgres_dir_clear(&found);
    return code;
}

static void
on_ready(void *owner, const char *uri)
{
    struct embedded_session *session = owner;
    (void)uri;
    session->state = SESSION_READY;
    uv_stop(&session->loop);
}

static void
on_failed(void *owner, const jobq_error *error)
{
    struct embedded_session *session = owner;
    session->state = SESSION_FAILED;
    session->error = *error;
    uv_stop(&session->loop);
}

static void
on_stopped(void *owner)
{
    struct embedded_session *session = owner;
    session->state = SESSION_STOPPED;
}

/* Stops what the session started, and runs its loop dry. */
static void
stop(struct embedded_session *session)
{
    if (!session->embedded)
        return;
    embedded_stop(session->embedded, false);
    while (session->state != SESSION_STOPPED && uv_run(&session->loop, UV_RUN_ONCE) != 0)
        ;
    embedded_free(session->embedded);
    session->embedded = NULL;
}

static void
destroy(struct embedded_session *session)
{
    stop(session);
    uv_run(&session->loop, UV_RUN_DEFAULT); /* nothing is left but closings */
    uv_loop_close(&session->loop);
    free(session->uri);
    free(session);
}

/* Starts it here. JOBQ_ESTATE also when the lock is held. */
static int
start_here(struct embedded_session *session, const char *dir, jobq_error *err)
{
    const struct embedded_options options = {.dir = dir, .for_command = true};
    const struct embedded_events events = {
        .on_ready = on_ready, .on_failed = on_failed, .on_stopped = on_stopped};
    int code =
        embedded_new(&session->embedded, &session->loop, &options, &events, session, err);
    if (code != 0) {
        session->embedded = NULL;
        return code;
    }
    session->state = SESSION_STARTING;
    while (session->state == SESSION_STARTING &&
           uv_run(&session->loop, UV_RUN_DEFAULT) != 0)
        ;
    if (session->state == SESSION_READY) {
        session->uri = strdup(embedded_connection_uri(session->embedded));
        return session->uri ? 0 : jobq__error(err, JOBQ_ENOMEM, "out of memory");
    }
    if (err)
        *err = session->error;
    return session->error.code;
}

/* One try: 0; JOBQ_ESTATE with *again set (a jobqd has it and is not ready yet: wait); or
 * another error. That another command holds it is waited for in embedded_new. */
static int
attempt(struct embedded_session *session, const char *dir, bool *again, jobq_error *err)
{
    struct postgres_dir found;
    int code = postgres_dir_inspect(&found, dir, err);
    enum postgres_holder holder = code == 0 ? postgres_dir_holder(&found) : HOLDER_NONE;
    if (code == 0 && holder == HOLDER_DAEMON) {
        code = running_uri(&found, &session->uri, err);
        *again = code == JOBQ_ESTATE;
    } else if (code == 0) {
        code = start_here(session, dir, err);
        *again = code == JOBQ_ESTATE && !session->embedded &&
                 postgres_dir_holder(&found) == HOLDER_DAEMON;
    }
    postgres_dir_clear(&found);
    return code;
}

int
embedded_run_for_command(const char *dir, struct embedded_session **out, const char **uri,
                         jobq_error *err)
{
    const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};
    struct embedded_session *session = calloc(1, sizeof *session);
    if (!session)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    int failed = uv_loop_init(&session->loop);
    if (failed != 0) {
        free(session);
        return jobq__error(err, JOBQ_EIO, "cannot make an event loop: %s",
                           uv_strerror(failed));
    }
    uint64_t until = clock_ns() + READY_WAIT_MS * 1000000ULL;
    for (;;) {
        bool again = false;
        int code = attempt(session, dir, &again, err);
        if (code == 0)
            break;
        if (!again || clock_ns() > until) {
            destroy(session);
            return code;
        }
        nanosleep(&pause, NULL);
    }
    *out = session;
    *uri = session->uri;
    return 0;
}

void
embedded_end_for_command(struct embedded_session *session)
{
    if (session)
        destroy(session);
}
