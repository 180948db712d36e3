/* reload.h: the configuration, read again while jobqd runs: whether it may be taken, and
 * what of it counts at once. Who makes it count is the daemon. */
#ifndef JOBQD_RELOAD_H
#define JOBQD_RELOAD_H

#include <jobq/error.h>

#include "jobqd/cli/cli.h"
#include "jobqd/config/config.h"

/* Reads file, environment and flags again, as at the start, and checks all of it. The
 * caller's with config_free. On failure err says what is wrong, as at the start, and *out
 * is untouched. */
int reload_read(struct config **out, const struct cli *cli, jobq_error *err);

/* Logs which options of [jobqd] differ from the running ones: those that count from now
 * on, and those that do only after a restart. booted: what jobqd was started with;
 * running: what was in force until now. */
void reload_log_changes(const struct config *booted, const struct config *running,
                        const struct config *fresh);

#endif
