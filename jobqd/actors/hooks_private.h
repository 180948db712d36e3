/* hooks_private.h: what the files of the hooks share. No other file includes it.
 *
 * From the bottom: hooks_plan.c: how each hook's program is started; hooks_story.c: what
 * it is told; hooks_declare.c: what the database is told; hooks.c: the queue of calls,
 * and their running.
 */
#ifndef JOBQD_HOOKS_PRIVATE_H
#define JOBQD_HOOKS_PRIVATE_H

#include "jobqd/actors/failures.h"
#include "jobqd/actors/hooks.h"
#include "jobqd/pool/hookrun.h"
#include "jobqd/pure/list.h"
#include "libjobq/buf.h"

enum { HOOKS_VARIABLES = 7 };

enum hooks_event { EVENT_FAILURE, EVENT_DISCARD, EVENT_COUNT };

/* How a queue's hook is started. */
struct hooks_plan {
    struct queue_config queue; /* the queue's, with the hook as its program; not owned */
    struct launch_plan launch;
    bool usable;
};

/* The plans of one configuration. Each program that runs holds them. */
struct hooks_plans {
    struct config *config; /* held */
    size_t users;
    struct hooks_plan *of; /* EVENT_COUNT for each queue, then those of [jobqd] */
};

/* One call that waits for its turn: what the program will be told. */
struct hooks_story {
    struct list link;
    enum hooks_event event;
    size_t bytes;
    int64_t job;
    char *queue;
    const char *json;
    size_t json_len;
    const char *variables[HOOKS_VARIABLES + 1];
};

struct hooks_running {
    struct hookrun *run; /* NULL: free */
    struct hooks_plans *plans;
};

struct hooks {
    struct hooks_options options;
    struct hooks_plans *plans;
    struct list waiting; /* of struct hooks_story */
    size_t n_waiting;
    size_t bytes;
    struct hooks_running running[HOOKS_AT_ONCE];
    struct hooklines lines;
    size_t n_running;
    uint64_t started_ms; /* the last one */
    uint64_t dropped;    /* not logged yet */
    uint64_t dropped_told_ms;
    char *chunk;
    uv_timer_t timer;
    bool closing;
    /* What the database is told. */
    struct jobq__buf sections;
    bool live;  /* the node is registered */
    bool asked; /* a declaration is under way */
    bool owed;  /* another one is to follow */
    uv_timer_t retry;
    int n_handles;
};

/* The options' names, by event. */
extern const char *const hooks_option_names[EVENT_COUNT];

/* ---- hooks_plan.c ---- */

/* The plans of a configuration, which they hold. NULL: no memory. A hook that cannot be
 * run is logged, and has no usable plan. */
struct hooks_plans *hooks_plans_make(struct config *config);
/* One user less; the last one frees them. NULL is accepted. */
void hooks_plans_release(struct hooks_plans *plans);
/* NULL: the queue has no such hook. A queue that is not in this configuration has the
 * hook of [jobqd]. */
struct hooks_plan *hooks_plan_find(const struct hooks_plans *plans, const char *queue,
                                   enum hooks_event event);

/* ---- hooks_story.c ---- */

/* The story of a failure, in one block of memory for free(). NULL: no memory. */
struct hooks_story *hooks_story_new(const struct failure *failure, enum hooks_event event,
                                    const char *node);
/* The kind of the story's job; lent. */
const char *hooks_story_kind(const struct hooks_story *story);

/* ---- hooks_declare.c ---- */

/* Appends what the configuration's on_discard_kind says for each queue: a JSON array. */
void hooks_put_sections(struct jobq__buf *out, const struct config *config);

#endif
