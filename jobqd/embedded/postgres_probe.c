/* postgres_probe.c: asks the embedded database whether it is up, and for a checkpoint. */
#include "jobqd/embedded/postgres_private.h"

#include <stdio.h>
#include <string.h>

#include "jobqd/base/log.h"
#include "libjobq/error.h"

static void
on_checkpointed(void *data, const struct pgconn_outcome *outcome)
{
    struct embedded *embedded = data;
    if (outcome->code != 0 && embedded->state == EMBEDDED_UP)
        log_warning(SUBJECT, "the checkpoint after the start failed: %s",
                    outcome->error.message);
    embedded_close_probe(embedded);
}

/* From release 15 on, archive_timeout does nothing after a start until the checkpointer
 * has woken once. */
static void
ask_for_checkpoint(struct embedded *embedded)
{
    const struct pgconn_statement checkpoint = {.name = "checkpoint",
                                                .sql = "CHECKPOINT"};
    if (pgconn_batch(embedded->probe, &checkpoint, 1, on_checkpointed, embedded) != 0)
        embedded_close_probe(embedded);
}

static void
come_up(struct embedded *embedded)
{
    embedded_move(embedded, EMBEDDED_UP);
    embedded->was_up = true;
    embedded_wake_in(embedded, TEND_MS, TEND_MS);
    /* A command's user has asked for something else. */
    void (*tell)(const char *subject, const char *format, ...)
        __attribute__((format(printf, 2, 3))) =
            embedded->for_command ? log_debug : log_info;
    tell(SUBJECT, "PostgreSQL %d, process %d, is up in %s", embedded->dir.major,
         (int)postgres_child_pid(embedded->child), embedded->dir.path);
    ask_for_checkpoint(embedded);
    embedded->events.on_ready(embedded->owner, embedded->dir.uri);
}

static void
on_answer(void *data, const struct pgconn_outcome *outcome)
{
    struct embedded *embedded = data;
    embedded->asking = false;
    /* Anything but a clear no: the timer asks again. */
    if (embedded->state != EMBEDDED_PROBING || outcome->code != 0 ||
        PQntuples(outcome->results[0]) != 1 ||
        strcmp(PQgetvalue(outcome->results[0], 0, 0), "f") != 0)
        return;
    come_up(embedded);
}

static void
ask_for_recovery(struct embedded *embedded)
{
    const struct pgconn_statement question = {
        .name = "recovery", .sql = "SELECT pg_catalog.pg_is_in_recovery()"};
    if (embedded->asking || pgconn_state(embedded->probe) != PGCONN_READY)
        return;
    embedded->asking =
        pgconn_batch(embedded->probe, &question, 1, on_answer, embedded) == 0;
}

static void
on_probe_ready(void *owner)
{
    struct embedded *embedded = owner;
    if (embedded->state == EMBEDDED_PROBING)
        ask_for_recovery(embedded);
}

static void
on_probe_lost(void *owner, const jobq_error *why)
{
    struct embedded *embedded = owner;
    if (embedded->state == EMBEDDED_PROBING && embedded_is_time_to_note(embedded))
        log_info(SUBJECT, "does not answer yet: %s", why->message);
}

static void
on_probe_notify(void *owner, const char *channel, const char *payload)
{
    (void)owner; /* it listens to nothing */
    (void)channel;
    (void)payload;
}

/* Without memory for it the next tick tries again. */
static void
open_probe(struct embedded *embedded)
{
    const struct pgconn_options options = {.conninfo = embedded->dir.uri,
                                           .name = "probe",
                                           .on_ready = on_probe_ready,
                                           .on_lost = on_probe_lost,
                                           .on_notify = on_probe_notify,
                                           .owner = embedded};
    embedded->asking = false;
    if (pgconn_new(&embedded->probe, embedded->loop, &options) != 0)
        embedded->probe = NULL;
}

void
embedded_start_probing(struct embedded *embedded)
{
    embedded_move(embedded, EMBEDDED_PROBING);
    embedded_wake_in(embedded, PROBE_MS, PROBE_MS);
    open_probe(embedded);
}

void
embedded_probe_again(struct embedded *embedded)
{
    if (embedded->probe)
        ask_for_recovery(embedded);
    else
        open_probe(embedded);
}
