/* postgres.c: the embedded database's actor: its states, and what it does in each. See
 * postgres.h.
 *
 * It drives one child at a time (initdb or the postmaster) and compares what is wanted
 * with the state at each event. The directory's contents are postgres_dir.c's business,
 * the forking postgres_child.c's.
 *
 * Why a start begins with a look for processes: after a kill -9 of jobqd the old
 * postmaster shuts down for a while yet, and after a kill -9 of the postmaster its
 * backends hold the shared memory until they notice. A start in that time fails; so it
 * waits until nothing of the cluster runs.
 */
#include "jobqd/embedded/postgres.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "jobqd/embedded/postgres_binaries.h"
#include "jobqd/embedded/postgres_child.h"
#include "jobqd/embedded/postgres_dir.h"
#include "jobqd/embedded/postgres_launch.h"
#include "jobqd/base/log.h"
#include "jobqd/db/pgconn.h"
#include "libjobq/error.h"

#define SUBJECT "postgres"
#define LOOK_MS 20U    /* between looks at the processes and at postmaster.pid */
#define PROBE_MS 100U  /* between questions to a server in recovery */
#define TEND_MS 60000U /* between looks at the log's size */
#define NOTE_MS 5000U  /* between log lines of a long wait */
#define OUST_ORPHANS_MS                                                                  \
    3000 /* after this, backends without a postmaster are told to quit */
#define OUST_LIMIT_MS (5 * 60 * 1000)
#define FIRST_START_TRIES                                                                \
    4                      /* a cluster that never came up is given up after this many   \
                            */
#define STEADY_MS 10000    /* up for so long: the back-off begins anew */
#define LOCK_WAIT_MS 10000 /* for a command to let go of the directory */
#define COMMAND_LOCK_WAIT_MS 60000 /* the same, for one of several commands */
#define BACKOFF_BASE_MS 100U
#define BACKOFF_CAP_MS 30000U

struct embedded {
    uv_loop_t *loop;
    struct embedded_events events;
    void *owner;
    struct postgres_dir dir;
    struct postgres_binaries binaries;
    char **settings; /* NULL-terminated copies; NULL: none */
    bool for_command;
    enum embedded_state state;
    uint64_t since_ms;            /* when this state began, on the loop's clock */
    uint64_t noted_ms;            /* when a long wait was last logged */
    struct postgres_child *child; /* NULL: none runs */
    off_t log_from;               /* where the child's part of the log begins */
    struct pgconn *probe; /* asks for recovery, and for a checkpoint; NULL: closed */
    bool asking;          /* a question is under way */
    int failures;         /* starts and crashes in a row without a steady time */
    bool was_up;          /* at least once in this object's life */
    uv_timer_t timer;
    int closing; /* handles and connections whose close has not been confirmed */
};

static void on_timer(uv_timer_t *timer);
static void on_child_exit(void *owner, int status);

const char *
embedded_state_name(enum embedded_state state)
{
    static const char *const names[] = {
#define X(name, meaning) #name,
        EMBEDDED_STATES(X)
#undef X
    };
    return names[state] + strlen("EMBEDDED_");
}

static const char *
meaning(enum embedded_state state)
{
    static const char *const meanings[] = {
#define X(name, meaning) meaning,
        EMBEDDED_STATES(X)
#undef X
    };
    return meanings[state];
}

