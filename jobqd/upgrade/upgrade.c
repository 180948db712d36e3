/* upgrade.c: see upgrade.h. */
#include "jobqd/upgrade/upgrade.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "jobqd/db/migrate.h"
#include "jobqd/db/query.h"
#include "jobqd/proc/signals.h"
#include "jobqd/upgrade/exec_handoff.h"
#include "jobqd/config/conninfo.h"
#include "jobqd/config/units.h"
#include "jobqd/base/log.h"
#include "jobqd/base/self.h"
#include "jobqd/proc/spawn.h"
#include "libjobq/error.h"

extern char **environ;

#define SUBJECT "upgrade"
#define REHEARSAL "JOBQ_REHEARSAL"
/* What a program has to say in the end: that it could take over, and that it knows the
 * way back. */
#define PROMISE "jobqd-upgrade 1 ready "

/* FREEZE_LIMIT_MS: claims and answers wait meanwhile, so the database has to be quick. */
enum { REHEARSAL_LIMIT_MS = 30 * 1000, FREEZE_LIMIT_MS = 5000, SAID_LEN = 4096 };

struct upgrade {
    enum upgrade_state state;
    uv_loop_t *loop;
    struct upgrade_events events;
    void *owner;
    uv_timer_t limit;
    uv_poll_t exit_poll; /* on the rehearsal's pidfd; UPGRADE_REHEARSING */
    struct child child;
    bool has_child; /* not reaped yet, or its poll not closed */
    bool closing;
    char *said; /* SAID_LEN + 1 bytes: the end of what the rehearsal printed */
    size_t said_len;
};

static void
set_state(struct upgrade *upgrade, enum upgrade_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) [name] = meaning,
        UPGRADE_STATES(X)
#undef X
    };
    /* From each state to the next, and back to the first. */
    assert(state == UPGRADE_IDLE || state == upgrade->state + 1);
    upgrade->state = state;
    log_debug(SUBJECT, "waits for %s", meanings[state]);
}

static void
on_limit_closed(uv_handle_t *handle)
{
    struct upgrade *upgrade = handle->data;
    free(upgrade->said);
    free(upgrade);
}

static void
fail(struct upgrade *upgrade, const char *why)
{
    bool frozen = upgrade->state == UPGRADE_FREEZING;
    uv_timer_stop(&upgrade->limit);
    set_state(upgrade, UPGRADE_IDLE);
    log_error(SUBJECT, "failed, this jobqd keeps running: %s", why);
    if (frozen)
        upgrade->events.thaw(upgrade->owner);
    upgrade->events.on_failed(upgrade->owner, why);
}

/* ---- the rehearsal, seen from here ---- */

/* It prints little; more than its pipe holds would make it wait for ever, so the pipe is
 * emptied at its end or at the limit, whatever comes first. Never waits: a process that
 * it left behind may hold the other end. */
