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
#include "jobqd/embedded/postgres_private.h"

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

#include "jobqd/embedded/postgres_launch.h"
#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "libjobq/error.h"

#define LOCK_WAIT_MS 10000         /* for a command to let go of the directory */
#define COMMAND_LOCK_WAIT_MS 60000 /* the same, for one of several commands */

static void on_timer(uv_timer_t *timer);
static void on_child_exit(void *owner, int status);

/* ---- ends ---- */

/* ---- up ---- */

/* ---- starting ---- */

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
        embedded_fail(embedded, &why);
        return;
    }
    took_off(embedded, &launched);
    embedded_move(embedded, EMBEDDED_INITIALIZING);
    embedded_wake_in(embedded, NOTE_MS, NOTE_MS);
    log_info(SUBJECT, "creating a new PostgreSQL %d cluster in %s as user %s",
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
        embedded_fail(embedded, &why);
        return;
    }
    took_off(embedded, &launched);
    embedded_move(embedded, EMBEDDED_STARTING);
    embedded_wake_in(embedded, LOOK_MS / 2, LOOK_MS / 2);
}

static void
wait_for_others(struct embedded *embedded, const struct postgres_processes *others)
{
    uint64_t waited = embedded_waited_ms(embedded);
    bool note = embedded_is_time_to_note(embedded);
    if (note)
        log_info(
            SUBJECT, "waiting for %d processes of an earlier start in %s to exit (%s)",
            others->count, embedded->dir.data,
            others->postmaster ? "its server is shutting down" : "its server was killed");
    if (!others->postmaster && waited >= OUST_ORPHANS_MS &&
        (note || waited < OUST_ORPHANS_MS + LOOK_MS))
        postgres_dir_quit_orphans(&embedded->dir);
    if (waited < OUST_LIMIT_MS)
        return;
    jobq_error why;
    jobq__error(&why, JOBQ_ESTATE,
                "another postgres (process %d) is still running in %s after %d s, "
                "perhaps started by hand: stop it with pg_ctl -D %s -m fast stop",
                (int)others->postmaster, embedded->dir.data, OUST_LIMIT_MS / 1000,
                embedded->dir.data);
    embedded_fail(embedded, &why);
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
    embedded_move(embedded, EMBEDDED_OUSTING);
    embedded_wake_in(embedded, LOOK_MS, LOOK_MS);
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
        embedded_start_probing(embedded);
    else if (embedded_is_time_to_note(embedded))
        log_info(SUBJECT, "still starting after %d s (recovering?); see %s",
                 (int)(embedded_waited_ms(embedded) / 1000), embedded->dir.log);
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
        embedded_probe_again(embedded);
        break;
    case EMBEDDED_UP:
        postgres_dir_trim_log(&embedded->dir);
        break;
    case EMBEDDED_INITIALIZING:
        log_info(SUBJECT, "still waiting for %s", embedded_meaning(embedded->state));
        break;
    case EMBEDDED_STOPPING: /* the timer is closed by then */
    case EMBEDDED_FAILED:
    case EMBEDDED_STOPPED:
        break;
    }
}

/* ---- the child's end ---- */

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
    embedded_fail(embedded, &why);
}

static void
initdb_ended(struct embedded *embedded, int status)
{
    jobq_error why;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_with_log(embedded, "initdb", status);
    else if (postgres_dir_adopt_fresh(&embedded->dir, embedded->binaries.major, &why) !=
             0)
        embedded_fail(embedded, &why);
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
    log_warning(SUBJECT, "did not start: it %s: %s", how, tail);
    embedded_back_off(embedded);
}

static void
went_down(struct embedded *embedded, int status)
{
    char how[80];
    postgres_child_describe(status, how, sizeof how);
    embedded->failures =
        embedded_waited_ms(embedded) >= STEADY_MS ? 0 : embedded->failures + 1;
    embedded_back_off(embedded);
    if (embedded->events.on_down)
        embedded->events.on_down(embedded->owner, how); /* whoever hears it logs it */
}

static void
on_child_exit(void *owner, int status)
{
    struct embedded *embedded = owner;
    embedded->child = NULL;
    embedded_close_probe(embedded);
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
        embedded_report_if_stopped(embedded);
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

/* ---- from outside ---- */

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
    uint64_t until = clock_ns() + wait_ms * 1000000ULL;
    for (;;) {
        enum postgres_holder held_by = HOLDER_DAEMON;
        int code = postgres_dir_lock(&embedded->dir, as, &held_by, err);
        if (code != JOBQ_ESTATE || held_by == HOLDER_DAEMON || clock_ns() > until)
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
    embedded->on_timer = on_timer;
    embedded->since_ms = uv_now(loop);
    embedded_wake_in(embedded, 0, 0);
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
    embedded_close_probe(embedded);
    embedded_move(embedded, EMBEDDED_STOPPING);
    /* Closed even while a child runs: on_stopped waits for both. */
    embedded->closing++;
    uv_close((uv_handle_t *)&embedded->timer, embedded_on_timer_closed);
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
