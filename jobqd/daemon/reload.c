/* reload.c: see reload.h. */
#include "jobqd/daemon/reload.h"

#include <stdbool.h>
#include <string.h>

#include "jobqd/cli/session.h"
#include "jobqd/base/log.h"
#include "jobqd/config/options.h"
#include "libjobq/buf.h"

/* The options of [jobqd] that nothing was built upon. */
static const char *const at_once[] = {
    "log_level",       "log_format",  "poll_interval",  "shutdown_grace",
    "keep_completed",  "keep_failed", "keep_cancelled", "keep_discarded",
    "max_frame",       "on_failure",  "on_discard",     "on_discard_kind",
    "on_discard_queue"};

static bool
counts_at_once(const struct option_row *row)
{
    for (size_t i = 0; i < sizeof at_once / sizeof at_once[0]; i++) {
        if (strcmp(at_once[i], row->name) == 0)
            return true;
    }
    return false;
}

int
reload_read(struct config **out, const struct cli *cli, jobq_error *err)
{
    return session_read_queues(out, cli, LAUNCH_STARTS, err);
}

static void
add_name(struct jobq__buf *names, const char *name)
{
    jobq__buf_adds(names, names->len > 0 ? ", " : "");
    jobq__buf_adds(names, name);
}

void
reload_log_changes(const struct config *booted, const struct config *running,
                   const struct config *fresh)
{
    struct jobq__buf changed = {0};
    struct jobq__buf later = {0};
    for (size_t i = 0; i < jobqd_options_count; i++) {
        const struct option_row *row = &jobqd_options[i];
        if (!counts_at_once(row) && !option_equal(row, booted, fresh))
            add_name(&later, row->name);
        else if (counts_at_once(row) && !option_equal(row, running, fresh))
            add_name(&changed, row->name);
    }
    if (changed.len > 0 && jobq__buf_cstr(&changed))
        log_info("jobqd", "changed: %s", changed.data);
    if (later.len > 0 && jobq__buf_cstr(&later))
        log_warning("jobqd", "%s: takes effect after a restart", later.data);
    jobq__buf_clear(&changed);
    jobq__buf_clear(&later);
}