static void
read_said(struct upgrade *upgrade)
{
    for (;;) {
        if (upgrade->said_len == SAID_LEN) { /* the last words count */
            upgrade->said_len = SAID_LEN / 2;
            memmove(upgrade->said, upgrade->said + SAID_LEN - upgrade->said_len,
                    upgrade->said_len);
        }
        ssize_t n = read(upgrade->child.output_fd, upgrade->said + upgrade->said_len,
                         SAID_LEN - upgrade->said_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        upgrade->said_len += (size_t)n;
    }
    upgrade->said[upgrade->said_len] = '\0';
}

/* The last line of what it printed, without its newline. */
static char *
last_line(struct upgrade *upgrade)
{
    char *text = upgrade->said;
    size_t len = upgrade->said_len;
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    char *newline = strrchr(text, '\n');
    return newline ? newline + 1 : text;
}

static void on_limit(uv_timer_t *timer);

static void
freeze(struct upgrade *upgrade)
{
    set_state(upgrade, UPGRADE_FREEZING);
    uv_timer_start(&upgrade->limit, on_limit, FREEZE_LIMIT_MS, 0);
    upgrade->events.freeze(upgrade->owner);
}

static void
rehearsed(struct upgrade *upgrade, const struct child_end *end)
{
    char *line = last_line(upgrade);
    const size_t promise = sizeof PROMISE - 1;
    char why[600];
    if (end->exit_code == 0 && strncmp(line, PROMISE, promise) == 0) {
        log_info(SUBJECT, "jobqd %s can take over; pausing all queues for the switch",
                 line + promise);
        freeze(upgrade);
        return;
    }
    if (end->signal != 0)
        snprintf(why, sizeof why, "%s was killed by signal %d during the rehearsal: %s",
                 self_path(), end->signal, line);
    else if (end->exit_code == 0)
        snprintf(why, sizeof why, "%s is not a jobqd that can take over", self_path());
    else
        snprintf(why, sizeof why, "%s could not take over (exit code %d): %s",
                 self_path(), end->exit_code, line);
    fail(upgrade, why);
}

static void
free_if_closed(struct upgrade *upgrade)
{
    if (!upgrade->closing || upgrade->has_child ||
        uv_is_closing((uv_handle_t *)&upgrade->limit))
        return;
    uv_close((uv_handle_t *)&upgrade->limit, on_limit_closed);
}

static void
on_poll_closed(uv_handle_t *handle)
{
    struct upgrade *upgrade = handle->data;
    upgrade->has_child = false;
    free_if_closed(upgrade);
}

static void
on_rehearsal_end(uv_poll_t *poll, int status, int events)
{
    struct upgrade *upgrade = poll->data;
    (void)status;
    (void)events;
    struct child_end end;
    jobq_error err;
    struct child_failure failure = child_failure(&upgrade->child);
    if (child_reap(&upgrade->child, &end, &err) < 0)
        return; /* not yet: the poll tells again */
    uv_poll_stop(poll);
    uv_timer_stop(&upgrade->limit);
    read_said(upgrade);
    child_close(&upgrade->child);
    uv_close((uv_handle_t *)poll, on_poll_closed);
    if (upgrade->state != UPGRADE_REHEARSING)
        return;
    char text[600];
    snprintf(text, sizeof text, "%s cannot be executed: %s%s%s", self_path(),
             strerror(failure.why), failure.text[0] ? ": " : "", failure.text);
    if (failure.step != LIMITS_DONE)
        fail(upgrade, text);
    else
        rehearsed(upgrade, &end);
}

static void
on_limit(uv_timer_t *timer)
{
    struct upgrade *upgrade = timer->data;
    if (upgrade->state == UPGRADE_FREEZING) {
        fail(upgrade, "the database did not confirm the last answers in time");
        return;
    }
    child_signal(&upgrade->child, SIGKILL);
    char why[200];
    snprintf(why, sizeof why, "the new program's rehearsal took longer than %d s",
             REHEARSAL_LIMIT_MS / 1000);
    fail(upgrade, why);
}

/* The document is its stdin: it reads what we serve there. */
static int
start_rehearsal(struct upgrade *upgrade, jobq_error *err)
{
    struct handover handover = {0};
    int document = -1;
    char **environment = NULL;
    int rc = upgrade->events.write(upgrade->owner, &handover, true, err);
    if (rc == 0)
        rc = handover_seal(&handover, &document, err);
    handover_clear(&handover);
    if (rc < 0)
        return rc;
    size_t n = 0;
    while (environ[n])
        n++;
    environment = calloc(n + 2, sizeof *environment);
    if (environment) {
        memcpy(environment, environ, n * sizeof *environ);
        char rehearsal[] = REHEARSAL "=1";
        environment[n] = rehearsal;
        struct spawn_options options = {.path = self_path(),
                                        .argv = self_argv(),
                                        .environment = environment,
                                        .stdin_fd = document};
        rc = spawn_child(&upgrade->child, &options, err);
    } else {
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory for a rehearsal");
    }
    free(environment);
    close(document);
    return rc;
}

void
upgrade_begin(struct upgrade *upgrade)
{
    jobq_error err;
    if (upgrade->state != UPGRADE_IDLE) {
        log_info(SUBJECT, "already in progress");
        return;
    }
    if (upgrade->has_child) {
        fail(upgrade, "the previous rehearsal has not ended yet: try again");
        return;
    }
    log_info(SUBJECT, "rehearsing with %s", self_path());
    set_state(upgrade, UPGRADE_REHEARSING);
    if (start_rehearsal(upgrade, &err) < 0) {
        fail(upgrade, err.message);
        return;
    }
    upgrade->said_len = 0;
    fcntl(upgrade->child.output_fd, F_SETFL, O_NONBLOCK);
    int rc = uv_poll_init(upgrade->loop, &upgrade->exit_poll, upgrade->child.pidfd);
    if (rc < 0) {
        child_discard(&upgrade->child);
        fail(upgrade, uv_strerror(rc));
        return;
    }
    upgrade->has_child = true;
    upgrade->exit_poll.data = upgrade;
    uv_poll_start(&upgrade->exit_poll, UV_READABLE, on_rehearsal_end);
    uv_timer_start(&upgrade->limit, on_limit, REHEARSAL_LIMIT_MS, 0);
}

/* ---- the upgrade itself ---- */

void
upgrade_frozen(struct upgrade *upgrade)
{
    struct handover handover = {0};
    jobq_error err;
    int document = -1;
    assert(upgrade->state == UPGRADE_FREEZING);
    int rc = upgrade->events.write(upgrade->owner, &handover, false, &err);
    if (rc == 0)
        rc = handover_seal(&handover, &document, &err);
    if (rc == 0) {
        signals_hold(); /* until the new program can handle them */
        exec_handoff_execute(&handover, document, &err);
        signals_release(); /* nothing was executed */
    }
    if (document >= 0)
        close(document);
    handover_clear(&handover);
    fail(upgrade, err.message);
}

void
upgrade_abort(struct upgrade *upgrade, const char *why)
{
    if (upgrade->state == UPGRADE_IDLE)
        return;
    if (upgrade->state == UPGRADE_REHEARSING)
        child_signal(&upgrade->child, SIGKILL);
    fail(upgrade, why);
}

/* ---- its life ---- */

int
upgrade_new(struct upgrade **out, uv_loop_t *loop, const struct upgrade_events *events,
            void *owner)
{
    struct upgrade *upgrade = calloc(1, sizeof *upgrade);
    char *said = malloc(SAID_LEN + 1);
    if (!upgrade || !said) {
        free(upgrade);
        free(said);
        return JOBQ_ENOMEM;
    }
    upgrade->said = said;
    upgrade->loop = loop;
    upgrade->events = *events;
    upgrade->owner = owner;
    uv_timer_init(loop, &upgrade->limit);
    upgrade->limit.data = upgrade;
    *out = upgrade;
    return 0;
}

enum upgrade_state
upgrade_state(const struct upgrade *upgrade)
{
    return upgrade->state;
}

void
upgrade_close(struct upgrade *upgrade)
{
    if (upgrade->has_child && upgrade->state == UPGRADE_REHEARSING)
        child_signal(&upgrade->child, SIGKILL);
    upgrade->state = UPGRADE_IDLE;
    upgrade->closing = true;
    free_if_closed(upgrade);
}

/* ---- the rehearsal, seen from within ---- */

bool
upgrade_is_rehearsal(void)
{
    return getenv(REHEARSAL) != NULL;
}

static const struct queue_config *
find_queue(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->n_queues; i++)
        if (strcmp(config->queues[i].name, name) == 0)
            return &config->queues[i];
    return NULL;
}

