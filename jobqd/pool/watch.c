/* watch.c: see watch.h. */
#include "jobqd/pool/watch.h"

#include <assert.h>
#include <stdlib.h>

#include "jobqd/base/clock.h"
#include "jobqd/base/log.h"
#include "jobqd/base/loopwatch.h"
#include "jobqd/proc/usage.h"

/* SHARE: of the time, that measuring may take: one part in so many. */
enum { SHARE = 20, EXACT_SHARE = 100, OOM_RECENT_MS = 2500 };

struct watch {
    uv_loop_t *loop;
    uv_timer_t timer;
    size_t n_joined;
    struct list watched;
    size_t n_watched;
    size_t n_busy;
    struct usage *rows; /* room for n_rows */
    size_t n_rows;
    uint64_t pause_ms; /* at least, since measuring takes its time */
    bool looked_for_groups;
    struct cgroup *cgroup; /* NULL: the kernel does not keep limits for us */
    int64_t oom_kills;     /* of the machine, when last read; -1: it does not tell */
    uint64_t oom_seen_ms;  /* when it had grown; 0: never */
};

/* A property of the process: there is one /proc. */
static struct watch *the_watch;

static void on_tick(uv_timer_t *timer);

/* ---- the clock ---- */

static void
schedule(struct watch *watch)
{
    uint64_t pause_ms = watch->n_busy > 0 ? WATCH_BUSY_MS : WATCH_IDLE_MS;
    if (pause_ms < watch->pause_ms)
        pause_ms = watch->pause_ms;
    if (!uv_is_active((uv_handle_t *)&watch->timer) ||
        uv_timer_get_due_in(&watch->timer) > pause_ms)
        uv_timer_start(&watch->timer, on_tick, pause_ms, 0);
}

/* ---- memory that the kernel is out of ---- */

static void
look_for_oom_kills(struct watch *watch)
{
    int64_t kills = usage_oom_kills();
    if (kills > watch->oom_kills && watch->oom_kills >= 0)
        watch->oom_seen_ms = clock_ns() / 1000000u;
    watch->oom_kills = kills;
}

bool
watch_saw_oom_kill(struct watch *watch)
{
    look_for_oom_kills(watch);
    return watch->oom_seen_ms != 0 &&
           clock_ns() / 1000000u - watch->oom_seen_ms < OOM_RECENT_MS;
}

bool
watch_hit_its_limit(struct watch *watch, const struct watched *watched)
{
    return watched->cgroup.serial && cgroup_oom_kills(watch->cgroup, watched->cgroup) > 0;
}

/* ---- measuring ---- */

static bool
is_over(int64_t kb, int64_t limit_kb)
{
    return limit_kb > 0 && kb > limit_kb;
}

/* Whether the two are on different sides of what somebody compares them with. */
static bool
differ(const struct watched *watched, int64_t a_kb, int64_t b_kb)
{
    return is_over(a_kb, watched->exact_from_kb) !=
               is_over(b_kb, watched->exact_from_kb) ||
           is_over(a_kb, watched->limit_kb) != is_over(b_kb, watched->limit_kb);
}

/* Between two exact looks, what has come is taken for the group's own: *guessed. */
static int64_t
exact_memory_kb(struct watched *watched, int64_t rss_kb, bool *guessed)
{
    uint64_t began_ns = clock_ns();
    int64_t guess_kb = rss_kb - watched->shared_kb;
    if (guess_kb < 0)
        guess_kb = 0;
    *guessed = watched->shared_kb >= 0 && began_ns < watched->exact_after_ns &&
               !differ(watched, guess_kb, watched->memory_kb);
    if (*guessed)
        return guess_kb;
    int64_t pss_kb = usage_pss_kb(watched->group);
    uint64_t ended_ns = clock_ns();
    watched->exact_after_ns = ended_ns + (ended_ns - began_ns) * EXACT_SHARE;
    if (pss_kb < 0 || pss_kb > rss_kb)
        pss_kb = rss_kb; /* not told, or it has grown meanwhile */
    watched->shared_kb = rss_kb - pss_kb;
    return pss_kb;
}

static void
take(struct watched *watched, const struct usage *row)
{
    if (row->processes == 0)
        return; /* it has ended, which is about to be seen */
    bool guessed = false;
    if (is_over(row->rss_kb, watched->exact_from_kb)) {
        watched->memory_kb = exact_memory_kb(watched, row->rss_kb, &guessed);
    } else {
        watched->memory_kb = row->rss_kb;
        watched->shared_kb = -1;
    }
    watched->cpu_us = row->cpu_us;
    if (!guessed && watched->memory_kb > watched->peak_kb)
        watched->peak_kb = watched->memory_kb;
    watched->on_measured(watched);
}

static int
compare_rows(const void *a, const void *b)
{
    const struct usage *left = a, *right = b;
    return (left->group > right->group) - (left->group < right->group);
}

static const struct usage *
row_of(const struct watch *watch, pid_t group)
{
    struct usage key = {.group = group};
    return bsearch(&key, watch->rows, watch->n_watched, sizeof key, compare_rows);
}

