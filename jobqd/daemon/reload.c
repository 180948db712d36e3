/* reload.c: see reload.h. */
#include "jobqd/daemon/reload.h"

#include <stdbool.h>

#include "jobqd/cli/session.h"
#include "jobqd/base/log.h"
#include "jobqd/config/options.h"
#include "libjobq/buf.h"

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
        bool at_once = row->scope == OPTION_RELOAD;
        if (!option_equal(row, at_once ? running : booted, fresh))
            add_name(at_once ? &changed : &later, row->name);
    }
    if (changed.len > 0 && jobq__buf_cstr(&changed))
        log_info("jobqd", "changed: %s", changed.data);
    if (later.len > 0 && jobq__buf_cstr(&later))
        log_warning("jobqd", "%s: takes effect after a restart", later.data);
    jobq__buf_clear(&changed);
    jobq__buf_clear(&later);
}