/* Workers run for each queue of the document: somebody has to take them over. */
static int
check_queue(const struct config *config, const struct handover_entry *entry,
            jobq_error *err)
{
    const char *name, *mode;
    int rc = handover_get_bytes(entry, "name", &name, NULL, err);
    if (rc == 0)
        rc = handover_get_bytes(entry, "mode", &mode, NULL, err);
    if (rc < 0)
        return rc;
    const struct queue_config *queue = find_queue(config, name);
    if (!queue)
        return jobq__error(err, JOBQ_EINVAL,
                           "queue %s is being served but is no longer in the "
                           "configuration: reload first (SIGHUP)",
                           name);
    if (strcmp(mode, queue->mode == QUEUE_EXEC ? "exec" : "command") != 0)
        return jobq__error(err, JOBQ_EINVAL,
                           "queue %s is being served with `%s` but has another mode in "
                           "the configuration: reload first (SIGHUP)",
                           name, mode);
    return 0;
}

static int
check_same(const struct handover_entry *entry, const char *field, const char *ours,
           jobq_error *err)
{
    const char *theirs;
    int rc = handover_get_bytes(entry, field, &theirs, NULL, err);
    if (rc == 0 && strcmp(theirs, ours) != 0)
        rc = jobq__error(err, JOBQ_EINVAL,
                         "%s is \"%s\" in the configuration but \"%s\" in the running "
                         "jobqd: restart to change it",
                         field, ours, theirs);
    return rc;
}