static bool
may_follow(enum embedded_state from, enum embedded_state to)
{
    if (to == EMBEDDED_STOPPING)
        return from != EMBEDDED_STOPPED && from != EMBEDDED_STOPPING;
    switch (from) {
    case EMBEDDED_IDLE:
    case EMBEDDED_BACKING_OFF:
        return to == EMBEDDED_OUSTING || to == EMBEDDED_INITIALIZING ||
               to == EMBEDDED_FAILED;
    case EMBEDDED_OUSTING:
        return to == EMBEDDED_STARTING || to == EMBEDDED_FAILED;
    case EMBEDDED_INITIALIZING:
        return to == EMBEDDED_OUSTING || to == EMBEDDED_FAILED;
    case EMBEDDED_STARTING:
        return to == EMBEDDED_PROBING || to == EMBEDDED_BACKING_OFF ||
               to == EMBEDDED_FAILED;
    case EMBEDDED_PROBING:
        return to == EMBEDDED_UP || to == EMBEDDED_BACKING_OFF || to == EMBEDDED_FAILED;
    case EMBEDDED_UP:
        return to == EMBEDDED_BACKING_OFF;
    case EMBEDDED_STOPPING:
        return to == EMBEDDED_STOPPED;
    case EMBEDDED_FAILED:
    case EMBEDDED_STOPPED:
        return false;
    }
    return false;
}

static void
move(struct embedded *embedded, enum embedded_state to)
{
    bool legal = may_follow(embedded->state, to);
    assert(legal);
    (void)legal;
    log_debug(SUBJECT, "%s to %s: waiting for %s", embedded_state_name(embedded->state),
              embedded_state_name(to), meaning(to));
    embedded->state = to;
    embedded->since_ms = uv_now(embedded->loop);
    embedded->noted_ms = embedded->since_ms;
}

static uint64_t
waited_ms(const struct embedded *embedded)
{
    return uv_now(embedded->loop) - embedded->since_ms;
}

/* True once every NOTE_MS of a long wait. */
static bool
is_time_to_note(struct embedded *embedded)
{
    if (uv_now(embedded->loop) - embedded->noted_ms < NOTE_MS)
        return false;
    embedded->noted_ms = uv_now(embedded->loop);
    return true;
}

static void
wake_in(struct embedded *embedded, uint64_t delay_ms, uint64_t then_every_ms)
{
    int failed = uv_timer_start(&embedded->timer, on_timer, delay_ms, then_every_ms);
    assert(failed == 0); /* it fails for a closing handle or a missing callback alone */
    (void)failed;
}

/* --- ends --- */

static void
report_if_stopped(struct embedded *embedded)
{
    if (embedded->state != EMBEDDED_STOPPING || embedded->child || embedded->closing > 0)
        return;
    move(embedded, EMBEDDED_STOPPED);
    embedded->events.on_stopped(embedded->owner); /* may free it */
}

static void
on_timer_closed(uv_handle_t *handle)
{
    struct embedded *embedded = handle->data;
    embedded->closing--;
    report_if_stopped(embedded);
}

static void
on_probe_closed(void *owner)
{
    struct embedded *embedded = owner;
    embedded->closing--;
    report_if_stopped(embedded);
}

static void
close_probe(struct embedded *embedded)
{
    if (!embedded->probe)
        return;
    struct pgconn *probe = embedded->probe;
    embedded->probe = NULL;
    embedded->closing++;
    pgconn_close(probe, false, on_probe_closed);
}

static void
fail(struct embedded *embedded, const jobq_error *why)
{
    close_probe(embedded);
    move(embedded, EMBEDDED_FAILED);
    uv_timer_stop(&embedded->timer);
    embedded->events.on_failed(embedded->owner, why);
}

static void
back_off(struct embedded *embedded)
{
    unsigned doublings = embedded->failures < 10 ? (unsigned)embedded->failures : 10;
    uint64_t delay_ms = (uint64_t)BACKOFF_BASE_MS << doublings;
    if (delay_ms > BACKOFF_CAP_MS)
        delay_ms = BACKOFF_CAP_MS;
    delay_ms += uv_hrtime() / 1000 % (delay_ms / 4 + 1); /* jitter */
    move(embedded, EMBEDDED_BACKING_OFF);
    wake_in(embedded, delay_ms, 0);
}

/* --- up --- */

static void
on_checkpointed(void *data, const struct pgconn_outcome *outcome)
{
    struct embedded *embedded = data;
    if (outcome->code != 0 && embedded->state == EMBEDDED_UP)
        log_warning(SUBJECT, "the checkpoint after the start failed: %s",
                    outcome->error.message);
    close_probe(embedded);
}