static void
measure_all(struct watch *watch)
{
    size_t n = 0;
    for (struct list *at = watch->watched.next; at != &watch->watched; at = at->next)
        watch->rows[n++].group = list_entry(at, struct watched, link)->group;
    assert(n == watch->n_watched);
    qsort(watch->rows, n, sizeof watch->rows[0], compare_rows);
    if (usage_read(watch->rows, n) < 0)
        return;
    for (struct list *at = watch->watched.next; at != &watch->watched; at = at->next) {
        struct watched *watched = list_entry(at, struct watched, link);
        take(watched, row_of(watch, watched->group));
    }
}

void
watch_measure(struct watch *watch, struct watched *watched)
{
    struct usage row = {.group = watched->group};
    (void)watch;
    if (usage_read(&row, 1) == 0)
        take(watched, &row);
}

static void
on_tick(uv_timer_t *timer)
{
    struct watch *watch = timer->data;
    uint64_t began_ns = clock_ns();
    loop_is_at("measuring what workers use", NULL);
    look_for_oom_kills(watch);
    if (watch->cgroup)
        cgroup_tidy(watch->cgroup);
    if (watch->n_watched > 0)
        measure_all(watch);
    watch->pause_ms = (clock_ns() - began_ns) * SHARE / 1000000u;
    schedule(watch);
}

/* ---- who is watched ---- */

void
watch_confine(struct watch *watch, struct watched *watched, size_t max_memory,
              const char *subject)
{
    jobq_error err;
    if (!watch->cgroup)
        return;
    /* Then jobqd looks after it itself. */
    if (cgroup_make(watch->cgroup, &watched->cgroup, max_memory, &err) < 0)
        log_warning(subject, "%s", err.message);
}

struct cgroup *
watch_cgroup(const struct watch *watch)
{
    return watch->cgroup;
}

int
watch_entrance(struct watch *watch, const struct watched *watched)
{
    return watched->cgroup.serial ? cgroup_entrance(watch->cgroup, watched->cgroup) : -1;
}

static bool
make_room(struct watch *watch)
{
    if (watch->n_watched < watch->n_rows)
        return true;
    size_t n = watch->n_rows ? watch->n_rows * 2 : 64;
    struct usage *rows = realloc(watch->rows, n * sizeof rows[0]);
    if (!rows)
        return false;
    watch->rows = rows;
    watch->n_rows = n;
    return true;
}

void
watch_add(struct watch *watch, struct watched *watched, pid_t group, bool entered,
          const char *subject)
{
    jobq_error err;
    if (watched->cgroup.serial && !entered &&
        cgroup_place(watch->cgroup, watched->cgroup, group, &err) < 0) {
        log_warning(subject, "%s", err.message);
        cgroup_remove(watch->cgroup, watched->cgroup);
        watched->cgroup.serial = 0;
    }
    watched->memory_kb = watched->peak_kb = watched->shared_kb = -1;
    if (!make_room(watch)) {
        log_warning(subject, "no memory to measure what it uses");
        return;
    }
    watched->group = group;
    list_push(&watch->watched, &watched->link);
    watch->n_watched++;
    schedule(watch);
}

void
watch_set_busy(struct watch *watch, struct watched *watched, bool busy)
{
    if (watched->group == 0 || watched->busy == busy)
        return;
    watched->busy = busy;
    watch->n_busy += busy ? 1 : (size_t)-1;
    if (busy)
        schedule(watch);
}

void
watch_remove(struct watch *watch, struct watched *watched)
{
    if (watched->group != 0) {
        watch_set_busy(watch, watched, false);
        list_remove(&watched->link);
        watch->n_watched--;
        watched->group = 0;
    }
    if (watched->cgroup.serial)
        cgroup_remove(watch->cgroup, watched->cgroup);
    watched->cgroup.serial = 0;
}

/* ---- its own life ---- */

void
watch_choose(struct watch *watch)
{
    jobq_error err;
    if (watch->looked_for_groups)
        return;
    watch->looked_for_groups = true;
    if (cgroup_open(&watch->cgroup, &err) == 0)
        log_info("jobqd",
                 "the kernel enforces max_memory_hard, through control groups in %s",
                 cgroup_folder(watch->cgroup));
    else
        log_info("jobqd",
                 "jobqd enforces max_memory_hard itself, measuring every %d ms: %s",
                 WATCH_BUSY_MS, err.message);
}

struct watch *
watch_join(uv_loop_t *loop)
{
    struct watch *watch = the_watch;
    if (!watch) {
        watch = calloc(1, sizeof *watch);
        if (!watch)
            return NULL;
        watch->loop = loop;
        watch->oom_kills = usage_oom_kills();
        list_init(&watch->watched);
        uv_timer_init(loop, &watch->timer);
        uv_unref((uv_handle_t *)&watch->timer); /* it alone is no reason to go on */
        watch->timer.data = watch;
        the_watch = watch;
        schedule(watch);
    }
    assert(watch->loop == loop);
    watch->n_joined++;
    return watch;
}

static void
on_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    cgroup_free(watch->cgroup);
    free(watch->rows);
    free(watch);
}

void
watch_leave(struct watch *watch)
{
    if (!watch || --watch->n_joined > 0)
        return;
    assert(watch->n_watched == 0);
    the_watch = NULL;
    uv_close((uv_handle_t *)&watch->timer, on_closed);
}