/* The same database, though its password may be a new one. The strings themselves are not
 * told: they may hold secrets. */
static int
check_place(const char *theirs, const char *ours, jobq_error *err)
{
    struct jobq__buf shown[2] = {{0}, {0}};
    conninfo_redact(&shown[0], theirs);
    conninfo_redact(&shown[1], ours);
    const char *before = jobq__buf_cstr(&shown[0]);
    const char *after = jobq__buf_cstr(&shown[1]);
    int rc = 0;
    if (!before || !after)
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory to rehearse");
    else if (strcmp(before, after) != 0)
        rc = jobq__error(err, JOBQ_EINVAL,
                         "database is \"%s\" in the configuration but \"%s\" in the "
                         "running jobqd: restart to change it",
                         after, before);
    jobq__buf_clear(&shown[0]);
    jobq__buf_clear(&shown[1]);
    return rc;
}

/* The lease was taken for the running length: with another, its end would be misjudged.
 * Shown exactly, as the configuration writes it: the two may differ by little. */
static int
check_lease(const struct handover_entry *entry, const struct config *config,
            jobq_error *err)
{
    int64_t lease_ms;
    int rc = handover_get_int(entry, "lease_ms", 1, INT64_MAX, &lease_ms, err);
    if (rc < 0 || lease_ms == config->lease_ms)
        return rc;
    struct jobq__buf fresh = {0}, running = {0};
    units_put_duration(&fresh, config->lease_ms);
    units_put_duration(&running, lease_ms);
    const char *after = jobq__buf_cstr(&fresh), *before = jobq__buf_cstr(&running);
    if (!before || !after)
        rc = jobq__error(err, JOBQ_ENOMEM, "no memory to rehearse");
    else
        rc = jobq__error(err, JOBQ_EINVAL,
                         "lease is %s in the configuration but %s in the running jobqd: "
                         "restart to change it",
                         after, before);
    jobq__buf_clear(&fresh);
    jobq__buf_clear(&running);
    return rc;
}

static int
check_database(const struct handover_entry *entry, const struct config *config,
               jobq_error *err)
{
    const char *conninfo;
    int rc = handover_get_bytes(entry, "conninfo", &conninfo, NULL, err);
    if (rc == 0 && !config->embedded) { /* what the new program would use */
        const char *ours = config->database ? config->database : "";
        rc = check_place(conninfo, ours, err);
        conninfo = ours;
    }
    PGconn *conn = NULL;
    if (rc == 0)
        rc = query_connect(conninfo, &conn, err);
    int found;
    if (rc == 0)
        rc = migrate_check(conn, config->schema, &found, err);
    PQfinish(conn);
    return rc;
}

static int
check_all(const struct config *config, jobq_error *err)
{
    struct handover_reader *reader;
    int rc = handover_open(&reader, STDIN_FILENO, err);
    if (rc < 0)
        return rc;
    const struct handover_entry *at = NULL;
    while (rc == 0 && (at = handover_next(reader, at)) != NULL) {
        if (handover_is(at, "queue"))
            rc = check_queue(config, at, err);
        if (!handover_is(at, "jobqd"))
            continue;
        rc = check_same(at, "node", config->node, err);
        if (rc == 0)
            rc = check_same(at, "schema", config->schema, err);
        if (rc == 0)
            rc =
                check_same(at, "embedded", config->embedded ? config->embedded : "", err);
        if (rc == 0)
            rc = check_lease(at, config, err);
        if (rc == 0)
            rc = check_database(at, config, err);
    }
    handover_close(reader);
    return rc;
}

int
upgrade_rehearse(const struct config *config)
{
    jobq_error err;
    if (check_all(config, &err) < 0) {
        printf("%s\n", err.message);
        return EX_CONFIG;
    }
    printf("%s%s\n", PROMISE, JOBQ_VERSION);
    return EX_OK;
}