/* From release 15 on, archive_timeout does nothing after a start until the checkpointer
 * has woken once. */
static void
ask_for_checkpoint(struct embedded *embedded)
{
    const struct pgconn_statement checkpoint = {.name = "checkpoint",
                                                .sql = "CHECKPOINT"};
    if (pgconn_batch(embedded->probe, &checkpoint, 1, on_checkpointed, embedded) != 0)
        close_probe(embedded);
}

static void
come_up(struct embedded *embedded)
{
    move(embedded, EMBEDDED_UP);
    embedded->was_up = true;
    wake_in(embedded, TEND_MS, TEND_MS);
    /* A command's user has asked for something else. */
    void (*tell)(const char *subject, const char *format, ...)
        __attribute__((format(printf, 2, 3))) =
            embedded->for_command ? log_debug : log_info;
    tell(SUBJECT, "PostgreSQL %d, process %d, takes writes in %s", embedded->dir.major,
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
    if (embedded->state == EMBEDDED_PROBING && is_time_to_note(embedded))
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

static void
start_probing(struct embedded *embedded)
{
    move(embedded, EMBEDDED_PROBING);
    wake_in(embedded, PROBE_MS, PROBE_MS);
    open_probe(embedded);
}

static void
probe_again(struct embedded *embedded)
{
    if (embedded->probe)
        ask_for_recovery(embedded);
    else
        open_probe(embedded);
}

/* --- starting --- */

static struct postgres_launcher
launcher(struct embedded *embedded)
{
    return (struct postgres_launcher){.loop = embedded->loop,
                                      .dir = &embedded->dir,
                                      .binaries = &embedded->binaries,
                                      .settings = embedded->settings,
                                      .on_exit = on_child_exit,
                                      .owner = embedded};
}

static void
took_off(struct embedded *embedded, const struct postgres_launch *launched)
{
    embedded->child = launched->child;
    embedded->log_from = launched->log_from;
}

static void
initialize(struct embedded *embedded)
{
    const struct postgres_launcher with = launcher(embedded);
    struct postgres_launch launched;
    jobq_error why;
    if (postgres_launch_initdb(&with, &launched, &why) != 0) {
        fail(embedded, &why);
        return;
    }
    took_off(embedded, &launched);
    move(embedded, EMBEDDED_INITIALIZING);
    wake_in(embedded, NOTE_MS, NOTE_MS);
    log_info(SUBJECT, "making a new PostgreSQL %d cluster in %s, as user %s",
             embedded->binaries.major, embedded->dir.data, embedded->dir.user.name);
}

static void
start_server(struct embedded *embedded)
{
    const struct postgres_launcher with = launcher(embedded);
    struct postgres_launch launched;
    jobq_error why;
    postgres_dir_remove_stale_pidfile(&embedded->dir);
    if (postgres_launch_server(&with, &launched, &why) != 0) {
        fail(embedded, &why);
        return;
    }
    took_off(embedded, &launched);
    move(embedded, EMBEDDED_STARTING);
    wake_in(embedded, LOOK_MS / 2, LOOK_MS / 2);
}

static void
wait_for_others(struct embedded *embedded, const struct postgres_processes *others)
{
    uint64_t waited = waited_ms(embedded);
    bool note = is_time_to_note(embedded);
    if (note)
        log_info(
            SUBJECT, "waiting for %d processes of an earlier start in %s to end (%s)",
            others->count, embedded->dir.data,
            others->postmaster ? "its server is shutting down" : "its server was killed");
    if (!others->postmaster && waited >= OUST_ORPHANS_MS &&
        (note || waited < OUST_ORPHANS_MS + LOOK_MS))
        postgres_dir_quit_orphans(&embedded->dir);
    if (waited < OUST_LIMIT_MS)
        return;
    jobq_error why;
    jobq__error(
        &why, JOBQ_ESTATE,
        "an earlier postgres (process %d) still runs in %s after %d s: was it started "
        "by hand? Stop it with pg_ctl -D %s -m fast stop",
        (int)others->postmaster, embedded->dir.data, OUST_LIMIT_MS / 1000,
        embedded->dir.data);
    fail(embedded, &why);
}

static void
look_for_others(struct embedded *embedded)
{
    struct postgres_processes others;
    postgres_dir_processes(&embedded->dir, &others);
    if (others.count > 0)
        wait_for_others(embedded, &others);
    else
        start_server(embedded);
}

/* From IDLE and BACKING_OFF, and after initdb. */
static void
begin(struct embedded *embedded)
{
    if (!embedded->dir.cluster) {
        initialize(embedded);
        return;
    }
    move(embedded, EMBEDDED_OUSTING);
    wake_in(embedded, LOOK_MS, LOOK_MS);
    look_for_others(embedded);
}

/* Ready is what line 8 of postmaster.pid says, if line 1 is our child: an older file is
 * still there for a moment. */
static void
look_at_pidfile(struct embedded *embedded)
{
    struct postgres_pidfile file;
    if (postgres_dir_read_pidfile(&embedded->dir, &file, NULL) == 0 && file.ready &&
        file.pid == postgres_child_pid(embedded->child))
        start_probing(embedded);
    else if (is_time_to_note(embedded))
        log_info(SUBJECT, "still starting after %d s (recovering?); see %s",
                 (int)(waited_ms(embedded) / 1000), embedded->dir.log);
}

static void
on_timer(uv_timer_t *timer)
{
    struct embedded *embedded = timer->data;
    switch (embedded->state) {
    case EMBEDDED_IDLE:
    case EMBEDDED_BACKING_OFF:
        begin(embedded);
        break;
    case EMBEDDED_OUSTING:
        look_for_others(embedded);
        break;
    case EMBEDDED_STARTING:
        look_at_pidfile(embedded);
        break;
    case EMBEDDED_PROBING:
        probe_again(embedded);
        break;
    case EMBEDDED_UP:
        postgres_dir_trim_log(&embedded->dir);
        break;
    case EMBEDDED_INITIALIZING:
        log_info(SUBJECT, "still waiting for %s", meaning(embedded->state));
        break;
    case EMBEDDED_STOPPING: /* the timer is closed by then */
    case EMBEDDED_FAILED:
    case EMBEDDED_STOPPED:
        break;
    }
}

/* --- the child's end --- */

static void
fail_with_log(struct embedded *embedded, const char *what, int status)
{
    char how[80];
    char tail[320];
    jobq_error why;
    postgres_child_describe(status, how, sizeof how);
    postgres_dir_log_tail(&embedded->dir, embedded->log_from, tail, sizeof tail);
    jobq__error(&why, JOBQ_ESTATE, "%s %s: %s", what, how,
                tail[0] ? tail : embedded->dir.log);
    fail(embedded, &why);
}

static void
initdb_ended(struct embedded *embedded, int status)
{
    jobq_error why;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_with_log(embedded, "initdb", status);
    else if (postgres_dir_adopt_fresh(&embedded->dir, embedded->binaries.major, &why) !=
             0)
        fail(embedded, &why);
    else
        begin(embedded);
}

/* Shared memory or a lock file of an earlier start: time heals that. */
static bool
is_passing(const char *tail)
{
    return strstr(tail, "pre-existing shared memory block") ||
           strstr(tail, "lock file \"postmaster.pid\" already exists");
}

static void
start_failed(struct embedded *embedded, int status)
{
    char how[80];
    char tail[320];
    postgres_child_describe(status, how, sizeof how);
    postgres_dir_log_tail(&embedded->dir, embedded->log_from, tail, sizeof tail);
    embedded->failures++;
    if (!embedded->was_up && embedded->failures >= FIRST_START_TRIES &&
        !is_passing(tail)) {
        fail_with_log(embedded, "postgres does not start: it", status);
        return;
    }
    log_warning(SUBJECT, "did not come up: it %s: %s", how, tail);
    back_off(embedded);
}

static void
went_down(struct embedded *embedded, int status)
{
    char how[80];
    postgres_child_describe(status, how, sizeof how);
    embedded->failures = waited_ms(embedded) >= STEADY_MS ? 0 : embedded->failures + 1;
    back_off(embedded);
    if (embedded->events.on_down)
        embedded->events.on_down(embedded->owner, how); /* whoever hears it logs it */
}

static void
on_child_exit(void *owner, int status)
{
    struct embedded *embedded = owner;
    embedded->child = NULL;
    close_probe(embedded);
    switch (embedded->state) {
    case EMBEDDED_INITIALIZING:
        initdb_ended(embedded, status);
        break;
    case EMBEDDED_STARTING:
    case EMBEDDED_PROBING:
        start_failed(embedded, status);
        break;
    case EMBEDDED_UP:
        went_down(embedded, status);
        break;
    case EMBEDDED_STOPPING:
        report_if_stopped(embedded);
        break;
    case EMBEDDED_IDLE:
    case EMBEDDED_OUSTING:
    case EMBEDDED_BACKING_OFF:
    case EMBEDDED_FAILED:
    case EMBEDDED_STOPPED:
        assert(false && "a child in a state that has none");
        break;
    }
}

/* --- from outside --- */

static int
copy_settings(struct embedded *embedded, const char *const *settings)
{
    size_t n = 0;
    while (settings && settings[n])
        n++;
    embedded->settings = calloc(n + 1, sizeof *embedded->settings);
    for (size_t i = 0; embedded->settings && i < n; i++)
        if (!(embedded->settings[i] = strdup(settings[i])))
            return JOBQ_ENOMEM;
    return embedded->settings ? 0 : JOBQ_ENOMEM;
}

/* A command holds the lock for moments: that is waited for. Another daemon is not. */
static int
take_lock(struct embedded *embedded, jobq_error *err)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    enum postgres_holder as = embedded->for_command ? HOLDER_COMMAND : HOLDER_DAEMON;
    uint64_t wait_ms = embedded->for_command ? COMMAND_LOCK_WAIT_MS : LOCK_WAIT_MS;
    uint64_t until = uv_hrtime() + wait_ms * 1000000ULL;
    for (;;) {
        enum postgres_holder held_by = HOLDER_DAEMON;
        int code = postgres_dir_lock(&embedded->dir, as, &held_by, err);
        if (code != JOBQ_ESTATE || held_by == HOLDER_DAEMON || uv_hrtime() > until)
            return code;
        nanosleep(&pause, NULL);
    }
}

/* The lock is the open file's, and came along. */
static int
take_over(struct embedded *embedded, const char *path, const struct handover_entry *past,
          jobq_error *err)
{
    int64_t pid, lock_fd, log_from;
    int code = handover_get_int(past, "pid", 1, INT32_MAX, &pid, err);
    if (code == 0)
        code = handover_get_int(past, "lock_fd", 3, INT32_MAX, &lock_fd, err);
    if (code == 0)
        code = handover_get_int(past, "log_from", 0, INT64_MAX, &log_from, err);
    if (code == 0)
        code = postgres_dir_inspect(&embedded->dir, path, err);
    if (code != 0)
        return code;
    embedded->log_from = (off_t)log_from;
    embedded->was_up = true;
    code = postgres_binaries_find(&embedded->binaries, embedded->dir.major, err);
    if (code == 0)
        code = postgres_child_adopt(&embedded->child, embedded->loop, (pid_t)pid,
                                    on_child_exit, embedded, err);
    if (code != 0)
        return code;
    embedded->dir.lock = (int)lock_fd;
    embedded->state = EMBEDDED_STARTING; /* it will be found ready */
    return 0;
}

/* Finds what is there, and takes it. What is found without the lock may change until it
 * is held: whoever held it may have made the cluster. So the cluster, and with it the
 * version, is looked at twice. */
static int
take_directory(struct embedded *embedded, const char *path, jobq_error *err)
{
    int code = postgres_dir_inspect(&embedded->dir, path, err);
    if (code == 0)
        code = postgres_binaries_find(&embedded->binaries, embedded->dir.major, err);
    if (code == 0)
        code = take_lock(embedded, err);
    if (code != 0 || embedded->dir.major == 0 ||
        embedded->dir.major == embedded->binaries.major)
        return code;
    postgres_binaries_clear(&embedded->binaries);
    return postgres_binaries_find(&embedded->binaries, embedded->dir.major, err);
}

int
embedded_new(struct embedded **out, uv_loop_t *loop,
             const struct embedded_options *options, const struct embedded_events *events,
             void *owner, jobq_error *err)
{
    struct embedded *embedded = calloc(1, sizeof *embedded);
    if (!embedded)
        return jobq__error(err, JOBQ_ENOMEM, "out of memory");
    embedded->dir.lock = -1;
    embedded->loop = loop;
    embedded->events = *events;
    embedded->owner = owner;
    embedded->state = EMBEDDED_IDLE;
    embedded->for_command = options->for_command;
    int code = postgres_settings_check(options->settings, err);
    if (code == 0 && copy_settings(embedded, options->settings) != 0)
        code = jobq__error(err, JOBQ_ENOMEM, "out of memory");
    if (code == 0 && options->past)
        code = take_over(embedded, options->dir, options->past, err);
    else if (code == 0)
        code = take_directory(embedded, options->dir, err);
    if (code == 0) {
        int failed = uv_timer_init(loop, &embedded->timer);
        if (failed != 0)
            code = jobq__error(err, JOBQ_EIO, "cannot make a timer: %s",
                               uv_strerror(failed));
    }
    if (code != 0) {
        embedded_free(embedded);
        return code;
    }
    embedded->timer.data = embedded;
    embedded->since_ms = uv_now(loop);
    wake_in(embedded, 0, 0);
    *out = embedded;
    return 0;
}

int
embedded_put(const struct embedded *embedded, struct handover *handover, jobq_error *err)
{
    if (embedded->state != EMBEDDED_UP || !embedded->child)
        return jobq__error(err, JOBQ_ESTATE, "the embedded database is not up");
    handover_record(handover, "embedded");
    handover_put_int(handover, "pid", postgres_child_pid(embedded->child));
    handover_put_int(handover, "log_from", embedded->log_from);
    handover_put_fd(handover, "lock_fd", embedded->dir.lock);
    return 0;
}

static int
stop_signal(enum embedded_state was, bool at_once)
{
    if (was == EMBEDDED_INITIALIZING)
        return SIGTERM;
    return at_once ? SIGQUIT : SIGINT;
}

void
embedded_stop(struct embedded *embedded, bool at_once)
{
    enum embedded_state was = embedded->state;
    if (was == EMBEDDED_STOPPED)
        return;
    if (embedded->child && (was != EMBEDDED_STOPPING || at_once))
        postgres_child_signal(embedded->child, stop_signal(was, at_once));
    if (was == EMBEDDED_STOPPING)
        return;
    close_probe(embedded);
    move(embedded, EMBEDDED_STOPPING);
    /* Closed even while a child runs: on_stopped waits for both. */
    embedded->closing++;
    uv_close((uv_handle_t *)&embedded->timer, on_timer_closed);
}

void
embedded_free(struct embedded *embedded)
{
    if (!embedded)
        return;
    for (char **setting = embedded->settings; setting && *setting; setting++)
        free(*setting);
    free(embedded->settings);
    postgres_binaries_clear(&embedded->binaries);
    postgres_dir_clear(&embedded->dir);
    free(embedded);
}

enum embedded_state
embedded_state(const struct embedded *embedded)
{
    return embedded->state;
}

const char *
embedded_connection_uri(const struct embedded *embedded)
{
    return embedded->dir.uri;
}
