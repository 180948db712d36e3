/* hookrun.h: one run of a hook's program: its input, what it prints (into the log), its
 * end. A hook that takes longer than HOOKRUN_MS is killed. Knows neither failures nor
 * queues of hooks.
 */
#ifndef JOBQD_HOOKRUN_H
#define JOBQD_HOOKRUN_H

#include <jobq/error.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "jobqd/pool/hooklines.h"
#include "jobqd/pool/launch.h"

enum { HOOKRUN_MS = 30 * 1000 };

struct hookrun;

struct hookrun_options {
    uv_loop_t *loop;
    char *chunk;      /* IO_CHUNK bytes, shared */
    const char *name; /* of the hook, for the log: "on_failure" */
    int64_t job;      /* whose end it is told of */
    const char *kind; /* copied, as the next */
    const char *queue;
    struct hooklines *lines;  /* what is said of it; outlives the run */
    int64_t timeout_ms;       /* HOOKRUN_MS, but for a test */
    struct launch_plan *plan; /* outlives the run */
    void (*on_end)(void *owner, struct hookrun *run); /* frees nothing: it frees itself */
    void *owner;
};

/* Starts the program. variables, story: as launch_hook has them; lent for the call. */
int hookrun_start(struct hookrun **out, const struct hookrun_options *options,
                  const char *const *variables, const char *story, size_t len,
                  jobq_error *err);
/* Ends it: on_end follows. */
void hookrun_kill(struct hookrun *run);

#endif
