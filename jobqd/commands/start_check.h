/* start_check.h: `config check --start`: whether the queues' workers come up. */
#ifndef JOBQD_START_CHECK_H
#define JOBQD_START_CHECK_H

#include "jobqd/base/jsontree.h"
#include "jobqd/config/config.h"

/* Starts one worker of each queue, all at once, as jobqd run does: with the queue's user,
 * limits, environment and preload; waits until each has said hello or its boot_timeout is
 * over; and ends them. Says what came of it: on stdout, a line a queue, or as a member
 * `started` of the answer, if there is one.
 * What the programs print goes to the log. The configuration is the caller's, and its
 * queues have one worker each afterwards. Returns the exit code: EX_UNAVAILABLE if one
 * did not come up, EX_OSERR if it could not be tried. */
int start_check(struct config *config, cJSON *answer);

#endif
